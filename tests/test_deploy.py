"""The files of ``examples/deploy``: gunicorn runs by its settings, by the Procfile and
by the unit of systemd, and what cannot be run here is checked by its schema.

The files of the proxies are run by ``test_proxies.py``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import h11
import kubernetes_validate
import pytest
import yaml
from playwright.sync_api import expect

from flask_sse_lite import Publisher

from .browsers import blank_page, chromium
from .proxies import DEPLOY
from .servers import HOST, PATIENCE, ROOT, SCRIPTS, Client, Server, reserved_port, until

#: What the unit of systemd is told of this machine.
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")

#: The port on which the files have gunicorn listen, where something names one.
PORT = 8000


def text_of(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")


def documents(name: str) -> list[Any]:
    """The documents of a file of YAML."""
    return list(yaml.safe_load_all(text_of(name)))


def command_of(text: str, pattern: str) -> list[str]:
    """The only command of a file that follows a pattern, with its program's path."""
    (command,) = re.findall(rf"^{pattern}(.+)$", text, re.MULTILINE)
    program, *arguments = shlex.split(command)
    return [str(SCRIPTS / Path(program).name), *arguments]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the files, in which an application can write."""
    folder = tmp_path / "shop"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@contextmanager
def running(
    command: list[str], folder: Path, **environment: str
) -> Iterator[tuple[Server, Path]]:
    """gunicorn, as a file starts it, on the loopback, until the end of the block.

    :returns: the server, and the file of its log.
    """
    clean = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    home = folder.parent
    with reserved_port() as port:
        clean |= {
            **{"HOME": str(home), "PYTHONPATH": str(ROOT)},
            "GUNICORN_CMD_ARGS": f"--bind {HOST}:{port}",
        }
        server = Server(port, command, folder, clean | environment, None)
        try:
            server.start()
            with server.watched():
                yield server, home / "log"
        finally:
            server.stop()


def printed_settings(folder: Path, **environment: str) -> dict[str, str]:
    """The settings of gunicorn in a folder, as it prints them."""
    printed = subprocess.run(
        [str(SCRIPTS / "gunicorn"), "--print-config", "app:app"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PATIENCE,
    ).stdout
    return dict(re.findall(r"^(\w+) += (.*)$", printed, re.MULTILINE))


# gunicorn, by its settings and by the Procfile


def test_gunicorn_serves_a_page_by_its_settings(project: Path) -> None:
    command = command_of(text_of("Procfile"), "web: ")
    with (
        running(command, project) as (server, log),
        chromium() as browser,
        blank_page(browser) as page,
    ):
        page.goto(server.url)
        expect(page.locator("#state")).to_have_text("open", timeout=PATIENCE * 1000)
        with urlopen(f"{server.url}/say", b"text=deployed", PATIENCE) as answer:
            assert answer.status == 204
        expect(page.locator("li")).to_have_text(["deployed"], timeout=PATIENCE * 1000)
        assert server.request("GET", "/health").status == 204
        assert "Using worker: gevent" in log.read_text()


def test_gunicorn_takes_the_port_and_the_workers_from_a_host(project: Path) -> None:
    settings = printed_settings(project, PORT="5000", WEB_CONCURRENCY="3")
    assert settings["bind"] == "['0.0.0.0:5000']"
    assert settings["workers"] == "3"
    settings = printed_settings(project)
    assert settings["bind"] == f"['127.0.0.1:{PORT}']"
    assert settings["workers"] == "1"


def test_nothing_is_killed_before_gunicorn_has_ended_its_requests(
    project: Path,
) -> None:
    needed = int(printed_settings(project)["graceful_timeout"])
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", text_of("shop.service"), re.M)
    (compose,) = documents("compose.yaml")
    deployment, _ = documents("kubernetes.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    given = {
        "systemd": int(stop),
        "compose": int(compose["services"]["web"]["stop_grace_period"].rstrip("s")),
        "kubernetes": pod["terminationGracePeriodSeconds"] - int(seconds),
    }
    assert {name: given[name] > needed for name in given} == dict.fromkeys(given, True)


# systemd


def unit(project: Path) -> str:
    """The unit, with the paths of this machine."""
    text = text_of("shop.service")
    for path, here in {
        "/srv/shop/.venv/bin": str(SCRIPTS),
        "/srv/shop": str(project),
        "/var/lib/shop": str(project.parent),
    }.items():
        assert path in text
        text = text.replace(path, here)
    return text


@pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(project: Path) -> None:
    assert SYSTEMD_ANALYZE
    file = project / "shop.service"
    file.write_text(unit(project), "utf-8")
    done = subprocess.run(
        [SYSTEMD_ANALYZE, "verify", "--man=no", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_units_gunicorn_says_that_it_is_ready_and_reloads_and_stops(
    project: Path,
) -> None:
    text = unit(project)
    environment = dict(re.findall(r"^Environment=(\w+)=(.+)$", text, re.MULTILINE))
    assert "Type=notify" in text
    assert "ExecReload=/bin/kill -s HUP $MAINPID" in text
    address = str(project.parent / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(PATIENCE)
        with running(
            command_of(text, "ExecStart="),
            project,
            **{"NOTIFY_SOCKET": address, **environment},
        ) as (server, _):
            assert b"READY=1" in manager.recv(4096)
            with Client(server.port) as client:
                client.request("/stream")
                opening = next(client.events)
                assert opening.type == "stream-open"
                server.signal(signal.SIGHUP)
                # The stream ends properly: what is left of it can be read.
                assert [event.type for event in client.events] == []
            with Publisher.from_url(environment["FLASK_SSE_URL"]) as publisher:
                publisher.publish("reloaded")
            until(lambda: missed(server, str(opening.id)) == ["reloaded"])


def missed(server: Server, since: str) -> list[str]:
    """What a client is told that comes back; nothing, where it comes to a worker that
    is about to end."""
    with Client(server.port) as client, suppress(OSError, h11.RemoteProtocolError):
        client.request("/stream", headers={"Last-Event-ID": since})
        return [event.data for event in client.take(1)]
    return []


# What cannot be run here


def test_the_compose_file_fits_its_schema() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec"),
            str(DEPLOY / "compose.yaml"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout


def test_kubernetes_manifests_fit_their_schema() -> None:
    kinds = []
    for manifest in documents("kubernetes.yaml"):
        kubernetes_validate.validate(manifest, "1.31", strict=True)
        kinds.append(manifest["kind"])
    assert kinds == ["Deployment", "Service"]


def test_the_image_has_what_it_runs_and_is_told_of_its_stop() -> None:
    """Docker cannot be run by the tests. What a reader would check is checked."""
    text = text_of("Dockerfile")
    copied = {
        name
        for line in re.findall(r"^COPY (.+) \./$", text, re.MULTILINE)
        for name in line.split()
    }
    assert copied == {"app.py", "gunicorn.conf.py", "requirements.txt"}
    kept = set(re.findall(r"^!(.+)$", text_of(".dockerignore"), re.MULTILINE))
    assert kept == copied
    # An image whose command is a line of shell is not told of its stop.
    (command,) = re.findall(r"^CMD (.+)$", text, re.MULTILINE)
    assert json.loads(command) == command_of_procfile()
    assert f"ENV PORT={PORT}" in text


def command_of_procfile() -> list[str]:
    return shlex.split(text_of("Procfile").partition(":")[2])


def environments() -> Iterator[tuple[str, Mapping[str, str]]]:
    """The variables that each file gives the application, by the file's name."""
    (compose,) = documents("compose.yaml")
    yield "compose.yaml", compose["services"]["web"]["environment"]
    deployment, _ = documents("kubernetes.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    yield "kubernetes.yaml", {one["name"]: "" for one in container["env"]}
    unit = re.findall(r"^Environment=(\w+)=(.+)$", text_of("shop.service"), re.M)
    yield "shop.service", dict(unit)


def test_where_there_are_several_processes_they_share_their_events() -> None:
    for name, variables in environments():
        assert "FLASK_SSE_URL" in variables, name

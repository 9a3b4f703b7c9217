"""The doctor: what it finds within an application, what it says, and how a server
answers it. ``test_planted_faults.py`` shows it servers and proxies."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask, Response, abort

from flask_sse_lite import SSE, InvalidValue
from flask_sse_lite.doctor import (
    Wanted,
    account,
    examine,
    gunicorn_settings,
    headers_of,
    passage,
    processes,
    stores,
)
from flask_sse_lite.doctor.account import HEADER, Question
from flask_sse_lite.doctor.asking import proxy_of
from flask_sse_lite.doctor.case import CHANNEL_PREFIX, Case
from flask_sse_lite.doctor.codes import CODES
from flask_sse_lite.doctor.discretion import without_secrets
from flask_sse_lite.doctor.gunicorn_settings import UNREAD, settings_in
from flask_sse_lite.doctor.own_threads import own_threads
from flask_sse_lite.doctor.report import WORDS, Finding, Report
from flask_sse_lite.doctor.running import Running, option
from flask_sse_lite.doctor.wire import Answer, Head, parts_of
from flask_sse_lite.testing import read_events

from .documentation import ROOT
from .patience import patient
from .servers import HOST, PATIENCE, reserved_port
from .serving import serving

OWN = f"{CHANNEL_PREFIX}of-a-test"


@pytest.fixture
def app(sse: SSE) -> Iterator[Flask]:
    app = Flask("application")
    app.config["SECRET_KEY"] = "of the tests"
    sse.init_app(app)
    with app.app_context():
        yield app
    app.extensions["sse"].close()


def found_in(app: Flask) -> dict[str, Finding]:
    return {f.code: f for f in examine(app, None).findings()}


def complaints(app: Flask) -> set[str]:
    return {code for code, finding in found_in(app).items() if finding.is_complaint}


def run(app: Flask, *words: str) -> Result:
    return app.test_cli_runner().invoke(args=["sse", "doctor", *words])


# The report


def test_every_code_stands_in_the_page_in_the_same_order() -> None:
    page = (ROOT / "docs" / "doctor.rst").read_text("utf-8")
    _, _, described = page.partition("The application\n-----")
    assert re.findall(r"^([a-z-]+)\n    ", described, re.MULTILINE) == list(CODES)


def test_every_code_that_the_doctor_uses_has_its_mending() -> None:
    used = set()
    for path in (ROOT / "flask_sse_lite" / "doctor").glob("*.py"):
        text = path.read_text("utf-8")
        used |= set(
            re.findall(r"\.(?:ok|wrong|warning|unknown)\(\s*\"([a-z-]+)\"", text)
        )
    assert used == set(CODES)
    for code in CODES:
        assert CODES[code].mended().strip()
        assert CODES[code].asks.startswith(("Whether ", "Which "))


def test_a_report_has_the_worst_first_and_one_finding_of_a_code() -> None:
    report = Report()
    report.unknown("workers", "nobody says it.")
    report.ok("delay", "It is quick.")
    report.warning("redis-memory", "It is nearly full.", "Redis says so.")
    report.wrong("workers", "There are two.", "They say so.")
    report.ok("workers", "There is one.")
    report.unknown("delay", "nobody says it.")
    assert [(f.code, f.verdict) for f in report.findings()] == [
        ("workers", "wrong"),
        ("redis-memory", "warning"),
        ("delay", "ok"),
    ]
    assert not report.is_clean()
    told = report.as_data()
    assert told["verdict"] == "wrong"
    assert set(told["findings"][0]) == {"code", "verdict", "what", "how", "mending"}


def test_a_known_proxy_alone_is_told_what_to_write() -> None:
    assert "HAProxy" not in CODES["time-out"].mended("nginx")
    assert "proxy_read_timeout" in CODES["time-out"].mended("nginx")
    assert "HAProxy" in CODES["time-out"].mended()
    # Nothing of this proxy is known here: all are told.
    assert "HAProxy" in CODES["time-out"].mended("a proxy of another kind")


def test_a_text_fits_a_terminal() -> None:
    report = Report()
    for code in CODES:
        report.wrong(code, "word " * 40, "word " * 40)
    prose = [
        line
        for line in report.as_text().splitlines()
        if "word" in line or line.startswith("wrong")
    ]
    assert max(map(len, prose)) <= 80
    # Lines that are to be copied are never broken.
    assert 'proxy_set_header Connection "";' in report.as_text()


def test_the_exit_status_says_whether_there_is_a_complaint(app: Flask) -> None:
    result = run(app)
    assert result.exit_code == 0
    assert result.output.endswith("ok.\n")
    app.config["SSE_HISTROY"] = 7
    result = run(app)
    assert result.exit_code == 1
    assert "SSE_HISTROY (is SSE_HISTORY meant?)" in " ".join(result.output.split())
    assert run(app, "--ignore", "unread-settings").exit_code == 0
    told = json.loads(run(app, "--json").output)
    assert told["verdict"] == "warning"
    assert {f["verdict"] for f in told["findings"]} <= set(WORDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ignore", "nothing"), "No finding has the code 'nothing'"),
        (("--url", "example.com"), "An address is like https://example.com/stream"),
        (("--url", "http://x:99999/"), "An address is like https://example.com/stream"),
        (
            ("--url", "http://127.0.0.1/", "--header", "Cookie"),
            "A header is like 'Cookie: session=…'",
        ),
    ],
)
def test_what_cannot_be_asked_for_is_said(
    app: Flask, words: tuple[str, ...], message: str
) -> None:
    result = run(app, *words)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "http://x/stream?token=sse1.a.b answers 200.",
            "http://x/stream?token=… answers 200.",
        ),
        (
            "/s?channel=a&token=sse1.a.b&channel=c#d",
            "/s?channel=a&token=…&channel=c#d",
        ),
        (
            "https://x/login?next=%2Fstream%3Ftoken%3Dsse1.a.b%26channel%3Da",
            "https://x/login?next=%2Fstream%3Ftoken%3D…%26channel%3Da",
        ),
        ("not 'ftp://x/?token=a'", "not 'ftp://x/?token=…'"),
        ("https://ann:pw@x/s?Access_Token=a", "https://…@x/s?Access_Token=…"),
        (
            "Error 111 connecting to redis://:pw@h:1.",
            "Error 111 connecting to redis://…@h:1.",
        ),
        ("?next=/a&X-Amz-Signature=ab%2Fc", "?next=/a&X-Amz-Signature=…"),
        ("SSE_HISTORY by ?history=9, a@b.c", "SSE_HISTORY by ?history=9, a@b.c"),
        (
            "https://x/s?channel=a@b&last_event_id=1-2",
            "https://x/s?channel=a@b&last_event_id=1-2",
        ),
    ],
)
def test_what_lets_somebody_in_is_kept_back(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_no_report_has_a_token(app: Flask, stub: Stub) -> None:
    """Neither where the address is named, nor where a server repeats it."""
    token = "sse1.secret"
    login = f"/login?next=%2Fstream%3Ftoken%3D{token}"
    moved = answer(b"", f"Location: {login}", status="302 Found")
    away = answer(b"", "Content-Type: text/html", status="502 Bad Gateway")
    for stub.answers in [(moved, False)], [(away, False)], [(answer(OPENING), True)]:
        wanted = Wanted(f"{stub.url}/stream?token={token}", wait=0.3, patience=1.0)
        report = examine(app, wanted)
        told = report.as_text() + json.dumps(report.as_data(), ensure_ascii=False)
        assert "token" in told
        assert token not in told
    result = run(app, "--url", f"ftp://x/?token={token}")
    assert "not 'ftp://x/?token=…'" in result.output


# The application


def test_an_application_that_is_well_has_no_complaint(app: Flask) -> None:
    assert complaints(app) == set()


def test_settings_that_were_set_wrongly_later_are_named(app: Flask) -> None:
    app.config["SSE_HISTORY"] = 0
    assert complaints(app) == {"settings"}


def test_a_url_that_nobody_reads_is_named(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.config["REDIS_URL"] = "redis://localhost"
    assert complaints(app) == {"unread-url"}
    del app.config["REDIS_URL"]
    monkeypatch.setenv("SSE_URL", "redis://localhost")
    assert complaints(app) == {"unread-url"}


def test_a_setting_that_the_url_overrules_is_named(app: Flask, tmp_path: Path) -> None:
    app.config["SSE_URL"] = f"sqlite:///{tmp_path}/events.db?history=9"
    assert complaints(app) == set()
    app.config["SSE_HISTORY"] = 10
    assert complaints(app) == {"overruled-settings"}


def test_more_streams_than_descriptors_are_named(app: Flask) -> None:
    app.config["SSE_MAX_CONNECTIONS"] = 10**9
    assert complaints(app) == {"open-files"}


# Its hooks and middlewares


class Collecting:
    def __init__(self, application: Any) -> None:
        self._application = application

    def __call__(self, environ: Any, start: Any) -> list[bytes]:
        items = self._application(environ, start)
        try:
            return [b"".join(items)]
        finally:
            items.close()


def test_a_middleware_that_collects_is_named(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_sse_lite.doctor.middlewares.PATIENCE", 0.2)
    app.wsgi_app = Collecting(app.wsgi_app)  # type: ignore[assignment,method-assign]
    found = found_in(app)["middleware"]
    assert found.verdict == "wrong"
    assert "collects the whole body" in found.what


def test_a_hook_that_reads_the_body_is_named(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_sse_lite.doctor.middlewares.PATIENCE", 0.2)

    @app.after_request
    def measure(response: Response) -> Response:
        response.headers["X-Size"] = str(len(response.get_data()))
        return response

    assert "collects the whole body" in found_in(app)["middleware"].what


def test_a_middleware_that_changes_the_body_is_named(app: Flask) -> None:
    inner = app.wsgi_app

    def shout(environ: Any, start: Any) -> Iterator[bytes]:
        return (item.upper() for item in inner(environ, start))

    app.wsgi_app = shout  # type: ignore[assignment,method-assign]
    assert "changes the body" in found_in(app)["middleware"].what


def test_a_login_before_every_request_is_no_obstacle(app: Flask) -> None:
    @app.before_request
    def refuse() -> None:
        abort(401)

    assert found_in(app)["middleware"].verdict == "ok"
    # Nothing of it is left.
    assert app.before_request_funcs[None] == [refuse]
    assert app.test_client().get("/stream").status_code == 401


def test_an_application_that_fails_is_no_riddle(app: Flask) -> None:
    def fail(environ: Any, start: Any) -> Any:
        raise RuntimeError("no")

    app.wsgi_app = fail  # type: ignore[assignment,method-assign]
    found = found_in(app)["middleware"]
    assert found.verdict == "unknown"
    assert found.what.endswith("raises RuntimeError: no.")


# SQLite


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("nfs4", "wrong"),
        ("cifs", "wrong"),
        ("fuse.sshfs", "wrong"),
        ("9p", "wrong"),
        ("ext4", "ok"),
        ("overlay", "ok"),
        ("fuseblk", "ok"),
    ],
)
def test_a_folder_of_a_network_is_named(
    app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, code: str
) -> None:
    """No network's file system can be mounted here, so the table of mounts says it."""
    shared = tmp_path / "shared folder"
    shared.mkdir()
    table = tmp_path / "mounts"
    point = str(shared).replace(" ", r"\040")
    table.write_text(
        f"/dev/root / ext4 rw 0 0\nserver:/x {point} {kind} rw 0 0\nbroken\n"
    )
    monkeypatch.setattr(stores, "MOUNTS", str(table))
    app.config["SSE_URL"] = f"sqlite:///{shared}/events.db"
    found = found_in(app)["sqlite-folder"]
    assert found.verdict == code
    assert kind in found.what
    app.config["SSE_URL"] = f"sqlite:///{tmp_path}/events.db"
    assert stores.file_system(f"{tmp_path}/events.db") == "ext4"


def test_a_system_without_a_table_of_mounts_is_no_complaint(
    app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stores, "MOUNTS", str(tmp_path / "missing"))
    app.config["SSE_URL"] = f"sqlite:///{tmp_path}/events.db"
    assert found_in(app)["sqlite-folder"].verdict == "unknown"


def test_a_file_that_others_can_read_is_named(app: Flask, tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.touch(0o644)
    path.chmod(0o644)
    app.config["SSE_URL"] = f"sqlite:///{path}"
    assert complaints(app) == {"sqlite-rights"}
    path.chmod(0o600)
    assert complaints(app) == set()


def test_a_folder_that_cannot_be_used_is_named(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.db").mkdir()
    for path in ("file/events.db", "folder.db"):
        app.config["SSE_URL"] = f"sqlite:///{tmp_path}/{path}"
        app.extensions["sse"]._settings = None
        app.extensions["sse"]._brokers.clear()
        assert complaints(app) == {"sqlite-rights"}
    # Root can write everywhere, and so the system is asked in root's place.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    app.config["SSE_URL"] = f"sqlite:///{tmp_path}/missing/events.db"
    app.extensions["sse"]._settings = None
    app.extensions["sse"]._brokers.clear()
    assert "cannot be made" in found_in(app)["sqlite-rights"].what


# Redis, as it describes itself


REDIS = {
    "redis_version": "7.2.0",
    "maxmemory_policy": "noeviction",
    "save": "3600 1",
    "aof_enabled": "0",
    "maxmemory": "0",
    "used_memory": "1000",
}


@pytest.mark.parametrize(
    ("changed", "verdicts"),
    [
        ({}, set()),
        ({"maxmemory_policy": "allkeys-lru"}, {("redis-policy", "wrong")}),
        ({"maxmemory_policy": None}, {("redis-policy", "unknown")}),
        ({"save": ""}, {("redis-persistence", "warning")}),
        ({"save": None}, {("redis-persistence", "unknown")}),
        ({"save": "", "aof_enabled": "1"}, set()),
        ({"maxmemory": "1050"}, {("redis-memory", "warning")}),
        ({"maxmemory": "2000"}, set()),
        ({"redis_version": "6.0.16"}, {("broker", "wrong")}),
    ],
)
def test_what_redis_says_of_itself_is_judged(
    changed: dict[str, str | None], verdicts: set[tuple[str, str]]
) -> None:
    facts = {k: v for k, v in {**REDIS, **changed}.items() if v is not None}
    report = Report()
    stores._judge_redis(facts, report)
    found = {(f.code, f.verdict) for f in report.findings() if f.verdict != "ok"}
    assert found == verdicts


# Servers of this machine


def running(name: str, *words: str, workers: int = 0) -> Running:
    return Running(name, 7, workers, words, 4096)


def judged(app: Flask, server: Running) -> set[str]:
    report = Report()
    processes._judge(app.extensions["sse"], server, report)
    return {f.code for f in report.findings() if f.is_complaint}


@pytest.mark.parametrize(
    ("server", "codes"),
    [
        (running("gunicorn", "gunicorn", "-k", "gevent", "-w1", "a:app"), set()),
        (running("gunicorn", "gunicorn", "-w", "4", "a:app"), {"workers"}),
        (running("gunicorn", "gunicorn", "-w4", "a:app"), {"workers"}),
        (running("gunicorn", "gunicorn", "--workers=4", "a:app"), {"workers"}),
        (running("gunicorn", "gunicorn: master [a:app]", workers=3), {"workers"}),
        (
            running("gunicorn", "gunicorn", "--max-requests", "500", "a:app"),
            {"server-options"},
        ),
        (running("gunicorn", "gunicorn", "--max-requests", "0", "a:app"), set()),
        (running("uWSGI", "uwsgi", "--enable-threads", "--module", "a:app"), set()),
        (running("uWSGI", "uwsgi", "--module", "a:app", "-p", "2"), {"workers"}),
        (
            running("uWSGI", "uwsgi", "--threads", "4", "--cheaper", "2", "a:app"),
            {"server-options"},
        ),
        (running("uvicorn", "uvicorn", "a:app"), {"asgi-adapter"}),
    ],
    ids=lambda value: " ".join(getattr(value, "words", ())),
)
def test_a_command_line_is_judged(app: Flask, server: Running, codes: set[str]) -> None:
    assert judged(app, server) == codes


def test_a_limit_of_a_server_is_judged(app: Flask) -> None:
    app.config["SSE_MAX_CONNECTIONS"] = 10_000
    assert judged(app, running("gunicorn", "gunicorn", "a:app")) == {"open-files"}


def test_servers_are_found_in_the_systems_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The table has a gunicorn of this folder with two workers, one of another
    application, one of another folder, and what is no server."""

    def enter(pid: int, parent: int, words: list[str], folder: Path) -> None:
        place = tmp_path / "proc" / str(pid)
        place.mkdir(parents=True)
        (place / "cmdline").write_bytes("\0".join([*words, ""]).encode())
        (place / "stat").write_text(f"{pid} (a (b) c) S {parent} 1 1")
        (place / "limits").write_text("Max open files            512   4096   files\n")
        (place / "environ").write_bytes(b"WEB_CONCURRENCY=2\0")
        (place / "cwd").symlink_to(folder)

    words = ["/usr/bin/python3", "/usr/bin/gunicorn", "shop.web:app"]
    enter(10, 1, words, tmp_path)
    enter(11, 10, words, tmp_path)
    enter(12, 10, words, tmp_path)
    enter(20, 1, ["gunicorn", "other:app"], tmp_path)
    enter(30, 1, words, tmp_path / "proc")
    enter(40, 1, ["vi", "gunicorn.conf.py"], tmp_path)
    monkeypatch.setattr(processes, "PROC", str(tmp_path / "proc"))
    monkeypatch.chdir(tmp_path)
    (server,) = processes.servers({"shop"})
    assert (server.name, server.pid, server.workers) == ("gunicorn", 10, 2)
    assert server.limit == 512
    assert server.option("--workers", "-w") == "2"


def test_several_workers_that_the_environment_asks_for_are_named(
    app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processes, "PROC", str(tmp_path))
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert complaints(app) == {"workers"}


# What gunicorn is told by a file and its environment


def write(folder: Path, text: str, name: str = "gunicorn.conf.py") -> None:
    (folder / name).write_text(text, "utf-8")


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("workers = 4", {"workers": 4}),
        ("a = workers = 4", {"a": 4, "workers": 4}),
        ("workers: int = 4", {"workers": 4}),
        ("worker_class = 'gevent'  # and so on", {"worker_class": "gevent"}),
        ("workers = 2 * 2", {"workers": 4}),
        ("workers = -(4 // 2) + 7 / 2", {"workers": 1.5}),
        ("a = 3\nworkers = a + 1\na = 5", {"a": UNREAD, "workers": 4}),
        ("workers = max(2, int('4'))", {"workers": 4}),
        ("import os\nworkers = os.getenv('NO') or 4", {"os": UNREAD, "workers": 4}),
        ("import os\nworkers = int(os.environ['A'])", {"os": UNREAD, "workers": 7}),
        (
            "from os import environ as e\nworkers = e.get('NO', 4)",
            {"e": UNREAD, "workers": 4},
        ),
        (
            "import multiprocessing\nworkers = multiprocessing.cpu_count() * 0 + 3",
            {"multiprocessing": UNREAD, "workers": 3},
        ),
        ("raw_env = ['A=' 'b', 'C=d']", {"raw_env": ["A=b", "C=d"]}),
        # Not known, or nothing that can be followed
        (
            "import os\nworkers = int(os.environ['NO'])",
            {"os": UNREAD, "workers": UNREAD},
        ),
        ("workers = os.cpu_count()", {"workers": UNREAD}),
        ("def int(a): ...\nworkers = int('4')", {"int": UNREAD, "workers": UNREAD}),
        ("workers = 1 // 0", {"workers": UNREAD}),
        ("workers = 'a' * 4", {"workers": UNREAD}),
        ("workers = 2 ** 2", {"workers": UNREAD}),
        ("workers = cpu_count()", {"workers": UNREAD}),
        ("workers = 1\nworkers = 4", {"workers": UNREAD}),
        ("workers = 1\nworkers += 3", {"workers": UNREAD}),
        ("if x:\n    workers = 4", {"workers": UNREAD}),
        ("for workers in (1, 4): pass", {"workers": UNREAD}),
        ("try:\n    pass\nfinally:\n    workers = 1", {"workers": UNREAD}),
        ("with a as workers: pass", {"workers": UNREAD}),
        ("(workers, threads) = (1, 4)", {"workers": UNREAD, "threads": UNREAD}),
        ("print(workers := 4)", {"workers": UNREAD}),
        ("from a import b as workers", {"workers": UNREAD}),
        ("import workers.a", {"workers": UNREAD}),
        ("def post_fork(a, b):\n    workers = 4", {"post_fork": UNREAD}),
        ("from a import *", None),
        ("workers = ", None),
        ("\0", None),
    ],
)
def test_a_file_of_gunicorns_is_read_and_not_run(
    text: str, settings: dict[str, object] | None
) -> None:
    assert settings_in(text, {"A": "7"}) == settings


def test_gunicorn_itself_reads_the_same(tmp_path: Path) -> None:
    """From the file, its environment and its command line, of which the later goes
    before the earlier."""
    write(
        tmp_path,
        "workers = 4\nworker_class = 'gthread'\nthreads = 7\nmax_requests = 9\n"
        "graceful_timeout = 5\nwsgi_app = 'shop:app'\n",
    )
    variables = {"WEB_CONCURRENCY": "2", "GUNICORN_CMD_ARGS": "--threads 3 -t '8'"}
    words = ("--max-requests=11",)
    (tmp_path / "shop.py").write_text("def app(environ, start): ...")
    printed = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--print-config", *words],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout
    said = dict(re.findall(r"^(\w+) += (.*)$", printed, re.MULTILINE))
    told = gunicorn_settings.told(variables, words, str(tmp_path))
    assert told.sources == ("WEB_CONCURRENCY", "gunicorn.conf.py", "GUNICORN_CMD_ARGS")
    assert "shop:app" in told.words
    for name, long in gunicorn_settings.OPTIONS.items():
        names = (long, "-t") if name == "timeout" else (long,)
        read = option((*told.words, *words), *names)
        assert read in ("", said[name]), name
    assert option(told.words, "--workers") == "4"


def test_a_file_that_gunicorn_is_told_of_is_the_one_that_is_read(
    tmp_path: Path,
) -> None:
    write(tmp_path, "workers = 2")
    write(tmp_path, "workers = 3", "other.py")
    write(tmp_path, "workers = 5", "third.py")

    def workers(words: tuple[str, ...], variable: str = "") -> str:
        variables = {"GUNICORN_CMD_ARGS": variable}
        told = gunicorn_settings.told(variables, words, str(tmp_path))
        return option(told.words, "--workers")

    assert workers(()) == "2"
    assert workers(("-c", "other.py")) == "3"
    assert workers(("--config=file:other.py",)) == "3"
    assert workers((), "-c third.py") == "5"
    assert workers(("-cother.py",), "-c third.py") == "3"
    assert workers(("-c", "python:shop.settings")) == UNREAD
    assert workers(("-c", "missing.py")) == ""
    assert workers((), "--workers 'an open quotation mark") == "2"


def test_a_file_of_gunicorns_belongs_to_the_application_that_it_names(
    app: Flask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processes, "PROC", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "workers = 4\nwsgi_app = 'other:app'")
    assert complaints(app) == set()
    write(tmp_path, "workers = 4\nwsgi_app = 'application:app'")
    assert complaints(app) == {"workers"}


# Threads of the application

over = threading.Event()


def wait() -> None:
    over.wait(PATIENCE)


class Clock(threading.Thread):
    def run(self) -> None:
        wait()


@pytest.mark.parametrize(
    ("thread", "is_own"),
    [
        (lambda: threading.Thread(target=wait), True),
        (lambda: threading.Timer(0, wait), True),
        (Clock, True),
        (lambda: threading.Thread(target=over.wait, args=(PATIENCE,)), False),
        (lambda: threading.Timer(0, over.wait, (PATIENCE,)), False),
    ],
    ids=["target", "timer", "class", "Python's target", "Python's timer"],
)
def test_a_thread_is_the_applications_by_what_it_runs(
    thread: Callable[[], threading.Thread], is_own: bool
) -> None:
    over.clear()
    made = thread()
    made.start()
    try:
        assert (made.name in own_threads()) == is_own
    finally:
        over.set()
        made.join()


# The server's account


def question(app: Flask, asked: Question) -> dict[str, str]:
    text = account.signed(app.extensions["sse"], asked)
    assert text
    return {HEADER: text}


def test_a_server_tells_a_doctor_of_itself(app: Flask) -> None:
    headers = question(app, Question(OWN, OWN)) | {"Last-Event-ID": "x"}
    response = app.test_client().get("/stream?a=b", headers=headers)
    told = account.read(response.headers[HEADER])
    assert told
    assert told["process"] == os.getpid()
    assert told["protocol"] == "HTTP/1.1"
    assert (told["query"], told["last_event_id"]) == ("a=b", "x")
    assert (told["workers"], told["unfit"], told["hazards"]) == (1, "", "")
    response.close()


def test_a_doctor_hears_its_own_channel_beside_the_others(app: Flask, sse: SSE) -> None:
    client = app.test_client()
    stream = client.get("/stream", headers=question(app, Question(OWN)))
    sse.publish("for all")
    # Another of its requests has the server publish.
    asked = Question(f"{OWN}.2", OWN, publishes=True)
    client.get("/stream", headers=question(app, asked)).close()
    events = read_events(stream, count=2)
    assert [(event.data, event.type) for event in events] == [
        ("for all", None),
        ("doctor", "doctor"),
    ]
    assert [event.channel for event in events] == ["sse", OWN]


def test_a_view_of_the_applications_own_answers_a_doctor(app: Flask, sse: SSE) -> None:
    @app.get("/own")
    def own() -> Response:
        return sse.stream("room")

    with app.test_client().get("/own", headers=question(app, Question(OWN))) as stream:
        assert account.read(stream.headers[HEADER])


@pytest.mark.parametrize("forged", ["", "x", "W10.AAAA", "sse1.x"])
def test_a_question_that_nobody_has_signed_is_no_question(
    app: Flask, forged: str
) -> None:
    with app.test_client().get("/stream", headers={HEADER: forged}) as stream:
        assert stream.status_code == 200
        assert HEADER not in stream.headers


def test_a_question_of_another_key_or_of_long_ago_is_none(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, headers = app.test_client(), question(app, Question(OWN))
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + account.GOOD_FOR + 1)
    with client.get("/stream", headers=headers) as stream:
        assert HEADER not in stream.headers
    monkeypatch.undo()
    app.config["SECRET_KEY"] = "another"
    with client.get("/stream", headers=headers) as stream:
        assert HEADER not in stream.headers
    app.config["SECRET_KEY"] = None
    assert account.signed(app.extensions["sse"], Question(OWN)) is None
    with client.get("/stream", headers=headers) as stream:
        assert HEADER not in stream.headers


@pytest.mark.parametrize("name", ["room", "$revocations", "$run.x"])
def test_a_question_opens_no_channel_but_a_doctors(app: Flask, name: str) -> None:
    for asked in (Question(name), Question(OWN, name, publishes=True)):
        headers = question(app, asked)
        with app.test_client().get("/stream", headers=headers) as stream:
            assert HEADER not in stream.headers


def test_a_question_lets_nobody_in_who_must_stay_out(app: Flask) -> None:
    headers = question(app, Question(OWN))
    assert (
        app.test_client().get("/stream?channel=x", headers=headers).status_code == 403
    )
    assert app.test_client().get(f"/stream?channel={OWN}").status_code == 403


@pytest.mark.parametrize("text", [None, "", "[]", "{", "7"])
def test_what_is_no_account_is_none(text: str | None) -> None:
    assert account.read(text) is None


# The wire


def test_headers_are_read_as_they_are_written() -> None:
    assert headers_of(["Cookie: a=b; c=d", "X-A:b"]) == {
        "Cookie": "a=b; c=d",
        "X-A": "b",
    }
    with pytest.raises(InvalidValue, match="A header is like"):
        headers_of([": x"])


@pytest.mark.parametrize("url", ["", "/stream", "ftp://a/", "http://", "http://a:x/"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidValue, match="An address is like"):
        parts_of(url)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"server": "nginx/1.22.1"}, "nginx"),
        ({"server": "Caddy"}, "Caddy"),
        ({"via": "1.1 Caddy"}, "Caddy"),
        ({"server": "Apache/2.4"}, "Apache"),
        ({"via": "1.1 varnish (Varnish/7.1)"}, "Varnish"),
        ({"server": "cloudflare", "cf-ray": "x"}, "a CDN"),
        ({"server": "gunicorn"}, ""),
        ({}, ""),
    ],
)
def test_a_proxy_is_known_by_what_it_says(headers: dict[str, str], name: str) -> None:
    assert proxy_of(Head(200, headers, is_old=False)) == name


# A server of the test's own, which answers as no other can be made to


class Stub(ThreadingHTTPServer):
    """Answers each GET by the bytes of a list, one after the other; the last answer
    again and again. An answer without an end stays open until the test ends."""

    #: The answers: bytes, and whether the stream goes on.
    answers: list[tuple[bytes, bool]]

    #: Which OPTIONS are not answered, counted from 0.
    unanswered: frozenset[int] = frozenset()

    #: Whether nobody is answered while a stream is open.
    is_held = False

    def __init__(self) -> None:
        self.over = threading.Event()
        self.asked = itertools.count()
        self.worker = threading.Lock()
        super().__init__((HOST, 0), StubHandler)
        self.url = f"http://{HOST}:{self.server_port}"


class StubHandler(BaseHTTPRequestHandler):
    server: Stub

    def do_OPTIONS(self) -> None:
        if next(self.server.asked) in self.server.unanswered:
            self._go_on()
        with self._worker():
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.close_connection = True

    def do_GET(self) -> None:
        with self._worker():
            answers = self.server.answers
            answer, goes_on = answers.pop(0) if len(answers) > 1 else answers[0]
            self.wfile.write(answer)
            self.wfile.flush()
            if goes_on:
                self._go_on()
        self.close_connection = True

    def _worker(self) -> AbstractContextManager[object]:
        return self.server.worker if self.server.is_held else nullcontext()

    def _go_on(self) -> None:
        """Wait until the client leaves, or the test ends."""
        self.connection.settimeout(0.05)
        while not self.server.over.is_set():
            with suppress(TimeoutError):
                if not self.connection.recv(1):
                    return

    def log_message(self, *_: Any) -> None:
        """Nothing: what was asked is no affair of the test's log."""


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    with serving(server, server.over.set):
        yield server


OPENING = b"event: stream-open\nid: 00000000000000aa-7\n: heartbeat 0.1\ndata\n\n"


def answer(
    body: bytes, *headers: str, status: str = "200 OK", old: bool = False
) -> bytes:
    fields = {
        "content-type": "Content-Type: text/event-stream",
        "cache-control": "Cache-Control: no-cache, no-transform",
        "x-content-type-options": "X-Content-Type-Options: nosniff",
    }
    for header in headers:
        fields[header.partition(":")[0].lower()] = header
    version = "HTTP/1.0" if old else "HTTP/1.1"
    head = "\r\n".join([f"{version} {status}", *fields.values()])
    return f"{head}\r\n\r\n".encode() + body


def seen(app: Flask, stub: Stub, wait: float = 0.5) -> dict[str, str]:
    """What the doctor says of a stub, by code, without what is well."""
    wanted = Wanted(f"{stub.url}/stream", wait=wait, patience=patient(1.5))
    report = examine(app, wanted)
    print(report.as_text())
    return {f.code: f.verdict for f in report.findings() if f.is_complaint}


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (
            answer(b"", "Content-Type: text/html", status="404 Not Found"),
            "content-type",
        ),
        (answer(b"", status="204 No Content"), "content-type"),
        (answer(b"", status="403 Forbidden"), "login"),
        (answer(b"", "Content-Type: text/html", status="502 Bad Gateway"), "away"),
        (answer(b"<p>Welcome. Log in", "Content-Type: text/html"), "content-type"),
        (answer(b'<input type="password">', "Content-Type: text/html"), "login"),
        (answer(b"retry: 30000\n\n"), "room"),
        (answer(b"retry: 3000\n\n", "X-Content-Type-Options: x"), "answer"),
        (answer(b"data: what\n\n"), "content-type"),
        (answer(b"", "Location: /sign-in", status="302 Found"), "login"),
    ],
)
def test_an_answer_that_is_no_stream_is_named(
    app: Flask, stub: Stub, body: bytes, codes: str
) -> None:
    stub.answers = [(body, False)]
    assert codes in seen(app, stub)


def test_a_redirect_is_followed_and_named(app: Flask, stub: Stub) -> None:
    moved = answer(b"", "Location: /elsewhere", status="301 Moved Permanently")
    stub.answers = [(moved, False), (answer(OPENING), True)]
    assert "redirect" in seen(app, stub)


def test_a_redirect_to_another_host_is_not_followed(app: Flask, stub: Stub) -> None:
    """The headers of the operator, a cookie say, must not get there."""
    moved = answer(b"", "Location: http://localhost:1/", status="301 Moved Permanently")
    stub.answers = [(moved, False)]
    assert {"redirect", "content-type"} <= set(seen(app, stub))


def test_a_redirect_without_an_end_is_left(app: Flask, stub: Stub) -> None:
    moved = answer(b"", "Location: /stream", status="301 Moved Permanently")
    stub.answers = [(moved, False)]
    assert {"redirect", "content-type"} <= set(seen(app, stub))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (answer(OPENING, "X-Cache: HIT"), "caching"),
        (answer(OPENING, "Age: 7"), "caching"),
        (answer(OPENING, "Cache-Control: public"), "caching"),
        (answer(OPENING, old=True), "http-version"),
        (answer(OPENING), "heartbeat"),
        (answer(OPENING), "last-event-id"),
        (answer(OPENING), "query"),
    ],
)
def test_a_stream_with_one_thing_wrong_is_named(
    app: Flask, stub: Stub, body: bytes, code: str
) -> None:
    stub.answers = [(body, True)]
    assert code in seen(app, stub, wait=2.0 if code == "heartbeat" else 0.3)


def test_what_does_not_answer_is_named(app: Flask) -> None:
    with reserved_port() as port:
        report = examine(app, Wanted(f"http://{HOST}:{port}/stream"))
    assert {f.code for f in report.findings() if f.is_complaint} == {"answer"}


def test_a_stream_that_is_held_and_a_server_that_answers_are_told_apart(
    app: Flask, stub: Stub
) -> None:
    stub.answers = [(b"", True)]
    assert seen(app, stub) == {"buffering": "wrong"}


# What is held, and what is busy


def verdicts(app: Flask, stub: Stub, patience: float = patient(1.5)) -> dict[str, str]:
    wanted = Wanted(f"{stub.url}/stream", wait=0.3, patience=patience)
    report = examine(app, wanted)
    print(report.as_text())
    return {finding.code: finding.verdict for finding in report.findings()}


def test_a_server_that_is_held_by_a_stream_is_named(app: Flask, stub: Stub) -> None:
    stub.is_held = True
    stub.answers = [(answer(OPENING), True)]
    assert verdicts(app, stub)["held-worker"] == "wrong"


def test_a_server_that_is_busy_once_is_not_taken_for_held(
    app: Flask, stub: Stub
) -> None:
    """The doctor's second stream begins too late, and all else is answered."""
    begun = answer(OPENING), True
    stub.answers = [begun, (b"", True), begun]
    assert verdicts(app, stub)["held-worker"] == "unknown"


def test_what_comes_too_late_from_a_busy_server_is_not_taken_for_held_back(
    app: Flask, stub: Stub
) -> None:
    """Neither the stream nor the bare request beside it is answered in time."""
    stub.answers = [(b"", True), (answer(OPENING), True)]
    stub.unanswered = frozenset({1})
    found = verdicts(app, stub)
    assert (found["buffering"], found["held-worker"]) == ("unknown", "unknown")


def test_a_stream_that_was_cut_before_has_not_held_the_server(
    app: Flask, stub: Stub
) -> None:
    stub.answers = [(answer(OPENING), False), (answer(OPENING), True)]
    found = verdicts(app, stub)
    assert (found["held-worker"], found["time-out"]) == ("ok", "wrong")


def test_a_stream_that_is_cut_while_events_are_measured_is_called_so(
    app: Flask, stub: Stub
) -> None:
    stub.answers = [(answer(OPENING), False)]
    case = Case(app, app.extensions["sse"], Wanted(stub.url), Report())
    with Answer(f"{stub.url}/stream", {}) as stream:
        assert not stream.wait(lambda: stream.event("never"), PATIENCE)
        passage._judge_missing(case, stream, passage._Pace([], []))
    verdicts = {finding.code: finding.verdict for finding in case.report.findings()}
    assert verdicts == {"buffering": "unknown", "time-out": "wrong"}


def test_a_stream_that_begins_too_late_proves_no_lost_header(
    app: Flask, stub: Stub
) -> None:
    """Its head has come, and nothing else yet."""
    begun, late = (answer(OPENING), True), (answer(b""), True)
    stub.answers = [begun, late]
    assert verdicts(app, stub)["last-event-id"] == "unknown"


@pytest.mark.parametrize(
    ("delays", "bare", "verdict"),
    [
        ([0.01, 0.4, 0.4], [0.01, 0.01, 0.01], "ok"),
        ([0.4, 0.4, 0.4], [0.01, 0.01, 0.01], None),
        ([0.21] * 10, [0.01] * 10, "warning"),
        # All is late.
        ([0.4] * 10, [0.3] * 10, "ok"),
        ([0.4] * 10, [0.01, *[0.3] * 9], None),
        ([0.4] * 30, [0.01, *[0.3] * 29], "warning"),
        ([0.4] * 30, [0.2] * 30, "unknown"),
        ([0.4], [inf], "unknown"),
        ([0.1], [inf], "ok"),
    ],
)
def test_events_are_held_back_if_each_is_slower_than_what_waits_for_nothing(
    app: Flask, delays: list[float], bare: list[float], verdict: str | None
) -> None:
    pace = passage._Pace(delays, bare)
    assert pace.is_known() is (verdict is not None and len(delays) > 1)
    if verdict:
        report = Report()
        case = Case(app, app.extensions["sse"], Wanted("http://x/"), report)
        passage._judge_delay(case, pace)
        (found,) = [f for f in report.findings() if f.code == "delay"]
        assert found.verdict == verdict


def test_what_the_server_tells_is_judged(app: Flask, stub: Stub) -> None:
    """An account in which all is wrong."""
    told = {
        "process": 1,
        "protocol": "HTTP/1.0",
        "unfit": "uvicorn",
        "query": "",
        "last_event_id": "",
        "workers": 4,
        "room": 10,
        "most": 100,
        "hazards": "gunicorn's --max-requests is 7.",
        "reasons": {"no-threads": 1, "nothing-sent": 2},
        "heartbeat": 0.1,
        "subscribers": 1,
    }
    stub.answers = [(answer(OPENING, f"SSE-Doctor: {json.dumps(told)}"), True)]
    assert seen(app, stub) == {
        "http-version": "warning",
        "asgi-adapter": "wrong",
        "server-options": "warning",
        "workers": "wrong",
        "open-files": "wrong",
        "uwsgi-threads": "warning",
        "kept-streams": "warning",
    }
    told["unfit"] = "tornado"
    stub.answers = [(answer(OPENING, f"SSE-Doctor: {json.dumps(told)}"), True)]
    assert seen(app, stub)["collecting-server"] == "wrong"

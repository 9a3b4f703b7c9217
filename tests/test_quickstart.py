"""The quickstart: who follows the steps of the page sees what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Page

from .browsers import chromium
from .documentation import blocks
from .servers import PATIENCE, ROOT, SCRIPTS, Server, serve

PAGE = (ROOT / "docs" / "quickstart.rst").read_text("utf-8")

#: Where the page says that the application is, which here has another port.
ADDRESS = "http://127.0.0.1:5000"


APPLICATION, KEPT_IN_A_FILE = blocks(PAGE, "python")
(TEMPLATE,) = blocks(PAGE, "html+jinja")
RUN, LISTEN, PUBLISH = blocks(PAGE, "sh")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder with the two files."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "talk.html").write_text(TEMPLATE, "utf-8")
    (tmp_path / "talk.py").write_text(APPLICATION, "utf-8")
    return tmp_path


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """The server that the page starts."""
    assert RUN == "flask --app talk run\n"
    with serve("werkzeug", app="talk", folder=folder) as server:
        yield server


def shell(command: str, folder: Path) -> subprocess.Popen[str]:
    """A command of the page, in a shell as its reader's. It is ended when it takes too
    long."""
    environment = os.environ | {
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        ["sh", "-c", f"exec timeout {PATIENCE} {command}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def say(page: Page, text: str) -> None:
    page.fill("input", text)
    page.click("button")


def is_shown(page: Page, *lines: str) -> None:
    """Wait until the page shows these lines, and no others."""
    page.wait_for_function(
        "lines => [...document.querySelectorAll('li')].map(li => li.textContent)"
        ".join('|') === lines.join('|')",
        arg=[*lines],
    )


def is_in(page: Page, state: str) -> None:
    page.wait_for_selector(f"#state:has-text('{state}')")


def test_what_is_installed_is_this_package() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (name,) = re.findall(r'^name = "(.+)"$', project, re.MULTILINE)
    assert f"    pip install {name}\n" in PAGE


def test_who_follows_the_page_sees_what_it_says(folder: Path) -> None:
    with chromium() as browser, browser.new_context() as context:
        context.set_default_timeout(PATIENCE * 1000)
        with running(folder) as server:
            tabs = [context.new_page(), context.new_page()]
            for tab in tabs:
                tab.goto(server.url)
                is_in(tab, "open")
            say(tabs[0], "hello")
            for tab in tabs:
                is_shown(tab, "hello")

        source = APPLICATION.replace("app = Flask(__name__)\n", KEPT_IN_A_FILE)
        assert "SSE_URL" in source
        (folder / "talk.py").write_text(source, "utf-8")
        with running(folder) as server:
            for tab in tabs:
                tab.goto(server.url)
                is_in(tab, "open")
            say(tabs[1], "again")
            for tab in tabs:
                is_shown(tab, "again")
            server.stop()
            for tab in tabs:
                is_in(tab, "waiting")
            with shell(PUBLISH.strip(), folder) as publishing:
                assert publishing.wait(PATIENCE) == 0
            server.start()
            for tab in tabs:
                is_in(tab, "open")
                is_shown(tab, "again", "from the shell")


def test_curl_prints_what_the_page_shows(folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with running(folder) as server:
        assert ADDRESS in LISTEN
        command = LISTEN.strip().replace(ADDRESS, server.url)
        with shell(command, folder) as curl:
            assert curl.stdout
            assert curl.stdout.readline() == "event: stream-open\n"
            urlopen(f"{server.url}/say", b"text=hello", PATIENCE).close()
            for line in curl.stdout:
                if line == "event: said\n":
                    break
            printed = [next(curl.stdout), next(curl.stdout)]
            curl.terminate()
    shown = re.search(r"^    event: said\n    (data: .+\n)    id: \S+\n", PAGE, re.M)
    assert shown
    assert printed[0] == shown[1]
    assert re.fullmatch(r"id: [0-9a-f]{16}-1\n", printed[1])

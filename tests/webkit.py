"""WebKit, driven by WebDriver: Debian's WebKitGTK, its driver and its small browser.

As much of the protocol lives here as the tests use: a tab is opened, asked and closed.
What WebKit must see stands in the tests.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from .launched import launched
from .servers import HOST, PATIENCE, reserved_port, until

#: Where Debian has the browser that the driver drives: it is on nobody's PATH.
_BROWSERS = "/usr/lib/*/webkit2gtk-4.*/MiniBrowser"

#: Gives the driver what an expression is, once it is there, or what went wrong.
_EVALUATE = """
const done = arguments[0];
(async () => (%s))().then(
    value => done({ value: value ?? null }), error => done({ error: `${error}` }));
"""


class WebKit:
    """A browser with tabs, each in a process of its own."""

    def __init__(self, port: int, program: str) -> None:
        self._port = port
        browser = {"binary": program, "args": ["--automation"]}
        wanted = {"alwaysMatch": {"webkitgtk:browserOptions": browser}}
        session = self._ask("POST", "/session", {"capabilities": wanted})["sessionId"]
        self._session = f"/session/{session}"
        self._command("POST", "/timeouts", {"script": int(PATIENCE * 1000)})
        # This one stays: the browser ends with its last window.
        self._first = self._current = self._command("GET", "/window")

    def open(self, url: str) -> WebKitTab:
        kind = {"type": "tab"}
        tab = WebKitTab(self, self.in_window(self._first, "POST", "/window/new", kind))
        tab.goto(url)
        return tab

    def end(self) -> None:
        self._command("DELETE", "")

    def in_window(
        self, window: str, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Any:
        """A command for one window."""
        if window != self._current:
            self._command("POST", "/window", {"handle": window})
            self._current = window
        return self._command(method, path, body)

    def _command(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Any:
        return self._ask(method, self._session + path, body)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=PATIENCE)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text)
            response = connection.getresponse()
            answer = response.read().decode()
        finally:
            connection.close()
        assert response.status == 200, answer
        return json.loads(answer)["value"]


class WebKitTab:
    def __init__(self, browser: WebKit, window: Mapping[str, str]) -> None:
        self._browser = browser
        self._window = window["handle"]

    def goto(self, url: str) -> None:
        self._command("POST", "/url", {"url": url})

    def evaluate(self, expression: str) -> Any:
        """What an expression is, as JSON has it; of a promise, what comes of it."""
        script = {"script": _EVALUATE % expression, "args": []}
        outcome = self._command("POST", "/execute/async", script)
        assert "error" not in outcome, outcome
        return outcome["value"]

    def close(self) -> None:
        self._command("DELETE", "/window")

    def _command(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Any:
        return self._browser.in_window(self._window, method, path, body)


def _programs() -> tuple[str, str, str]:
    """The driver, the browser and the screen; without one, the test is skipped."""
    driver, screen = shutil.which("WebKitWebDriver"), shutil.which("Xvfb")
    browser = next(iter(Path("/").glob(_BROWSERS[1:])), None)
    if driver is None or browser is None:
        pytest.skip("there is no WebKitWebDriver with its MiniBrowser on this machine")
    if screen is None:
        pytest.skip("there is no Xvfb on this machine's PATH")
    return driver, str(browser), screen


@contextmanager
def webkit() -> Iterator[WebKit]:
    """The system's WebKitGTK, on a screen of its own; without, the test is skipped."""
    driver, program, screen = _programs()
    with ExitStack() as stack:
        home = stack.enter_context(
            TemporaryDirectory(prefix="webkit-", ignore_cleanup_errors=True)
        )
        display = stack.enter_context(_screen(screen, home))
        port = stack.enter_context(reserved_port())
        folders = {"HOME": home, "XDG_RUNTIME_DIR": home}
        # Neither a session bus nor a graphics card is needed, nor is there one.
        without = {"NO_AT_BRIDGE": "1", "LIBGL_ALWAYS_SOFTWARE": "1"}
        environment = os.environ | folders | without | {"DISPLAY": display}
        log = Path(home, "log")
        stack.enter_context(
            launched([driver, f"--port={port}", f"--host={HOST}"], environment, log)
        )
        until(lambda: _answers(port))
        browser = WebKit(port, program)
        stack.callback(browser.end)
        yield browser


@contextmanager
def _screen(program: str, home: str) -> Iterator[str]:
    """A screen in memory, of a number that nobody else has."""
    chosen = Path(home, "display")
    with chosen.open("wb") as file:
        number = file.fileno()
        command = [program, "-displayfd", str(number), "-nolisten", "tcp"]
        with launched(command, os.environ, Path(home, "screen"), number):
            until(lambda: chosen.read_text().endswith("\n"))
            yield f":{chosen.read_text().strip()}"


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
    try:
        connection.request("GET", "/status")
        return connection.getresponse().status == 200
    except OSError:
        return False  # It does not listen yet.
    finally:
        connection.close()

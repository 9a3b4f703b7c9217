"""Firefox, driven by WebDriver BiDi, which it speaks itself: no driver is needed.

As much of the protocol lives here as the tests use: a page is opened, asked, and given
what a CDN would have. Marionette, which Firefox speaks too, tells which process runs a
tab. What Firefox must see stands in the tests.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from .launched import launched
from .servers import HOST, PATIENCE, until
from .websocket import WebSocket

#: What Firefox says once it can be driven.
_LISTENING = re.compile(r"WebDriver BiDi listening on ws://[\d.]+:(\d+)")

#: Where Firefox writes the port on which it speaks Marionette.
_MARIONETTE = "MarionetteActivePort"

#: What a window of Firefox knows of its tabs: the address and the process of each.
_PROCESSES = """return [...gBrowser.tabs].map(({ linkedBrowser }) => [
    linkedBrowser.currentURI.spec,
    linkedBrowser.browsingContext.currentWindowGlobal.osPid])"""


class Window:
    """The browser's own window, which Marionette asks."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=PATIENCE)
        self._file = self._socket.makefile("rb")
        self._receive()  # It says how it is.
        found = self._call("WebDriver:NewSession", webSocketUrl=True)
        #: The name of the session, which WebDriver BiDi shares.
        self.session: str = found["sessionId"]
        self._call("Marionette:SetContext", value="chrome")

    def evaluate(self, script: str) -> Any:
        return self._call("WebDriver:ExecuteScript", script=script, args=[])["value"]

    def _call(self, command: str, **parameters: Any) -> Any:
        message = json.dumps([0, 1, command, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, _, error, result = self._receive()
        assert error is None, error
        return result

    def _receive(self) -> Any:
        digits = b""
        while (byte := self._file.read(1)) != b":":
            digits += byte
        return json.loads(self._file.read(int(digits)))

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class FirefoxTab:
    def __init__(self, browser: Firefox, context: str) -> None:
        self._browser = browser
        self._context = context

    def goto(self, url: str) -> None:
        self._browser.command(
            "browsingContext.navigate", context=self._context, url=url, wait="complete"
        )

    def evaluate(self, expression: str) -> Any:
        """What an expression is, as JSON has it; of a promise, what comes of it."""
        answer = self._browser.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            target={"context": self._context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer
        return json.loads(answer["result"].get("value", "null"))

    def close(self) -> None:
        self._browser.command("browsingContext.close", context=self._context)

    def kill(self) -> None:
        """Kill the process that runs the page, and close what is left."""
        mark = f"#{secrets.token_hex(8)}"
        self.evaluate(f"history.replaceState(null, '', '{mark}')")
        os.kill(self._browser.process_of(mark), signal.SIGKILL)
        self.close()


class Firefox:
    """A browser with one page, and with as many tabs as are opened."""

    def __init__(self, port: int, window: Window) -> None:
        self._window = window
        self._socket = WebSocket(port, f"/session/{window.session}")
        self._commands = 0
        self._files: Callable[[str], Path] | None = None
        (context,) = self.command("browsingContext.getTree")["contexts"]
        self._first = FirefoxTab(self, context["context"])

    def close(self) -> None:
        self._socket.close()

    def open(self, url: str) -> FirefoxTab:
        context = self.command("browsingContext.create", type="tab")["context"]
        tab = FirefoxTab(self, context)
        tab.goto(url)
        return tab

    def process_of(self, mark: str) -> int:
        """The process of the tab whose address ends so. It must run no other tab."""

        def found() -> list[int]:
            tabs = self._window.evaluate(_PROCESSES)
            processes = [process for _, process in tabs]
            marked = [process for url, process in tabs if url.endswith(mark)]
            assert all(processes.count(process) == 1 for process in marked), tabs
            return marked

        (process,) = until(found)  # The window knows an address a little later.
        return process

    def serve(self, host: str, file: Callable[[str], Path]) -> None:
        """Have the page get a host's files from this machine.

        :param file: the file for an address.
        """
        self._files = file
        event = "network.beforeRequestSent"
        self.command("session.subscribe", events=[event])
        pattern = {"type": "pattern", "hostname": host}
        phases = ["beforeRequestSent"]
        self.command("network.addIntercept", phases=phases, urlPatterns=[pattern])

    def goto(self, url: str) -> None:
        """Have the first page go to an address."""
        self._first.goto(url)

    def evaluate(self, expression: str) -> Any:
        """What an expression is in the first page."""
        return self._first.evaluate(expression)

    def command(self, method: str, **parameters: Any) -> Any:
        number = self._send(method, parameters)
        while True:
            message = json.loads(self._socket.receive())
            if message.get("method") == "network.beforeRequestSent":
                self._answer(message["params"])
            if message.get("id") == number:
                assert message["type"] == "success", message
                return message["result"]

    def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._commands += 1
        command = {"id": self._commands, "method": method, "params": parameters}
        self._socket.send(json.dumps(command))
        return self._commands

    def _answer(self, event: dict[str, Any]) -> None:
        """Answer a request that waits for us. (Its own outcome is nobody's.)"""
        if not event["isBlocked"]:
            return
        assert self._files
        body = self._files(event["request"]["url"]).read_bytes()
        fields = {
            "Content-Type": "text/javascript",
            "Access-Control-Allow-Origin": "*",
        }
        headers = [
            {"name": name, "value": {"type": "string", "value": value}}
            for name, value in fields.items()
        ]
        parameters = {
            "request": event["request"]["request"],
            "statusCode": 200,
            "headers": headers,
            "body": {"type": "base64", "value": base64.b64encode(body).decode()},
        }
        self._send("network.provideResponse", parameters)


@contextmanager
def firefox() -> Iterator[Firefox]:
    """The system's Firefox; without one, the test is skipped."""
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("there is no firefox on this machine's PATH")
    with TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True) as home:
        log = Path(home, "log")
        options = ["--headless", "--no-remote", "--remote-debugging-port", "0"]
        # Which process runs a tab is known to the browser's own window alone.
        options += ["--marionette", "--remote-allow-system-access"]
        Path(home, "user.js").write_text('user_pref("marionette.port", 0);\n')
        command = [program, *options, "--profile", home]
        with launched(command, os.environ | {"HOME": home}, log):
            found = until(lambda: _LISTENING.search(_text_of(log)))
            assert found
            port = int(until(lambda: _text_of(Path(home, _MARIONETTE))))
            with (
                closing(Window(port)) as window,
                closing(Firefox(int(found[1]), window)) as browser,
            ):
                yield browser


def _text_of(file: Path) -> str:
    """What a file says; nothing where there is no file yet."""
    return file.read_text(errors="replace") if file.exists() else ""

"""Chromium, driven by the Chrome DevTools protocol, which it speaks itself.

Playwright has Chromium take every page for one that is looked at, and such a page is
never frozen: nothing says so, and the page goes on. As much of the protocol lives here
as the tests use. What Chromium must see stands in the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from .browsers import CHROMIUM_OPTIONS
from .launched import launched
from .servers import until
from .websocket import WebSocket

#: Where Chromium writes the port on which it can be driven, and the path there.
_PORT = "DevToolsActivePort"


class ChromiumTab:
    def __init__(self, browser: Chromium, target: str) -> None:
        self._browser = browser
        self._target = target
        self._session: str = browser.command(
            "Target.attachToTarget", targetId=target, flatten=True
        )["sessionId"]

    def goto(self, url: str) -> None:
        self._command("Page.navigate", url=url)
        until(lambda: self.evaluate(f"document.URL === {json.dumps(url)}"))
        until(lambda: self.evaluate("document.readyState === 'complete'"))

    def evaluate(self, expression: str) -> Any:
        """What an expression is, as JSON has it; of a promise, what comes of it."""
        answer = self._command(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        self._browser.command("Target.closeTarget", targetId=self._target)

    def kill(self) -> None:
        """Kill the process that runs the page, and close what is left."""
        self._browser.send("Page.crash", session=self._session)
        self.close()

    def freeze(self) -> None:
        """Freeze the page, which is hidden from then on, as all that are frozen are."""
        self._command("Page.setWebLifecycleState", state="frozen")

    def thaw(self) -> None:
        self._command("Page.setWebLifecycleState", state="active")

    def _command(self, method: str, **parameters: Any) -> Any:
        return self._browser.command(method, session=self._session, **parameters)


class Chromium:
    """A browser with as many tabs as are opened."""

    def __init__(self, group: int, port: int, path: str) -> None:
        self._group = group
        self._socket = WebSocket(port, path)
        self._commands = 0

    def close(self) -> None:
        self._socket.close()

    def open(self, url: str) -> ChromiumTab:
        made = self.command("Target.createTarget", url="about:blank")
        tab = ChromiumTab(self, made["targetId"])
        tab.goto(url)
        return tab

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The browser does nothing, and is told nothing of that."""
        os.killpg(self._group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._group, signal.SIGCONT)

    def command(self, method: str, **parameters: Any) -> Any:
        number = self.send(method, **parameters)
        while True:
            message = json.loads(self._socket.receive())
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def send(self, method: str, session: str | None = None, **parameters: Any) -> int:
        """Give a command to the browser, or to one of its tabs.

        :return: its number, which the answer will have.
        """
        self._commands += 1
        command = {"id": self._commands, "method": method, "params": parameters}
        if session:
            command["sessionId"] = session
        self._socket.send(json.dumps(command))
        return self._commands


@contextmanager
def chromium() -> Iterator[Chromium]:
    """The system's Chromium; without one, the test is skipped."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium on this machine's PATH")
    with TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as home:
        options = ["--headless", "--remote-debugging-port=0", *CHROMIUM_OPTIONS]
        command = [program, *options, f"--user-data-dir={home}", "about:blank"]
        environment = os.environ | {"HOME": home}
        with launched(command, environment, Path(home, "log")) as group:
            port, path = until(lambda: _where(Path(home, _PORT)))
            with closing(Chromium(group, int(port), path)) as browser:
                yield browser


def _where(file: Path) -> list[str]:
    """The port and the path; nothing while they are not written."""
    lines = file.read_text().split() if file.exists() else []
    return lines if len(lines) == 2 else []

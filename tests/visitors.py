"""A visitor with several tabs, in each of the browsers, behind one face.

How a browser is driven stands in the file of that browser. What its tabs must see
stands in the tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import pytest
from playwright.sync_api import BrowserContext, Error, Page

from .browsers import chromium
from .firefox import firefox
from .pages import CONNECT
from .servers import PATIENCE, until
from .webkit import webkit


class Tab(Protocol):
    """A page of a visitor's, among others."""

    def evaluate(self, expression: str) -> Any:
        """What an expression is, as JSON has it; of a promise, what comes of it."""

    def close(self) -> None: ...


class MortalTab(Tab, Protocol):
    """A tab whose process can be killed."""

    def kill(self) -> None:
        """Kill the process that runs the page, and close what is left."""


class FreezableTab(Tab, Protocol):
    """A tab whose page can be frozen."""

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...


class Visitor(Protocol):
    """A browser with a profile of its own."""

    def open(self, url: str) -> Tab:
        """A new tab, with a page in it."""


class ChromiumTab:
    def __init__(self, page: Page) -> None:
        self._page = page

    def evaluate(self, expression: str) -> Any:
        return self._page.evaluate(expression)

    def close(self) -> None:
        self._page.close()

    def kill(self) -> None:
        with pytest.raises(Error):
            self._page.goto("chrome://crash", timeout=5000)
        self._page.close()

    def freeze(self) -> None:
        self._enter("frozen")

    def thaw(self) -> None:
        self._enter("active")

    def _enter(self, state: str) -> None:
        protocol = self._page.context.new_cdp_session(self._page)
        protocol.send("Page.setWebLifecycleState", {"state": state})
        protocol.detach()


class Chromium:
    def __init__(self, context: BrowserContext) -> None:
        self._context = context

    def open(self, url: str) -> ChromiumTab:
        page = self._context.new_page()
        page.goto(url)
        return ChromiumTab(page)


@contextmanager
def _in_chromium() -> Iterator[Chromium]:
    with chromium() as browser, browser.new_context() as context:
        context.set_default_timeout(PATIENCE * 1000)
        yield Chromium(context)


#: By the browser's name. Without its program, the test is skipped.
VISITORS: dict[str, Callable[[], AbstractContextManager[Visitor]]] = {
    "chromium": _in_chromium,
    "firefox": firefox,
    "webkit": webkit,
}


def connect(tab: Tab, target: str, state: str = "open") -> None:
    """Have a tab listen by the module, over the connection of all tabs."""
    tab.evaluate(f"({CONNECT})({json.dumps([target, {}])})")
    until(lambda: tab.evaluate(f"stream.state === '{state}'"))

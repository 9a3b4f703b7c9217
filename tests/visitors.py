"""A visitor with several tabs, in each of the browsers, behind one face.

How a browser is driven stands in the file of that browser. What its tabs must see
stands in the tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from .devtools import chromium
from .firefox import firefox
from .pages import CONNECT
from .servers import until
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


#: By the browser's name. Without its program, the test is skipped.
VISITORS: dict[str, Callable[[], AbstractContextManager[Visitor]]] = {
    "chromium": chromium,
    "firefox": firefox,
    "webkit": webkit,
}


def connect(tab: Tab, target: str, state: str = "open", **options: Any) -> None:
    """Have a tab listen by the module, over the connection of all tabs.

    :param options: those of the module.
    """
    tab.evaluate(f"({CONNECT})({json.dumps([target, options])})")
    until(lambda: tab.evaluate(f"stream.state === '{state}'"))

"""A page that listens by the module ``sse.js``, and notes what it is told.

Which page that is, and what it must be told, stands in the tests.
"""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

#: Notes what a stream tells.
CONNECT = """
async ([url, options]) => {
    const { connect } = await import("/stream/sse.js");
    window.seen = [];
    window.told = [];
    window.stream = connect(url, options);
    stream.onmessage = event => seen.push(event.data);
    for (const type of ["statechange", "gap", "end", "refused", "waiting"]) {
        stream.addEventListener(type, ({ detail }) => told.push([type, detail]));
    }
}
"""

#: A clock that goes wrong by so many hours.
CLOCK = """() => {
    const now = Date.now.bind(Date);
    window.hours = 0;
    Date.now = () => now() + hours * 3_600_000;
}"""

#: A page with a connection of its own.
ALONE = {"shared": False}


def connect(page: Page, target: str, options: Any = ALONE, state: str = "open") -> None:
    page.evaluate(CONNECT, [target, options])
    wait_for(page, state)


def wait_for(page: Page, state: str) -> None:
    page.wait_for_function("state => stream.state === state", arg=state)


def take(page: Page, count: int) -> list[str]:
    """The first so many events; there must be no more."""
    page.wait_for_function("count => seen.length >= count", arg=count)
    seen: list[str] = page.evaluate("seen")
    return seen


def told(page: Page, kind: str) -> list[Any]:
    script = "kind => told.filter(t => t[0] === kind).map(t => t[1])"
    details: list[Any] = page.evaluate(script, kind)
    return details

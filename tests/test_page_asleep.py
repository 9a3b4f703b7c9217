"""A page that sleeps, with its laptop or because the browser freezes it: when it wakes,
nothing is lost and nothing doubled, whatever has become of its connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from .browsers import Proxy, proxied, stream_of
from .devtools import Chromium, ChromiumTab, chromium
from .pages import CLOCK
from .servers import Server, serve, until
from .visitors import connect

#: Milliseconds after which the browser comes back.
RETRY = 100

#: Seconds between signs of life, so that a silence is soon a cut.
HEARTBEAT = 0.4

_rooms = count()


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serve("gunicorn gevent", SSE_RETRY=RETRY, SSE_HEARTBEAT=HEARTBEAT) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    with running.emptied():
        yield running


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with proxied(server) as proxy:
        yield proxy


@pytest.fixture
def channel() -> str:
    """A channel that no other test uses."""
    return f"room.{next(_rooms)}"


@pytest.fixture
def tabs(browser: Chromium, proxy: Proxy) -> Iterator[list[ChromiumTab]]:
    """Two tabs of one visitor, each with a clock that can go wrong."""
    tabs = [browser.open(f"{proxy.url}/page") for _ in range(2)]
    for tab in tabs:
        tab.evaluate(f"({CLOCK})()")
    yield tabs
    for tab in tabs:
        tab.close()


def publish(server: Server, channel: str, *texts: str) -> None:
    server.publish(*({"data": text, "channel": channel} for text in texts))


def until_seen(tabs: list[ChromiumTab], *texts: str) -> None:
    """Each tab sees these, each once, and is told of no gap."""
    until(lambda: all(tab.evaluate("seen.length") >= len(texts) for tab in tabs))
    for tab in tabs:
        assert tab.evaluate("seen") == [*texts]
        assert tab.evaluate("told.filter(([type]) => type === 'gap')") == []


@contextmanager
def frozen(_: Chromium, tabs: list[ChromiumTab]) -> Iterator[None]:
    """The browser freezes its pages, and tells them so."""
    for tab in tabs:
        tab.freeze()
    until(lambda: all(tab.evaluate("stream.state === 'waiting'") for tab in tabs))
    yield
    for tab in tabs:
        tab.thaw()


@contextmanager
def stopped(browser: Chromium, _: list[ChromiumTab]) -> Iterator[None]:
    """The machine stops. No page is told of that."""
    with browser.stopped():
        yield


SLEEPS = {"frozen": frozen, "stopped": stopped}

#: What becomes of the connections meanwhile.
FATES: dict[str, Callable[[Proxy], object]] = {
    "whole": lambda _: None,
    "cut": Proxy.cut,
    "silent": Proxy.fall_silent,
}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("hours", [5, -5])
@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("sleep", SLEEPS)
def test_a_laptops_sleep_loses_and_doubles_nothing(
    server: Server,
    proxy: Proxy,
    browser: Chromium,
    tabs: list[ChromiumTab],
    channel: str,
    sleep: str,
    fate: str,
    hours: int,
    shared: bool,
) -> None:
    for tab in tabs:
        connect(tab, stream_of(channel), shared=shared)
    publish(server, channel, "0")
    until_seen(tabs, "0")
    for tab in tabs:
        tab.evaluate(f"hours = {hours}")
    with SLEEPS[sleep](browser, tabs):
        FATES[fate](proxy)
        publish(server, channel, "1", "2")
        proxy.mend()
    until_seen(tabs, "0", "1", "2")
    publish(server, channel, "3")
    until_seen(tabs, "0", "1", "2", "3")

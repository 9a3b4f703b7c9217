"""A real browser with its own EventSource, and a proxy before it that can be cut.

What a browser must see stands in the tests.
"""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from select import select
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from .servers import HOST, PATIENCE, Server
from .serving import serving

CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


#: Notes what an EventSource dispatches.
LISTEN = """
([url, types]) => {
    window.events = [];
    window.source = new EventSource(url);
    const note = ({type, data, lastEventId}) =>
        events.push([type, data ?? "", lastEventId ?? ""]);
    types.forEach(type => source.addEventListener(type, note));
}
"""


#: Makes a page hidden, or visible again.
HIDE = """isHidden => {
    Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
}"""


#: The types that every listener listens to.
TYPES = ("message", "stream-open", "stream-position", "stream-gap", "stream-end")


#: The system's colours.
Scheme = Literal["light", "dark"]


#: The windows that pages are looked at in, as ``Browser.new_context`` takes them. A
#: phone shrinks a page that does not say how wide it wants to be.
WINDOWS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True},
}


#: EventSource's states; the index of each is its number.
STATES = ("connecting", "open", "closed")


class Seen(NamedTuple):
    """An event as a browser dispatches it."""

    type: str
    data: str
    id: str


class Listener:
    """An EventSource in a page."""

    def __init__(self, page: Page, target: str, types: Sequence[str] = ()) -> None:
        self._page = page
        self._taken = 0
        page.evaluate(LISTEN, [target, [*TYPES, *types]])

    def take(self, count: int) -> list[Seen]:
        """The next so many events, ours included."""
        first, self._taken = self._taken, self._taken + count
        self._page.wait_for_function("count => events.length >= count", arg=self._taken)
        events = self._page.evaluate("events")
        return [Seen(*event) for event in events[first : self._taken]]

    def wait_until(self, state: str) -> None:
        """Wait for one of ``STATES``."""
        self._page.wait_for_function(
            "state => source.readyState === state", arg=STATES.index(state)
        )


class Proxy(ThreadingTCPServer):
    """A proxy between a browser and a server that can be cut. Its connections then end
    without an answer, and so does every new one until it is mended."""

    allow_reuse_address = True

    def __init__(self, upstream: int) -> None:
        super().__init__((HOST, 0), Forward)
        self.url = f"http://{HOST}:{self.server_address[1]}"
        self.upstream = upstream
        self.is_cut = False
        self.clients: set[socket.socket] = set()
        self.mute: set[socket.socket] = set()
        self.lock = threading.Lock()

    def cut(self) -> None:
        with self.lock:
            self.is_cut = True
            for client in self.clients:
                with suppress(OSError):  # It may be gone already.
                    client.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.is_cut = False

    def fall_silent(self) -> None:
        """Nothing more comes through the connections that there are, and nobody is
        told. Those that begin later work."""
        with self.lock:
            self.mute |= self.clients

    def admit(self, client: socket.socket) -> bool:
        with self.lock:
            if not self.is_cut:
                self.clients.add(client)
            return not self.is_cut

    def dismiss(self, client: socket.socket) -> None:
        with self.lock:
            self.clients.discard(client)


class Forward(BaseRequestHandler):
    """One connection through the proxy, in a thread of its own."""

    server: Proxy
    request: socket.socket

    def handle(self) -> None:
        if not self.server.admit(self.request):
            return
        try:
            with socket.create_connection((HOST, self.server.upstream)) as upstream:
                self._forward({self.request: upstream, upstream: self.request})
        except OSError:
            pass  # One of the two has gone.
        finally:
            self.server.dismiss(self.request)

    def _forward(self, other: dict[socket.socket, socket.socket]) -> None:
        while True:
            for end in select(other, [], [])[0]:
                data = end.recv(65536)
                if not data:
                    return
                if self.request not in self.server.mute:
                    other[end].sendall(data)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium; without one, the test is skipped."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium on this machine's PATH")
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=CHROMIUM_OPTIONS,
            # Visitors' browsers keep pages that were left, which playwright switches
            # off.
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield browser
        browser.close()


@contextmanager
def blank_page(browser: Browser, **options: Any) -> Iterator[Page]:
    """An empty page, for a visitor of its own.

    :param options: those of the browser's context; see ``Browser.new_context``.
    """
    with browser.new_context(**options) as context:
        context.set_default_timeout(PATIENCE * 1000)
        yield context.new_page()


@contextmanager
def proxied(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    with serving(proxy, proxy.cut):
        yield proxy


def check_look(page: Page, scheme: Scheme) -> None:
    """A page is as wide as its window, and its text has the system's colours."""
    assert page.viewport_size
    width = page.viewport_size["width"]
    assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [
        width,
        width,
    ]
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert ink == {"light": "rgb(0, 0, 0)", "dark": "rgb(255, 255, 255)"}[scheme]


def stream_of(*channels: str, last_event_id: str = "") -> str:
    """The address of a stream."""
    query = [("channel", channel) for channel in channels]
    if last_event_id:
        query.append(("last_event_id", last_event_id))
    return f"/stream?{urlencode(query)}"

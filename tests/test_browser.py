"""A real browser with its own EventSource: what arrives, and how it comes back when the
connection is cut."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from select import select
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from .documentation import PAGES
from .servers import HOST, PATIENCE, Server, serve, until

#: Milliseconds after which the browser comes back.
RETRY = 100

#: Events that the server keeps.
HISTORY = 8

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

#: The types that every listener listens to.
TYPES = ("message", "stream-open", "stream-position", "stream-gap", "stream-end")

#: EventSource's states; the index of each is its number.
STATES = ("connecting", "open", "closed")

_rooms = count()


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serve("gunicorn gevent", SSE_RETRY=RETRY, SSE_HISTORY=HISTORY) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    with running.watched():
        yield running


@contextmanager
def proxied(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.cut()
            proxy.shutdown()
            thread.join()


@contextmanager
def page_of(browser: Browser, proxy: Proxy) -> Iterator[Page]:
    """A page that reaches its server through a proxy."""
    with blank_page(browser) as page:
        page.goto(f"{proxy.url}/page")
        yield page


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with proxied(server) as proxy:
        yield proxy


@pytest.fixture
def page(browser: Browser, proxy: Proxy) -> Iterator[Page]:
    with page_of(browser, proxy) as page:
        yield page


@pytest.fixture
def channel() -> str:
    """A channel that no other test uses."""
    return f"room.{next(_rooms)}"


def stream_of(*channels: str, last_event_id: str = "") -> str:
    """The address of a stream."""
    query = [("channel", channel) for channel in channels]
    if last_event_id:
        query.append(("last_event_id", last_event_id))
    return f"/stream?{urlencode(query)}"


def open_listener(page: Page, target: str, types: Sequence[str] = ()) -> Listener:
    """A listener whose stream has begun."""
    listener = Listener(page, target, types)
    assert listener.take(1)[0].type == "stream-open"
    return listener


# What arrives


def test_data_of_any_shape_arrives_as_it_was_published(
    server: Server, page: Page, channel: str
) -> None:
    listener = open_listener(page, stream_of(channel))
    shapes = {
        "plain": "plain",
        "": "",
        " ": " ",
        "  leading and trailing  ": "  leading and trailing  ",
        "two\nlines": "two\nlines",
        "\nempty\n\nlines\n": "\nempty\n\nlines\n",
        # All three line ends become LF.
        "CR LF\r\nCR\rLF\n": "CR LF\nCR\nLF\n",
        "breaks for str.splitlines\u2028\u2029\u0085\f\v\x1c": None,
        "a NUL \0": None,
        "emoji 😀 and ümläuts": None,
        "id: 5": None,
        ":": None,
        "\ufeffa byte order mark": None,
        "x" * 2**20: None,
    }
    for published, expected in shapes.items():
        server.publish({"data": published, "channel": channel})
        (seen,) = listener.take(1)
        assert seen.data == (published if expected is None else expected)


def test_types_and_ids_arrive(server: Server, page: Page, channel: str) -> None:
    types = ["note", "größer: 1", "Note"]
    listener = open_listener(page, stream_of(channel), types)
    ids = server.publish(
        {"data": "0", "channel": channel},
        *({"data": "1", "type": type, "channel": channel} for type in types),
        {"data": "2", "id": "日本-ü", "channel": channel},
    )
    assert listener.take(5) == [
        Seen("message", "0", ids[0]),
        *(Seen(type, "1", ids[n]) for n, type in enumerate(types, 1)),
        Seen("message", "2", "日本-ü"),
    ]


def test_several_channels_come_in_one_order(
    server: Server, page: Page, channel: str
) -> None:
    other = f"{channel} the other"
    listener = open_listener(page, stream_of(channel, other))
    server.publish(
        *({"data": str(n), "channel": (channel, other)[n % 2]} for n in range(6))
    )
    assert [event.data for event in listener.take(6)] == list("012345")


# Coming back


def test_a_browser_that_is_cut_misses_nothing_and_gets_nothing_twice(
    server: Server, proxy: Proxy, page: Page, channel: str
) -> None:
    listener = open_listener(page, stream_of(channel))
    for turn in range(5):
        (id,) = server.publish({"data": f"{turn} live", "channel": channel})
        assert listener.take(1) == [Seen("message", f"{turn} live", id)]
        proxy.cut()
        listener.wait_until("connecting")
        missed = [f"{turn} missed {n}" for n in range(HISTORY)]
        ids = server.publish(*({"data": text, "channel": channel} for text in missed))
        proxy.mend()
        opening, *events = listener.take(1 + HISTORY)
        assert opening == Seen("stream-open", "", id)
        assert events == [
            Seen("message", text, id) for text, id in zip(missed, ids, strict=True)
        ]


def test_a_browser_that_is_cut_before_its_first_event_misses_nothing(
    server: Server, proxy: Proxy, page: Page, channel: str
) -> None:
    listener = open_listener(page, stream_of(channel))
    proxy.cut()
    listener.wait_until("connecting")
    server.publish({"data": "missed", "channel": channel})
    proxy.mend()
    opening, missed = listener.take(2)
    assert (opening.type, missed.data) == ("stream-open", "missed")


def test_an_id_of_the_application_is_where_a_browser_comes_back_to(
    server: Server, proxy: Proxy, page: Page, channel: str
) -> None:
    listener = open_listener(page, stream_of(channel))
    server.publish({"data": "seen", "id": "日本-ü 😀", "channel": channel})
    assert listener.take(1)[0].data == "seen"
    proxy.cut()
    listener.wait_until("connecting")
    server.publish({"data": "missed", "channel": channel})
    proxy.mend()
    opening, missed = listener.take(2)
    assert (opening.id, missed.data) == ("日本-ü 😀", "missed")


def test_where_the_page_began_is_forgotten_when_its_browser_comes_back(
    server: Server, proxy: Proxy, page: Page, channel: str
) -> None:
    ids = server.publish(*({"data": str(n), "channel": channel} for n in range(3)))
    listener = open_listener(page, stream_of(channel, last_event_id=ids[0]))
    assert [event.data for event in listener.take(2)] == ["1", "2"]
    proxy.cut()
    listener.wait_until("connecting")
    server.publish({"data": "3", "channel": channel})
    proxy.mend()
    opening, missed = listener.take(2)
    assert (opening.id, missed.data) == (ids[2], "3")


def test_an_overrun_history_is_told_as_a_gap(
    server: Server, proxy: Proxy, page: Page, channel: str
) -> None:
    listener = open_listener(page, stream_of(channel))
    (id,) = server.publish({"data": "seen", "channel": channel})
    assert listener.take(1)[0].id == id
    proxy.cut()
    listener.wait_until("connecting")
    texts = [str(n) for n in range(3 * HISTORY)]
    server.publish(*({"data": text, "channel": channel} for text in texts))
    proxy.mend()
    opening, gap, *events = listener.take(2 + HISTORY)
    assert (opening.type, gap.type) == ("stream-open", "stream-gap")
    assert page.evaluate("JSON.parse", gap.data) == {"since": id, "channels": [channel]}
    assert [event.data for event in events] == texts[-HISTORY:]


def test_a_restarted_server_is_told_as_a_gap(browser: Browser) -> None:
    with (
        serve("gunicorn gevent", SSE_RETRY=RETRY) as server,
        proxied(server) as proxy,
        page_of(browser, proxy) as page,
    ):
        listener = open_listener(page, stream_of("room"))
        (id,) = server.publish({"data": "seen", "channel": "room"})
        assert listener.take(1)[0].id == id
        proxy.cut()
        server.stop()
        listener.wait_until("connecting")
        server.start()
        # The new life reaches the number at which the browser was.
        server.publish(*({"data": str(n), "channel": "room"} for n in range(3)))
        proxy.mend()
        opening, gap, *events = listener.take(5)
        assert (opening.type, gap.type) == ("stream-open", "stream-gap")
        assert [event.data for event in events] == ["0", "1", "2"]


# Ends


def test_a_closed_channel_keeps_the_browser_away(
    server: Server, page: Page, channel: str
) -> None:
    listener = open_listener(page, stream_of(channel))
    server.publish({"data": "the last", "channel": channel})
    server.close(channel)
    last, end = listener.take(2)
    assert (last.data, end.type) == ("the last", "stream-end")
    listener.wait_until("closed")


def test_a_browser_past_the_limit_goes_on_trying(browser: Browser) -> None:
    with (
        serve("gunicorn gevent", SSE_MAX_CONNECTIONS=1) as server,
        server.stream("room"),
        proxied(server) as proxy,
        page_of(browser, proxy) as page,
    ):
        until(lambda: server.stats()["streams"] == 1)
        listener = Listener(page, stream_of("room"), ["open", "error"])
        assert [event.type for event in listener.take(2)] == ["open", "error"]
        listener.wait_until("connecting")


# A page that is left, and come back to


#: As in the documentation.
LEAVING = """
    addEventListener("pagehide", () => source.close());
    addEventListener("pageshow", event => { if (event.persisted) location.reload(); });
"""


def leave(page: Page, proxy: Proxy) -> None:
    page.goto(f"{proxy.url}/ping")


def come_back(page: Page) -> None:
    """Go back to the page. The browser has kept it, so there is no load to wait for."""
    page.evaluate("() => { setTimeout(() => history.back()) }")
    page.wait_for_url("**/page", wait_until="commit")


def test_chromium_keeps_the_stream_of_a_page_that_was_left(
    page: Page, proxy: Proxy, channel: str
) -> None:
    listener = open_listener(page, stream_of(channel))
    page.evaluate("addEventListener('pageshow', event => { back = event.persisted })")
    leave(page, proxy)
    come_back(page)
    page.wait_for_function("window.back === true")
    listener.wait_until("open")
    assert page.evaluate("events.length") == 1


def test_a_page_that_is_left_closes_its_stream_as_the_readme_says(
    server: Server, page: Page, proxy: Proxy, channel: str
) -> None:
    assert LEAVING in PAGES
    until(lambda: server.stats()["streams"] == 0)
    open_listener(page, stream_of(channel))
    page.evaluate(LEAVING)
    assert server.stats()["streams"] == 1
    leave(page, proxy)
    until(lambda: server.stats()["streams"] == 0)
    come_back(page)
    page.wait_for_function(
        "performance.getEntriesByType('navigation')[0].type === 'reload'"
    )

"""What docs/hypermedia.rst says of each way to listen: what a page loses by a
deployment behind nginx, and what it does when it is hidden, left, or at the end of its
stream."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, Response

from flask_sse_lite import Publisher

from .browsers import HIDE, Proxy, blank_page, chromium, proxied, stream_of
from .client_packages import npm_packages
from .listening_pages import VUE_CLOSES, WAYS, Way, listen, numbers
from .proxies import PROGRAMS, proxy, replaced
from .servers import ROOT, Server, serve, until

PAGE = (ROOT / "docs" / "hypermedia.rst").read_text("utf-8")

#: Milliseconds after which browsers come back.
RETRY = 100

#: The numbers that are published before a deployment, meanwhile, and afterwards.
BEFORE = [1, 2, 3]
MEANWHILE = [4, 5, 6]
AFTER = [7, 8, 9]

#: Times that a page that comes back is turned away before the application is there
#: again.
TURNED_AWAY = 2

#: Requests that show that a page will go on asking.
MANY = 4

#: Why the browser has loaded a page anew that was come back to, if it has.
ANEW = "performance.getEntriesByType('navigation')[0].notRestoredReasons"

_rooms = count()


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    npm_packages()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    # A server that notices soon that a page has left.
    with serve("gunicorn gevent", SSE_RETRY=RETRY, SSE_HEARTBEAT=0.4) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    with running.emptied():
        yield running


class Visitor:
    """A page that listens, and what its requests for the stream are answered."""

    def __init__(self, page: Page, way: Way, channel: str) -> None:
        self.page = page
        self.way = way
        self.channel = channel
        self.answers: list[Response] = []
        page.on("response", self._note)

    def _note(self, answer: Response) -> None:
        if urlsplit(answer.url).path == "/stream":
            self.answers.append(answer)

    def events(self, numbers: Sequence[int]) -> list[dict[str, str]]:
        return [{**self.way.event(n), "channel": self.channel} for n in numbers]

    def has_seen(self, expected: Sequence[int]) -> bool:
        return numbers(self.page) == [*expected]

    def has_left(self) -> bool:
        """Whether the page will never ask again."""
        return bool(self.page.evaluate(self.way.over))

    def turned_away(self) -> int:
        """How often the application was not there. (It signs what it answers.)"""
        return sum("x-signed-by" not in answer.headers for answer in self.answers)

    def has_settled(self) -> bool:
        """Whether the page has shown what it does while the application is away."""
        return self.has_left() or self.turned_away() >= TURNED_AWAY

    def outcome(self) -> str:
        """What the deployment did to the page, in the words of the documentation."""
        seen = Counter(numbers(self.page))
        twice = [number for number, times in seen.items() if times > 1]
        lost = sorted({*BEFORE, *MEANWHILE, *AFTER} - {*seen})
        if self.has_left() and lost == MEANWHILE + AFTER and not twice:
            return "never comes back"
        return {
            ((), ()): "misses nothing",
            (tuple(MEANWHILE), ()): "misses what came meanwhile",
            ((), tuple(BEFORE)): "gets all since its beginning again",
        }.get((tuple(lost), tuple(twice)), f"lost {lost}, twice {twice}")


class Cut(Visitor):
    """A visitor whose connections end by themselves."""

    def __init__(self, page: Page, way: Way, channel: str, between: Proxy) -> None:
        super().__init__(page, way, channel)
        self.between = between
        self.failures = 0
        page.on("requestfailed", self._note_failure)

    def _note_failure(self, request: Request) -> None:
        self.failures += urlsplit(request.url).path == "/stream"


@contextmanager
def visiting(browser: Browser, way: Way, server: Server) -> Iterator[Visitor]:
    """A page that listens to a channel of its own, and has got an event."""
    with blank_page(browser) as page, server.channel() as channel:
        visitor = Visitor(page, way, channel)
        listen(page, way, server.url, stream_of(channel))
        until(lambda: server.stats()["streams"] == 1)
        server.publish(*visitor.events([1]))
        until(lambda: visitor.has_seen([1]))
        yield visitor


# A deployment


def without_the_block(text: str) -> str:
    return replaced(text, "error_page 500 502 503 504 =200 @away;", "")


def deploy(browser: Browser, folder: Path, *, has_block: bool) -> dict[str, str]:
    """Restart an application behind nginx while pages listen in all ways, and publish
    meanwhile.

    :returns: what each way's page got of it, in the words of the documentation.
    """
    url = f"sqlite:///{folder}/events.db"
    change = str if has_block else without_the_block
    with (
        ExitStack() as stack,
        serve("gunicorn gevent", SSE_URL=url, SSE_RETRY=RETRY) as server,
        proxy("nginx", server.port, change=change) as front,
        Publisher.from_url(url) as publisher,
    ):
        visitors: list[Visitor] = []

        def publish(numbers: Sequence[int]) -> None:
            for visitor in visitors:
                for event in visitor.events(numbers):
                    publisher.publish(**event)

        for way in WAYS:
            page = stack.enter_context(blank_page(browser))
            channel = f"room.{next(_rooms)}"
            begun = publisher.publish("begun", channel=channel).id or ""
            since = begun if way.has_position else ""
            visitors.append(Visitor(page, way, channel))
            listen(page, way, front.url, stream_of(channel, last_event_id=since))
        until(lambda: server.stats()["streams"] == len(WAYS))
        publish(BEFORE)
        until(lambda: all(visitor.has_seen(BEFORE) for visitor in visitors))
        server.stop()
        publish(MEANWHILE)
        until(lambda: all(visitor.has_settled() for visitor in visitors))
        server.start()
        staying = [visitor for visitor in visitors if not visitor.has_left()]
        until(lambda: server.stats()["streams"] == len(staying))
        publish(AFTER)
        until(lambda: all(numbers(v.page)[-1] == AFTER[-1] for v in staying))
        return {visitor.way.name: visitor.outcome() for visitor in visitors}


def documented() -> dict[str, tuple[str, str]]:
    """The table of the documentation: for each way, the outcome without the block, and
    with it."""
    row = re.compile(r"^   \* - (.+)\n     - (.+)\n     - (.+)\n", re.MULTILINE)
    _, *rows = row.findall(PAGE)
    return {way: (without, with_block) for way, without, with_block in rows}


@pytest.mark.skipif(not PROGRAMS["nginx"], reason="nginx is not installed")
@pytest.mark.parametrize("has_block", [False, True], ids=["502", "with the block"])
def test_a_deployment_costs_a_page_what_the_table_says(
    browser: Browser, tmp_path: Path, has_block: bool
) -> None:
    said = {way: row[has_block] for way, row in documented().items()}
    assert deploy(browser, tmp_path, has_block=has_block) == said


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_documentation_shows_how_it_is_written(way: Way) -> None:
    assert [text for text in way.shown if text not in PAGE] == []
    assert [text for text in way.shown if text not in way.page] == []


# A page that nobody looks at


@pytest.mark.parametrize("way", [way for way in WAYS if way.pauses], ids=str)
def test_a_hidden_page_lets_its_stream_go_and_misses_nothing(
    browser: Browser, server: Server, way: Way
) -> None:
    with visiting(browser, way, server) as visitor:
        visitor.page.evaluate(HIDE, True)
        until(lambda: server.stats()["streams"] == 0)
        server.publish(*visitor.events([2, 3]))
        visitor.page.evaluate(HIDE, False)
        until(lambda: visitor.has_seen([1, 2, 3]))


@pytest.mark.parametrize("way", [way for way in WAYS if not way.pauses], ids=str)
def test_a_hidden_page_goes_on_listening(
    browser: Browser, server: Server, way: Way
) -> None:
    with visiting(browser, way, server) as visitor:
        visitor.page.evaluate(HIDE, True)
        server.publish(*visitor.events([2, 3]))
        until(lambda: visitor.has_seen([1, 2, 3]))
        assert len(visitor.answers) == 1


#: What has a page go on listening that is hidden.
ALWAYS_OPEN = {
    "htmx 4": (
        "hx-sse:connect",
        'hx-config="sse.pauseOnBackground:false" hx-sse:connect',
    ),
    "Datastar with ``retry: 'always'``": ("retry: ", "openWhenHidden: true, retry: "),
}


@pytest.mark.parametrize("name", ALWAYS_OPEN)
def test_a_hidden_page_goes_on_listening_if_it_is_told_to(
    browser: Browser, server: Server, name: str
) -> None:
    (way,) = [way for way in WAYS if way.name == name]
    old, new = ALWAYS_OPEN[name]
    assert new.removesuffix(old).strip(" ,") in PAGE
    way = way._replace(page=replaced(way.page, old, new))
    test_a_hidden_page_goes_on_listening(browser, server, way)


# A page that was left, and is come back to


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_page_that_was_left_and_is_come_back_to_misses_nothing(
    browser: Browser, server: Server, way: Way
) -> None:
    with visiting(browser, way, server) as visitor:
        page = visitor.page
        page.evaluate(
            "addEventListener('pageshow', event => { back = event.persisted })"
        )
        page.goto(f"{server.url}/ping")
        if way.lets_go:
            until(lambda: server.stats()["streams"] == 0)
        server.publish(*visitor.events([2]))
        assert server.stats()["streams"] == (not way.lets_go)
        page.evaluate("() => { setTimeout(() => history.back()) }")
        page.wait_for_url("**/listening", wait_until="commit")
        # The browser says why where it has loaded the page anew.
        page.wait_for_function(f"window.back ?? {ANEW}")
        assert page.evaluate("window.back"), str(page.evaluate(ANEW))
        until(lambda: visitor.has_seen([1, 2]))


# A network that is away


@contextmanager
def cut_off(browser: Browser, server: Server, options: str) -> Iterator[Cut]:
    """A page with Datastar that cannot reach its server, which it asks again without
    waiting longer each time."""
    (way,) = [way for way in WAYS if way.name == "Datastar with ``retry: 'always'``"]
    written = "{retry: 'always', retryMaxCount: Infinity}"
    way = way._replace(page=replaced(way.page, written, options))
    with (
        proxied(server) as between,
        blank_page(browser) as page,
        server.channel() as channel,
    ):
        cut = Cut(page, way, channel, between)
        listen(page, way, between.url, stream_of(channel))
        until(lambda: server.stats()["streams"] == 1)
        between.cut()
        yield cut


def test_datastar_gives_up_after_ten_errors_of_the_network(
    browser: Browser, server: Server
) -> None:
    with cut_off(browser, server, "{retry: 'always', retryScaler: 1}") as cut:
        until(cut.has_left)
        # The connection that was cut is the first of the ten.
        assert cut.failures == 10


def test_datastar_does_not_give_up_if_it_is_told_so(
    browser: Browser, server: Server
) -> None:
    options = "{retry: 'always', retryMaxCount: Infinity, retryScaler: 1}"
    with cut_off(browser, server, options) as cut:
        until(lambda: not cut.has_left() and cut.failures > 10)
        server.publish(*cut.events([1]))
        cut.between.mend()
        until(lambda: cut.has_seen([1]))


# The end of a stream


@pytest.mark.parametrize("way", [w for w in WAYS if w.over != "false"], ids=str)
def test_after_the_end_a_page_that_asks_again_is_told_to_stay_away(
    browser: Browser, server: Server, way: Way
) -> None:
    with visiting(browser, way, server) as visitor:
        server.close(visitor.channel)
        until(visitor.has_left)
        assert [answer.status for answer in visitor.answers][1:] in ([], [204])


def test_vueuse_asks_again_and_again_after_the_end(
    browser: Browser, server: Server
) -> None:
    (way,) = [way for way in WAYS if way.name == "VueUse"]
    with visiting(browser, way, server) as visitor:
        server.close(visitor.channel)
        until(lambda: numbers(visitor.page) and len(visitor.answers) >= MANY)
        assert {answer.status for answer in visitor.answers[1:]} == {204}


def test_vueuse_stays_away_if_the_page_closes_it(
    browser: Browser, server: Server
) -> None:
    (way,) = [way for way in WAYS if way.name == "VueUse"]
    way = way._replace(page=replaced(way.page, *VUE_CLOSES))
    with visiting(browser, way, server) as visitor:
        server.close(visitor.channel)
        visitor.page.wait_for_function("source.eventSource.value === null")
        assert len(visitor.answers) == 1

"""The showcase in a real browser: what its page says, it does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from .servers import HOST, PATIENCE, ROOT, Server, serve, until
from .test_browser import chromium

#: Seconds for which the page's button cuts the connection.
CUT = 10

#: Pixels: the width of a small telephone.
NARROW = 360

#: How long a browser waits, in milliseconds.
WAIT = PATIENCE * 1000


class Row(NamedTuple):
    """An event in the page's list of them."""

    kind: str
    type: str
    id: str

    @property
    def sequence(self) -> int:
        return int(self.id.rpartition("-")[2])


class Message(NamedTuple):
    """A message in the page's chat, and the classes that it is marked with."""

    author: str
    text: str
    marks: str


class Tab:
    """A tab that shows the page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def wait_for_state(self, state: str, seconds: float = PATIENCE) -> None:
        expect(self.page.locator("#state")).to_have_text(state, timeout=seconds * 1000)

    def rows(self, *kinds: str) -> list[Row]:
        """The events of these kinds in its list, as they came."""
        rows = self.page.locator("#events li.event").evaluate_all(
            "rows => rows.map(({dataset: {kind, type, id}}) => [kind, type, id])"
        )
        return [Row(*row) for row in rows if row[0] in kinds]

    def wait_for_rows(self, kind: str, count: int) -> None:
        row = self.page.locator(f"#events li.event[data-kind={kind}]").nth(count - 1)
        row.wait_for(state="attached")

    def say(self, text: str, name: str) -> None:
        self.page.fill("#chat-name", name)
        self.page.fill("#chat-input", text)
        self.page.press("#chat-input", "Enter")
        expect(self.page.locator("#chat-input")).to_have_value("", timeout=WAIT)

    def message(self, text: str) -> Message:
        """A message of the chat, once it is there."""
        bubble = self.page.locator("#chat-log li").filter(has_text=text)
        return Message(
            bubble.locator(".author").inner_text(),
            bubble.locator(".text").inner_text(),
            bubble.get_attribute("class") or "",
        )

    def scrolls_sideways(self) -> bool:
        """Whether the page does, or one of its lists."""
        boxes = self.page.locator(":root, #chat-log, #events")
        scrolls: bool = boxes.evaluate_all(
            "boxes => boxes.some(box => box.scrollWidth > box.clientWidth)"
        )
        return scrolls


OpenTab = Callable[..., Tab]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serve(
        "gunicorn gevent", app="showcase:app", folder=ROOT / "examples"
    ) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    with running.watched():
        yield running


@pytest.fixture
def open_tab(browser: Browser, server: Server) -> Iterator[OpenTab]:
    """Opens the page for a visitor of its own, in a window of a width. No visitor sees
    an error, or is sent elsewhere."""
    tabs = []
    with ExitStack() as stack:

        def open(width: int = 1280) -> Tab:
            context = stack.enter_context(
                browser.new_context(viewport={"width": width, "height": 800})
            )
            context.set_default_timeout(WAIT)
            tab = Tab(context.new_page())
            tabs.append(tab)
            tab.page.goto(server.url)
            tab.wait_for_state("open")
            return tab

        yield open
    for tab in tabs:
        assert tab.complaints == []
        assert {urlsplit(url).hostname for url in tab.requests} == {HOST}


def test_the_figures_move(open_tab: OpenTab) -> None:
    tab = open_tab()

    def drawn() -> list[set[str | None]]:
        """The lines in each of the plots."""
        plots = tab.page.locator(".plot").all()
        return [
            {line.get_attribute("d") for line in plot.locator("path.line").all()}
            for plot in plots
        ]

    def have_moved() -> bool:
        pairs = zip(before, drawn(), strict=True)
        return all(now and not now & then for then, now in pairs)

    until(lambda: all(drawn()))
    before = drawn()
    assert len(before) == 3
    tab.wait_for_rows("live", 3)
    until(have_moved)
    figures = {
        "#cpu-now": r"\d+ %",
        "#memory-now": r"[\d.]+ GiB",
        "#received-now": r"[\d.,]+ \w?B/s",
        "#sent-now": r"[\d.,]+ \w?B/s",
    }
    for figure, shape in figures.items():
        assert re.fullmatch(shape, tab.page.locator(figure).inner_text())


def test_a_newcomer_sees_the_past_at_once(open_tab: OpenTab) -> None:
    first = open_tab()
    first.say("from before", "Ada")
    first.wait_for_rows("live", 2)
    past = first.rows("history", "live")
    second = open_tab()
    assert second.message("from before").author == "Ada"
    known = {row.id for row in second.rows("history")}
    assert {row.id for row in past[-60:]} <= known


def test_two_tabs_chat_with_each_other(open_tab: OpenTab) -> None:
    ada, bob = open_tab(), open_tab()
    ada.say("hello, is anybody here? <b>&amp; 😀", "Ada")
    assert bob.message("is anybody here?") == (
        "Ada",
        "hello, is anybody here? <b>&amp; 😀",
        "",
    )
    bob.say("only me", "Bob")
    assert ada.message("only me") == ("Bob", "only me", "")
    assert ada.message("is anybody here?").marks == "mine"
    assert bob.message("only me").marks == "mine"


def test_what_was_missed_in_a_cut_comes_back_in_order_and_marked(
    open_tab: OpenTab,
) -> None:
    tab, other = open_tab(), open_tab()
    tab.wait_for_rows("live", 2)
    tab.page.click("#cut")
    tab.wait_for_state("cut")
    last = tab.rows("own", "history", "live")[-1]
    assert tab.page.locator("#countdown").is_visible()
    said = ["I went on", "and so did I", "nobody heard it here"]
    other.say(said[0], "Ada")
    tab.say(said[1], "Bob")
    other.say(said[2], "Ada")
    tab.wait_for_state("open", seconds=CUT + PATIENCE)
    assert not tab.page.locator("#countdown").is_visible()

    result = tab.page.locator("#replayed[data-ordered]")
    result.wait_for()
    missed = tab.rows("missed")
    assert result.get_attribute("data-ordered") == "true"
    assert result.get_attribute("data-count") == str(len(missed))
    assert f"{len(missed)} missed events came back" in result.inner_text()
    assert tab.page.locator("#count-replayed").inner_text() == str(len(missed))
    types = [row.type for row in missed]
    assert types.count("chat") == len(said)
    assert CUT - 2 <= types.count("figures") <= CUT + 2
    marked = tab.page.locator("#chat-log li.missed .text").all_inner_texts()
    assert marked == said

    assert f"last_event_id={last.id}" in tab.requests[-1]

    tab.wait_for_rows("live", 4)
    seen = [row.sequence for row in tab.rows("live", "missed")]
    assert seen == list(range(seen[0], seen[0] + len(seen)))


def test_a_cut_can_be_ended_at_once(open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.page.click("#cut")
    tab.wait_for_state("cut")
    tab.say("said while cut", "Ada")
    tab.page.click("#cut")
    assert tab.message("said while cut").marks == "mine missed"
    tab.wait_for_state("open")


def test_a_narrow_screen_does_not_scroll_sideways(open_tab: OpenTab) -> None:
    tab = open_tab(width=NARROW)
    tab.wait_for_rows("live", 1)
    assert not tab.scrolls_sideways()
    tab.say("w" * 500, "W" * 40)
    tab.page.click("#cut")
    tab.wait_for_state("cut")
    assert not tab.scrolls_sideways()
    tab.page.click("#cut")
    tab.page.locator("#replayed[data-ordered]").wait_for()
    assert not tab.scrolls_sideways()

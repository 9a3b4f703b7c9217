"""The showcase in a real browser: its page does what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from flask_sse_lite.publisher import Publisher

from .browsers import blank_page, chromium
from .client_packages import npm_packages
from .redis_servers import redis_server
from .servers import GRACE, HOST, PATIENCE, ROOT, Client, Server, serve, until

#: Seconds for which the button of the page cuts the connection.
CUT = 10

#: Seconds from one token of an answer to the next.
PACE = 0.2

#: Sentences of an answer that outlasts its test.
ENDLESS = 10_000

#: Seconds for which the page loses an answer, where the test ends that itself.
LONG_CUT = 4 * PATIENCE

WORKERS = 4

TICKER = ROOT / "examples" / "showcase" / "ticker.py"

#: Pixels: the width of a small telephone.
NARROW = 360

#: Milliseconds for which a browser waits.
WAIT = PATIENCE * 1000


class Row(NamedTuple):
    """An event in the page's list."""

    kind: str
    type: str
    id: str

    @property
    def sequence(self) -> int:
        return int(self.id.rpartition("-")[2])


class Message(NamedTuple):
    """A message in the page's chat, with its classes."""

    author: str
    text: str
    marks: str


class Token(NamedTuple):
    """A token of an answer."""

    text: str
    id: str


class Tab:
    """A tab that shows the page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        #: The positions that streams were asked to go on from.
        self.resumed: list[str | None] = []
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._note_request)

    def _note_request(self, request: Request) -> None:
        self.requests.append(request.url)
        self.resumed.append(request.headers.get("last-event-id"))

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def wait_for_state(self, state: str, seconds: float = PATIENCE) -> None:
        expect(self.page.locator("#state")).to_have_text(state, timeout=seconds * 1000)

    def rows(self, *kinds: str) -> list[Row]:
        """The listed events of these kinds, in the order in which they came."""
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

    def say_at_once(self, text: str, name: str) -> None:
        """As ``say``, without the form. A cut lasts seconds, and a browser on a busy
        machine needs as long to type."""
        form: dict[str, str | float | bool] = {"name": name, "text": text}
        assert self.page.request.post(f"{self.page.url}chat", form=form).status == 204

    def message(self, text: str) -> Message:
        """A message of the chat; waits for it."""
        bubble = self.page.locator("#chat-log li").filter(has_text=text)
        return Message(
            bubble.locator(".author").inner_text(),
            bubble.locator(".text").inner_text(),
            bubble.get_attribute("class") or "",
        )

    def ask(self, question: str) -> str:
        """Ask, and wait until the page shows the question.

        :returns: the ticket for the answer.
        """
        self.page.fill("#ask-input", question)
        self.page.press("#ask-input", "Enter")
        expect(self.page.locator("#answer-question")).to_have_text(
            question, timeout=WAIT
        )
        expect(self.page.locator("#ask-input")).to_have_value("", timeout=WAIT)
        link = self.page.locator("#answer-link").get_attribute("href") or ""
        return link.removeprefix("?answer=").removesuffix("#answer")

    def wait_for_tokens(self, count: int) -> None:
        token = self.page.locator("#answer-text span").nth(count - 1)
        token.wait_for(state="attached")

    def wait_for_answer(self, state: str, seconds: float = PATIENCE) -> None:
        locator = self.page.locator("#answer-state")
        expect(locator).to_have_text(state, timeout=seconds * 1000)

    def tokens(self, kind: str = "") -> list[Token]:
        """The answer's tokens so far, of one kind or all."""
        spans = self.page.locator(f"#answer-text span{kind and f'.{kind}'}")
        tokens = spans.evaluate_all(
            "spans => spans.map(span => [span.textContent, span.dataset.id])"
        )
        return [Token(*token) for token in tokens]

    def report(self) -> str:
        """What the page says about the generator on the server."""
        return self.page.locator("#answer-report").inner_text()

    def scrolls_sideways(self) -> bool:
        """Whether the page or one of its lists scrolls sideways."""
        boxes = self.page.locator(":root, #chat-log, #events")
        scrolls: bool = boxes.evaluate_all(
            "boxes => boxes.some(box => box.scrollWidth > box.clientWidth)"
        )
        return scrolls

    def said(self) -> list[str]:
        """The texts of all messages in the chat."""
        return self.page.locator("#chat-log li .text").all_inner_texts()


OpenTab = Callable[..., Tab]


@contextmanager
def tab_at(
    browser: Browser, url: str, width: int = 1280, motion: str = "reduce"
) -> Iterator[Tab]:
    """The page, for a visitor of its own, in a window of the given width.

    :param motion: what the visitor prefers. Where there is no GPU, plots that slide
        take half of a processor; ``"no-preference"`` has them slide.
    """
    window = {"width": width, "height": 800}
    with blank_page(browser, viewport=window, reduced_motion=motion) as page:
        tab = Tab(page)
        page.goto(url)
        tab.wait_for_state("open")
        yield tab


def said(server: Server, ticket: str) -> list[Token]:
    """What the server retains of an answer that is over or lost."""
    address = server.request("GET", f"/answers/{ticket}").headers["Location"]
    with Client(server.port) as client:
        client.request(address)
        return [
            Token(event.json["text"], event.id or "")
            for event in takewhile(lambda e: e.type != "stream-error", client.events)
            if event.type == "token"
        ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def serve_showcase(
    kind: str,
    *,
    pace: float = PACE,
    sentences: int = ENDLESS,
    cut: float = LONG_CUT,
    **config: Any,
) -> AbstractContextManager[Server]:
    config |= {"ANSWER_PACE": pace, "ANSWER_SENTENCES": sentences, "ANSWER_CUT": cut}
    return serve(kind, app="showcase:app", folder=ROOT / "examples", **config)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serve_showcase("gunicorn gevent") as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    with running.watched():
        yield running


@pytest.fixture
def open_tab(browser: Browser, server: Server) -> Iterator[OpenTab]:
    """Opens the page for a visitor of its own, perhaps with an answer. No visitor may
    see an error or be sent elsewhere."""
    tabs = []
    with ExitStack() as stack:

        def open(width: int = 1280, ticket: str = "", motion: str = "reduce") -> Tab:
            url = f"{server.url}/{ticket and f'?answer={ticket}'}"
            tab = stack.enter_context(tab_at(browser, url, width, motion))
            tabs.append(tab)
            return tab

        yield open
    for tab in tabs:
        assert tab.complaints == []
        assert {urlsplit(url).hostname for url in tab.requests} == {HOST}


def test_the_figures_move(open_tab: OpenTab) -> None:
    tab = open_tab(motion="no-preference")

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
    other.say_at_once(said[0], "Ada")
    tab.say(said[1], "Bob")
    other.say_at_once(said[2], "Ada")
    tab.wait_for_state("open", seconds=CUT + PATIENCE)
    assert not tab.page.locator("#countdown").is_visible()

    # Behind what was missed, it is live again.
    tab.page.locator("#events .missed ~ .live").first.wait_for(state="attached")
    missed = tab.rows("missed")
    result = tab.page.locator(f"#replayed[data-count='{len(missed)}']")
    result.wait_for()
    assert result.get_attribute("data-ordered") == "true"
    assert f"{len(missed)} missed events came back" in result.inner_text()
    assert tab.page.locator("#count-replayed").inner_text() == str(len(missed))
    types = [row.type for row in missed]
    assert types.count("chat") == len(said)
    assert types.count("figures") > 1
    marked = tab.page.locator("#chat-log li.missed .text").all_inner_texts()
    assert marked == said

    assert tab.resumed[-1] == last.id

    tab.wait_for_rows("live", 4)
    seen = [row.sequence for row in tab.rows("live", "missed")]
    assert seen == list(range(seen[0], seen[0] + len(seen)))

    # A witness that was connected all the time saw the same events.
    def seen_there() -> list[int]:
        return [row.sequence for row in other.rows("history", "live")]

    until(lambda: seen_there()[-1] >= missed[-1].sequence)
    meanwhile = [n for n in seen_there() if last.sequence < n <= missed[-1].sequence]
    assert [row.sequence for row in missed] == meanwhile


def test_a_cut_can_be_ended_at_once(open_tab: OpenTab) -> None:
    tab, witness = open_tab(), open_tab()
    tab.page.click("#cut")
    tab.wait_for_state("cut")
    tab.say("said while cut", "Ada")
    assert witness.message("said while cut").marks == ""
    # The page marks what was missed by its time, which it reckons from the fastest
    # event so far.
    witness.wait_for_rows("live", len(witness.rows("live")) + 4)
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
    tab.ask("w" * 200)
    tab.wait_for_tokens(10)
    assert not tab.scrolls_sideways()


# Answers


def test_an_answer_is_typed_out_whole_and_can_be_read_afterwards(
    browser: Browser,
) -> None:
    with (
        serve_showcase("gunicorn gevent", pace=0.02, sentences=12) as server,
        tab_at(browser, server.url) as tab,
    ):
        ticket = tab.ask("What is a river?")
        tab.wait_for_answer("complete")
        whole = said(server, ticket)
        assert tab.tokens() == whole
        assert tab.report() == (
            f"The generator came to its end on the server, after {len(whole)} tokens."
        )
        assert tab.page.locator("#tokens-made").inner_text() == str(len(whole))
        assert tab.page.locator("#lose").is_disabled()
        assert tab.page.locator("#stop").is_disabled()

        url = f"{server.url}/?answer={ticket}"
        with tab_at(browser, url) as later:
            later.wait_for_answer("complete")
            assert later.tokens() == whole
            question = later.page.locator("#answer-question")
            assert question.inner_text() == "What is a river?"
            assert later.report() == tab.report()

        ticket = tab.ask("And what is a stream?")
        tab.wait_for_answer("complete")
        assert tab.tokens() == said(server, ticket)
        assert tab.complaints == []


def test_an_answer_goes_on_where_it_was_cut_and_a_second_tab_shows_it_whole(
    server: Server, open_tab: OpenTab
) -> None:
    tab = open_tab()
    ticket = tab.ask("What does a river say?")
    other = open_tab(ticket=ticket)
    tab.wait_for_tokens(5)
    tab.page.click("#lose")
    tab.wait_for_answer("cut")
    before = tab.tokens()
    other.wait_for_tokens(len(before) + 5)
    assert other.tokens()[: len(before)] == before
    tab.page.click("#lose")
    tab.wait_for_answer("typing")
    # Behind what was missed, it is live again.
    tab.page.locator("#answer-text .missed + .live").wait_for(state="attached")
    missed = tab.tokens("missed")
    assert len(missed) >= 5
    # No token had come meanwhile.
    assert tab.tokens()[: len(before) + len(missed)] == [*before, *missed]
    assert before[-1].id in tab.resumed
    told = re.compile(rf"^{len(missed)} tokens came back in [\d.]+ ms, in order\.$")
    answer_told = tab.page.locator("#answer-told.missed")
    expect(answer_told).to_have_text(told, timeout=WAIT)
    for _ in range(3):
        tab.page.click("#lose")
        tab.wait_for_answer("cut")
        tab.page.click("#lose")
        tab.wait_for_answer("typing")
    tab.page.reload()
    tab.wait_for_tokens(len(before) + len(missed))
    tab.page.click("#lose")
    tab.wait_for_answer("cut")
    other.page.click("#stop")
    other.wait_for_answer("stopped")
    tab.page.click("#lose")
    tab.wait_for_answer("stopped")
    whole = said(server, ticket)
    assert tab.tokens() == whole
    assert other.tokens() == whole
    assert not other.tokens("missed")


def test_stop_closes_the_generator_and_every_tab_says_so(
    server: Server, open_tab: OpenTab
) -> None:
    tab = open_tab()
    ticket = tab.ask("Where does a river end?")
    other = open_tab(ticket=ticket)
    other.wait_for_tokens(5)
    tab.page.click("#lose")
    tab.wait_for_answer("cut")
    other.page.click("#stop")
    other.wait_for_answer("stopped")
    tab.page.click("#lose")
    tab.wait_for_answer("stopped")
    whole = said(server, ticket)
    assert tab.tokens() == other.tokens() == whole
    assert (
        tab.report()
        == other.report()
        == (f"The generator was closed on the server, after {len(whole)} tokens.")
    )


@pytest.mark.parametrize("kind", ["gunicorn gthread", "gunicorn sync"])
def test_answers_are_cut_and_stopped_where_there_are_threads(
    browser: Browser, kind: str
) -> None:
    with (
        serve_showcase(kind, cut=10) as server,
        tab_at(browser, server.url) as tab,
    ):
        ticket = tab.ask("What is a river?")
        tab.wait_for_tokens(5)
        # This cut ends by itself.
        tab.page.click("#lose")
        tab.wait_for_answer("cut")
        tab.wait_for_answer("typing")
        tab.page.locator("#answer-told.missed").wait_for()
        tab.page.click("#stop")
        tab.wait_for_answer("stopped")
        whole = said(server, ticket)
        assert tab.tokens() == whole
        # The generator's thread may have been making one more.
        made = int(tab.page.locator("#tokens-made").inner_text())
        assert made - len(whole) in (0, 1)
        assert f"was closed on the server, after {made} tokens." in tab.report()


def test_who_has_no_ticket_can_neither_read_nor_stop_an_answer(
    server: Server, open_tab: OpenTab
) -> None:
    tab = open_tab()
    ticket = tab.ask("Who may stop a river?")
    signed, _, signature = ticket.rpartition(".")
    for guess in ("x", signed, f"{signed}.{signature[::-1]}", f"x{ticket}"):
        for method in ("GET", "DELETE"):
            assert server.request(method, f"/answers/{guess}").status == 404
    there = len(tab.tokens())
    tab.wait_for_tokens(there + 5)
    tab.page.click("#stop")
    tab.wait_for_answer("stopped")


def test_a_server_that_stops_or_dies_in_mid_answer_leaves_no_page_waiting(
    browser: Browser,
) -> None:
    with (
        serve_showcase("gunicorn gevent", options=GRACE, SSE_RETRY=200) as server,
        tab_at(browser, server.url) as tab,
    ):
        tab.ask("What is a river?")
        tab.wait_for_tokens(5)
        server.stop()
        tab.wait_for_answer("stopped")
        here = len(tab.tokens())
        assert tab.report() == (
            f"The server was stopped in the middle of it. {here} tokens had come."
        )
        server.start()
        tab.page.reload()
        tab.wait_for_answer("gone")
        assert "The server does not know this answer" in tab.report()

        tab.ask("And now?")
        tab.wait_for_tokens(5)
        os.kill(worker_of(server), signal.SIGKILL)
        tab.wait_for_answer("gone")
        here = len(tab.tokens())
        assert tab.report().endswith(f"{here} tokens had come.")
        tab.ask("And then?")
        tab.wait_for_tokens(5)


def worker_of(server: Server) -> int:
    """The process that publishes the figures."""
    with Client(server.port) as client:
        client.request("/events")
        event = next(event for event in client.events if event.type == "figures")
        pid: int = event.json["worker"]
        return pid


# Several workers


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def several(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The showcase on several workers."""
    with ExitStack() as stack:
        if request.param == "redis":
            url = stack.enter_context(redis_server()).url
        else:
            url = f"sqlite:///{tmp_path_factory.mktemp('store')}/events.db"
        yield stack.enter_context(
            serve_showcase(
                "gunicorn gevent",
                pace=0.5,
                options=f"--workers {WORKERS}",
                SSE_URL=url,
                SECRET_KEY="a secret",
                SSE_RETRY=200,
                KILL_WORKERS=True,
            )
        )


def test_a_chat_goes_on_whichever_workers_are_killed(
    browser: Browser, several: Server
) -> None:
    with tab_at(browser, several.url) as ada, tab_at(browser, several.url) as bob:
        expected = []
        until(lambda: len(several.workers()) == WORKERS)
        for number, worker in enumerate(several.workers()):
            os.kill(worker, signal.SIGKILL)
            for tab, name in ((ada, "Ada"), (bob, "Bob")):
                tab.say(f"{name} says {number}", name)
                expected.append(f"{name} says {number}")
        for tab in (ada, bob):
            tab.message(expected[-1])
            assert tab.said() == expected
            tab.wait_for_state("open")
            assert not tab.page.locator("#replayed.gap").count()


def test_an_answer_goes_on_until_the_worker_that_makes_it_is_killed(
    browser: Browser, several: Server
) -> None:
    with tab_at(browser, several.url) as tab:
        ticket = tab.ask("What is a river?")
        tab.wait_for_tokens(2)
        maker = maker_of(several, ticket)
        url = f"{several.url}/?answer={ticket}"
        with tab_at(browser, url) as other:
            until(lambda: len(several.workers()) == WORKERS)
            for worker in {*several.workers()} - {maker}:
                os.kill(worker, signal.SIGKILL)
                for each in (tab, other):
                    each.wait_for_tokens(len(each.tokens()) + 2)
            os.kill(maker, signal.SIGKILL)
            for each in (tab, other):
                each.wait_for_answer("stopped")
            assert tab.tokens() == other.tokens() == said(several, ticket)
            here = len(tab.tokens())
            report = f"The worker that made it died in the middle of it. {here} tokens"
            assert tab.report() == other.report() == f"{report} had come."
        tab.ask("And now?")
        tab.wait_for_tokens(1)


def test_one_worker_publishes_the_figures_until_it_is_killed(several: Server) -> None:
    with ExitStack() as stack:
        for _ in range(4 * WORKERS):
            stack.enter_context(Client(several.port)).request("/events")
        first = publisher_of_figures(several)
        os.kill(first, signal.SIGKILL)
        assert publisher_of_figures(several) != first


def publisher_of_figures(server: Server) -> int:
    """The process that alone publishes figures: its figures come again and again."""
    now = time.time()
    with Client(server.port) as client:
        client.request("/events")
        figures = (event.json for event in client.events if event.type == "figures")
        workers = (each["worker"] for each in figures if each["time"] > now)
        for worker, own in groupby(workers):
            if len([*islice(own, 4)]) == 4:
                return int(worker)
    raise AssertionError("there are none")


def test_what_one_worker_forgets_as_it_dies_is_told(browser: Browser) -> None:
    with (
        serve_showcase("gunicorn gevent", SSE_RETRY=200) as server,
        tab_at(browser, server.url) as tab,
    ):
        tab.say("before", "Ada")
        tab.message("before")
        os.kill(worker_of(server), signal.SIGKILL)
        tab.page.locator("#replayed.gap").wait_for()
        tab.say("after", "Ada")
        tab.message("after")
        assert tab.said() == ["before", "after"]


def test_several_workers_are_told_that_they_need_one_key() -> None:
    asked = {"FLASK_SSE_URL": "sqlite:////nowhere/events.db"}
    result = subprocess.run(
        [sys.executable, "-c", "import showcase"],
        cwd=ROOT / "examples",
        env=os.environ | asked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "FLASK_SECRET_KEY" in result.stderr


def maker_of(server: Server, ticket: str) -> int:
    """The process that makes an answer."""
    address = server.request("GET", f"/answers/{ticket}").headers["Location"]
    with Client(server.port) as client:
        client.request(address)
        event = next(event for event in client.events if event.type == "question")
        pid: int = event.json["worker"]
        return pid


# Three questions, who is here, and the server that goes away


def test_a_question_can_be_clicked(open_tab: OpenTab) -> None:
    tab = open_tab()
    questions = tab.page.locator("#questions button")
    assert questions.count() == 3
    question = questions.nth(1).inner_text()
    questions.nth(1).click()
    expect(tab.page.locator("#answer-question")).to_have_text(question, timeout=WAIT)
    tab.wait_for_tokens(3)
    tab.page.click("#stop")
    tab.wait_for_answer("stopped")


def test_the_page_says_who_is_here(open_tab: OpenTab) -> None:
    ada, bob = open_tab(), open_tab()
    for tab, name in ((ada, "Ada"), (bob, "Bob")):
        tab.page.fill("#chat-name", name)
        tab.page.press("#chat-name", "Tab")
    expect(ada.page.locator("#here")).to_have_text("Ada, Bob", timeout=WAIT)
    # A new name is no cut.
    assert ada.page.locator("#replayed[data-ordered]").count() == 0
    bob.page.goto("about:blank")
    expect(ada.page.locator("#here")).to_have_text("Ada", timeout=WAIT)


def test_a_server_that_goes_away_and_comes_back_is_told_and_cleared(
    browser: Browser,
) -> None:
    with (
        serve_showcase("gunicorn gevent", SSE_RETRY=200) as server,
        tab_at(browser, server.url) as tab,
    ):
        away = tab.page.locator("#away")
        complaint = tab.page.locator("#chat-error")
        assert away.is_hidden()
        server.stop()
        expect(away).to_contain_text("No answer from the server", timeout=WAIT)
        tab.page.fill("#chat-input", "is anybody there?")
        tab.page.press("#chat-input", "Enter")
        expect(complaint).to_contain_text("cannot be reached", timeout=WAIT)
        server.start()
        expect(away).to_contain_text("The server is back", timeout=WAIT)
        expect(complaint).to_have_text("", timeout=WAIT)
        assert tab.page.input_value("#chat-input") == "is anybody there?"
        expect(away).to_be_hidden(timeout=WAIT)


# The crowd


def test_every_dot_of_the_crowd_lights_up_and_none_costs_a_thread(
    server: Server, open_tab: OpenTab
) -> None:
    tab, other = open_tab(), open_tab()
    page = tab.page
    thousand = re.compile("1,000")
    expect(page.locator("#crowd-threads")).to_have_text(re.compile(r"\d"), timeout=WAIT)
    threads = page.locator("#crowd-threads").inner_text()
    page.click("#crowd-button")
    expect(page.locator("#crowd-open")).to_have_text(thousand, timeout=WAIT)
    expect(page.locator("#field .open")).to_have_count(1000, timeout=WAIT)
    page.evaluate(
        """() => {
            window.seen = new Set();
            const note = ({ target }) => target.matches(".lit") && seen.add(target);
            const observer = new MutationObserver((changes) => changes.forEach(note));
            observer.observe(document.getElementById("field"), {
                subtree: true, attributeFilter: ["class"],
            });
        }"""
    )
    until(lambda: page.evaluate("seen.size") == 1000)
    # Two pages, and the crowd.
    expect(page.locator("#crowd-here")).to_have_text("1,002", timeout=WAIT)
    assert page.locator("#crowd-threads").inner_text() == threads

    other.page.click("#crowd-button")
    told = other.page.locator("#crowd-told")
    expect(told).to_contain_text("There is one at a time", timeout=WAIT)

    # Who leaves takes the crowd along.
    page.goto("about:blank")
    expect(other.page.locator("#crowd-here")).to_have_text("1", timeout=WAIT)
    other.page.click("#crowd-button")
    expect(other.page.locator("#crowd-open")).to_have_text(thousand, timeout=WAIT)
    other.page.click("#crowd-button")
    expect(other.page.locator("#crowd-here")).to_have_text("1", timeout=WAIT)
    expect(other.page.locator("#field .open")).to_have_count(0)


def test_a_page_of_another_site_opens_no_crowd_and_kills_nobody(
    server: Server, several: Server
) -> None:
    others: list[dict[str, str]] = [{}, {"Origin": "http://other.example"}]
    others.append({"Origin": "http://["})
    for origin in others:
        assert answered(server, "/crowd", origin) == 403
        worker = several.workers()[0]
        assert answered(several, f"/workers/{worker}/kill", origin) == 403
    own = {"Origin": several.url}
    # A process that is no worker of this server; and a server that is no demonstration.
    assert answered(several, f"/workers/{os.getpid()}/kill", own) == 404
    worker = server.workers()[0]
    own = {"Origin": server.url}
    assert answered(server, f"/workers/{worker}/kill", own) == 404


def test_another_child_of_the_shell_is_no_worker() -> None:
    script = "import sys; from showcase import worker; "
    script += "sys.exit(worker.is_ours(int(sys.argv[1])))"
    with subprocess.Popen(["sleep", "60"]) as other:
        words = [sys.executable, "-c", script, str(other.pid)]
        try:
            done = subprocess.run(words, cwd=ROOT / "examples", timeout=PATIENCE)
        finally:
            other.kill()
    assert done.returncode == 0


def answered(server: Server, path: str, headers: dict[str, str]) -> int:
    """The status of a POST."""
    asked = urllib.request.Request(server.url + path, b"", headers)
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def test_the_worker_behind_the_page_is_killed_and_no_number_is_lost(
    browser: Browser, several: Server
) -> None:
    until(lambda: len(several.workers()) == WORKERS)
    with tab_at(browser, several.url) as tab:
        button = tab.page.locator("#kill")
        expect(button).to_be_enabled(timeout=WAIT)
        victim = int(tab.page.locator("#kill-worker").inner_text())
        assert victim in several.workers()
        button.click()
        told = tab.page.locator("#kill-told")
        expect(told).to_contain_text("serves this page now", timeout=WAIT)
        assert re.match("30 of 30 numbers are here, each once", told.inner_text())
        assert victim not in several.workers()
        assert int(tab.page.locator("#kill-worker").inner_text()) != victim
        assert tab.page.locator("#ticks .twice").count() == 0


def test_who_comes_while_numbers_are_counted_can_kill_the_next_worker(
    browser: Browser, several: Server
) -> None:
    until(lambda: len(several.workers()) == WORKERS)
    # The numbers are over within seconds: who comes late has its page ready.
    with tab_at(browser, several.url) as tab, blank_page(browser) as late:
        button = tab.page.locator("#kill")
        expect(button).to_be_enabled(timeout=WAIT)
        button.click()
        expect(tab.page.locator("#ticks .live").first).to_be_visible(timeout=WAIT)
        late.goto(several.url)
        told = late.locator("#kill-told")
        expect(told).to_contain_text("numbers are here", timeout=WAIT)
        expect(late.locator("#kill")).to_be_enabled(timeout=WAIT)


@contextmanager
def ticking(url: str, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """A ticker, and a process for it to kill."""
    idle = [sys.executable, "-c", "input()"]
    with subprocess.Popen(idle, stdin=subprocess.PIPE) as victim:
        words = [sys.executable, str(TICKER), url, f"{victim.pid}", f"{count}"]
        with subprocess.Popen(words) as ticker:
            try:
                yield ticker
            finally:
                ticker.kill()
                victim.kill()


def test_two_showcases_of_one_folder_count_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    one, other = (f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "other"))
    with Publisher.from_url(one) as seen, ExitStack() as stack:
        before = seen.position()
        first = stack.enter_context(ticking(one, 10_000))
        until(lambda: seen.position() != before)
        with ticking(one, 3) as second, ticking(other, 3) as third:
            assert second.wait(PATIENCE) == 3
            assert third.wait(PATIENCE) == 0
        assert first.poll() is None


# What it is like to use


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_everybody_can_use_it(
    browser: Browser, several: Server, width: int, scheme: str
) -> None:
    axe = (npm_packages() / "axe-core" / "axe.min.js").read_text("utf-8")
    with tab_at(browser, several.url, width) as tab:
        tab.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        tab.say("hello", "Ada")
        tab.ask("What is a river?")
        tab.wait_for_tokens(2)
        tab.page.click("#cut")
        tab.wait_for_state("cut")
        # The page's policy keeps a script tag away; this way in is the debugger's.
        tab.page.evaluate(axe)
        found = tab.page.evaluate("axe.run()")
        faults = [
            (fault["id"], [node["html"] for node in fault["nodes"]])
            for fault in found["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
        assert faults == []
        assert found["passes"]
        assert not tab.scrolls_sideways()
        tab.page.click("#stop")


def test_a_phone_is_shown_the_way_only_where_it_can_come(server: Server) -> None:
    page = server.request("GET", "/").body.decode()
    assert "HOST=0.0.0.0" in page
    assert "phone.svg" not in page
    picture = server.request("GET", "/phone.svg")
    assert picture.headers["Content-Type"].startswith("image/svg+xml")
    assert b"<svg" in picture.body

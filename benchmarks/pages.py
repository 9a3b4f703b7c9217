"""What a page can take: a part for each question, with the limit of its answer.

The page runs in Chromium, which Playwright drives; without either, these parts fail, by
name. How a server is run lives in measuring.py.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from contenders import CONTENDERS, STREAM
from measuring import running
from processes import BenchmarkError
from report import AtLeast, AtMost, Finding
from scale import Part

if TYPE_CHECKING:
    from playwright.sync_api import Page

OURS = "ours-gevent"

EVENTS_PER_SECOND = 10_000
AT_ONCE = 100  # events of a request: a request each 10 ms
ROUND_SECONDS = 2
LATENESS = 0.95  # of the rate: the publisher is late at times, where cores are shared
LAST_SECONDS = 30  # for the last event of a round to arrive

#: Listens over the connection of all tabs, as pages do, and notes each event's number,
#: when the first and the last of a round came, and tasks over 50 ms.
LISTEN = """async url => {
    const { connect } = await import("/stream/sse.js");
    window.tasks = [];
    new PerformanceObserver(list => {
        tasks.push(...list.getEntries().map(task => task.duration));
    }).observe({ type: "longtask" });
    window.begin = () => { window.numbers = []; tasks.length = 0; };
    begin();
    window.stream = connect(url);
    stream.onmessage = ({ data }) => {
        numbers.push(parseInt(data));
        window.last = performance.now();
        if (numbers.length === 1) window.first = last;
    };
}"""


def page_events(subscribers: int, rounds: int) -> Iterator[Finding]:
    """Does a page stay quick while events come as fast as a page can be given them?"""
    rates, tasks = [], []
    with (
        running(CONTENDERS[OURS], 1, is_pinned=False) as (started, _),
        listening(started.port) as page,
    ):
        for turn in range(rounds):
            page.evaluate("begin()")
            first = 1 + turn * ROUND_SECONDS * EVENTS_PER_SECOND
            publish(started.port, first)
            rates.append(check(page, first))
            tasks += page.evaluate("tasks")
    count = rounds * ROUND_SECONDS * EVENTS_PER_SECOND
    rate = min(rates)
    yield Finding(
        "events a second in one tab",
        OURS,
        rate,
        AtLeast(EVENTS_PER_SECOND * LATENESS),
        f"{count:,} events, each once and in order; the slowest of {rounds} rounds",
    )
    yield Finding(
        "tasks of that page over 50 ms",
        OURS,
        len(tasks),
        AtMost(0),
        f"the longest: {max(tasks):.0f} ms" if tasks else "none",
    )


@contextmanager
def listening(port: int) -> Iterator[Page]:
    """A page that listens."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise BenchmarkError("Playwright is not installed") from error
    program = shutil.which("chromium")
    if program is None:
        raise BenchmarkError("there is no chromium on this machine's PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/plain")
        page.evaluate(LISTEN, STREAM)
        page.wait_for_function("stream.state === 'open'")
        yield page
        browser.close()


def publish(port: int, first: int) -> None:
    """Publish a round's events at their rate: a request that is late is followed by the
    next one at once."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LAST_SECONDS)
    with contextlib.closing(connection):
        began = time.monotonic()
        for done in range(0, ROUND_SECONDS * EVENTS_PER_SECOND, AT_ONCE):
            wait = began + done / EVENTS_PER_SECOND - time.monotonic()
            time.sleep(max(0, wait))
            connection.request("POST", f"/publish?first={first + done}&count={AT_ONCE}")
            connection.getresponse().read()


def check(page: Page, first: int) -> float:
    """Return the rate at which a round's events have come.

    :raises BenchmarkError: unless each came once and in order.
    """
    count = ROUND_SECONDS * EVENTS_PER_SECOND
    page.wait_for_function(
        "last => numbers.at(-1) === last",
        arg=first + count - 1,
        timeout=LAST_SECONDS * 1000,
    )
    numbers: Any = page.evaluate("numbers")
    if numbers != [*range(first, first + count)]:
        raise BenchmarkError(
            f"not every event once and in order: {len(numbers)} of {count}"
        )
    seconds: float = page.evaluate("(last - first) / 1000")
    return count / seconds


PARTS: dict[str, Part] = {"page-events": page_events}

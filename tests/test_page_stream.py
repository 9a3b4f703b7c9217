"""A page's stream by the module ``sse.js``, in a real browser: it comes back, it goes
on where it was, and all tabs share one connection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page

from .browsers import HIDE, Proxy, blank_page, chromium, proxied, stream_of
from .pages import ALONE, CLOCK, connect, take, told, wait_for
from .servers import PATIENCE, Server, serve, until

#: Milliseconds after which the browser comes back.
RETRY = 100

#: Events that the server keeps.
HISTORY = 8

#: Seconds between signs of life. A pause of this machine must be no cut.
HEARTBEAT = 2.0

#: The same where a silence is to be a cut, and soon.
SHORT_HEARTBEAT = 0.4

#: An answer that has a client wait for ten minutes.
LONG_WAIT = [200, {"Content-Type": "text/event-stream"}, "retry: 600000\n\n"]

_rooms = count()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def serve_with(heartbeat: float) -> AbstractContextManager[Server]:
    return serve(
        "gunicorn gevent",
        app="tests.applications.refusing:app",
        SSE_RETRY=RETRY,
        SSE_HISTORY=HISTORY,
        SSE_HEARTBEAT=heartbeat,
    )


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serve_with(HEARTBEAT) as server:
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
def page(browser: Browser, proxy: Proxy) -> Iterator[Page]:
    with blank_page(browser) as page:
        page.goto(f"{proxy.url}/page")
        yield page


@pytest.fixture
def channel() -> str:
    """A channel that no other test uses."""
    return f"room.{next(_rooms)}"


def publish(server: Server, channel: str, *texts: str) -> list[str]:
    return server.publish(*({"data": text, "channel": channel} for text in texts))


# One page


def test_a_stream_that_is_cut_comes_back_to_where_it_was(
    server: Server, proxy: Proxy, page: Page, channel: str
) -> None:
    connect(page, stream_of(channel))
    expected = []
    for turn in range(3):
        texts = [f"{turn} live", *(f"{turn} missed {n}" for n in range(HISTORY))]
        publish(server, channel, texts[0])
        expected += texts
        take(page, len(expected) - HISTORY)
        proxy.cut()
        wait_for(page, "waiting")
        last = publish(server, channel, *texts[1:])[-1]
        proxy.mend()
        assert take(page, len(expected)) == expected
        assert page.evaluate("stream.lastEventId") == last
    assert told(page, "gap") == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_it_comes_back_after_an_error_of_the_server(
    server: Server, page: Page, status: int
) -> None:
    server.request("POST", "/next", [[status, {}, ""]] * 2)
    connect(page, "/moody")
    waits = told(page, "waiting")
    # (After a 408 Chromium itself asks once more.)
    assert {detail["status"] for detail in waits} == {status}
    assert all(detail["delay"] <= 2 * 2 * RETRY * 1000 for detail in waits)


def test_it_waits_as_long_as_the_server_says(server: Server, page: Page) -> None:
    server.request("POST", "/next", [[503, {"Retry-After": "1"}, ""]])
    began = time.monotonic()
    connect(page, "/moody")
    assert time.monotonic() - began >= 1
    assert told(page, "waiting") == [{"status": 503, "after": 1000, "delay": 1000}]


def test_it_asks_for_headers_once_more_and_then_is_refused(
    server: Server, page: Page
) -> None:
    server.request("POST", "/next", [[401, {}, ""], [200, {}, "x"]])
    page.evaluate("window.turn = 0")
    page.evaluate(
        """async () => {
            const { connect } = await import("/stream/sse.js");
            const headers = async () => ({ Authorization: `token ${++turn}` });
            window.stream = connect("/moody", { headers, shared: false });
        }"""
    )
    wait_for(page, "refused")
    asked = server.request("GET", "/asked").body.decode()
    assert asked.index("token 1") < asked.index("token 2")
    assert "token 3" not in asked


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_for_good(server: Server, page: Page, status: int) -> None:
    server.request("POST", "/next", [[status, {}, ""]] * 3)
    connect(page, "/moody", state="refused")
    (detail,) = told(page, "refused")
    assert detail["status"] == status
    assert page.evaluate("stream.readyState") == 2


def test_a_page_instead_of_a_stream_is_refused_in_words(
    server: Server, page: Page
) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    server.request("POST", "/next", [[302, {"Location": "/page"}, ""]])
    connect(page, "/moody", state="refused")
    (sentence,) = said
    assert sentence.startswith("No event stream: 200 text/html")
    assert "/page" in sentence


def test_a_closed_channel_ends_the_stream(
    server: Server, page: Page, channel: str
) -> None:
    connect(page, stream_of(channel))
    server.close(channel)
    wait_for(page, "ended")
    assert len(told(page, "end")) == 1
    connect(page, stream_of(channel, last_event_id="0"), state="ended")


class TestSilence:
    @pytest.fixture(scope="class")
    @classmethod
    def running(cls) -> Iterator[Server]:
        with serve_with(SHORT_HEARTBEAT) as server:
            yield server

    def test_a_connection_that_falls_silent_is_cut(
        self, server: Server, proxy: Proxy, page: Page, channel: str
    ) -> None:
        connect(page, stream_of(channel))
        proxy.fall_silent()
        publish(server, channel, "into silence")
        assert take(page, 1) == ["into silence"]
        # A pause of this machine can be one more silence.
        reasons = {detail["reason"] for detail in told(page, "waiting")}
        assert reasons == {"The stream is silent"}

    @pytest.mark.parametrize("hours", [5, -5])
    def test_it_is_a_cut_whatever_the_clock_does(
        self, server: Server, proxy: Proxy, page: Page, channel: str, hours: int
    ) -> None:
        page.evaluate(CLOCK)
        connect(page, stream_of(channel))
        publish(server, channel, "0")
        take(page, 1)
        proxy.fall_silent()
        page.evaluate(f"hours = {hours}")
        publish(server, channel, "1")
        assert take(page, 2) == ["0", "1"]


def test_a_heartbeat_keeps_a_stream_alone(
    server: Server, page: Page, channel: str
) -> None:
    connect(page, stream_of(channel))
    # Without a sign of life, 2.5 heartbeats of silence would be a cut.
    page.wait_for_timeout(3 * HEARTBEAT * 1000)
    publish(server, channel, "still the first connection")
    take(page, 1)
    assert told(page, "waiting") == []


def test_a_silence_is_measured_by_what_the_stream_says(
    server: Server, page: Page
) -> None:
    # Nothing but the opening's comment comes, and no end.
    connect(page, "/stream?channel=quiet")
    page.evaluate(
        """async () => {
            const ours = fetch;
            window.fetch = async () => new Response(
                new ReadableStream({ start(c) {
                    c.enqueue(new TextEncoder().encode(": heartbeat 0.1\\n\\n"));
                } }), { headers: { "Content-Type": "text/event-stream" } });
            stream.close();
            const { connect } = await import("/stream/sse.js");
            window.stream = connect("/stream", { shared: false });
            window.waits = [];
            stream.addEventListener("waiting", e => {
                waits.push(e.detail.reason); window.fetch = ours; });
        }"""
    )
    page.wait_for_function("waits.length && stream.state === 'open'")
    assert page.evaluate("waits") == ["The stream is silent"]


#: What a view of two channels sends whose address names neither.
PAIR = """channel: a
data: 0

channel: b
event: stream-error
data: {"reason": "mine"}

event: stream-end
data:

"""


def test_a_view_of_several_channels_tells_all_of_each(
    server: Server, page: Page
) -> None:
    server.request("POST", "/next", [[200, LONG_WAIT[1], PAIR]])
    connect(page, "/moody", state="ended")
    assert take(page, 1) == ["0"]
    assert [detail["reason"] for detail in told(page, "end")] == ["mine"]


def test_channels_are_added_and_dropped_without_a_hole_or_a_double(
    server: Server, page: Page, channel: str
) -> None:
    other = f"{channel}.other"
    connect(page, stream_of(channel))
    publish(server, channel, "0")
    take(page, 1)
    page.evaluate("name => { window.added = stream.add(name); }", other)
    publish(server, channel, "1", "2")
    page.evaluate("added")
    publish(server, other, "3")
    assert take(page, 4) == ["0", "1", "2", "3"]
    page.evaluate("name => stream.drop(name)", other)
    publish(server, other, "not heard")
    publish(server, channel, "4")
    assert take(page, 5) == ["0", "1", "2", "3", "4"]
    assert page.evaluate("stream.channels") == [channel]


def test_a_channel_that_is_refused_leaves_the_others(
    server: Server, page: Page, channel: str
) -> None:
    connect(page, stream_of(channel))
    failed = page.evaluate("stream.add('secret').then(() => false, () => true)")
    assert failed
    wait_for(page, "open")
    publish(server, channel, "still here")
    assert take(page, 1) == ["still here"]


def test_channels_come_and_go_in_a_burst_without_a_hole_or_a_double(
    server: Server, page: Page, channel: str
) -> None:
    other = f"{channel}.other"
    connect(page, stream_of(channel))
    page.evaluate(
        """name => {
            window.over = false;
            (async () => {
                while (!over) {
                    await stream.add(name);
                    await stream.drop(name);
                    await new Promise(resolve => setTimeout(resolve, 5));
                }
            })();
        }""",
        other,
    )
    texts = [str(n) for n in range(5 * HISTORY)]
    for n, text in enumerate(texts, 1):
        publish(server, other, "perhaps")
        publish(server, channel, text)
        if n % (HISTORY // 2) == 0:  # No more at once than the server keeps.
            page.wait_for_function("text => seen.includes(text)", arg=text)
    page.evaluate("over = true")
    publish(server, channel, "last")
    page.wait_for_function("seen.at(-1) === 'last'")
    heard = [text for text in page.evaluate("seen") if text != "perhaps"]
    assert heard == [*texts, "last"]
    assert told(page, "gap") == []


def test_the_last_channel_that_is_dropped_closes_the_stream(
    server: Server, page: Page, channel: str
) -> None:
    connect(page, stream_of(channel))
    page.evaluate("name => stream.drop(name)", channel)
    wait_for(page, "closed")


def test_a_reloaded_page_goes_on_where_it_was(
    server: Server, page: Page, channel: str
) -> None:
    options = {"resume": "place", "shared": False}
    connect(page, stream_of(channel), options)
    publish(server, channel, "before")
    take(page, 1)
    page.reload()
    publish(server, channel, "meanwhile")
    connect(page, stream_of(channel), options)
    assert take(page, 1) == ["meanwhile"]


def test_a_gap_is_told_with_what_was_lost(
    server: Server, proxy: Proxy, page: Page, channel: str
) -> None:
    connect(page, stream_of(channel))
    (since,) = publish(server, channel, "seen")
    take(page, 1)
    proxy.cut()
    wait_for(page, "waiting")
    texts = [str(n) for n in range(3 * HISTORY)]
    publish(server, channel, *texts)
    proxy.mend()
    assert take(page, 1 + HISTORY) == ["seen", *texts[-HISTORY:]]
    assert told(page, "gap") == [{"since": since, "channels": [channel]}]


def asked(server: Server) -> list[dict[str, str]]:
    """The requests for ``/moody``."""
    heard: list[dict[str, str]] = json.loads(server.request("GET", "/asked").body)
    return heard


def test_a_posted_body_is_sent_once_and_its_run_is_resumed(
    server: Server, proxy: Proxy, page: Page, channel: str
) -> None:
    server.request("POST", "/next", [])
    connect(page, "/moody", {"body": channel})
    publish(server, channel, "0")
    take(page, 1)
    proxy.cut()
    wait_for(page, "waiting")
    publish(server, channel, "1", "2")
    proxy.mend()
    take(page, 3)
    server.close(channel)
    wait_for(page, "ended")
    assert take(page, 3) == ["0", "1", "2"]
    assert [(a["method"], a["body"]) for a in asked(server)] == [("POST", channel)]


@pytest.mark.parametrize("status", [429, 503])
def test_a_body_that_the_server_did_not_take_is_sent_again(
    server: Server, page: Page, channel: str, status: int
) -> None:
    server.request("POST", "/next", [[status, {}, ""]])
    connect(page, "/moody", {"body": channel})
    assert [a["body"] for a in asked(server)] == [channel] * 2


def test_a_body_whose_fate_is_unknown_is_not_sent_again(
    server: Server, page: Page
) -> None:
    server.request("POST", "/next", [[500, {}, ""]])
    connect(page, "/moody", {"body": "a question"}, state="refused")
    assert len(asked(server)) == 1


def wait_long(server: Server, page: Page, options: Any = ALONE) -> None:
    """Have a stream wait for ten minutes."""
    server.request("POST", "/next", [LONG_WAIT])
    page.evaluate("Math.random = () => 1")
    connect(page, "/moody", options, state="waiting")
    assert told(page, "waiting")[0]["delay"] == 600_000


def test_it_comes_back_at_once_when_the_page_is_visible_again(
    server: Server, page: Page
) -> None:
    wait_long(server, page)
    page.evaluate(HIDE, True)
    assert page.evaluate("stream.state") == "waiting"
    page.evaluate(HIDE, False)
    wait_for(page, "open")


def test_it_comes_back_at_once_when_the_browser_is_online_again(
    server: Server, page: Page
) -> None:
    wait_long(server, page)
    page.context.set_offline(True)
    assert page.evaluate("stream.state") == "waiting"
    page.context.set_offline(False)
    wait_for(page, "open")


def test_it_does_not_come_back_before_the_server_wants_it(
    server: Server, page: Page
) -> None:
    server.request("POST", "/next", [[429, {"Retry-After": "600"}, ""]])
    connect(page, "/moody", state="waiting")
    page.evaluate("dispatchEvent(new Event('online'))")
    page.evaluate(HIDE, False)
    assert page.evaluate("stream.state") == "waiting"
    assert len(asked(server)) == 1


def test_a_hidden_page_pauses_where_it_is_asked_to(
    server: Server, page: Page, channel: str
) -> None:
    connect(page, stream_of(channel), {**ALONE, "pauseWhenHidden": True})
    publish(server, channel, "0")
    take(page, 1)
    page.evaluate(HIDE, True)
    wait_for(page, "waiting")
    until(lambda: server.stats()["streams"] == 0)
    publish(server, channel, "1")
    page.evaluate("dispatchEvent(new Event('online'))")
    page.evaluate(HIDE, False)
    assert take(page, 2) == ["0", "1"]


def test_a_hidden_page_stays_connected_otherwise(
    server: Server, page: Page, channel: str
) -> None:
    connect(page, stream_of(channel))
    page.evaluate(HIDE, True)
    publish(server, channel, "0")
    assert take(page, 1) == ["0"]
    assert told(page, "waiting") == []


def test_a_page_that_is_left_does_not_join_again_on_its_way(
    server: Server, page: Page, channel: str
) -> None:
    """A page hears that it is hidden after it has heard that it is left. If it joined
    again then, it would be kept with a lock that is asked for, or not be kept."""
    connect(page, stream_of(channel))
    page.evaluate("dispatchEvent(new Event('pagehide'))")
    page.evaluate(HIDE, True)
    until(lambda: server.stats()["streams"] == 0)
    assert page.evaluate(LOCKS) == 0
    page.evaluate(HIDE, False)
    publish(server, channel, "0")
    assert take(page, 1) == ["0"]


def test_a_worker_has_no_page_and_hears_all_the_same(
    server: Server, page: Page, channel: str
) -> None:
    page.evaluate(WORKER, stream_of(channel))
    until(lambda: page.evaluate("told") == ["open"])
    publish(server, channel, "0")
    until(lambda: page.evaluate("told") == ["open", "0"])


def test_an_elements_event_of_the_same_name_is_none_of_the_pages(
    server: Server, page: Page, channel: str
) -> None:
    connect(page, stream_of(channel))
    page.evaluate("document.body.dispatchEvent(new Event('freeze', { bubbles: true }))")
    publish(server, channel, "0")
    assert take(page, 1) == ["0"]
    assert told(page, "waiting") == []


@pytest.mark.parametrize("hours", [5, -5])
def test_a_clock_that_jumps_loses_nothing(
    server: Server, page: Page, channel: str, hours: int
) -> None:
    page.evaluate(CLOCK)
    connect(page, stream_of(channel))
    publish(server, channel, "0")
    take(page, 1)
    page.evaluate(f"hours = {hours}")
    publish(server, channel, "1")
    take(page, 2)
    page.evaluate("dispatchEvent(new Event('online'))")
    publish(server, channel, "2")
    assert take(page, 3) == ["0", "1", "2"]
    assert told(page, "gap") == []


@pytest.mark.parametrize("hours", [5, -5])
def test_a_wait_ends_whatever_the_clock_does(
    server: Server, proxy: Proxy, page: Page, channel: str, hours: int
) -> None:
    page.evaluate(CLOCK)
    connect(page, stream_of(channel))
    publish(server, channel, "0")
    take(page, 1)  # Before its first block, a page has no id to come back to.
    proxy.cut()
    wait_for(page, "waiting")
    page.evaluate(f"hours = {hours}")
    publish(server, channel, "1")
    proxy.mend()
    assert take(page, 2) == ["0", "1"]


def test_a_token_that_has_expired_is_asked_for_anew(server: Server, page: Page) -> None:
    server.request("POST", "/next", [[401, {}, ""]])
    page.evaluate(
        """async () => {
            const { connect } = await import("/stream/sse.js");
            let turn = 0;
            const headers = async () => ({ Authorization: `token ${++turn}` });
            window.stream = connect("/moody", { headers, shared: false });
        }"""
    )
    wait_for(page, "open")
    assert [a["token"] for a in asked(server)] == ["token 1", "token 2"]


def test_a_stream_of_another_origin_is_resumed(
    server: Server, proxy: Proxy, page: Page, channel: str
) -> None:
    page.goto(f"{server.url}/page")
    connect(page, f"{proxy.url}{stream_of(channel)}")
    publish(server, channel, "0")
    take(page, 1)
    proxy.cut()
    wait_for(page, "waiting")
    publish(server, channel, "1")
    proxy.mend()
    assert take(page, 2) == ["0", "1"]


def test_a_strict_policy_has_nothing_to_say(
    server: Server, page: Page, channel: str
) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{server.url}/strict{stream_of(channel).removeprefix('/stream')}")
    # (Playwright waits by what the policy forbids.)
    until(lambda: page.evaluate("window.stream?.state") == "open")
    publish(server, channel, "0")
    until(lambda: page.evaluate("seen") == ["0"])
    assert said == []


#: A worker tells the page what it hears, and what is wrong, behind an event of its own.
WORKER = """target => {
    const code = `
        import { connect } from "${location.origin}/stream/sse.js";
        onerror = message => postMessage(message);
        const stream = connect("${location.origin}${target}");
        stream.onopen = () => {
            dispatchEvent(new Event("online"));
            postMessage("open");
        };
        stream.onmessage = ({ data }) => postMessage(data);`;
    const file = new Blob([code], { type: "text/javascript" });
    window.told = [];
    window.worker = new Worker(URL.createObjectURL(file), { type: "module" });
    worker.onmessage = ({ data }) => told.push(data);
}"""

#: How many locks the page has or asks for, once it has joined, if it does so now.
LOCKS = """async () => {
    await crypto.subtle.digest("SHA-256", new Uint8Array(1));
    const { held, pending } = await navigator.locks.query();
    return held.length + pending.length;
}"""

#: Counts what a page holds: timers, channels between tabs, locks, and listeners.
COUNT = """
    const timers = new Set(), channels = new Set(), listening = [];
    const { setTimeout: start, clearTimeout: stop } = window;
    window.setTimeout = (act, ...more) => {
        const id = start(() => { timers.delete(id); act(); }, ...more);
        timers.add(id);
        return id;
    };
    window.clearTimeout = id => { timers.delete(id); stop(id); };
    window.BroadcastChannel = class extends BroadcastChannel {
        constructor(name) { super(name); channels.add(this); }
        close() { channels.delete(this); super.close(); }
    };
    const { addEventListener } = EventTarget.prototype;
    EventTarget.prototype.addEventListener = function (type, act, options) {
        const isOfPage = [window, document].includes(this ?? window);
        if (isOfPage) listening.push(options?.signal);
        return addEventListener.call(this ?? window, type, act, options);
    };
    window.addEventListener = EventTarget.prototype.addEventListener;
    window.left = async () => {
        const { held, pending } = await navigator.locks.query();
        return [timers.size, channels.size, held.length, pending.length,
                listening.filter(signal => !signal?.aborted).length];
    };
"""


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("state", ["open", "waiting", "connecting", "refused", "ended"])
def test_a_stream_that_is_over_leaves_nothing_behind(
    server: Server, proxy: Proxy, page: Page, channel: str, state: str, shared: bool
) -> None:
    page.add_init_script(f"(() => {{ {COUNT} }})()")
    page.reload()
    until_then = page.evaluate("left()")
    target = stream_of("secret" if state == "refused" else channel)
    if state in ("waiting", "connecting"):
        wait_long(server, page, {"shared": shared})
        target = "/moody"
    if state == "ended":
        server.close(channel)
    if state == "connecting":
        page.evaluate("() => { window.fetch = () => new Promise(() => {}); }")
        page.evaluate("dispatchEvent(new Event('online'))")
        wait_for(page, state)
    elif state != "waiting":
        connect(page, target, {"shared": shared}, state=state)
    if state in ("open", "waiting", "connecting"):
        assert page.evaluate("left()") != until_then
    page.evaluate("stream.close()")
    page.wait_for_function(
        "async expected => `${await left()}` === `${expected}`", arg=until_then
    )


def test_an_exception_in_a_listener_stops_nothing(
    server: Server, page: Page, channel: str
) -> None:
    connect(page, stream_of(channel))
    page.evaluate("""() => {
        stream.onmessage = () => { throw new Error("mine"); };
        stream.addEventListener("message", e => seen.push(e.data));
        stream.json("parsed", data => seen.push(data.n));
    }""")
    publish(server, channel, "0", "1")
    server.publish({"data": {"n": 7}, "type": "parsed", "channel": channel})
    assert take(page, 3) == ["0", "1", 7]


def test_a_stream_can_be_iterated_and_closed_by_a_signal(
    server: Server, page: Page, channel: str
) -> None:
    page.evaluate(
        """async url => {
            const { connect } = await import("/stream/sse.js");
            window.control = new AbortController();
            window.seen = [];
            window.over = false;
            window.stream = connect(url, { signal: control.signal });
            (async () => {
                for await (const event of stream) seen.push(event.data);
                over = true;
            })();
        }""",
        stream_of(channel),
    )
    wait_for(page, "open")
    publish(server, channel, "0", "1")
    assert take(page, 2) == ["0", "1"]
    page.evaluate("control.abort()")
    page.wait_for_function("over && stream.state === 'closed'")


def test_a_page_that_was_left_comes_back_to_its_stream(
    server: Server, proxy: Proxy, page: Page, channel: str
) -> None:
    connect(page, stream_of(channel), {})
    page.goto(f"{proxy.url}/ping")
    until(lambda: server.stats()["streams"] == 0)
    publish(server, channel, "meanwhile")
    page.evaluate("() => { setTimeout(() => history.back()) }")
    page.wait_for_url("**/page", wait_until="commit")
    assert take(page, 1) == ["meanwhile"]


# All tabs


Tabs = Callable[..., list[Page]]


@contextmanager
def tabs_of(browser: Browser, address: str, count: int) -> Iterator[list[Page]]:
    """Tabs of one visitor."""
    with ExitStack() as stack:
        context: BrowserContext = stack.enter_context(browser.new_context())
        context.set_default_timeout(PATIENCE * 1000)
        pages = [context.new_page() for _ in range(count)]
        for page in pages:
            page.goto(f"{address}/page")
        yield pages


def wait_for_streams(server: Server, count: int) -> None:
    until(lambda: server.stats()["streams"] == count)


def test_all_tabs_share_one_connection(
    server: Server, browser: Browser, channel: str
) -> None:
    with tabs_of(browser, server.url, 4) as pages:
        for page in pages:
            connect(page, stream_of(channel), {})
        wait_for_streams(server, 1)
        publish(server, channel, *"012345")
        assert [take(page, 6) for page in pages] == [list("012345")] * 4


def test_each_tab_is_told_of_its_own_gap_once(
    server: Server, browser: Browser, channel: str
) -> None:
    (since,) = publish(server, channel, "long ago")
    texts = [str(n) for n in range(2 * HISTORY)]
    publish(server, channel, *texts)
    with tabs_of(browser, server.url, 3) as (first, second, late):
        connect(first, stream_of(channel), {})
        connect(second, stream_of(channel), {})
        connect(late, stream_of(channel), {"lastEventId": since})
        publish(server, channel, "last")
        kept = [*texts, "last"][-HISTORY:]
        late.wait_for_function("seen.at(-1) === 'last'")
        assert take(late, HISTORY)[-HISTORY:] == kept
        assert told(late, "gap") == [{"since": since, "channels": [channel]}]
        for page in (first, second):
            assert take(page, 1) == ["last"]
            assert told(page, "gap") == []
        wait_for_streams(server, 1)


def test_a_channel_that_is_refused_to_a_tab_leaves_it_with_the_others(
    server: Server, browser: Browser, channel: str
) -> None:
    with tabs_of(browser, server.url, 2) as (page, other):
        connect(page, stream_of(channel), {})
        connect(other, stream_of(channel), {})
        assert other.evaluate("stream.add('secret').then(() => false, () => true)")
        wait_for_streams(server, 1)
        publish(server, channel, "still here")
        assert take(page, 1) == take(other, 1) == ["still here"]


def test_each_tab_hears_its_own_channels(
    server: Server, browser: Browser, channel: str
) -> None:
    channels = [f"{channel}.{n}" for n in range(3)]
    with tabs_of(browser, server.url, 3) as pages:
        for page, name in zip(pages, channels, strict=True):
            connect(page, stream_of(name), {})
        for page, name in zip(pages, channels, strict=True):
            publish(server, name, name)
            assert take(page, 1) == [name]
        wait_for_streams(server, 1)


def test_each_tab_gets_a_run_from_its_first_event(
    server: Server, browser: Browser, channel: str
) -> None:
    with tabs_of(browser, server.url, 3) as pages:
        for count, page in enumerate(pages, 1):
            connect(page, f"/answer?to={channel}", {})
            assert take(page, 1) == ["first"]
            wait_for_streams(server, count)
        publish(server, channel, "second")
        for page in pages:
            assert take(page, 2) == ["first", "second"]
        server.close(channel)
        for page in pages:
            wait_for(page, "ended")


def test_each_tab_gets_the_events_that_a_newcomer_is_replayed(
    server: Server, browser: Browser, channel: str
) -> None:
    publish(server, channel, *"0123")
    with tabs_of(browser, server.url, 3) as pages:
        for page in pages:
            connect(page, f"/moody?channel={channel}&replay=2", {})
            assert take(page, 2) == ["2", "3"]
        publish(server, channel, "4")
        for page in pages:
            assert take(page, 3) == ["2", "3", "4"]


def test_tabs_share_a_stream_again_after_a_proxy_told_them_to_come_back(
    server: Server, browser: Browser, channel: str
) -> None:
    with tabs_of(browser, server.url, 3) as pages:
        server.request("POST", "/next", [[*LONG_WAIT[:2], "retry: 10\n\n"]] * 3)
        for page in pages:
            connect(page, f"/moody?channel={channel}", {})
        publish(server, channel, "0")
        assert [take(page, 1) for page in pages] == [["0"]] * 3
        wait_for_streams(server, 1)


def test_tabs_with_different_headers_share_nothing(
    server: Server, browser: Browser, channel: str
) -> None:
    with tabs_of(browser, server.url, 3) as pages:
        for page, token in zip(pages, ["a", "b", "b"], strict=True):
            connect(page, stream_of(channel), {"headers": {"Authorization": token}})
        wait_for_streams(server, 2)


def test_a_tab_that_may_not_listen_takes_nothing_from_the_others(
    server: Server, browser: Browser, channel: str
) -> None:
    with tabs_of(browser, server.url, 2) as (page, other):
        connect(page, stream_of(channel), {})
        connect(other, stream_of("secret"), {}, state="refused")
        wait_for(page, "open")
        publish(server, channel, "still here")
        assert take(page, 1) == ["still here"]


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_another_tab_takes_over_and_nothing_is_lost(
    server: Server, browser: Browser, channel: str, how: str
) -> None:
    with tabs_of(browser, server.url, 4) as pages:
        for page in pages:
            connect(page, stream_of(channel), {})
        leader, *others = pages
        expected: list[str] = []

        def say(count: int) -> None:
            texts = [str(len(expected) + n) for n in range(count)]
            expected.extend(texts)
            publish(server, channel, *texts)

        say(3)
        if how == "closed":
            leader.close()
        else:
            with pytest.raises(Error):
                leader.goto("chrome://crash", timeout=5000)
        say(3)
        for page in others:
            page.wait_for_function("seen.length >= 6")
        say(2)
        assert [take(page, len(expected)) for page in others] == [expected] * 3
        wait_for_streams(server, 1)

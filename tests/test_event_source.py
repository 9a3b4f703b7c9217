"""What the module makes of a stream, beside what the browser's own EventSource makes of
it: the same, or the difference stands here with its reason.

The cases are those of WHATWG HTML, 9.2, that the web platform's tests look at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any, NamedTuple

import pytest

from .scripted import EVENT_STREAM, Answer, Scripted, scripted
from .servers import until
from .visitors import VISITORS, Tab

#: Notes what a source dispatches until it is closed for good, as texts and lists.
#: ``act`` does something with the source before that.
NOTE = """(async ([isModule, url, types, act]) => {
    const { connect } = await import("/stream/sse.js");
    const source = isModule ? connect(url, { shared: false }) : new EventSource(url);
    const seen = [];
    const say = what => seen.push(what);
    for (const type of ["message", ...types]) {
        source.addEventListener(type, e => say([e.type, e.data, e.lastEventId]));
    }
    source.addEventListener("open", () => say(`open ${source.readyState}`));
    return new Promise(resolve => {
        const end = () => resolve(seen);
        source.addEventListener("error", () => {
            say(`error ${source.readyState}`);
            if (source.readyState === 2) end();
        });
        Function("source", "say", "end", act)(source, say, end);
    });
})(%s)"""

#: A client comes back at once.
SOON = b"retry: 1\n\n"

#: A client that took this for good would not come back while the test waits.
LATE = b"retry: 600000\n\n"

BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


class Case(NamedTuple):
    """A stream, and the events that come of it."""

    #: Bytes, or text in UTF-8. The connection ends behind them.
    stream: str | bytes
    #: Each event's type, data and id.
    events: Sequence[tuple[str, str, str]] = ()
    #: What comes before the stream. (A BOM must come first.)
    before: bytes = SOON
    #: What the client is behind when it comes back.
    id: str | None = None


def said(*texts: str) -> list[tuple[str, str, str]]:
    """Messages without an id."""
    return [("message", text, "") for text in texts]


#: What a source makes of a stream. There is one difference: when it is open.
FORMAT = {
    # Lines
    "line feeds": Case("data: a\n\ndata: b\n\n", said("a", "b")),
    "carriage returns": Case("data: a\r\rdata: b\r\r", said("a", "b")),
    "both": Case("data: a\r\n\r\ndata: b\r\n\r\n", said("a", "b")),
    "mixed": Case("data: a\n\rdata: b\r\n\ndata: c\r\n\r", said("a", "b", "c")),
    "other ends of lines are none": Case(
        "data: a\v\f\x85\u2028\u2029b\n\n", said("a\v\f\x85\u2028\u2029b")
    ),
    "no end of the last block": Case("data: a\n\ndata: b\n", said("a")),
    "no end of the last line": Case("data: a\n\ndata: b", said("a")),
    "an empty stream": Case(""),
    "empty blocks": Case("\n\n\n\ndata: a\n\n\n\n", said("a")),
    # Bytes
    "a BOM": Case(f"{BOM}retry: 1\ndata: a\n\n", said("a"), before=b""),
    "two BOMs": Case(
        f"{BOM}{BOM}data: a\n\nretry: 1\ndata: b\n\n", said("b"), before=b""
    ),
    "a BOM within": Case(f"data: {BOM}a\n\n{BOM}data: b\n\n", said(f"{BOM}a")),
    "UTF-8": Case("data: größer 😀 ok…\n\n", said("größer 😀 ok…")),
    "what is no UTF-8": Case(
        b"data: \xff\xc3(\xed\xa0\x80\n\n", said("\ufffd\ufffd(\ufffd\ufffd\ufffd")
    ),
    "a character that is cut off": Case(b"data: a\xe2\x82\n\n", said("a\ufffd")),
    "a NUL": Case("data: a\0b\n\n\0data: c\n\n", said("a\0b")),
    # Fields
    "no colon": Case("data\n\ndata\ndata\n\n", said("", "\n")),
    "no value": Case("data:\n\ndata:\ndata:\n\n", said("", "\n")),
    "one space is taken off": Case(
        "data:a\ndata: a\ndata:  a\ndata:\ta\ndata: a \n\n", said("a\na\n a\n\ta\na ")
    ),
    "colons in a value": Case("data::a: b:\n\n", said(":a: b:")),
    "names are what they are": Case(
        "Data: a\nDATA: a\n data: a\ndata : a\ndatas: a\ndat: a\ndata: b\n\n", said("b")
    ),
    "unknown fields": Case("x: a\ny\n: z\ndata: b\n\n", said("b")),
    "comments": Case(": a\n:\n::\n:data: b\ndata: c\n:d\n\n:\n\n", said("c")),
    "only comments": Case(":\n\n: a\n\n"),
    "a long line": Case(f"data: {'x' * 100_000}\n\n", said("x" * 100_000)),
    "a long comment": Case(f":{'x' * 100_000}\ndata: a\n\n", said("a")),
    # Types
    "a type": Case("event: x\ndata: a\n\n", [("x", "a", "")]),
    "a type after the data": Case("data: a\nevent: x\n\n", [("x", "a", "")]),
    "the last type": Case("event: y\nevent: x\ndata: a\n\n", [("x", "a", "")]),
    "an empty type": Case("event: \ndata: a\n\nevent\ndata: b\n\n", said("a", "b")),
    "a type that is taken back": Case("event: x\nevent\ndata: a\n\n", said("a")),
    "a type without data": Case("event: x\n\ndata: a\n\n", said("a")),
    "a type is for one block": Case(
        "event: x\ndata: a\n\ndata: b\n\n", [("x", "a", ""), *said("b")]
    ),
    "a type with spaces": Case("event:  x \ndata: a\n\n", [(" x ", "a", "")]),
    # Ids
    "an id": Case(
        "id: 1\ndata: a\n\ndata: b\n\n",
        [("message", "a", "1"), ("message", "b", "1")],
        id="1",
    ),
    "an id without data": Case("id: 1\n\ndata: a\n\n", [("message", "a", "1")], id="1"),
    "an id of a block that does not end": Case(
        "id: 1\ndata: a\n\nid: 2\ndata: b\n", [("message", "a", "1")], id="1"
    ),
    "an id that is taken back": Case(
        "id: 1\ndata: a\n\nid\ndata: b\n\n", [("message", "a", "1"), *said("b")]
    ),
    "the last id": Case("id: 1\nid: 2\ndata: a\n\n", [("message", "a", "2")], id="2"),
    "an id with a NUL": Case(
        "id: 1\n\nid: 2\0\ndata: a\n\nid: \0\ndata: b\n\n",
        [("message", "a", "1"), ("message", "b", "1")],
        id="1",
    ),
    "an id that is no ASCII": Case(
        "id: größer…\ndata: a\n\n", [("message", "a", "größer…")], id="größer…"
    ),
    "an id of spaces within": Case(
        "id: 1 2\ndata: a\n\n", [("message", "a", "1 2")], id="1 2"
    ),
    # Waits
    "a wait": Case("retry: 1\n\n", before=LATE),
    "a wait without a space": Case("retry:1\n\n", before=LATE),
    "a wait beside data": Case("data: a\nretry: 1\n\n", said("a"), before=LATE),
    "a wait with zeros": Case("retry: 0001\n\n", before=LATE),
    "waits that are none": Case(
        "".join(
            f"retry: {wait}\n\n"
            for wait in ["6e5", "600000x", "600000 ", "+600000", "-1", "600000.5", "٦"]
        )
        + "data: a\n\n",
        said("a"),
    ),
}


#: Those of them in which a server says nothing of its stream.
SAYING_NOTHING = {
    *("an empty stream", "a wait", "a wait without a space", "a wait with zeros"),
}


def note(tab: Tab, is_module: bool, url: str, types: Sequence[str], act: str) -> Any:
    return tab.evaluate(NOTE % json.dumps([is_module, url, types, act]))


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture(scope="module")
def tab(server: Scripted) -> Iterator[Tab]:
    with VISITORS["chromium"]() as visitor:
        yield visitor.open(f"{server.url}/page")


sources = pytest.mark.parametrize("is_module", [False, True], ids=["browser", "module"])


@sources
@pytest.mark.parametrize("name", FORMAT)
def test_a_stream_gives_the_same_events(
    server: Scripted, tab: Tab, name: str, is_module: bool
) -> None:
    case = FORMAT[name]
    stream = case.stream if isinstance(case.stream, bytes) else case.stream.encode()
    server.script("/case", [Answer(case.before + stream)])
    seen = note(tab, is_module, "/case", ["x", " x ", "y"], "")
    events = [list(event) for event in case.events]
    # The module is not open before a block says more than when to come back.
    opens = [] if is_module and name in SAYING_NOTHING else ["open 1"]
    assert seen == [*opens, *events, "error 0", "error 2"]
    first, second = server.asked
    assert (first.accept, first.last_event_id) == ("text/event-stream", None)
    # http.server reads a header's bytes as Latin-1.
    id = case.id and case.id.encode().decode("latin-1")
    assert (second.accept, second.last_event_id) == ("text/event-stream", id)


class Manner(NamedTuple):
    """How a source behaves towards a server, or a page."""

    answers: Sequence[Answer]
    seen: Sequence[Any]
    #: What the page does with the source.
    act: str = ""
    url: str = "/case"
    #: What the module's stream dispatches instead, and why.
    of_module: Sequence[Any] | None = None
    reason: str = ""


#: A stream of one event.
HELLO = Answer(SOON + b"data: hello\n\n")
HEARD = ["message", "hello", ""]
#: What a source says that has read it, and then is told that no more is to come.
ONCE = ["open 1", HEARD, "error 0", "error 2"]
CLOSED = ["error 2"]

#: Says in which state a source is, once nothing more can come of what it had read.
LATER = "setTimeout(() => { say(`${source.readyState}`); end(); }, 50);"


CHARSET = "Chromium refuses a charset that is not UTF-8. The standard ignores it."
HANDLER = "A handler comes before all listeners, whenever it was set."


def typed(content_type: str) -> Answer:
    return HELLO._replace(headers={"Content-Type": content_type})


def failing(status: int) -> Manner:
    """A status at which only the module comes back."""
    return Manner(
        [Answer(status=status, headers={}), HELLO],
        CLOSED,
        of_module=["error 0", *ONCE],
        reason="A server that restarts is back soon.",
    )


def to(status: int, target: str = "/there") -> Answer:
    return Answer(status=status, headers={"Location": target})


MANNERS = {
    # What is an event stream
    "a charset": Manner([typed("text/event-stream;charset=utf-8")], ONCE),
    "another charset": Manner(
        [
            Answer(
                SOON + "data: größer\n\n".encode(),
                headers={"Content-Type": "text/event-stream;charset=windows-1252"},
            )
        ],
        CLOSED,
        of_module=["open 1", ["message", "größer", ""], "error 0", "error 2"],
        reason=CHARSET,
    ),
    "a charset that is none": Manner(
        [typed("text/event-stream; charset=x")], CLOSED, of_module=ONCE, reason=CHARSET
    ),
    "a semicolon": Manner([typed("text/event-stream;")], ONCE),
    "another parameter": Manner([typed("text/event-stream; x=y; z")], ONCE),
    "capitals": Manner([typed("TEXT/Event-Stream")], ONCE),
    "spaces": Manner([typed("text/event-stream ; charset=utf-8")], ONCE),
    "another type": Manner([typed("text/x-bogus")], CLOSED),
    "a longer type": Manner([typed("text/event-streams")], CLOSED),
    "a type that is none": Manner(
        [typed("text/event-stream x")],
        ONCE,
        of_module=CLOSED,
        reason="Chromium takes the first word. The standard knows no such type.",
    ),
    "a page": Manner([typed("text/html")], CLOSED),
    "no type": Manner([HELLO._replace(headers={})], CLOSED),
    # Statuses
    "204": Manner([], CLOSED),
    **{
        f"{status}": Manner([HELLO._replace(status=status)], CLOSED)
        for status in (205, 206, 400, 401, 403, 404, 410)
    },
    **{f"{status}": failing(status) for status in (408, 429, 500, 502, 503, 504)},
    "no answer": Manner([Answer(status=None)], ["error 0", "error 2"]),
    # Redirects
    **{
        f"{status}": Manner([to(status), to(status)], ONCE)
        for status in (301, 302, 303, 307, 308)
    },
    "a redirect to what is no stream": Manner([to(302, "/page")], CLOSED),
    # Closing
    "closed in a listener": Manner(
        [Answer(SOON + b"data: hello\n\ndata: never\n\n")],
        ["open 1", HEARD, "2"],
        f"source.onmessage = () => {{ source.close(); {LATER} }}",
    ),
    "closed when it opens": Manner(
        [HELLO],
        ["open 1", "2"],
        f"source.onopen = () => {{ source.close(); {LATER} }}",
        of_module=["open 2", "2"],
        reason=HANDLER,
    ),
    "closed while it waits": Manner(
        [HELLO],
        ["open 1", HEARD, "error 0", "2"],
        f"source.onerror = () => {{ source.close(); {LATER} }}",
        of_module=["open 1", HEARD, "error 2"],
        reason=HANDLER,
    ),
    "closed at once": Manner([HELLO], ["2"], f"source.close(); {LATER}"),
    "closed twice": Manner([HELLO], ["2"], f"source.close(); source.close(); {LATER}"),
    # Handlers
    "a handler is set anew": Manner(
        [HELLO],
        ["open 1", HEARD, "new", "error 0", "error 2"],
        "source.onmessage = () => say('old'); source.onmessage = () => say('new')",
        of_module=["open 1", "new", HEARD, "error 0", "error 2"],
        reason=HANDLER,
    ),
    "a handler is taken off": Manner(
        [HELLO],
        ONCE,
        "source.onmessage = () => say('old'); source.onmessage = null",
    ),
    "a handler is what was set": Manner(
        [],
        ["null null null", "true", *CLOSED],
        "const { onopen, onmessage, onerror } = source; "
        "say(`${onopen} ${onmessage} ${onerror}`); "
        "source.onerror = say; say(`${source.onerror === say}`); "
        "source.onerror = null",
    ),
    "a handler's this is the source": Manner(
        [HELLO],
        ["open 1", HEARD, "true", "error 0", "error 2"],
        "source.onmessage = function () { say(`${this === source}`); }",
        of_module=["open 1", "true", HEARD, "error 0", "error 2"],
        reason=HANDLER,
    ),
    "a listener is called once": Manner(
        [Answer(SOON + b"event: y\ndata: a\n\nevent: y\ndata: b\n\n")],
        ["open 1", "a", "error 0", "error 2"],
        "source.addEventListener('y', e => say(e.data), { once: true })",
    ),
    "an event": Manner(
        [HELLO],
        ["open 1", HEARD, "MessageEvent false false true", "error 0", "error 2"],
        "source.addEventListener('message', e => say([e.constructor.name, e.bubbles, "
        "e.cancelable, e.origin === location.origin].join(' ')))",
    ),
    "an event is the browser's own": Manner(
        [HELLO],
        ["open 1", HEARD, "true", "error 0", "error 2"],
        "source.addEventListener('message', e => say(`${e.isTrusted}`))",
        of_module=["open 1", HEARD, "false", "error 0", "error 2"],
        reason="A script's events say that they are a script's.",
    ),
    # Addresses
    "an address of the page's folder": Manner([HELLO], ONCE, url="case"),
    "an address with a query": Manner([HELLO], ONCE, url="/case?x=%20y"),
    "an address with a fragment": Manner(
        [HELLO],
        ["/case#x", *ONCE],
        "say(source.url.slice(location.origin.length))",
        url="/case#x",
    ),
    "an address is told whole": Manner(
        [HELLO],
        ["/case", *ONCE],
        "say(source.url.slice(location.origin.length))",
        url="./x/../case",
    ),
    "the page's own address": Manner([], CLOSED, url=""),
}


@sources
@pytest.mark.parametrize("name", MANNERS)
def test_a_source_behaves_the_same_way_or_else_it_says_why(
    server: Scripted, tab: Tab, name: str, is_module: bool
) -> None:
    manner = MANNERS[name]
    server.script("/case", manner.answers)
    server.script("/there", [HELLO])
    seen = note(tab, is_module, manner.url, [], manner.act)
    differs = is_module and manner.of_module is not None
    assert seen == (manner.of_module if differs else manner.seen)
    assert (manner.of_module is None) == (not manner.reason)


def test_a_bad_address_is_an_error_of_its_own_kind(tab: Tab) -> None:
    """``EventSource`` throws a SyntaxError, which no script can tell from one of its
    own. The module lets ``URL`` speak, which names the address."""
    thrown = """(async make => {
        const { connect } = await import("/stream/sse.js");
        try { make(connect); } catch (error) { return error.name; }
    })"""
    url = '"http://["'
    assert tab.evaluate(f"{thrown}(() => new EventSource({url}))") == "SyntaxError"
    assert tab.evaluate(f"{thrown}(connect => connect({url}))") == "TypeError"


@sources
def test_after_a_redirect_the_module_asks_the_first_address_again(
    server: Scripted, tab: Tab, is_module: bool
) -> None:
    server.script("/there", [HELLO])
    server.script("/case", [to(302)])
    note(tab, is_module, "/case", [], "")
    # Chromium's own comes back to where it was led. The standard has it begin anew.
    last = "/case" if is_module else "/there"
    assert [asked.target for asked in server.asked] == ["/case", "/there", last]


def test_the_module_is_open_once_it_knows_where_the_stream_is(
    server: Scripted, tab: Tab
) -> None:
    """A head has no id. If the module were open with it, a channel that is added then
    would have it come back without one, and lose what lies in between."""
    first_block = Event()
    body = SOON + b": heartbeat 15\nid: 1\n\n"
    server.script("/case", [Answer(body, body_waits_for=first_block)])
    tab.evaluate(
        """(async () => {
            const { connect } = await import("/stream/sse.js");
            const real = window.fetch;
            window.seen = [];
            const got = new Promise(resolve => {
                window.fetch = async (...request) => {
                    const response = await real(...request);
                    setTimeout(resolve);  // The module has the head before that.
                    return response;
                };
            });
            const source = connect("/case", { shared: false });
            source.onopen = () => queueMicrotask(() => seen.push(source.lastEventId));
            source.onerror = () => seen.push(source.state);
            await got;
            seen.push(source.state);
            window.fetch = real;
        })()"""
    )
    first_block.set()
    until(lambda: tab.evaluate("seen.at(-1)") == "ended")
    assert tab.evaluate("seen") == ["connecting", "1", "waiting", "ended"]
    assert [asked.last_event_id for asked in server.asked] == [None, "1"]


@sources
def test_another_origin_is_told_the_id_where_it_need_not_be_asked(
    server: Scripted, tab: Tab, is_module: bool
) -> None:
    """The header of ``EventSource`` needs nobody's leave. A script's would be asked for
    by a request of its own, so the module puts the id into the address."""
    allowing = {**EVENT_STREAM, "Access-Control-Allow-Origin": "*"}
    hello = Answer(SOON + b"id: 1\ndata: hello\n\n", headers=allowing)
    over = Answer(status=204, headers={"Access-Control-Allow-Origin": "*"})
    with scripted() as other:
        other.script("/case", [hello, over])
        seen = note(tab, is_module, f"{other.url}/case", [], "")
        first, second = other.asked
    assert seen == ["open 1", ["message", "hello", "1"], "error 0", "error 2"]
    assert (first.target, first.last_event_id) == ("/case", None)
    if is_module:
        assert second[::2] == ("/case?last_event_id=1", None)
    else:
        assert second[::2] == ("/case", "1")

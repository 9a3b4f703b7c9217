"""Real servers, real sockets: what clients get under every server, and what is left of
them when they have gone."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from flask_sse_lite import Event

from .servers import (
    GRACE,
    HANDED_OFF,
    HOST,
    ITERATED,
    KINDS,
    PATIENCE,
    Client,
    Kind,
    Server,
    serve,
    stopped,
    until,
)

#: Longer than any test waits: in tests of silent streams, no heartbeat hides a missing
#: wake.
NEVER = 4 * PATIENCE

#: Seconds between heartbeats, on the servers whose heartbeats are tested.
HEARTBEAT = 1.0

#: Clients in tests of many: a worker of 32 threads can serve them once, but not twice.
MANY = 20

#: On servers with little room: the events kept of a channel, and the streams that are
#: allowed.
KEPT = 32
ROOM = 3

OPENING = re.compile(
    rb"event: stream-open\ndata: \nid: [0-9a-f]{16}-[0-9]+\nretry: ([0-9]+)\n"
    rb": heartbeat [0-9.]+ shareable\n\n"
)


def each(kinds: list[Kind]) -> pytest.MarkDecorator:
    """Parametrize a test with some kinds of server."""
    return pytest.mark.parametrize("kind", kinds, ids=str, indirect=True)


@pytest.fixture(scope="module", params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture(scope="module")
def silent_server(kind: Kind) -> Iterator[Server]:
    with kind.serve(heartbeat=NEVER) as server:
        yield server


@pytest.fixture(scope="module")
def lively_server(kind: Kind) -> Iterator[Server]:
    with kind.serve(heartbeat=HEARTBEAT) as server:
        yield server


@pytest.fixture(scope="module")
def tight_server(kind: Kind) -> Iterator[Server]:
    with kind.serve(
        heartbeat=NEVER, SSE_HISTORY=KEPT, SSE_MAX_CONNECTIONS=ROOM
    ) as server:
        yield server


def free(server: Server) -> Iterator[Server]:
    """A server that tests share. It has no streams when a test begins."""
    until(lambda: server.stats()["streams"] == 0)
    with server.watched():
        yield server


@pytest.fixture
def server(silent_server: Server) -> Iterator[Server]:
    """A server of each kind, without heartbeats; most tests share it."""
    yield from free(silent_server)


@pytest.fixture
def channel(server: Server) -> Iterator[str]:
    with server.channel() as name:
        yield name


@pytest.fixture
def lively(lively_server: Server) -> Iterator[Server]:
    """As ``server``, with heartbeats."""
    yield from free(lively_server)


@pytest.fixture
def lively_channel(lively: Server) -> Iterator[str]:
    with lively.channel() as name:
        yield name


@pytest.fixture
def tight(tight_server: Server) -> Iterator[Server]:
    """As ``server``, with little room."""
    yield from free(tight_server)


def texts(events: list[Event]) -> list[str]:
    return [event.data for event in events]


def sequence(id: str | None) -> int:
    """The sequence number in a position."""
    assert id is not None
    return int(id.rpartition("-")[2])


def receive(client: socket.socket, mark: bytes | None) -> bytes:
    """What comes up to a mark; all of it where there is none."""
    received = b""
    while mark is None or mark not in received:
        piece = client.recv(65536)
        if not piece:
            assert mark is None, received
            break
        received += piece
    return received


def parse(received: bytes) -> tuple[str, dict[str, str], bytes]:
    """An answer's status line, its headers in lower case, and what has come of its
    body."""
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = [line.split(": ", 1) for line in lines]
    headers = {name.lower(): value for name, value in fields}
    assert len(headers) == len(lines)
    return status, headers, body


def is_chunked(headers: dict[str, str]) -> bool:
    return headers.get("transfer-encoding") == "chunked"


def first_chunk(body: bytes) -> bytes:
    size, _, rest = body.partition(b"\r\n")
    return rest[: int(size, 16)]


# On the wire


def test_the_head_forbids_to_cache_to_transform_and_to_buffer(
    server: Server, kind: Kind, channel: str
) -> None:
    with socket.create_connection((HOST, server.port), timeout=PATIENCE) as client:
        client.sendall(
            f"GET /stream?channel={channel} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        )
        received = receive(client, b"\n\n")
    status, headers, body = parse(received)
    assert status == "HTTP/1.1 200 OK"
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-signed-by"] == "the application"
    assert "content-length" not in headers
    assert OPENING.fullmatch(first_chunk(body) if is_chunked(headers) else body)
    assert is_chunked(headers) == ("1.1" in kind.chunks)


def test_the_first_bytes_come_at_once_and_alone(server: Server, channel: str) -> None:
    with server.stream(channel) as client:
        assert client.status == 200
        opening = client.read()
    match = OPENING.fullmatch(opening)
    assert match
    assert 0.8 * 3000 <= int(match[1]) <= 1.2 * 3000


def test_an_event_is_written_as_the_format_has_it(server: Server, channel: str) -> None:
    with server.stream(channel) as client:
        client.read()
        server.publish(
            {
                "data": "one\ntwo\r\nthree\r",
                "type": "lines",
                "id": "7",
                "retry": 100,
                "channel": channel,
            }
        )
        expected = (
            b"event: lines\ndata: one\ndata: two\ndata: three\ndata: \n"
            b"id: 7\nretry: 100\n\n"
        )
        assert client.read_exactly(len(expected)) == expected


def test_data_arrives_as_it_was_published(server: Server, channel: str) -> None:
    data = [
        "",
        "\n",
        "\n\n",
        " ",
        "  a",
        "a\n\n b",
        "a\u2028b\u0085c\fd",
        "😀ß",
        ":",
        "id: 5",
    ]
    with server.stream(channel) as client:
        server.publish(*({"data": text, "channel": channel} for text in data))
        assert texts(client.take(len(data))) == data


def test_an_event_of_a_megabyte_arrives_whole(server: Server, channel: str) -> None:
    large = "".join(f"{line} äöü\n" for line in range(80_000))
    large += "x" * (2**20 - len(large.encode()))  # As large as an event can be.
    with server.stream(channel) as client:
        server.publish(
            {"data": large, "channel": channel}, {"data": "next", "channel": channel}
        )
        assert texts(client.take(2)) == [large, "next"]


def test_httpx_sse_reads_it_and_comes_back_to_what_it_missed(
    server: Server, channel: str
) -> None:
    url = f"{server.url}/stream?channel={channel}"
    with httpx.Client(timeout=PATIENCE, trust_env=False) as client:
        with connect_sse(client, "GET", url) as source:
            events = source.iter_sse()
            assert next(events).event == "stream-open"
            server.publish({"data": "a\nb", "type": "news", "channel": channel})
            seen = next(events)
            assert (seen.event, seen.data) == ("news", "a\nb")
        server.publish({"data": "missed", "channel": channel})
        since = {"Last-Event-ID": seen.id}
        with connect_sse(client, "GET", url, headers=since) as source:
            events = source.iter_sse()
            assert next(events).id == seen.id
            assert next(events).data == "missed"


# Coming back


def test_who_is_cut_before_the_first_event_misses_nothing(
    server: Server, channel: str
) -> None:
    with server.stream(channel) as client:
        opening = next(client.events)
        assert opening.id
    server.publish({"data": "missed", "channel": channel})
    with server.stream(channel, since=opening.id) as client:
        assert texts(client.take(1)) == ["missed"]


@pytest.mark.parametrize("way", ["since", "query"])
def test_who_comes_back_gets_what_it_missed_and_then_what_follows(
    server: Server, channel: str, way: str
) -> None:
    with server.stream(channel) as client:
        server.publish({"data": "0", "channel": channel})
        (seen,) = client.take(1)
    options: dict[str, Any] = {way: seen.id}
    server.publish(*({"data": str(n), "channel": channel} for n in range(1, 50)))
    with server.stream(channel, **options) as client:
        assert texts(client.take(49)) == [str(n) for n in range(1, 50)]
        server.publish({"data": "50", "channel": channel})
        assert texts(client.take(1)) == ["50"]


def test_the_header_goes_before_the_query(server: Server, channel: str) -> None:
    ids = server.publish(*({"data": str(n), "channel": channel} for n in range(4)))
    with server.stream(channel, since=ids[2], query=ids[0]) as client:
        assert texts(client.take(1)) == ["3"]


@pytest.mark.parametrize("way", ["since", "query"])
def test_an_id_may_be_any_text(server: Server, channel: str, way: str) -> None:
    for id in ("日本-ü", "a b&c=d%20", "-1", "😀"):
        server.publish(
            {"data": "before", "channel": channel},
            {"data": "seen", "id": id, "channel": channel},
            {"data": "missed", "channel": channel},
        )
        options: dict[str, Any] = {way: id}
        with server.stream(channel, **options) as client:
            opening = next(client.events)
            assert opening.id == id
            assert texts(client.take(1)) == ["missed"]


def test_an_id_that_is_not_known_is_a_gap(server: Server, channel: str) -> None:
    (id,) = server.publish({"data": "kept", "channel": channel})
    with server.stream(channel, since="who knows") as client:
        gap, kept = client.take(2)
    assert gap.type == "stream-gap"
    assert gap.json == {"since": "who knows", "channels": [channel]}
    assert sequence(gap.id) < sequence(kept.id)
    assert (kept.id, kept.data) == (id, "kept")


# Several channels


def test_several_channels_are_named_and_come_in_one_order(
    server: Server, channel: str
) -> None:
    other = f"{channel} the other"
    with server.stream(channel, other) as client:
        server.publish(
            {"data": "0", "channel": channel},
            {"data": "1", "channel": other},
            {"data": "elsewhere", "channel": f"{channel} not asked for"},
            {"data": "2", "channel": channel},
        )
        events = client.take(3)
        assert [(event.data, event.channel) for event in events] == [
            ("0", channel),
            ("1", other),
            ("2", channel),
        ]
    server.publish({"data": "3", "channel": other}, {"data": "4", "channel": channel})
    with server.stream(channel, other, since=str(events[1].id)) as client:
        assert texts(client.take(3)) == ["2", "3", "4"]
        server.close(other)


def test_a_channel_is_named_by_a_line_of_its_own(server: Server, channel: str) -> None:
    other = f"{channel} the other"
    with server.stream(channel, other) as client:
        client.read()
        (id,) = server.publish({"data": "x", "channel": other})
        expected = f"channel: {other}\ndata: x\nid: {id}\n\n".encode()
        assert client.read_exactly(len(expected)) == expected
        server.close(other)


# Ends


def test_the_end_of_a_channel_ends_its_streams_and_keeps_clients_away(
    server: Server, channel: str
) -> None:
    with server.stream(channel) as client:
        (id,) = server.publish({"data": "last", "channel": channel})
        server.close(channel)
        last, end = client.take(2)
        assert last.data == "last"
        assert end.type == "stream-end"
        assert list(client.events) == []
    for since in (str(end.id), ""):
        with server.stream(channel, since=since) as client:
            assert client.status == 204
            assert client.read() == b""
    with server.stream(channel, since=id) as client:
        assert [event.type for event in client.events] == ["stream-open", "stream-end"]


def test_a_channel_is_open_again_when_something_is_published(
    server: Server, channel: str
) -> None:
    server.publish({"data": "before", "channel": channel})
    server.close(channel)
    server.publish({"data": "after", "channel": channel})
    with server.stream(channel) as client:
        assert client.status == 200
        server.publish({"data": "live", "channel": channel})
        assert texts(client.take(1)) == ["live"]


def test_head_is_answered_at_once(server: Server, channel: str) -> None:
    with Client(server.port) as client:
        client.request(f"/stream?channel={channel}", "HEAD")
        assert client.status == 200
        assert client.headers["content-type"].startswith("text/event-stream")
        assert client.read() == b""
    assert server.stats()["streams"] == 0


@each([kind for kind in KINDS if kind.keeps_alive and kind.keeps_alive_after_head])
def test_head_leaves_the_connection_usable(server: Server, channel: str) -> None:
    with Client(server.port) as client:
        client.request(f"/stream?channel={channel}", "HEAD")
        assert client.read() == b""
        client.request("/ping")
        assert client.read() == b"pong"


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_a_client_of_http_1_0_is_served_to_the_end_of_the_connection(
    server: Server, kind: Kind, channel: str, connection: str
) -> None:
    with socket.create_connection((HOST, server.port), timeout=PATIENCE) as client:
        client.sendall(
            f"GET /stream?channel={channel} HTTP/1.0\r\n"
            f"Connection: {connection}\r\n\r\n".encode()
        )
        received = receive(client, b"\n\n")
        (id,) = server.publish({"data": "x", "channel": channel})
        server.close(channel)
        received += receive(client, None)
    _, headers, body = parse(received)
    assert headers.get("connection", "close").lower() == "close"
    assert is_chunked(headers) == ("1.0" in kind.chunks)
    if not is_chunked(headers):
        opening, _, rest = body.partition(b"\n\n")
        assert OPENING.fullmatch(opening + b"\n\n")
        assert rest.startswith(f"data: x\nid: {id}\n\nevent: stream-end\n".encode())
        assert rest.endswith(b"\n\n")


@each([kind for kind in KINDS if kind.keeps_alive])
def test_a_connection_may_serve_requests_before_it_serves_a_stream(
    server: Server, channel: str
) -> None:
    with Client(server.port) as client:
        for _ in range(3):
            client.request("/ping")
            assert client.read() == b"pong"
            assert client.read() == b""
        client.request(f"/stream?channel={channel}")
        server.publish({"data": "x", "channel": channel})
        assert texts(client.take(1)) == ["x"]
        server.close(channel)
        assert [event.type for event in client.events] == ["stream-end"]


@each([kind for kind in HANDED_OFF if kind.keeps_alive])
def test_the_head_says_that_a_connection_taken_over_is_not_given_back(
    server: Server, channel: str
) -> None:
    with server.stream(channel) as client:
        assert client.headers["connection"] == "close"


@each([kind for kind in KINDS if kind.access_line])
def test_a_stream_is_a_line_in_the_log_like_any_request(
    server: Server, kind: Kind, channel: str
) -> None:
    target = f"/stream?channel={channel}"
    line = kind.access_line.replace("{target}", re.escape(target))
    with server.stream(channel):
        # A server that iterates logs the request at the stream's end.
        server.close(channel)
        until(lambda: re.search(line, server.log()))


# What they cost


def test_streams_are_delivered_in_the_way_that_is_meant(
    server: Server, kind: Kind, channel: str
) -> None:
    """All other tests of a kind rely on this."""
    before = server.stats()
    way, other = ("handed_off", "iterated")[:: 1 if kind.hands_off else -1]
    with server.stream(channel):
        until(lambda: server.stats()[way] > before[way])
        assert server.stats()[other] == before[other] == 0


@each(HANDED_OFF)
def test_a_stream_that_is_handed_off_costs_no_thread_and_no_greenlet(
    server: Server, channel: str
) -> None:
    def tasks() -> int:
        stats = server.stats()
        return stats["threads"] + stats["greenlets"]

    with ExitStack() as stack:
        stack.enter_context(server.stream(channel))
        one = tasks()
        clients = [stack.enter_context(server.stream(channel)) for _ in range(MANY)]
        # A pool may have grown by a thread for another reason.
        until(lambda: tasks() < one + MANY // 2)
        server.publish({"data": "x", "channel": channel})
        for client in clients:
            assert texts(client.take(1)) == ["x"]


@pytest.mark.parametrize(
    "server_kind", ["gevent.pywsgi", "cheroot", "werkzeug", "uWSGI"]
)
def test_where_nothing_is_handed_off_the_server_iterates(server_kind: str) -> None:
    """Other servers' iteration is tested at length elsewhere."""
    with (
        serve(server_kind, SSE_HANDOFF=False, SSE_HEARTBEAT=NEVER) as server,
        server.stream("room") as one,
        server.stream("room") as another,
    ):
        server.publish({"data": "x", "channel": "room"})
        server.close("room")
        for client in (one, another):
            types = [event.type for event in client.events]
            assert types == ["stream-open", None, "stream-end"]
        assert server.stats()["handed_off"] == 0


# Heartbeats


def test_a_silent_stream_gets_heartbeats(lively: Server, lively_channel: str) -> None:
    began = time.monotonic()
    with lively.stream(lively_channel) as client:
        received = b""
        while b"\n\n" not in received:
            piece = client.read()
            assert piece
            received += piece
        # Where the test was kept waiting, heartbeats can have come with the opening.
        opening, blank, beats = received.partition(b"\n\n")
        assert OPENING.fullmatch(opening + blank)
        beats += client.read_exactly(max(6 - len(beats), 0))
        assert beats[:6] == b":\n\n" * 2
        assert time.monotonic() - began > HEARTBEAT / 2


departs = pytest.mark.parametrize("depart", [Client.leave, Client.reset])


@departs
@each(HANDED_OFF)
def test_the_hub_notices_a_departed_client_though_it_writes_it_nothing(
    server: Server, channel: str, kind: Kind, depart: Callable[[Client], None]
) -> None:
    see_them_depart(server, channel, kind, depart, 0)


@departs
@each(ITERATED)
def test_a_departed_client_is_noticed_within_two_heartbeats(
    lively: Server, lively_channel: str, kind: Kind, depart: Callable[[Client], None]
) -> None:
    see_them_depart(lively, lively_channel, kind, depart, 2)


def see_them_depart(
    server: Server,
    channel: str,
    kind: Kind,
    depart: Callable[[Client], None],
    heartbeats: int,
) -> None:
    """Have many clients depart while a witness stays.

    :param heartbeats: how many heartbeats it takes to notice that they have gone.
    """
    with ExitStack() as stack:
        witness = stack.enter_context(server.stream(channel))
        server.publish({"data": "w", "channel": channel})
        assert texts(witness.take(1)) == ["w"]
        before = server.stats()
        departing = [stack.enter_context(server.stream(channel)) for _ in range(MANY)]
        # From this event on, all streams are equally long silent.
        server.publish({"data": "x", "channel": channel})
        for client in [witness, *departing]:
            assert texts(client.take(1)) == ["x"]
        for client in departing:
            depart(client)
        assert witness.read_exactly(3 * heartbeats) == b":\n\n" * heartbeats
        # On a busy machine the others' last heartbeat can come after the witness's.
        patience = 5 * HEARTBEAT if heartbeats else PATIENCE
        until(lambda: server.stats()["streams"] == 1, patience)

        until(lambda: server.stats()["descriptors"] <= before["descriptors"])
        until(lambda: server.stats()[kind.holds] <= before[kind.holds])
        # If the server has a pool of threads, the departed have left theirs free: these
        # clients need them.
        for _ in range(MANY):
            client = stack.enter_context(server.stream(channel))
            assert next(client.events).type == "stream-open"


@each(HANDED_OFF)
def test_a_client_that_says_no_more_sees_the_end_of_its_stream(
    server: Server, channel: str
) -> None:
    """A proxy may pass on a client's leaving as a half close only."""
    with server.stream(channel) as client, server.stream(channel) as witness:
        assert next(client.events).type == "stream-open"
        client.socket.shutdown(socket.SHUT_WR)
        assert list(client.events) == []
        until(lambda: server.stats()["streams"] == 1)
        server.publish({"data": "x", "channel": channel})
        assert texts(witness.take(1)) == ["x"]


def test_a_client_that_resets_in_mid_stream_touches_no_other(
    server: Server, channel: str
) -> None:
    large = "x" * 2**20
    with (
        server.stream(channel) as one,
        server.stream(channel, receive_buffer=4096) as leaving,
        server.stream(channel) as another,
    ):
        server.publish({"data": large, "channel": channel})
        assert len(leaving.read_exactly(2**16)) == 2**16
        leaving.reset()
        rest = [str(n) for n in range(100)]
        server.publish(*({"data": data, "channel": channel} for data in rest))
        for client in (one, another):
            assert texts(client.take(101)) == [large, *rest]
        until(lambda: server.stats()["streams"] == 2)


# Limits


def test_a_stream_of_full_age_ends_and_its_client_misses_nothing(kind: Kind) -> None:
    with kind.serve(heartbeat=HEARTBEAT, SSE_MAX_AGE=0.5) as server:
        since = ""
        published: list[str] = []
        seen: list[str] = []

        def publish(text: str) -> None:
            server.publish({"data": text, "channel": "room"})
            published.append(text)

        for visit in range(4):
            with server.stream("room", since=since) as client:
                if visit < 3:
                    publish(f"visit {visit}")
                opening, *events = client.events
            assert opening.type == "stream-open"
            # A stream can be of full age before the event comes: the next one has it.
            seen += texts(events)
            since = str([opening, *events][-1].id)
            if visit < 3:
                publish(f"missed after visit {visit}")
        assert seen == published


@each([kind for kind in KINDS if kind.ends_properly])
def test_a_server_that_stops_ends_its_streams_properly(kind: Kind) -> None:
    options = GRACE if kind.server.startswith("gunicorn") else ""
    with (
        kind.serve(heartbeat=NEVER, options=options) as server,
        server.stream("room") as client,
    ):
        server.publish({"data": "x", "channel": "room"})
        assert texts(client.take(1)) == ["x"]
        server.stop()
        assert list(client.events) == []


@each([kind for kind in KINDS if kind.server == "gunicorn gevent"])
def test_what_is_published_before_a_stop_arrives_before_the_end(kind: Kind) -> None:
    """Under gevent the request goes on before anyone else does."""
    with (
        kind.serve(heartbeat=NEVER, options=GRACE) as server,
        server.stream("room") as client,
    ):
        until(lambda: server.stats()["streams"] == 1)
        event = {"data": "the last", "channel": "room"}
        assert server.request("POST", "/publish-and-stop", event).status == 204
        assert texts(client.take(1)) == ["the last"]
        assert list(client.events) == []


def test_past_the_limit_browsers_come_back_later_and_others_are_told_so(
    tight: Server,
) -> None:
    with tight.channel() as room, tight.channel() as other, ExitStack() as stack:
        clients = [stack.enter_context(tight.stream(room)) for _ in range(ROOM)]
        until(lambda: tight.stats()["streams"] == ROOM)
        with Client(tight.port) as browser:
            accepting = {"Accept": "text/event-stream"}
            browser.request(f"/stream?channel={room}", headers=accepting)
            assert browser.status == 200
            answer = browser.read()
            assert browser.read() == b""
        match = re.fullmatch(rb"retry: ([0-9]+)\n\n", answer)
        assert match
        assert 24_000 <= int(match[1]) <= 36_000

        with Client(tight.port) as program:
            program.request(f"/stream?channel={room}", headers={"Accept": "*/*"})
            assert program.status == 503
            assert 24 <= int(program.headers["retry-after"]) <= 36

        assert tight.request("GET", "/ping").body == b"pong"
        tight.publish({"data": "x", "channel": room})
        for client in clients:
            assert texts(client.take(1)) == ["x"]
        tight.close(room)
        until(lambda: tight.stats()["streams"] == 0)
        newcomer = stack.enter_context(tight.stream(other))
        assert next(newcomer.events).type == "stream-open"


def test_a_client_that_does_not_read_costs_no_memory_and_is_told_what_it_lost(
    tight: Server, kind: Kind
) -> None:
    """400 events of 64 kB are published while the client sleeps; 32 of them are
    kept."""
    lots, lot, padding = 50, 8, "." * 2**16
    with (
        tight.channel() as room,
        tight.stream(room, receive_buffer=2**16) as slow,
        tight.stream(room) as one,
        tight.stream(room) as another,
    ):
        before = 0
        for first in range(0, lots * lot, lot):
            if first == 15 * lot:
                # By now the server has all the memory that it needs. The remaining
                # events would be 18 MB more.
                before = tight.stats()["peak_memory"]
            expected = [f"{first + n} {padding}" for n in range(lot)]
            tight.publish(*({"data": data, "channel": room} for data in expected))
            assert texts(one.take(lot)) == expected
            assert texts(another.take(lot)) == expected
        grown = tight.stats()["peak_memory"] - before
        assert grown < 9_000_000

        # A router may read some more in the meantime. There is then a gap before that
        # piece, and another one after it.
        numbers: list[int] = []
        last_event_id, gaps, is_told = "", 0, False
        while numbers[-1:] != [lots * lot - 1]:
            (event,) = slow.take(1)
            if event.type == "stream-gap":
                assert event.json == {"since": last_event_id, "channels": [room]}
                gaps, is_told = gaps + 1, True
            else:
                numbers.append(int(event.data.split()[0]))
                is_next = len(numbers) == 1 or numbers[-1] == numbers[-2] + 1
                assert is_next != is_told
                is_told = False
            last_event_id = event.id or ""
        assert gaps == 1 or (gaps and "router" in kind.server)
        assert numbers[0] == 0
        assert numbers[-KEPT:] == list(range(lots * lot - KEPT, lots * lot))
        tight.publish({"data": "live", "channel": room})
        assert texts(slow.take(1)) == ["live"]


# Many


def test_all_clients_see_one_order_of_what_many_threads_publish(
    server: Server, channel: str
) -> None:
    publishers, each = 8, 25

    def publish(publisher: int) -> list[str]:
        return [
            server.publish({"data": f"{publisher} {n}", "channel": channel})[0]
            for n in range(each)
        ]

    with ExitStack() as stack:
        clients = [stack.enter_context(server.stream(channel)) for _ in range(MANY)]
        with ThreadPoolExecutor(publishers) as pool:
            ids = list(pool.map(publish, range(publishers)))
        seen = [client.take(publishers * each) for client in clients]
    order = [event.id for event in seen[0]]
    assert order == sorted(chain(*ids), key=sequence)
    for publisher, published in enumerate(ids):
        by_it = [event for event in seen[0] if event.data.split()[0] == str(publisher)]
        assert texts(by_it) == [f"{publisher} {n}" for n in range(each)]
        assert [event.id for event in by_it] == published
    assert all(events == seen[0] for events in seen)


def test_a_gevent_worker_serves_500_clients() -> None:
    with serve("gunicorn gevent", SSE_HEARTBEAT=HEARTBEAT) as server:
        with server.stream("room"):
            until(lambda: server.stats()["streams"] == 1)
            before = server.stats()
        with ExitStack() as stack:
            clients = [stack.enter_context(server.stream("room")) for _ in range(500)]
            data = [str(n) for n in range(20)]
            server.publish(*({"data": text, "channel": "room"} for text in data))
            for client in clients:
                assert texts(client.take(20)) == data
            assert server.stats()["streams"] == 500
            assert server.request("GET", "/ping").body == b"pong"
        until(lambda: server.stats()["streams"] == 0)
        until(lambda: server.stats()["greenlets"] <= before["greenlets"])
        until(lambda: server.stats()["descriptors"] <= before["descriptors"])


@pytest.mark.parametrize("server_kind", ["gunicorn gevent", "gunicorn gthread"])
def test_who_leaves_while_the_hub_writes_touches_nobody_who_stays(
    server_kind: str,
) -> None:
    data = [str(n) for n in range(100)]

    def publish(server: Server) -> None:
        for text in data:
            server.publish({"data": text, "channel": "room"})

    with serve(server_kind, SSE_HEARTBEAT=NEVER) as server, ExitStack() as stack:
        witness, *leaving = [
            stack.enter_context(server.stream("room")) for _ in range(2 * len(data))
        ]
        staying = [
            stack.enter_context(server.stream("room")) for _ in range(2 * len(data))
        ]
        with ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(publish, server)
            # Leave when one client has an event that others have yet to get.
            for first in range(0, len(leaving), 2):
                assert witness.take(1)
                for client in leaving[first : first + 2]:
                    client.reset()
            publishing.result()
        for client in staying:
            assert texts(client.take(len(data))) == data


# Several workers


def workers(server: Server, count: int) -> list[int]:
    """The worker processes of a gunicorn, once it has so many."""

    def booted() -> list[int]:
        pids = re.findall(r"Booting worker with pid: (\d+)", server.log())
        return [int(pid) for pid in pids] if len(pids) == count else []

    return until(booted)


def test_each_of_several_workers_warns_once_that_memory_is_not_shared() -> None:
    with serve("gunicorn gevent", options="--workers 2") as server:
        pids = workers(server, 2)
        for pid in pids:
            with stopped([other for other in pids if other != pid]):
                assert server.stats()["process"] == pid
                for _ in range(2):
                    server.publish({"data": "x", "channel": "room"})
                    with server.stream("room") as client:
                        assert next(client.events).type == "stream-open"
        warnings = re.findall(
            r"\[(\d+)\] WARNING flask_sse_lite: .*several worker processes.*SSE_URL",
            server.log(),
        )
        assert sorted(warnings) == sorted(map(str, pids))


def test_one_worker_is_warned_of_nothing() -> None:
    with serve("gunicorn gevent", options="--worker-connections 50") as server:
        server.publish({"data": "x", "channel": "room"})
        with server.stream("room") as client:
            assert next(client.events).type == "stream-open"
        assert "WARNING" not in server.log()


def test_workers_forked_from_a_used_application_have_epochs_of_their_own() -> None:
    with serve(
        "gunicorn gevent", options="--workers 2 --preload", PUBLISH_AT_IMPORT=True
    ) as server:
        pids = workers(server, 2)
        ids = {}
        for pid in pids:
            with stopped([other for other in pids if other != pid]):
                assert server.stats()["process"] == pid
                (ids[pid],) = server.publish({"data": "x", "channel": "room"})
        one, other = ids.values()
        assert one.split("-")[0] != other.split("-")[0]
        with stopped(pids[1:]), server.stream("room", since=ids[pids[1]]) as client:
            assert client.take(1)[0].type == "stream-gap"

"""Generators as streams, on every server: what arrives, and what becomes of a generator
that fails, or whose client leaves."""

from __future__ import annotations

import gzip
import http.client
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from flask_sse_lite import Event
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.event import HEARTBEAT

from .browsers import Listener, blank_page, chromium
from .generating import (
    BEATING,
    SERVERS,
    Generators,
    assert_nothing_is_left,
    await_silence,
    generators,
    noted,
    read_until,
    stalled,
)
from .servers import HOST, PATIENCE, Client, until

#: Servers under which a waiting generator can be closed at once.
GEVENT = [kind for kind in SERVERS if "gevent" in kind]

#: Bytes that may be held of a stream whose client reads nothing. (waitress takes 16 MiB
#: into its own buffer before it has the application wait.)
HELD = 48 * 1024 * 1024


@pytest.fixture(scope="module", params=SERVERS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Generators]:
    with generators(request.param, tmp_path_factory.mktemp("generators")) as served:
        yield served


@pytest.fixture(scope="module", params=SERVERS)
def calm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Generators]:
    """A server that sends no sign of life before an error, however busy the machine is:
    the first one settles the status."""
    folder = tmp_path_factory.mktemp("generators")
    with generators(request.param, folder, SSE_HEARTBEAT=PATIENCE) as calm:
        yield calm


@pytest.fixture(scope="module", params=BEATING)
def beating(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Generators]:
    with generators(request.param, tmp_path_factory.mktemp("generators")) as served:
        yield served


@pytest.fixture(scope="module", params=GEVENT)
def cooperative(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Generators]:
    with generators(request.param, tmp_path_factory.mktemp("generators")) as served:
        yield served


def decoded(body: bytes) -> list[Event]:
    return Decoder().feed(body)


def without_beats(body: bytes) -> bytes:
    return re.sub(rb"(?m)^:\n\n", b"", body)


END = b"event: stream-end\ndata: \nid: stream-end\n\n"
ERROR = b'event: stream-error\ndata: {"reason": "error"}\n\n'


# What arrives


def test_items_of_every_kind_arrive(served: Generators) -> None:
    name = served.new()
    assert without_beats(served.read(name, "kinds")).endswith(
        b"data: text\n\n"
        b"data: two\ndata: lines\n\n"
        b"data: bytes\n\n"
        b'data: {"a": 1}\n\n'
        b"data: [1, 2]\n\n"
        b'data: {"x": 1, "y": 2}\n\n'
        b"event: greeting\ndata: event\nid: 7\nretry: 50\n\n" + END
    )
    served.await_(name, "teardown")
    assert served.happened(name) == ["asked by GET", "begin", "closed", "teardown"]


def test_a_post_is_answered_so_too(served: Generators) -> None:
    name = served.new()
    connection = http.client.HTTPConnection(HOST, served.server.port, timeout=PATIENCE)
    form = urlencode({"name": name, "steps": "one,context", "padding": "x" * 100_000})
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    try:
        connection.request("POST", "/ask", form, kind)
        one, context, end = decoded(connection.getresponse().read())
    finally:
        connection.close()
    assert one.data == "one"
    assert context.data == f"tests.applications.channels {name} somebody 1"
    assert end.type == "stream-end"


def test_the_request_is_there_to_the_end_and_torn_down_once(served: Generators) -> None:
    name = served.new()
    with served.ask(name, f"context,wait:{name}.a,context") as client:
        first = client.take(1)
        assert "teardown" not in served.happened(name)
        served.open(f"{name}.a")
        events = [*first, *client.take(2)]
    said = f"tests.applications.channels {name} somebody"
    assert [event.data for event in events] == [f"{said} 1", f"{said} 2", ""]
    served.await_(name, "teardown")
    assert served.happened(name)[1:] == ["begin", "closed", "teardown"]
    assert_nothing_is_left(served)


def test_head_does_not_begin_it(served: Generators) -> None:
    name = served.new()
    with Client(served.server.port) as client:
        client.request(f"/ask?name={name}&steps=one&iterable=yes", "HEAD")
        assert (client.status, client.read()) == (200, b"")
    assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
    served.await_(name, "iterable closed")
    assert served.happened(name) == ["asked by HEAD", "teardown", "iterable closed"]
    assert_nothing_is_left(served)


def test_whoever_saw_the_end_is_sent_off_before_the_first_step(
    served: Generators,
) -> None:
    name = served.new()
    *_, end = decoded(served.read(name, "one"))
    with Client(served.server.port) as client:
        client.request(
            f"/ask?name={name}.again&steps=one&iterable=yes",
            headers={"Last-Event-ID": end.id or ""},
        )
        assert (client.status, client.read()) == (204, b"")
    served.await_(f"{name}.again", "teardown")
    assert served.happened(f"{name}.again") == [
        *("asked by GET", "iterable closed", "teardown")
    ]


# Heartbeats


def test_silence_is_filled_with_signs_of_life(beating: Generators) -> None:
    name = beating.new()
    steps = f"wait:{name}.a,one,wait:{name}.b,two"
    if beating.kind == "uWSGI":
        # Under uWSGI only the thread that serves the request can send.
        beating.open(f"{name}.a")
    with beating.ask(name, steps) as client:
        body = b""
        if beating.kind != "uWSGI":
            body += read_until(client, 2 * HEARTBEAT)
            assert body == HEARTBEAT * (len(body) // len(HEARTBEAT))
            beating.open(f"{name}.a")
        body += read_until(client, b"one\n\n" + 2 * HEARTBEAT)
        beating.open(f"{name}.b")
        body += b"".join(iter(client.read, b""))
    assert without_beats(body) == b"data: one\n\ndata: two\n\n" + END
    beating.await_(name, "teardown")
    assert beating.happened(name)[1:] == ["begin", "closed", "teardown"]


def test_signs_of_life_come_between_items_and_never_within(beating: Generators) -> None:
    name = beating.new()
    gates = [f"{name}.{n}" for n in range(4)]
    steps = ",".join(f"large:{n},wait:{gate}" for n, gate in enumerate(gates))
    body = b""
    with beating.ask(name, steps) as client:
        for n, gate in enumerate(gates):
            # Read in small pieces, so that the server must send in small pieces.
            mark = b"%d\n\n" % n + HEARTBEAT
            while mark not in body[-(2000 + len(mark)) :]:
                piece = client.read(1000)
                assert piece
                body += piece
            beating.open(gate)
        body += b"".join(iter(client.read, b""))
    frames = [b"data: %b\n\n" % (b"%d" % n * 300_000) for n in range(4)]
    beats = b"(?:" + HEARTBEAT + b")*"
    assert re.fullmatch(beats + beats.join([*frames, END]), body)


def test_without_them_the_stream_is_the_same(tmp_path: Path) -> None:
    """A middleware hides the server's own ``write``."""
    with generators("gunicorn gthread", tmp_path, HIDE=True) as served:
        name = served.new()
        with served.ask(name, f"one,wait:{name}.a,two") as client:
            body = read_until(client, b"one\n\n")
            await_silence(served)
            served.open(f"{name}.a")
            body += b"".join(iter(client.read, b""))
        # A heartbeat could not be sent safely here.
        assert body == b"data: one\n\ndata: two\n\n" + END
        assert_nothing_is_left(served)


@pytest.mark.parametrize("kind", ["gunicorn gthread", "gunicorn gevent", "werkzeug"])
@pytest.mark.parametrize("how", ["COMPRESS", "GZIP"])
def test_what_is_compressed_gets_no_plain_sign_of_life(
    tmp_path: Path, kind: str, how: str
) -> None:
    """An extension takes over the body, or a middleware changes it."""
    config: dict[str, Any] = {"SSE_HEARTBEAT": 0.05, how: True}
    with generators(kind, tmp_path, **config) as served:
        name = served.new()
        query = urlencode(
            {"name": name, "steps": f"wait:{name}.a,one,wait:{name}.b,two"}
        )
        connection = http.client.HTTPConnection(
            HOST, served.server.port, timeout=PATIENCE
        )
        try:
            connection.request(
                "GET", f"/ask?{query}", headers={"Accept-Encoding": "gzip"}
            )
            # Another stream that is as silent gets heartbeats meanwhile.
            await_silence(served)
            served.open(f"{name}.a")
            response = connection.getresponse()
            assert response.headers["Content-Encoding"] == "gzip"
            await_silence(served)
            served.open(f"{name}.b")
            body = response.read()
        finally:
            connection.close()
        expected = b"data: one\n\ndata: two\n\n" + END
        assert gzip.decompress(body) == expected


# Errors


@pytest.mark.parametrize(
    ("steps", "status", "told"),
    [
        ("refuse", 418, b'"error"'),
        ("404", 404, b"Not Found"),
        ("fail", 500, b"Internal Server Error"),
    ],
)
def test_an_error_before_the_first_item_is_an_ordinary_one(
    calm: Generators, steps: str, status: int, told: bytes
) -> None:
    name = calm.new()
    answer = calm.server.request("GET", f"/ask?name={name}&steps={steps}")
    assert answer.status == status
    assert told in answer.body
    assert answer.headers["X-Signed-By"] == "the application"
    assert "event-stream" not in answer.headers["Content-Type"]
    calm.await_(name, "teardown")
    assert calm.happened(name) == ["asked by GET", "begin", "closed", "teardown"]
    logged = calm.server.log().count(f"the failure of {name}]")
    assert logged == (1 if status == 500 else 0)
    assert_nothing_is_left(calm)


def test_an_error_behind_the_first_item_is_told_and_logged(served: Generators) -> None:
    name = served.new()
    body = without_beats(served.read(name, "one,fail"))
    assert body == b"data: one\n\n" + ERROR + END
    served.await_(name, "teardown")
    assert served.happened(name)[1:] == ["begin", "closed", "teardown"]
    assert served.server.log().count(f"the failure of {name}") == 1


@pytest.mark.parametrize("steps", ["refuse", "404", "fail"])
def test_an_error_behind_the_first_sign_of_life_is_told(
    beating: Generators, steps: str
) -> None:
    if beating.kind == "uWSGI":
        return  # Under uWSGI no heartbeat comes before the first item.
    name = beating.new()
    with beating.ask(name, f"wait:{name}.a,{steps}") as client:
        body = read_until(client, HEARTBEAT)
        assert client.status == 200
        beating.open(f"{name}.a")
        body += b"".join(iter(client.read, b""))
    assert without_beats(body) == ERROR + END
    beating.await_(name, "teardown")
    assert beating.happened(name)[1:] == ["begin", "closed", "teardown"]


def test_the_application_s_words_for_an_error_are_told(served: Generators) -> None:
    name = served.new()
    _, error, _ = decoded(served.read(name, "one,fail", told="yes"))
    assert error.type == "stream-error"
    assert error.json == {"reason": "error", "message": f"the failure of {name}"}


# Clients that leave


def test_whoever_leaves_ends_the_generator_at_its_next_step(served: Generators) -> None:
    name = served.new()
    with served.ask(name, "one,tick") as client:
        assert client.take(2)
    served.await_(name, "teardown")
    assert served.happened(name)[1:] == ["begin", "closed", "teardown"]
    assert_nothing_is_left(served)


def test_whoever_leaves_while_it_waits_ends_it_when_it_goes_on(
    served: Generators,
) -> None:
    name = served.new()
    with served.ask(name, f"one,wait:{name}.a,tick") as client:
        assert client.take(1)
    served.open(f"{name}.a")
    served.await_(name, "teardown")
    assert served.happened(name)[1:] == ["begin", "closed", "teardown"]
    assert_nothing_is_left(served)


@pytest.mark.parametrize("how", ["leave", "reset"])
@pytest.mark.parametrize("what", ["event", "socket", "sleep"])
def test_under_gevent_whoever_leaves_ends_it_at_once(
    cooperative: Generators, what: str, how: str
) -> None:
    for steps in (f"one,{what}", what):
        name = cooperative.new()
        with cooperative.ask(name, steps) as client:
            assert client.read()
            getattr(client, how)()
        cooperative.await_(name, "teardown")
        assert cooperative.happened(name)[1:] == ["begin", "closed", "teardown"]
    assert_nothing_is_left(cooperative)


def test_under_gevent_it_may_take_its_time_to_clean_up(cooperative: Generators) -> None:
    name = cooperative.new()
    with cooperative.ask(name, "clean up") as client:
        assert client.take(1)
    # By then the hub has looked often enough to end it a second time.
    await_silence(cooperative)
    assert "closed" not in cooperative.happened(name)
    cooperative.open(f"{name}.cleaned")
    cooperative.await_(name, "teardown")
    assert cooperative.happened(name)[2:] == ["cleaned up", "closed", "teardown"]


def test_under_gevent_teardown_may_take_its_time_too(cooperative: Generators) -> None:
    name = cooperative.new()
    with cooperative.ask(name, "one", slowly="yes") as client:
        assert [event.type for event in client.take(2)] == [None, "stream-end"]
    await_silence(cooperative)
    assert cooperative.happened(name)[-1] == "closed"
    cooperative.open(f"{name}.torn down")
    cooperative.await_(name, "teardown")
    assert_nothing_is_left(cooperative)


@pytest.mark.parametrize("steps", ["swallow", "linger", "fail at close"])
def test_a_generator_that_will_not_be_closed_harms_nobody(
    served: Generators, steps: str
) -> None:
    name = served.new()
    with served.ask(name, f"one,{steps}") as client:
        assert client.take(2)
    served.await_(name, "teardown")
    assert served.happened(name)[1] == "begin"
    assert served.happened(name).count("teardown") == 1
    assert_nothing_is_left(served)
    assert served.server.request("GET", "/ping").status == 200


def test_hundreds_that_leave_leave_nothing(cooperative: Generators) -> None:
    with cooperative.ask(cooperative.new(), "tick") as client:
        client.take(1)
    assert_nothing_is_left(cooperative)
    before = cooperative.server.stats()
    name = cooperative.new()
    for n in range(200):
        with cooperative.ask(name, ("one,event", "one,tick", "one")[n % 3]) as client:
            client.take(1)
    until(lambda: cooperative.happened(name).count("teardown") == 200)
    assert cooperative.happened(name).count("closed") == 200
    assert_nothing_is_left(cooperative)
    until(lambda: cooperative.server.stats()["greenlets"] <= before["greenlets"])
    until(lambda: cooperative.server.stats()["descriptors"] <= before["descriptors"])


# Past the server


@pytest.mark.parametrize("kind", BEATING)
def test_whoever_changes_items_on_the_way_gets_them_all(
    tmp_path: Path, kind: str
) -> None:
    """The items that were passed on unchanged come first, and all others follow."""
    with generators(kind, tmp_path, SHOUT=True, SSE_HEARTBEAT=PATIENCE) as served:
        body = served.read(served.new(), "one,two,three,four")
        assert body.startswith(b"data: one\n\ndata: two\n\nDATA: THREE\n\nDATA: FOUR")


@pytest.mark.parametrize("handoff", [False, "auto"])
@pytest.mark.parametrize("kind", ["gunicorn gthread", "gunicorn gevent"])
def test_the_access_log_counts_what_went_past_the_server(
    tmp_path: Path, kind: str, handoff: Any
) -> None:
    options = "--access-logfile - --access-logformat 'served %(r)s: %(B)s'"
    with generators(
        kind, tmp_path, options=options, SSE_HANDOFF=handoff, SSE_HEARTBEAT=PATIENCE
    ) as served:
        name = served.new()
        size = len(served.read(name, "many:500"))
        assert size > 5000
        line = f"served GET /ask\\?name={name}&.*: {size}\n"
        until(lambda: re.search(line, served.server.log()))


def test_a_client_that_does_not_read_has_the_generator_wait(served: Generators) -> None:
    name = served.new()
    with Client(served.server.port, receive_buffer=8192) as client:
        client.request(f"/ask?name={name}&steps=crowd")
        assert client.take(1)
        made = stalled(served, name)
        assert made * 1000 < HELD
        # The generator goes on as the client reads on.
        assert len(client.take(made + 1000)) == made + 1000
        assert noted(served, name) > made
    served.await_(name, "teardown")
    assert_nothing_is_left(served)


# Browsers


def test_a_browser_left_alone_runs_it_once(tmp_path: Path) -> None:
    with (
        generators("gunicorn gevent", tmp_path, SSE_RETRY=50) as served,
        chromium() as browser,
        blank_page(browser) as page,
    ):
        page.goto(f"{served.server.url}/page")
        name = served.new()
        target = f"/ask?{urlencode({'name': name, 'steps': 'kinds'})}"
        listener = Listener(page, target, ["greeting"])
        listener.wait_until("closed")
        types = [event.type for event in listener.take(8)]
        assert types == [*["message"] * 6, "greeting", "stream-end"]
    assert served.happened(name) == [
        *("asked by GET", "begin", "closed", "teardown"),
        *("asked by GET", "teardown"),
    ]

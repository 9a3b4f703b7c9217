"""What stands between the application and its server. Error reporters and tracers must
neither cost the handoff nor be told of errors. Behind middleware that touches the body,
a stream stays with its server, and arrives as it was changed."""

from __future__ import annotations

import json
import re
import socket
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import product
from urllib.parse import urlencode

import pytest

from .servers import GRACE, HANDED_OFF, PATIENCE, SCRIPTS, Client, Server, serve, until

#: Longer than any test waits: no heartbeat hides a missing wake.
NEVER = 4 * PATIENCE

#: The warning that streams cannot be handed off.
WARNING = re.compile(r"WARNING flask_sse_lite: .*cannot be handed off.*")

KINDS = {kind.server: kind for kind in HANDED_OFF}

GUNICORN = ["gunicorn sync", "gunicorn gthread", "gunicorn gevent"]

#: Reporters that start the server.
DDTRACE = (f"{SCRIPTS}/ddtrace-run", sys.executable)
NEWRELIC = (f"{SCRIPTS}/newrelic-admin", "run-program", sys.executable)


@pytest.fixture(autouse=True, scope="module")
def nothing_leaves_the_machine(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """Have reporters report to a port on which nobody listens, or not at all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DD_TRACE_AGENT_URL", "http://127.0.0.1:9")
        patch.setenv("DD_INSTRUMENTATION_TELEMETRY_ENABLED", "false")
        patch.setenv("DD_REMOTE_CONFIGURATION_ENABLED", "false")
        # A reporter leaves files there.
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("reporters")))
        # New Relic then does all its work, with an imagined collector.
        patch.setenv("NEW_RELIC_DEVELOPER_MODE", "true")
        patch.setenv("NEW_RELIC_LOG", "stderr")
        yield


# Reporters


def reports(server: Server) -> dict[str, int]:
    counts: dict[str, int] = json.loads(server.request("GET", "/reports").body)
    return counts


@pytest.mark.parametrize(
    ("reporter", "server_kind"),
    [
        *product(["sentry", "opentelemetry", "ddtrace"], GUNICORN),
        *product(["sentry"], ["gevent.pywsgi", "cheroot", "werkzeug", "uWSGI"]),
    ],
)
def test_a_reporter_costs_no_handoff_and_is_told_of_no_error(
    reporter: str, server_kind: str
) -> None:
    """The reporter sees each request end when its stream begins."""
    options = KINDS[server_kind].options
    if server_kind in GUNICORN:
        # That a worker is killed is logged as an error.
        options += f" {GRACE}"
    if reporter == "ddtrace":
        # Under ddtrace, gunicorn's control server ends with a traceback of its own.
        options += " --no-control-socket"
    with (
        serve(
            server_kind,
            app=f"tests.applications.with_{reporter}:app",
            options=options,
            python=DDTRACE if reporter == "ddtrace" else (),
            SSE_HEARTBEAT=NEVER,
        ) as server,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(server.stream("room")) for _ in range(4)]
        until(lambda: server.stats()["handed_off"] == 4)
        assert server.paths()["iterated"] == {}
        assert until(lambda: reports(server)["streams"] == 4)
        server.publish({"data": "x", "channel": "room"})
        for client in clients:
            assert [event.data for event in client.take(1)] == ["x"]

        leaving, resetting, staying, ended = clients
        leaving.leave()
        resetting.reset()
        until(lambda: server.stats()["streams"] == 2)
        server.publish({"data": "y", "channel": "room"})
        for client in (staying, ended):
            assert [event.data for event in client.take(1)] == ["y"]
        server.close("room")
        assert [event.type for event in staying.events] == ["stream-end"]
        stack.enter_context(server.stream("another room"))
        until(lambda: server.stats()["streams"] == 1)
        until(lambda: reports(server)["streams"] == 5)
        assert reports(server)["errors"] == 0
        # The reporter would have been told of an error.
        assert server.request("GET", "/fail").status == 204
        until(lambda: reports(server)["errors"] == 1)
        server.stop()
        assert not re.search("error|exception", server.log(), re.IGNORECASE)


# Middleware that hides the server's write


@pytest.mark.parametrize("server_kind", ["gunicorn gthread", "gunicorn gevent"])
def test_behind_newrelic_the_server_iterates_and_one_warning_says_so(
    server_kind: str,
) -> None:
    with (
        serve(server_kind, python=NEWRELIC, SSE_HEARTBEAT=NEVER) as server,
        ExitStack() as stack,
    ):
        # New Relic hides nothing until it is ready, soon after it has said so.
        until(lambda: "Reporting to" in server.log())
        until(lambda: is_next_iterated(server))
        before = server.paths()
        iterated = server.stats()["iterated"]
        clients = [stack.enter_context(server.stream("room")) for _ in range(3)]
        until(lambda: server.stats()["iterated"] == iterated + 3)
        server.publish({"data": "x", "channel": "room"})
        server.close("room")
        for client in clients:
            types = [event.type for event in client.events]
            assert types == ["stream-open", None, "stream-end"]
        assert server.paths()["handed off"] == before["handed off"]
        [warning] = WARNING.findall(server.log())
        assert "newrelic" in warning
        assert "SSE_HANDOFF" in warning


def is_next_iterated(server: Server) -> bool:
    """Whether a server iterates one more stream."""
    before = Counter(ways_gone(server))
    with server.channel() as channel, server.stream(channel):
        after = Counter(until_noted(server, before.total() + 1))
    [(way, _)] = after - before
    return way == "iterated"


@pytest.mark.parametrize(
    ("middleware", "server_kind"),
    [("hides_write", "gunicorn gevent"), ("pass_through", "gunicorn gthread")],
)
@pytest.mark.parametrize("is_allowed", ["auto", True, False])
def test_behind_an_unknown_middleware_the_setting_decides(
    middleware: str, server_kind: str, is_allowed: str | bool
) -> None:
    """The middleware could change the body, as far as anyone can see, but does not.
    Only an operator who has not decided is warned."""
    with (
        serve(
            server_kind,
            app="tests.applications.behind:app",
            SSE_HEARTBEAT=NEVER,
            SSE_HANDOFF=is_allowed,
        ) as server,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(Client(server.port)) for _ in range(3)]
        for client in clients:
            client.request(f"/stream?channel=room&behind={middleware}")
        way, other = ("handed_off", "iterated")[:: 1 if is_allowed is True else -1]
        until(lambda: server.stats()[way] == 3)
        assert server.stats()[other] == 0
        server.publish({"data": "x", "channel": "room"})
        server.close("room")
        for client in clients:
            types = [event.type for event in client.events]
            assert types == ["stream-open", None, "stream-end"]
        warnings = WARNING.findall(server.log())
        assert len(warnings) == (is_allowed == "auto")
        assert all("tests.applications.behind" in warning for warning in warnings)
        assert all("SSE_HANDOFF" in warning for warning in warnings)


def test_who_forbids_it_is_obeyed_where_it_would_be_possible() -> None:
    with (
        serve("gunicorn gevent", SSE_HEARTBEAT=NEVER, SSE_HANDOFF=False) as server,
        server.stream("room") as client,
    ):
        until(lambda: server.stats()["iterated"] == 1)
        assert server.paths()["iterated"] == {"SSE_HANDOFF is False": 1}
        server.close("room")
        assert [event.type for event in client.events] == ["stream-open", "stream-end"]
        assert not WARNING.search(server.log())


# Middleware that touches the body

#: All but gunicorn's sync worker, which can iterate only one stream at a time.
PATIENT = [server for server in KINDS if server != "gunicorn sync"]


@pytest.fixture(scope="module", params=PATIENT)
def crowded_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    kind = KINDS[request.param]
    with serve(
        request.param,
        app="tests.applications.behind:app",
        # Each iterated stream needs a thread.
        options=kind.options.replace("--threads 2", "--threads 8"),
        SSE_HEARTBEAT=NEVER,
    ) as server:
        yield server


@pytest.fixture
def crowded(crowded_server: Server) -> Iterator[Server]:
    with crowded_server.watched():
        yield crowded_server


Change = Callable[[bytes], bytes]


def unchanged(body: bytes) -> bytes:
    return body


def gunzipped(body: bytes) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    whole = decompressor.decompress(body) + decompressor.flush()
    assert decompressor.eof
    return whole


AS_IT_IS = (unchanged, unchanged)

#: Middleware that has no frame of its own. uWSGI has none either, so such middleware
#: cannot be seen under uWSGI, which passes on exactly what it is given.
UNSEEN = ("peek", "shout_unseen")
ADDED = b"data: they say: "
CHANGED = "the body"
ENCODED = f"Content-Encoding|{CHANGED}"


#: The middleware, the encoding that the client accepts, the reason why the stream is
#: not handed off, how the middleware changes the bytes, and how the client decodes
#: them.
MIDDLEWARE: list[tuple[str, str, str, Change, Change]] = [
    ("pass_through", "", f"{CHANGED}.*tests.applications.behind", *AS_IT_IS),
    ("peek", "", f"{CHANGED}.*tests.applications.behind", *AS_IT_IS),
    ("stay_ahead", "", CHANGED, *AS_IT_IS),
    ("shout", "", CHANGED, bytes.upper, unchanged),
    ("shout_unseen", "", CHANGED, bytes.upper, unchanged),
    ("edit", "", CHANGED, lambda body: body.replace(b"hello", b"HOWDY"), unchanged),
    ("add", "", CHANGED, lambda body: body.replace(b"data: ", ADDED), unchanged),
    ("compress", "", ENCODED, unchanged, gunzipped),
    ("flask-compress", "gzip", "", unchanged, gunzipped),
]


@pytest.mark.parametrize(
    ("name", "accepted", "reason", "change", "decode"),
    MIDDLEWARE,
    ids=[name for name, *_ in MIDDLEWARE],
)
def test_a_stream_arrives_once_and_whole_and_as_a_middleware_changed_it(
    crowded: Server,
    name: str,
    accepted: str,
    reason: str,
    change: Change,
    decode: Change,
) -> None:
    headers = {"Accept-Encoding": accepted} if accepted else {}
    is_unseen = name in UNSEEN and "uWSGI" in crowded.log()
    with (
        crowded.channel() as channel,
        Client(crowded.port) as witness,
        Client(crowded.port) as client,
        ThreadPoolExecutor(1) as pool,
    ):

        def receive() -> bytes:
            client.request(f"{target}&behind={name}", headers=headers)
            return read_all(client)

        # Middleware that holds one item back needs some to begin with.
        texts = ["a beginning", "hello", "hello again"]
        since, *_ = crowded.publish(*({"data": t, "channel": channel} for t in texts))
        target = f"/stream?{urlencode({'channel': channel, 'last_event_id': since})}"
        already = sum(ways_gone(crowded).values())
        witness.request(target)
        before = until_noted(crowded, already + 1)
        # Some middleware holds back even the head until the end.
        receiving = pool.submit(receive)
        after = until_noted(crowded, already + 2)
        crowded.publish({"data": "goodbye, hello", "channel": channel})
        crowded.close(channel)
        original = read_all(witness)
        received = decode(receiving.result())
    assert original.count(b"hello") == 3
    [noted] = [way for way, number in after.items() if number != before.get(way, 0)]
    if is_unseen:
        assert noted == ("handed off", "uWSGI")
        change = unchanged
    else:
        assert noted[0] == "iterated"
        assert re.search(reason, noted[1])
    assert without_opening(received) == change(without_opening(original))


def ways_gone(server: Server) -> dict[tuple[str, str], int]:
    """How many streams were delivered in each way, for each reason."""
    paths = server.paths()
    return {
        (way, reason): number
        for way in ("handed off", "iterated")
        for reason, number in paths[way].items()
    }


def until_noted(server: Server, count: int) -> dict[tuple[str, str], int]:
    """As ``ways_gone``, once there are so many streams in all."""

    def noted() -> dict[tuple[str, str], int]:
        ways = ways_gone(server)
        return ways if sum(ways.values()) == count else {}

    return until(noted)


def read_all(client: Client) -> bytes:
    return b"".join(iter(client.read, b""))


def without_opening(body: bytes) -> bytes:
    """A stream without its opening, in which each client's ``retry`` differs."""
    opening, _, events = body.partition(b"\n\n")
    assert opening.lower().startswith(b"event: stream-open\n")
    return events


# Middleware that keeps the whole body

#: Middleware that collects a body before its client gets any of it. (The profiler is
#: one of werkzeug's, which are known to leave bodies alone.)
COLLECTING = ["collects", "collects_late", "collects_lazily", "profiler"]

HELD_BACK = re.compile(r"WARNING flask_sse_lite: .*nothing was sent.*")


def is_silent(client: Client) -> bool:
    client.socket.setblocking(False)
    try:
        return not client.socket.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        client.socket.settimeout(PATIENCE)


@pytest.mark.parametrize("is_allowed", ["auto", True])
@pytest.mark.parametrize("server_kind", [*PATIENT, "waitress"])
def test_no_byte_goes_past_a_server_that_has_not_sent_the_head(
    server_kind: str, is_allowed: str | bool
) -> None:
    """The client gets the whole body at its end, as of any answer, and the operator is
    told why."""
    options = KINDS[server_kind].options if server_kind in KINDS else ""
    with (
        serve(
            server_kind,
            app="tests.applications.behind:app",
            options=options.replace("--threads 2", "--threads 8"),
            SSE_HEARTBEAT=NEVER,
            SSE_HANDOFF=is_allowed,
        ) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        for count, name in enumerate(COLLECTING, 1):
            channel = f"room.{count}"
            with Client(server.port) as client:
                target = f"/stream?channel={channel}&behind={name}"
                asked = pool.submit(client.request, target)
                until(partial(is_noted, server, count))
                assert is_silent(client)
                server.publish({"data": "x", "channel": channel})
                server.close(channel)
                asked.result()
                types = [event.type for event in client.events]
                assert types == ["stream-open", None, "stream-end"]
        assert server.paths()["handed off"] == {}
        warnings = HELD_BACK.findall(server.log())
        # uWSGI is not recognized behind middleware that starts responses itself.
        assert any("tests.applications.behind" in warning for warning in warnings)
        if server_kind not in ("uWSGI", "uWSGI behind its router"):
            assert any("werkzeug.middleware.profiler" in text for text in warnings)
        advised = [text for text in WARNING.findall(server.log()) if "True" in text]
        assert advised == []


def is_noted(server: Server, count: int) -> bool:
    return sum(ways_gone(server).values()) == count


@pytest.mark.parametrize("is_allowed", ["auto", True])
@pytest.mark.parametrize("server_kind", ["gunicorn sync", *PATIENT])
def test_behind_one_that_starts_the_response_late_the_setting_decides(
    server_kind: str, is_allowed: str | bool
) -> None:
    is_known = not server_kind.startswith("uWSGI")
    if server_kind == "gunicorn sync" and is_allowed != True:  # noqa: E712
        server_kind = "gunicorn gthread"  # A sync worker can iterate one only.
    with (
        serve(
            server_kind,
            app="tests.applications.behind:app",
            options=KINDS[server_kind].options,
            SSE_HEARTBEAT=NEVER,
            SSE_HANDOFF=is_allowed,
        ) as server,
        Client(server.port) as client,
    ):
        client.request("/stream?channel=room&behind=delays_head")
        is_handed_off = is_allowed is True and is_known
        way = "handed_off" if is_handed_off else "iterated"
        until(lambda: server.stats()[way] == 1)
        server.publish({"data": "x", "channel": "room"})
        server.close("room")
        types = [event.type for event in client.events]
        assert types == ["stream-open", None, "stream-end"]
        assert not HELD_BACK.search(server.log())
        warnings = WARNING.findall(server.log())
        assert len(warnings) == (is_known and not is_handed_off)
        assert all("SSE_HANDOFF = True" in warning for warning in warnings)


@pytest.mark.parametrize("server_kind", ["gunicorn gthread", "cheroot", "waitress"])
def test_a_generator_that_is_held_back_is_told_of(server_kind: str) -> None:
    with serve(server_kind, app="tests.applications.behind:app") as server:
        for name in ("collects", "collects_late"):
            body = server.request("GET", f"/words?behind={name}").body
            assert body.count(b"data: ") == 4
        assert "An EventStream does not reach its client" in server.log()

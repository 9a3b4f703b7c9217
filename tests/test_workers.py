"""Several workers are one service: a client of any worker sees what any of them
publishes, once and in order, while workers are killed and replaced."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from . import IS_LONG
from .faithful import Faithful
from .redis_servers import redis_server
from .servers import (
    PATIENCE,
    Client,
    Server,
    process_of,
    serve,
    several,
    stopped,
    until,
)

WORKERS = 4

#: gunicorn's workers. The sync worker serves one request at a time.
GUNICORNS = ["gunicorn sync", "gunicorn gthread", "gunicorn gevent"]

#: Brokers' URLs by name. ``{folder}`` is the test's own.
URLS = {"sqlite": "sqlite:///{folder}/events.db"}

#: How often one test kills a worker, or replaces them all.
ROUNDS = 8 if IS_LONG else 2

#: More events of a channel than a test publishes. So whoever comes back late, because a
#: busy machine starts workers slowly, has missed nothing.
HISTORY = 1_000_000

#: Seconds within which workers must answer again. A master that replaces all its
#: workers ends the old ones before the new ones have started.
SLOWEST_START = 4 * PATIENCE


@contextmanager
def workers(kind: str, broker: str, folder: Path) -> Iterator[Server]:
    url = URLS[broker].format(folder=folder)
    options = several(kind, WORKERS)
    with serve(kind, options=options, SSE_URL=url, SSE_HISTORY=HISTORY) as server:
        yield server


@pytest.fixture(
    scope="module",
    params=[(kind, broker) for broker in URLS for kind in GUNICORNS],
    ids=lambda param: " ".join(param),
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    kind, broker = request.param
    with workers(kind, broker, tmp_path_factory.mktemp("store")) as server:
        yield server


@contextmanager
def streams_of_all(server: Server, channel: str, since: str = "") -> Iterator[Any]:
    """Streams of all workers."""
    with ExitStack() as stack:
        streams: list[Client] = []
        while len(served := {*map(process_of, streams)}) < WORKERS:
            with stopped(served):
                stream = stack.enter_context(server.stream(channel, since=since))
            assert stream.status == 200
            streams.append(stream)
        yield streams


def publish_while(server: Server, channel: str, is_on: Callable[[], bool]) -> list[str]:
    """Publish one event after the other.

    :returns: the data of those that are known to have been published.
    """
    numbers = takewhile(lambda _: is_on(), count(1))
    return [str(n) for n in numbers if is_published(server, channel, str(n))]


def is_published(server: Server, channel: str, text: str) -> bool:
    """Publish an event.

    :returns: whether it is known to have been published. Nobody can tell where the
        worker was killed meanwhile.
    """
    try:
        return bool(server.publish({"data": text, "channel": channel}))
    except (OSError, http.client.HTTPException):
        return False


def disturb(server: Server, act: Callable[[Faithful], None]) -> None:
    """Publish and listen while something happens to the workers again and again. No
    client may miss an event.

    :param act: what happens. It takes one of the clients.
    """
    clients = [Faithful(server, "room") for _ in range(2 * WORKERS)]
    known: list[str] = []
    is_on = True
    try:
        for client in clients:
            assert client.has_begun.wait(PATIENCE)
        publisher = threading.Thread(
            target=lambda: known.extend(publish_while(server, "room", lambda: is_on)),
            daemon=True,
        )
        publisher.start()
        for _ in range(ROUNDS):
            before = len(clients[0].data)
            act(clients[0])
            until(lambda before=before: len(clients[0].data) > before + 10)  # type: ignore[misc]
        is_on = False
        publisher.join(PATIENCE)
        until(lambda: is_published(server, "room", "the end"))
        for client in clients:
            client.join()
    finally:
        is_on = False
        for client in clients:
            client.stop()
    expected = clients[0].data
    for client in clients:
        assert client.gaps == []
        assert client.data == expected
    numbers = [int(text) for text in expected[:-1]]
    assert numbers == sorted(set(numbers))
    assert set(known) <= set(expected)
    # A client must have been cut and have gone on elsewhere, or nothing was tested.
    assert any(len(set(client.processes)) > 1 for client in clients)


def replace_all(server: Server) -> None:
    """Have the server replace all its workers, and wait until they are gone."""
    before = {*server.workers()}
    server.signal(signal.SIGHUP)
    until(lambda: before.isdisjoint(server.workers()), SLOWEST_START)


def test_every_worker_s_clients_see_what_any_publishes(server: Server) -> None:
    with server.channel() as room, streams_of_all(server, room) as streams:
        ids = []
        for number in range(30):
            ids += server.publish({"data": str(number), "channel": room})
        for stream in streams:
            events = stream.take(30)
            assert [event.data for event in events] == [str(n) for n in range(30)]
            assert [event.id for event in events] == ids


def test_a_client_resumes_at_any_worker(server: Server) -> None:
    with server.channel() as room:
        ids = server.publish(*({"data": str(n), "channel": room} for n in range(10)))
        with streams_of_all(server, room, since=ids[4]) as streams:
            for stream in streams:
                assert [e.data for e in stream.take(5)] == ["5", "6", "7", "8", "9"]


def test_a_channel_that_one_worker_closes_is_closed_at_all(server: Server) -> None:
    with server.channel() as room, streams_of_all(server, room) as streams:
        server.publish({"data": "last", "channel": room})
        server.close(room)
        for stream in streams:
            last, end = stream.take(2)
            assert (last.data, end.type) == ("last", "stream-end")
            assert stream.read() == b""
        for _ in range(4 * WORKERS):
            with server.stream(room, since=end.id or "") as late:
                assert late.status == 204


def test_nobody_misses_anything_while_workers_are_killed(server: Server) -> None:
    def kill(client: Faithful) -> None:
        """Kill the worker of a client, and wait until the client has come back."""
        connections = len(client.processes)
        os.kill(int(client.processes[-1]), signal.SIGKILL)
        until(lambda: len(client.processes) > connections)

    disturb(server, kill)


def test_nobody_misses_anything_while_workers_are_replaced(server: Server) -> None:
    disturb(server, lambda client: replace_all(server))


# By property


@pytest.fixture(scope="module", params=["memory", "sqlite", "redis"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, bool]]:
    """As many workers as a broker allows, and whether they share a store."""
    with ExitStack() as stack:
        if request.param == "redis":
            url = stack.enter_context(redis_server()).url
        elif request.param == "sqlite":
            url = f"sqlite:///{tmp_path_factory.mktemp('store')}/events.db"
        else:
            url = "memory://"
        is_shared = request.param != "memory"
        kind = "gunicorn gthread"
        options = several(kind, WORKERS if is_shared else 1)
        running = serve(kind, options=options, SSE_URL=url)
        yield stack.enter_context(running), is_shared


CLIENTS = 3

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 9)),
        st.tuples(st.just("cut"), st.integers(0, CLIENTS - 1)),
        st.tuples(st.just("kill"), st.integers(0, WORKERS - 1)),
        st.tuples(st.sampled_from(["cut all", "replace"]), st.just(0)),
    ),
    max_size=20,
)

_rooms = count()


@settings(
    max_examples=100 if IS_LONG else 3,
    # An example takes seconds and depends on timing, so it cannot be shrunk.
    phases=[Phase.explicit, Phase.generate],
)
@given(steps=STEPS)
def test_who_comes_back_sees_everything_once_and_in_order_or_is_told(
    service: tuple[Server, bool], steps: list[tuple[str, int]]
) -> None:
    server, is_shared = service
    room = f"property.{next(_rooms)}"
    known: list[str] = []
    numbers = count()
    clients = [Faithful(server, room) for _ in range(CLIENTS)]

    def take(step: str, number: int) -> None:
        before = server.workers()
        if step == "publish":
            texts = [str(next(numbers)) for _ in range(number)]
            known.extend(text for text in texts if is_published(server, room, text))
        elif step == "kill" and (running := server.workers()):
            with suppress(ProcessLookupError):  # It was just replaced.
                os.kill(running[number % len(running)], signal.SIGKILL)
        elif step == "replace":
            replace_all(server)
        elif step == "cut":
            clients[number].cut()
        elif step == "cut all":
            for client in clients:
                client.cut()
        if step in ("kill", "replace") and not is_shared:
            # A worker and its successor share nothing. While both are there, an event
            # can go to the one, and a client to the other.
            until(lambda: len(now := server.workers()) == 1 and now != before)

    try:
        for client in clients:
            assert client.has_begun.wait(SLOWEST_START)
        for step in steps:
            take(*step)
        until(lambda: is_published(server, room, "the end"), SLOWEST_START)
        for client in clients:
            client.join()
    finally:
        for client in clients:
            client.stop()
    has_lost = not is_shared and {"kill", "replace"} & {step for step, _ in steps}
    for client in clients:
        assert len({*client.data}) == len(client.data)
        seen = [text for text in client.data if text in known]
        if has_lost and client.gaps:
            assert seen == [text for text in known if text in seen]
        else:
            assert client.gaps == []
            assert seen == known
            assert client.data == clients[0].data or has_lost

"""Servers inside a process that goes on when they are stopped: their streams end with
them, at once and properly, and no other server's streams do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .patience import patient
from .servers import HOST, PATIENCE, ROOT, Client, reserved_port, until

#: Longer than any test waits: no heartbeat hides a missing wake.
NEVER = 4 * PATIENCE

#: All kinds, and those that hand connections over.
KINDS = ["pywsgi", "cheroot", "werkzeug", "wsgiref", "waitress"]
HANDED_OFF = KINDS[:3]

#: Each kind with each of its ways of delivery.
WAYS = [
    *((kind, "auto") for kind in KINDS),
    *((kind, False) for kind in HANDED_OFF),
]

#: Seconds within which streams must end when they are told to: far less than it takes
#: them to find that out by themselves, at their next heartbeat.
SOON = patient(10.0)

SOME = 5


class Embedding:
    """A process that has servers inside."""

    def __init__(self, process: int, control: int, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log
        [self._socket] = until(lambda: connected(control))
        self._lines = self._socket.makefile("rw")

    def do(self, verb: str, *arguments: Any) -> Any:
        self._lines.write(json.dumps([verb, *arguments]) + "\n")
        self._lines.flush()
        try:
            is_done, answer = json.loads(self._lines.readline())
        except TimeoutError:
            os.kill(self.process, signal.SIGUSR2)
            until(lambda: "Current thread" in self._log.read_text())
            pytest.fail(f"{verb} does not come to its end:\n{self._log.read_text()}")
        assert is_done, f"{answer}\n{self._log.read_text()}"
        return answer

    def start(self, name: str, port: int = 0) -> None:
        self.do("start", port or self.port, name)
        self.await_answers(port)

    def await_answers(self, port: int = 0) -> None:
        [connection] = until(lambda: connected(port or self.port))
        connection.close()

    def stream(self, path: str = "/stream", port: int = 0) -> Client:
        client = Client(port or self.port)
        client.request(path)
        return client

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def connected(port: int) -> list[socket.socket]:
    """A connection, in a list; an empty list where nobody accepts one."""
    try:
        return [socket.create_connection((HOST, port), PATIENCE)]
    except ConnectionRefusedError:
        return []


@contextmanager
def embedding(kind: str, folder: Path, **config: Any) -> Iterator[Embedding]:
    config |= {"SSE_HEARTBEAT": NEVER, "SSE_RETRY": 100}
    settings = {f"FLASK_{name}": json.dumps(value) for name, value in config.items()}
    log = folder / "log"
    with reserved_port() as port, reserved_port() as control, log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.applications.embedded", kind, str(control)],
            cwd=ROOT,
            env=dict(os.environ) | settings,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
        try:
            embedded = Embedding(process.pid, control, port, log)
            try:
                yield embedded
            finally:
                embedded.close()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


def opened(client: Client) -> Client:
    assert next(client.events).type == "stream-open"
    return client


def rest(client: Client) -> list[str]:
    """What else comes, up to the proper end. (h11 raises an error at any other.)"""
    client.socket.settimeout(SOON)
    with client:
        return [event.data for event in client.events]


@pytest.mark.parametrize(("kind", "handoff"), WAYS)
def test_streams_end_with_their_server_and_its_successor_has_its_own(
    kind: str, handoff: Any, tmp_path: Path
) -> None:
    with embedding(kind, tmp_path, SSE_HANDOFF=handoff) as process:
        process.start("one")
        clients = [opened(process.stream()) for _ in range(SOME)]
        process.do("publish", "one", "last")
        process.do("stop", process.port)
        for client in clients:
            assert rest(client) == ["last"]
        until(lambda: not any(process.do("stats", "one")["open"].values()))

        process.start("two")
        with opened(process.stream()) as client:
            process.do("publish", "one", "nobody hears this")
            process.do("publish", "two", "new")
            assert [event.data for event in client.take(1)] == ["new"]


@pytest.mark.parametrize("kind", HANDED_OFF)
def test_the_same_application_goes_on_behind_another_server(
    kind: str, tmp_path: Path
) -> None:
    with embedding(kind, tmp_path) as process:
        process.start("one")
        client = opened(process.stream())
        seen = process.do("publish", "one", "seen")
        process.do("stop", process.port)
        assert rest(client) == ["seen"]
        process.do("publish", "one", "missed")
        process.start("one")
        with opened(process.stream(f"/stream?last_event_id={seen}")) as client:
            process.do("publish", "one", "new")
            assert [event.data for event in client.take(2)] == ["missed", "new"]


@pytest.mark.parametrize("kind", ["pywsgi", "cheroot"])
def test_a_server_that_is_started_again_serves_new_streams(
    kind: str, tmp_path: Path
) -> None:
    with embedding(kind, tmp_path) as process:
        process.start("one")
        for text in ("first", "second", "third"):
            client = opened(process.stream())
            process.do("publish", "one", text)
            process.do("stop", process.port)
            process.do("start_again", process.port)
            process.await_answers()
            assert rest(client) == [text]


@pytest.mark.parametrize(("kind", "handoff"), WAYS)
def test_a_server_that_stops_leaves_the_others_their_streams(
    kind: str, handoff: Any, tmp_path: Path
) -> None:
    with (
        reserved_port() as port,
        embedding(kind, tmp_path, SSE_HANDOFF=handoff) as process,
    ):
        process.start("one")
        process.start("two", port)
        with opened(process.stream(port=port)) as staying:
            leaving = opened(process.stream())
            process.do("stop", process.port)
            assert rest(leaving) == []
            process.do("publish", "two", "on")
            assert [event.data for event in staying.take(1)] == ["on"]


@pytest.mark.parametrize(("kind", "handoff"), WAYS)
def test_an_application_ends_its_streams_and_nobody_else_s(
    kind: str, handoff: Any, tmp_path: Path
) -> None:
    with (
        reserved_port() as port,
        embedding(kind, tmp_path, SSE_HANDOFF=handoff) as process,
    ):
        process.start("one")
        process.start("two", port)
        process.do("end_streams", "one")  # There is no stream yet.
        with opened(process.stream(port=port)) as staying:
            clients = [opened(process.stream()) for _ in range(SOME)]
            process.do("publish", "one", "last")
            process.do("end_streams", "one")
            for client in clients:
                assert rest(client) == ["last"]
            process.do("publish", "two", "on")
            assert [event.data for event in staying.take(1)] == ["on"]
        with opened(process.stream()) as client:
            process.do("publish", "one", "new")
            assert [event.data for event in client.take(1)] == ["new"]


@pytest.mark.parametrize("way", ["stop", "end_streams"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_is_told_that_its_server_stops(
    kind: str, way: str, tmp_path: Path
) -> None:
    with embedding(kind, tmp_path) as process:
        process.start("one")
        client = process.stream("/words")
        client.take(2)
        if way == "stop":
            # The server waits for its requests; some servers wait as long as they take.
            process.do("stop", process.port)
        else:
            process.do("end_streams", "one")
        with client:
            *_, last = client.events
        if (kind, way) != ("pywsgi", "stop"):
            assert (last.type, last.json) == ("stream-error", {"reason": "shutdown"})


@pytest.mark.parametrize("kind", HANDED_OFF)
def test_a_run_goes_on_when_its_server_is_replaced(kind: str, tmp_path: Path) -> None:
    with embedding(kind, tmp_path) as process:
        process.start("one")
        client = process.stream("/run")
        (first,) = client.take(1)
        location = client.headers["location"]
        process.do("stop", process.port)
        assert set(rest(client)) <= {"one"}
        process.start("one")
        with process.stream(f"{location}?last_event_id={first.id}") as client:
            assert [event.data for event in client.take(3)] == ["one"] * 3

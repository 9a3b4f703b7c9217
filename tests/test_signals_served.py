"""Signals on real servers, on threads and on gevent: a receiver that hangs delays
nothing, no stream's end is missing, and neither a fork nor a stop brings anything
twice."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .servers import GRACE, PATIENCE, Server, serve, until

SIGNALLING = "tests.applications.signalling:app"

KINDS = ["gunicorn gthread", "gunicorn gevent"]

#: Longer than any test waits.
NEVER = 4 * PATIENCE


class Signalling:
    """A server whose receivers note what they are told."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self._folder = folder

    def told(self, name: str, channel: str = "") -> list[dict[str, Any]]:
        """The facts of a signal, or of one of a channel."""
        notes = self._folder / "notes"
        lines = notes.read_text().splitlines() if notes.exists() else []
        return [
            facts
            for facts in map(json.loads, lines)
            if facts["signal"] == name
            and (not channel or channel in facts.get("channels", ()))
        ]

    def await_one(self, name: str, channel: str) -> dict[str, Any]:
        (facts,) = until(lambda: self.told(name, channel))
        return facts

    def hold(self) -> None:
        """Have a receiver hang, until ``open`` is called."""
        self.server.publish({"data": "gate", "type": "gate"})
        until(lambda: self.told("waiting"))

    def open(self) -> None:
        (self._folder / "open").touch()


@pytest.fixture(params=KINDS)
def signalling(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Signalling]:
    with serve(
        request.param,
        app=SIGNALLING,
        options=GRACE,
        SSE_HEARTBEAT=NEVER,
        FOLDER=str(tmp_path),
    ) as server:
        yield Signalling(server, tmp_path)
        (tmp_path / "open").touch()


def test_a_receiver_that_hangs_delays_no_delivery_and_no_request(
    signalling: Signalling,
) -> None:
    server = signalling.server
    signalling.hold()
    with ExitStack() as stack:
        clients = [stack.enter_context(server.stream("room")) for _ in range(5)]
        for number in range(20):
            server.publish({"data": f"{number}", "channel": "room"})
            for client in clients:
                (event,) = client.take(1)
                assert event.data == f"{number}"
        for client in clients[:2]:
            client.leave()
        # A disconnect can come before the hub notices who has left.
        until(lambda: server.stats()["streams"] == 3)
        assert server.request("POST", "/disconnect/room").status == 204
        for client in clients[2:]:
            assert client.take(1) == []
    # All of that has happened, and nobody was told.
    assert signalling.told("connected") == []
    signalling.open()
    until(lambda: len(signalling.told("disconnected", "room")) == 5)
    ends = signalling.told("disconnected", "room")
    assert {end["path"] for end in ends} == {"handed off"}
    assert Counter(end["reason"] for end in ends) == {"left": 2, "disconnect": 3}
    assert {end["events"] for end in ends} == {20}
    assert len(signalling.told("published")) == 21


def leave(server: Server, channel: str) -> None:
    """Each client leaves by itself, behind this."""


def end(server: Server, channel: str) -> None:
    server.close(channel)


def end_streams(server: Server, channel: str) -> None:
    assert server.request("POST", "/end-streams").status == 204


@pytest.mark.parametrize(
    ("do", "reason"), [(leave, "left"), (end, "ended"), (end_streams, "end-streams")]
)
def test_each_end_is_told_once_with_what_its_client_has_received(
    signalling: Signalling, do: Callable[[Server, str], None], reason: str
) -> None:
    server = signalling.server
    for number in range(1, 6):
        with server.channel() as channel, server.stream(channel) as client:
            signalling.await_one("connected", channel)
            server.publish(*({"data": "x", "channel": channel},) * number)
            body = b""
            while body.count(b"data: x") < number:
                body += client.read()
            do(server, channel)
            while reason != "left" and (piece := client.read()):
                body += piece
            client.leave()
            facts = signalling.await_one("disconnected", channel)
        assert facts["reason"] == reason
        assert facts["events"] == number
        assert facts["bytes"] == len(body)


def test_a_server_that_stops_tells_the_end_of_each_stream(
    signalling: Signalling,
) -> None:
    server = signalling.server
    with ExitStack() as stack:
        clients = [stack.enter_context(server.stream("room")) for _ in range(20)]
        until(lambda: len(signalling.told("connected", "room")) == 20)
        server.signal(signal.SIGTERM)
        for client in clients:
            client.take(1)
    server.wait()
    ends = signalling.told("disconnected", "room")
    assert [each["reason"] for each in ends] == ["shutdown"] * 20


def test_a_server_stops_although_a_receiver_hangs(signalling: Signalling) -> None:
    signalling.hold()
    with signalling.server.stream("room") as client:
        signalling.server.signal(signal.SIGTERM)
        client.take(1)
    signalling.server.wait()
    assert signalling.told("connected") == []


def test_a_forked_child_tells_what_happens_in_it_and_nothing_of_its_parent(
    signalling: Signalling,
) -> None:
    server = signalling.server
    with server.stream("room") as client:
        until(lambda: len(signalling.told("connected", "room")) == 1)
        signalling.hold()
        # Waits in the parent's queue while it forks.
        server.publish({"data": "of the parent", "channel": "room"})
        child = int(server.request("POST", "/fork").body)
        until(lambda: child in {e["process"] for e in signalling.told("published")})
        signalling.open()
        server.publish({"data": "behind it", "channel": "room"})
        until(lambda: len(signalling.told("published")) == 4)
        assert [event.data for event in client.take(2)] == [
            "of the parent",
            "behind it",
        ]
    until(lambda: signalling.told("disconnected", "room"))
    until(lambda: not os.path.exists(f"/proc/{child}/exe"))
    published = signalling.told("published")
    assert [(each["process"] == child, each["event"]) for each in published] == [
        (True, "from the child"),
        (False, "gate"),
        (False, "of the parent"),
        (False, "behind it"),
    ]
    for name in ("connected", "disconnected"):
        (facts,) = signalling.told(name, "room")
        assert facts["process"] != child

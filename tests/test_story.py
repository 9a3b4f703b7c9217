"""What is told of a stream that ends: how many events and bytes its client was sent,
and why it ended."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_sse_lite import Event, signals
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub.connection import MAX_JUNK, Group
from flask_sse_lite.hub.loop import Hub
from flask_sse_lite.settings import Settings
from flask_sse_lite.signals import courier as module
from flask_sse_lite.signals.courier import Courier
from flask_sse_lite.signals.story import Story, Tally, story_of

from .hubs import LARGE, PATIENCE, SETTINGS, Client
from .hubs import hub as hub
from .hubs import log as log
from .servers import until

#: No sign of life is sent, so that bytes can be compared.
CALM = Settings.read({"SSE_HEARTBEAT": 3600})


@pytest.fixture
def courier(monkeypatch: pytest.MonkeyPatch) -> Courier:
    monkeypatch.setattr(module, "LINGER", 0.02)
    app = Flask("application")
    return Courier(app, app.app_context)


@pytest.fixture
def ends(courier: Courier) -> Iterator[list[dict[str, Any]]]:
    """The facts of each end."""
    told = []

    def receiver(sender: Flask, **facts: Any) -> None:
        told.append(facts)

    with signals.disconnected.connected_to(receiver):
        yield told


@pytest.fixture
def connect(hub: Hub, log: Log, courier: Courier) -> Iterator[Callable[..., Client]]:
    """Make clients of streams that have a story."""
    clients: list[Client] = []

    def connect(*channels: str, settings: Settings = SETTINGS, **more: Any) -> Client:
        names = channels or ("a",)
        story = story_of(courier, names, None, "")
        clients.append(Client(hub, log, *names, story=story, settings=settings, **more))
        return clients[-1]

    yield connect
    for client in clients:
        client.socket.close()


def body_of(client: Client) -> bytes:
    """All that a client is sent, up to the end."""
    pieces = []
    while piece := client.socket.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def test_an_end_says_what_its_client_was_sent(
    log: Log,
    courier: Courier,
    connect: Callable[..., Client],
    ends: list[dict[str, Any]],
) -> None:
    early = connect(settings=CALM)
    log.append("a", Event("1"))
    early.read_until("1")
    log.append("a", Event("2" * 100))
    early.read_until("2" * 100)
    late = connect(since=log.position(0), settings=CALM)
    log.append("a", Event("3"))
    log.end("a")
    bodies = [body_of(late), body_of(early)]
    until(lambda: len(ends) == 2, PATIENCE)
    assert {end["reason"] for end in ends} == {"ended"}
    assert [end["events"] for end in ends] == [3, 3]
    assert {end["bytes"] for end in ends} == {len(bodies[0])}
    # The early one has read the beginning before.
    assert bodies[0].endswith(bodies[1])


def test_members_of_one_group_are_each_counted_from_where_they_came(
    log: Log, connect: Callable[..., Client], ends: list[dict[str, Any]]
) -> None:
    clients = []
    for number in range(5):
        clients.append(connect(chunked=number % 2 == 1, settings=CALM))
        log.append("a", Event(f"{number}"))
        for client in clients:
            if not client.chunked:
                client.read_until(f"{number}")
    log.end("a")
    until(lambda: len(ends) == 5, PATIENCE)
    assert sorted(end["events"] for end in ends) == [1, 2, 3, 4, 5]
    sizes = {end["events"]: end["bytes"] for end in ends}
    frame = len(Event("0", id=log.position(1)).encode())
    # What HTTP puts around the chunks is not counted.
    assert {sizes[n + 1] - sizes[n] for n in range(1, 5)} == {frame}


def test_a_client_that_falls_behind_is_counted_for_what_it_was_sent(
    log: Log, connect: Callable[..., Client], ends: list[dict[str, Any]]
) -> None:
    slow, fast = connect(settings=CALM), connect(settings=CALM)
    log.append("a", Event("begin"))
    for client in (slow, fast):
        client.read_until("begin")
    for number in range(3):
        log.append("a", Event(f"{number}{LARGE}"))
        fast.read_until(f"{number}{LARGE}")
    log.append("a", Event("last"))
    fast.read_until("last")
    slow.read_until("last")
    log.end("a")
    for client in (slow, fast):
        body_of(client)
    until(lambda: len(ends) == 2, PATIENCE)
    assert [end["events"] for end in ends] == [5, 5]
    assert ends[0]["bytes"] == ends[1]["bytes"] > 3 * len(LARGE)


def test_what_did_not_fit_is_no_byte_that_went(
    log: Log, connect: Callable[..., Client], ends: list[dict[str, Any]]
) -> None:
    slow, fast = connect(), connect()
    log.append("a", Event(LARGE))
    fast.read_until(LARGE)
    slow.socket.close()
    until(lambda: len(ends) == 1, PATIENCE)
    (end,) = ends
    assert end["reason"] == "left"
    assert end["events"] == 1
    # A socket of this kind holds some 200 kB.
    assert 0 < end["bytes"] < len(LARGE) // 2


# Why


def leave(hub: Hub, log: Log, client: Client) -> None:
    client.socket.close()


def reset(hub: Hub, log: Log, client: Client) -> None:
    client.socket.shutdown(socket.SHUT_RDWR)


def talk(hub: Hub, log: Log, client: Client) -> None:
    client.socket.sendall(b"x" * (MAX_JUNK + 1))


def close_channel(hub: Hub, log: Log, client: Client) -> None:
    log.end("a")


def grow_old(hub: Hub, log: Log, client: Client) -> None:
    until(lambda: len(hub._fanout.connections) == 1, PATIENCE)
    for connection in list(hub._fanout.connections.values()):
        connection.expires = 1.0


def end_streams(hub: Hub, log: Log, client: Client) -> None:
    hub.end_streams(SETTINGS, PATIENCE)


def stop(hub: Hub, log: Log, client: Client) -> None:
    hub.stop(PATIENCE)


def fail(hub: Hub, log: Log, client: Client) -> None:
    until(lambda: len(hub._fanout.connections) == 1, PATIENCE)

    def raise_(*arguments: object) -> bool:
        raise ZeroDivisionError

    hub._fanout.deliver = raise_  # type: ignore[method-assign,assignment]
    log.append("a", Event("1"))


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        (leave, "left"),
        (reset, "left"),
        (talk, "talkative"),
        (close_channel, "ended"),
        (grow_old, "max-age"),
        (end_streams, "end-streams"),
        (stop, "shutdown"),
        (fail, "failed"),
    ],
)
def test_an_end_says_its_reason(
    hub: Hub,
    log: Log,
    connect: Callable[..., Client],
    ends: list[dict[str, Any]],
    do: Callable[[Hub, Log, Client], None],
    reason: str,
) -> None:
    client = connect()
    log.append("a", Event("begin"))
    client.read_until("begin")
    do(hub, log, client)
    until(lambda: len(ends) == 1, PATIENCE)
    assert ends[0]["reason"] == reason
    assert ends[0]["path"] == "handed off"
    assert ends[0]["path_reason"] is None
    assert ends[0]["channels"] == ("a",)
    assert ends[0]["seconds"] >= 0


def test_a_client_that_takes_nothing_is_told_as_stalled(
    log: Log, connect: Callable[..., Client], ends: list[dict[str, Any]]
) -> None:
    impatient = Settings.read({"SSE_HEARTBEAT": 0.1, "SSE_MAX_STALL": 0.2})
    connect(settings=impatient)
    log.append("a", Event(LARGE))
    until(lambda: len(ends) == 1, PATIENCE)
    assert ends[0]["reason"] == "stalled"


# One story alone


def test_an_end_is_told_once_and_only_behind_a_beginning(
    courier: Courier, ends: list[dict[str, Any]]
) -> None:
    story = Story(courier, ("a",), None, "")
    story.end()
    story.begin("iterated")
    story.expect("max-age")
    story.expect("shutdown")
    story.end("left")
    story.end("ended")
    assert courier.settle(PATIENCE)
    assert [end["reason"] for end in ends] == ["max-age"]


def test_nobody_listens_so_that_there_is_no_story(courier: Courier) -> None:
    assert story_of(courier, ("a",), None, "") is None
    with signals.gap.connected_to(lambda sender, **facts: None):
        assert story_of(courier, ("a",), None, "") is not None
        assert story_of(None, ("a",), None, "") is None


def test_who_leaves_a_group_while_it_is_sent_something_is_not_counted_for_that(
    courier: Courier, log: Log, ends: list[dict[str, Any]]
) -> None:
    tally = Tally(courier)
    gone, behind, left = (Story(courier, ("a",), None, "") for _ in range(3))
    for story in (gone, behind, left):
        story.begin("handed off")
        assert story.join(tally) is tally
    cursor = log.cursor(["a"])
    log.append("a", Event("1"))
    tally.begin(log.read(cursor, 1000), b"12345", streams=3)
    gone.leave(tally)
    behind.leave(tally)
    behind.note(*tally.in_flight)
    tally.finish()
    left.leave(tally)
    for story in (gone, behind, left):
        story.end()
    assert courier.settle(PATIENCE)
    assert [(end["events"], end["bytes"]) for end in ends] == [(0, 0), (1, 5), (1, 5)]


def test_a_round_of_a_group_is_one_delivery(
    hub: Hub, log: Log, courier: Courier, connect: Callable[..., Client]
) -> None:
    deliveries = courier.watch_deliveries()
    deliveries.measure()
    assert courier.watch_deliveries() is deliveries
    clients = [connect() for _ in range(5)]
    until(lambda: sum(group.size for group in groups(hub)) == 5, PATIENCE)
    log.append("a", Event("1"))
    for client in clients:
        client.read_until("1")
    # The hub notes it behind the last of them.
    assert len(until(deliveries.take, PATIENCE)) == 1
    assert deliveries.take() == []


def groups(hub: Hub) -> list[Group]:
    return list(hub._fanout.groups.values())


def test_a_stream_of_which_only_deliveries_are_noted_has_a_story(
    courier: Courier,
) -> None:
    assert story_of(courier, ("a",), None, "") is None
    courier.watch_deliveries()
    assert story_of(courier, ("a",), None, "") is not None
    assert story_of(None, ("a",), None, "") is None

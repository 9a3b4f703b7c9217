"""Which streams of a hub a revocation ends, and that nothing is sent before it does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.log import Log
from flask_sse_lite.history.revocations import REVOCATIONS, Revocation
from flask_sse_lite.hub.client import NOBODY, Client
from flask_sse_lite.hub.connection import Connection
from flask_sse_lite.hub.revoking import Revoking
from flask_sse_lite.settings import Settings

from .hub_parts import Parts, Story, Stream, hub_parts

SETTINGS = Settings.read({})

ANN, BOB = Client("ann", None, 0.0), Client("bob", None, 0.0)


@pytest.fixture
def log() -> Log:
    return Log(history=99, age=99)


@pytest.fixture
def parts() -> Iterator[Parts]:
    with hub_parts() as parts:
        yield parts


@pytest.fixture
def wakes() -> list[None]:
    """One for each time that the loop was woken."""
    return []


@pytest.fixture
def revoking(parts: Parts, log: Log, wakes: list[None]) -> Iterator[Revoking]:
    revoking = Revoking(
        parts.lock, parts.listeners, parts.fanout, lambda: wakes.append(None)
    )
    parts._admits = revoking.admits  # type: ignore[method-assign]
    parts._end_revoked_of = revoking.end_revoked_of  # type: ignore[method-assign]
    with parts.lock:
        revoking.watch(log)
    yield revoking
    with parts.lock:
        revoking.forget_others(())
    assert not is_watched(log)


def is_watched(log: Log) -> bool:
    channel = log._channels.get(REVOCATIONS)
    return channel is not None and bool(channel.watchers)


def revoke(log: Log, identity: str | None = "ann", channel: str | None = None) -> None:
    log.append(REVOCATIONS, Revocation(identity, channel).to_event())


def connect(
    parts: Parts, log: Log, client: Client, channel: str = "a"
) -> tuple[Connection, socket.socket]:
    return parts.connect(log, SETTINGS, channel, client=client)


def welcomed(
    parts: Parts, log: Log, client: Client, channel: str = "a"
) -> socket.socket:
    _, peer = connect(parts, log, client, channel)
    parts._welcome_all()
    return peer


def told(whom: Any) -> Story:
    """Have the story of a stream told."""
    story = Story()
    whom.story = story
    return story


def sent(peer: socket.socket) -> bytes | None:
    """What the peer was sent; None where it was sent nothing, and is not at its end."""
    try:
        return peer.recv(65536)
    except BlockingIOError:
        return None


def test_a_revocation_wakes_the_loop(
    log: Log, revoking: Revoking, wakes: list[None]
) -> None:
    revoke(log)
    assert len(wakes) == 1
    log.append("a", Event("something else"))
    assert len(wakes) == 1


def test_the_streams_that_it_concerns_end(
    parts: Parts, log: Log, revoking: Revoking
) -> None:
    ann, bob = welcomed(parts, log, ANN), welcomed(parts, log, BOB)
    iterated = Stream(log)
    iterated.client = ANN
    with parts.lock:
        parts.audiences.join(iterated)
    revoke(log)
    revoking.end_revoked()
    assert sent(ann) == b""
    assert sent(bob) is None
    assert iterated.ends == 1
    revoking.end_revoked()
    assert iterated.ends == 1
    with parts.lock:
        parts.audiences.leave(iterated)
        parts.audiences.let_go()


@pytest.mark.parametrize(
    ("identity", "channel", "ends"),
    [
        ("ann", None, ["ann on a", "ann on b"]),
        (None, "a", ["ann on a", "bob on a"]),
        ("ann", "b", ["ann on b"]),
        ("cid", None, []),
        (None, "c", []),
    ],
)
def test_an_identity_s_streams_end_or_a_channel_s_or_those_of_both(
    parts: Parts,
    log: Log,
    revoking: Revoking,
    identity: str | None,
    channel: str | None,
    ends: list[str],
) -> None:
    peers = {
        f"{client.identity} on {name}": welcomed(parts, log, client, name)
        for client in (ANN, BOB)
        for name in "ab"
    }
    revoke(log, identity, channel)
    revoking.end_revoked()
    assert [who for who, peer in peers.items() if sent(peer) == b""] == ends


def test_only_the_streams_that_it_names_are_looked_at(
    parts: Parts, log: Log, revoking: Revoking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revocation costs what it ends, and not what there is."""
    asked: list[str | None] = []
    concern = log.revocations.concern

    def noted(identity: str | None, *args: Any) -> bool:
        asked.append(identity)
        return concern(identity, *args)

    for client in (ANN, BOB, BOB):
        welcomed(parts, log, client)
    monkeypatch.setattr(log.revocations, "concern", noted)
    revoke(log)
    revoking.end_revoked()
    assert asked == ["ann"]


def test_all_are_looked_at_where_the_log_has_forgotten_whom_it_meant(
    parts: Parts, log: Log, revoking: Revoking
) -> None:
    ann = welcomed(parts, log, ANN)
    nobody = welcomed(parts, log, NOBODY)
    log.revocations.note_lost(1.0)
    revoking.end_revoked()
    assert sent(ann) == b""
    assert sent(nobody) is None


def test_a_group_sends_nothing_that_it_has_read_behind_a_revocation(
    parts: Parts, log: Log, revoking: Revoking
) -> None:
    ann, bob = welcomed(parts, log, ANN), welcomed(parts, log, BOB)
    (group,) = parts.fanout.groups.values()
    revoke(log)
    log.append("a", Event("later"))
    parts.fanout.deliver(group)
    assert sent(ann) == b""
    assert b"later" in (sent(bob) or b"")


def test_whoever_catches_up_is_sent_nothing_that_it_has_read_behind_one(
    parts: Parts, log: Log, revoking: Revoking
) -> None:
    welcomed(parts, log, BOB)
    connection, ann = connect(parts, log, ANN)
    with parts.lock:
        parts.fanout.newcomers.clear()
        parts.fanout._put(connection)
    revoke(log)
    log.append("a", Event("later"))
    (group,) = parts.fanout.groups.values()
    parts.fanout.deliver(group)
    parts.fanout.catch_up(connection)
    assert sent(ann) == b""


def test_a_connection_that_was_let_in_before_is_not_begun_with(
    parts: Parts, log: Log, revoking: Revoking
) -> None:
    _, ann = connect(parts, log, ANN)
    log.append("a", Event("before"))
    revoke(log)
    revoking.end_revoked()  # The connection is new, and not looked at here.
    parts._welcome_all()
    assert sent(ann) == b""
    assert not parts.fanout.connections


def test_logs_have_revocations_of_their_own(
    parts: Parts, log: Log, revoking: Revoking
) -> None:
    other = Log(history=9, age=9)
    with parts.lock:
        revoking.watch(other)
    ann = welcomed(parts, log, ANN)
    revoke(other)
    revoking.end_revoked()
    assert sent(ann) is None
    with parts.lock:
        revoking.forget_others({log})
    assert not is_watched(other)
    assert is_watched(log)


def test_a_log_that_has_streams_again_is_heard_again(
    parts: Parts, log: Log, revoking: Revoking, wakes: list[None]
) -> None:
    revoke(log)
    with parts.lock:
        revoking.forget_others(())
    # A group whose last connection has left can be read once more.
    revoking.end_revoked_of(log)
    with parts.lock:
        revoking.watch(log)
    revoke(log)
    assert len(wakes) == 2


def test_each_end_is_told_with_its_reason(
    parts: Parts, log: Log, revoking: Revoking
) -> None:
    connection, _ = connect(parts, log, ANN)
    served = told(connection)
    parts._welcome_all()
    iterated = Stream(log)
    iterated.client = ANN
    story = told(iterated)
    with parts.lock:
        parts.audiences.join(iterated)
    revoke(log)
    revoking.end_revoked()
    assert served.ends == story.expected == ["disconnect"]
    parts.audiences.leave(iterated)


def test_whoever_comes_is_admitted_unless_it_was_revoked(
    parts: Parts, log: Log, revoking: Revoking
) -> None:
    revoke(log)
    stories = []
    for client in (ANN, BOB):
        connection, _ = connect(parts, log, client)
        stories.append(told(connection))
        with parts.lock:
            parts.fanout.newcomers.clear()
            parts.fanout._put(connection)
        assert revoking.admits(connection) is (client is BOB)
    assert [story.ends for story in stories] == [["disconnect"], []]

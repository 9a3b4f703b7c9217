"""Which streams of a hub a revocation ends, and that nothing is sent before it does."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.log import Log
from flask_sse_lite.history.revocations import REVOCATIONS, Revocation
from flask_sse_lite.hub.client import Client
from flask_sse_lite.hub.connection import Connection
from flask_sse_lite.hub.revoking import Revoking
from flask_sse_lite.settings import Settings

from .hub_parts import Parts, Stream, hub_parts

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
        parts.lock, parts.audiences, parts.fanout, lambda: wakes.append(None)
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


def revoke(log: Log, identity: str = "ann") -> None:
    log.append(REVOCATIONS, Revocation(identity, None).to_event())


def connect(parts: Parts, log: Log, client: Client) -> tuple[Connection, socket.socket]:
    connection, peer = parts.connect(log, SETTINGS)
    connection.client = client
    return connection, peer


def welcomed(parts: Parts, log: Log, client: Client) -> socket.socket:
    _, peer = connect(parts, log, client)
    parts._welcome_all()
    return peer


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

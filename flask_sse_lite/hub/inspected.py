"""What an operator is shown of the open streams of a process.

Here lives what can be told of a stream without counting for it while it goes on: the
system knows how many bytes its client has taken, and its cursor how far it has read.
So nothing is paid before somebody asks. Streams are never changed here.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from ..history.log import Log
from ..servers.server import Reason
from ..signals import Path
from ..system.locks import Guard
from .audiences import Audiences
from .connection import Connection
from .fanout import Fanout
from .iterated import IteratedStream
from .stall import on_the_wire


class OpenStream(NamedTuple):
    """One open stream, as it was a moment ago.

    :param name: by which ``Hub.end_one`` finds it.
    :param path: how it is delivered.
    :param reason: the code of the reason why its server iterates it, if it does.
    :param age: seconds since the request began that let its client in.
    :param behind: events that its client has not been sent.
    :param waiting: bytes that were sent and that its client has not taken; a measure of
        them only, where its socket is a Unix one.
    :param taken: bytes that its connection's client has taken, heads included. None
        where the system does not say.
    """

    name: str
    path: Path
    reason: Reason | None
    channels: tuple[str, ...]
    identity: str | None
    age: float
    behind: int
    waiting: int
    taken: int | None


#: What a stream is found by.
Inspected = Connection | IteratedStream


def _name(stream: Inspected) -> str:
    """A name that no other stream of the process has. (The memory of a stream that is
    gone can belong to another, whose client was let in at another time.)"""
    return f"{id(stream):x}.{hash(stream.client.let_in) & 0xFFFF_FFFF:x}"


def is_named(log: Log, name: str, stream: object) -> bool:
    """Whether a stream is the one of that name."""
    return isinstance(stream, Inspected) and stream.log is log and _name(stream) == name


def open_streams(
    log: Log, most: int, lock: Guard, audiences: Audiences, fanout: Fanout
) -> list[OpenStream]:
    """Streams of a log: first those that are behind their group, up to ``most`` in all.
    Any thread can call this.

    :param lock: the hub's. It is held while the system is asked of the connections: no
        descriptor is closed meanwhile, so that none means another connection.
    """
    now = time.monotonic()
    with lock:
        own = [c for c in fanout.connections.values() if c.log is log]
        own.sort(key=lambda connection: connection.group is not None)
        asked: list[tuple[Inspected, int, int | None]] = [
            (connection, *_of_socket(connection)) for connection in own[:most]
        ]
        iterated = [s for s in audiences.iterated if s.log is log]
    asked += [
        (stream, *stream.on_the_wire())
        for stream in iterated[: most - len(asked)]
        if isinstance(stream, IteratedStream)
    ]
    return [_told(log, *told, now) for told in asked]


def _of_socket(connection: Connection) -> tuple[int, int | None]:
    """Bytes that wait for the client, and that the client has taken."""
    # A library can have closed the descriptor.
    waiting, taken = on_the_wire(connection.descriptor)
    left = len(connection.frame) - connection.sent if connection.frame else 0
    return left + waiting, taken


def _told(
    log: Log, stream: Inspected, waiting: int, taken: int | None, now: float
) -> OpenStream:
    path: Path = "handed off"
    reason: Reason | None = None
    if isinstance(stream, IteratedStream):
        path, reason = "iterated", stream.path_reason
    return OpenStream(
        _name(stream),
        path,
        reason,
        stream.cursor.channels,
        stream.client.identity,
        max(now - stream.client.let_in, 0.0),
        log.behind(stream.cursor),
        waiting,
        taken,
    )

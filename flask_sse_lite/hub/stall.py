"""Clients that take nothing: those whose network is gone, and those that do not read.

Here live the bound of a socket's send buffer, and how the hub sees whether a client
takes what it is sent. When the hub looks, and which client it cuts, lives in looks.py,
iterated.py and keepalive.py. Nothing here waits.

(The system's own limit, ``TCP_USER_TIMEOUT``, is of no use here. Linux also cuts a
client that reads steadily, if its window never has room for a whole piece.)
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import Any

from ..system.outgoing import (
    bytes_acknowledged,
    bytes_waiting,
    seconds_since_acknowledged,
)
from ..system.poller import plain_socket

#: Bytes of a stream that the system holds for its client. Without a bound they grow to
#: megabytes. (The system doubles the number for its own bookkeeping, and takes one
#: batch of events more, so that a client costs some 190 kB at most. Setting the number
#: ends the system's own tuning: a client that is 100 ms away gets 1 MB a second at
#: most. On the loopback, batches of 64 kB are as fast as without a bound: 2.3 to 2.5 GB
#: a second. With half the number they wait for the client's acknowledgements.)
SEND_BUFFER = 64 * 1024

#: Lets the system tune a socket's send buffer again (``SO_BUF_LOCK``, Linux 5.14).
_BUFFER_LOCK = 72

_LINGER_NOT = struct.pack("ii", 1, 0)


def bound(sock: Any) -> None:
    """Bound what the system holds for a stream's client.

    :param sock: a socket or its descriptor, of TCP or not.
    """
    with suppress(OSError):
        _set(sock, socket.SO_SNDBUF, SEND_BUFFER)


def release(sock: Any) -> None:
    """Undo ``bound``, for what a server sends next on the same connection."""
    with suppress(OSError):
        _set(sock, _BUFFER_LOCK, 0)


def cut(sock: Any) -> None:
    """End a connection. A thread that waits for its client goes on at once. What the
    client has not taken is dropped when the socket is closed."""
    with suppress(OSError):
        ours = plain_socket(os.dup(_descriptor(sock)))
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            ours.shutdown(socket.SHUT_RDWR)
        finally:
            ours.close()


def on_the_wire(sock: Any) -> tuple[int, int | None]:
    """Bytes that wait for the client, and bytes that the client has taken on this
    connection; None where the system does not say. Any thread can ask.

    :param sock: a socket or its descriptor. It can be closed.
    """
    with suppress(OSError):
        waiting = bytes_waiting(_descriptor(sock))
        return waiting, bytes_acknowledged(sock)
    return 0, None


class Progress:
    """Whether the client of a socket takes what it is sent, looked at now and then.

    :param sock: a socket or its descriptor.
    :param limit: seconds without progress after which the client is stuck.
    :param now: the time (``time.monotonic()``).
    """

    __slots__ = ("_acknowledged", "_limit", "_moved_at", "_sock", "_waiting")

    def __init__(self, sock: Any, limit: float, now: float) -> None:
        self._sock = sock
        self._limit = limit
        self._moved_at = now
        self._waiting = 0
        self._acknowledged: int | None = None

    def count_from(self, sent_at: float, now: float) -> None:
        """Count the time before the first look too, where the system says for how long
        the client has acknowledged nothing (over TCP).

        :param sent_at: when what waits for the client was sent, or later.
        """
        self._acknowledged = bytes_acknowledged(self._sock)
        silence = seconds_since_acknowledged(self._sock)
        if silence is not None:
            self._moved_at = max(sent_at, now - silence)

    def is_stuck(self, now: float) -> bool:
        """Whether something has waited for the client for the time of the limit, and
        the client has not taken a byte in that time."""
        try:
            descriptor = _descriptor(self._sock)
            left = bytes_waiting(descriptor)
            acknowledged = bytes_acknowledged(self._sock) if left else None
        except OSError:
            self._waiting = 0
            return False  # The socket was closed.
        if acknowledged is None:
            # A Unix socket shows progress only by less waiting than before.
            has_moved = left < self._waiting
        else:
            has_moved = acknowledged != self._acknowledged
            self._acknowledged = acknowledged
        self._waiting = left
        if has_moved or not left:
            self._moved_at = now
        return now - self._moved_at >= self._limit

    @property
    def is_done(self) -> bool:
        """Whether nothing waited for the client at the last look."""
        return not self._waiting

    def on_the_wire(self) -> tuple[int, int | None]:
        """See the function of this name."""
        return on_the_wire(self._sock)

    def cut(self) -> None:
        cut(self._sock)


def _descriptor(sock: Any) -> int:
    descriptor: int = sock if isinstance(sock, int) else sock.fileno()
    if descriptor < 0:
        raise OSError("The socket is closed")
    return descriptor


def _set(sock: Any, option: int, value: int) -> None:
    if not isinstance(sock, int):
        sock.setsockopt(socket.SOL_SOCKET, option, value)
        return
    ours = plain_socket(sock)
    try:
        ours.setsockopt(socket.SOL_SOCKET, option, value)
    finally:
        ours.detach()

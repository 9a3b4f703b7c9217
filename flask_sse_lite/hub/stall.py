"""Clients that take nothing: those whose network is gone, and those that do not read.

Here lives what the system is told of a stream's socket, and how the hub sees whether a
client takes what it is sent. Whom the hub cuts, and when it looks, lives with those
whose sockets they are. Nothing here waits.

(The system has a limit of its own, ``TCP_USER_TIMEOUT``. But Linux takes a client for
stuck whose window never has room for the whole of a piece, however steadily the client
reads, and cuts it.)
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import Any

from ..system.outgoing import bytes_acknowledged, bytes_waiting
from ..system.poller import plain_socket

#: Bytes of a stream that the system holds for its client. Without a bound the system
#: lets it grow to megabytes. (The system doubles the number for its own bookkeeping,
#: and takes one batch of events more, so that a client costs some 190 kB at the most.
#: Setting it ends the system's own tuning: over 100 ms a client gets 1 MB a second at
#: the most. On the loopback, batches of 64 kB go as fast as without a bound: 2.3 to
#: 2.5 GB a second. With half of it they wait for the client's acknowledgements.)
SEND_BUFFER = 64 * 1024

#: Lets the system tune a socket's send buffer again (``SO_BUF_LOCK``, Linux 5.14).
_BUFFER_LOCK = 72

_LINGER_NOT = struct.pack("ii", 1, 0)


def bound(sock: Any) -> None:
    """Have the system hold little for a stream's client.

    :param sock: a socket or its descriptor, of TCP or not.
    """
    with suppress(OSError):
        _set(sock, socket.SO_SNDBUF, SEND_BUFFER)


def release(sock: Any) -> None:
    """Undo ``bound``, for what a server sends next on the same connection."""
    with suppress(OSError):
        _set(sock, _BUFFER_LOCK, 0)


def cut(sock: Any) -> None:
    """End a connection. Whoever waits for its client is told so at once, and what the
    client has not taken is dropped when the socket is closed."""
    with suppress(OSError):
        ours = plain_socket(os.dup(_descriptor(sock)))
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            ours.shutdown(socket.SHUT_RDWR)
        finally:
            ours.close()


class Progress:
    """Whether the client of a socket takes what it is sent, looked at now and then.

    :param sock: a socket or its descriptor.
    :param now: the time (``time.monotonic()``).
    """

    __slots__ = ("_acknowledged", "_limit", "_moved_at", "_sock", "_waiting")

    def __init__(self, sock: Any, limit: float, now: float) -> None:
        self._sock = sock
        self._limit = limit
        self._moved_at = now
        self._waiting = self._acknowledged = 0

    def is_stuck(self, now: float) -> bool:
        """Whether something waits for the client, and has waited so long that the limit
        is reached, without the client's having taken a byte."""
        try:
            descriptor = _descriptor(self._sock)
            left = bytes_waiting(descriptor)
            acknowledged = bytes_acknowledged(self._sock) if left else None
        except OSError:
            self._waiting = 0
            return False  # The socket was closed.
        if acknowledged is None:
            # Of a Unix socket, only that less waits than before shows it.
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

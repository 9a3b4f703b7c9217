"""What the system knows of a connection's outgoing bytes: how many the other side has
acknowledged, how long ago it last acknowledged any, and how many wait.

Here live the two system calls. This module never judges a client by their answers.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

from .poller import plain_socket

if sys.platform != "win32":
    import fcntl
    import termios

#: Where ``tcpi_last_ack_recv`` (in milliseconds) and ``tcpi_bytes_acked`` stand in
#: ``struct tcp_info`` (linux/tcp.h; Linux 4.1).
_INFO_SIZE = 128
_LAST_ACK = struct.Struct("=I")
_LAST_ACK_AT = 56
_ACKNOWLEDGED = struct.Struct("=Q")
_ACKNOWLEDGED_AT = 120

#: What ``TIOCOUTQ`` answers: a C int.
_COUNT = struct.Struct("i")


def bytes_acknowledged(sock: Any) -> int | None:
    """Bytes that the other side has acknowledged so far. None where the system does not
    say, as for a Unix socket.

    :param sock: a socket or its descriptor. It stays open.
    """
    return _told(sock, _ACKNOWLEDGED, _ACKNOWLEDGED_AT)


def seconds_since_acknowledged(sock: Any) -> float | None:
    """Seconds since the other side last acknowledged anything, as it also does without
    taking a byte. None where the system does not say.

    :param sock: see ``bytes_acknowledged``.
    """
    milliseconds = _told(sock, _LAST_ACK, _LAST_ACK_AT)
    return None if milliseconds is None else milliseconds / 1000


def _told(sock: Any, form: struct.Struct, place: int) -> int | None:
    """One field of what the system tells of a connection of TCP."""
    try:
        ours = plain_socket(sock) if isinstance(sock, int) else sock
    except OSError:
        return None  # The descriptor is no socket.
    try:
        info = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
        (number,) = form.unpack_from(info, place)
    except (OSError, AttributeError, struct.error):
        return None
    finally:
        if ours is not sock:
            ours.detach()
    return int(number)


def bytes_waiting(descriptor: int) -> int:
    """Bytes that were sent and that the other side has not acknowledged. For a Unix
    socket it is no count, but a rough measure of what the client has not read."""
    # The hub asks this of each connection in each heartbeat. With a buffer that cannot
    # be written to, ``ioctl`` would make an exception each time, and drop it.
    answer = bytearray(_COUNT.size)
    fcntl.ioctl(descriptor, termios.TIOCOUTQ, answer)
    count: int
    (count,) = _COUNT.unpack(answer)
    return count

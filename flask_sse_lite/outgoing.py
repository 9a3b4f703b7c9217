"""What the system knows of a connection's outgoing bytes.

Here lives only that. Who asks, and what follows, is known elsewhere.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

if sys.platform != "win32":
    import fcntl
    import termios

#: Where ``tcpi_bytes_acked`` stands in ``struct tcp_info`` (linux/tcp.h; Linux 4.1).
_ACKED_AT = 120
_INFO_SIZE = 256


def bytes_acknowledged(descriptor: int) -> int | None:
    """Bytes that the other side has acknowledged so far; None where that is not known,
    as for a Unix socket.

    :param descriptor: the connection's. It stays open.
    """
    duplicate = os.dup(descriptor)
    try:
        connection = socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)  # It is no socket.
        return None
    with connection:
        try:
            info = connection.getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE
            )
            (count,) = struct.unpack_from("=Q", info, _ACKED_AT)
        except (OSError, AttributeError, struct.error):
            return None
    return int(count)


def bytes_waiting(descriptor: int) -> int:
    """Bytes that were given to the system, and that the other side has not
    acknowledged."""
    asked = fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4)
    (count,) = struct.unpack("i", asked)
    return int(count)

"""A look into a pipe that somebody else reads.

Here lives how its bytes are seen without being taken out. What they mean is known
elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

from .poller import close_descriptor

if sys.platform != "win32":
    import fcntl
    import termios

#: Bytes that are looked at. A signal is one byte, and few wait at a time.
PEEK_BYTES = 512

#: Of splice(2): never wait.
_NONBLOCK = 2


def peek(descriptor: int) -> bytes:
    """What waits in a pipe, and stays there; nothing where that cannot be seen.

    :param descriptor: the pipe's end for reading.
    """
    try:
        asked = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
        (waiting,) = struct.unpack("i", asked)
        return _copy(descriptor) if waiting else b""
    except (OSError, AttributeError):
        return b""  # It is closed, or the system has no tee().


def _copy(descriptor: int) -> bytes:
    """A copy by tee(2), which leaves the bytes to their reader."""
    read_end, write_end = os.pipe()
    try:
        library = ctypes.CDLL(None, use_errno=True)
        copied = library.tee(descriptor, write_end, PEEK_BYTES, _NONBLOCK)
        return os.read(read_end, copied) if copied > 0 else b""
    finally:
        close_descriptor(read_end)
        close_descriptor(write_end)

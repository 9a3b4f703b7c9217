"""A look into a pipe that other code reads.

Here lives how the bytes in a pipe are seen without being taken out. This module never
interprets them.
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

#: Bytes that are looked at. Each signal is one byte, and few signals wait at a time.
PEEK_BYTES = 512

#: SPLICE_F_NONBLOCK of splice(2), which tee(2) takes too: never wait.
_NONBLOCK = 2


def peek(descriptor: int) -> bytes:
    """The bytes that wait in a pipe. They stay there. Empty where the system cannot
    show them.

    :param descriptor: the pipe's end for reading.
    """
    try:
        asked = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
        (waiting,) = struct.unpack("i", asked)
        return _copy(descriptor) if waiting else b""
    except (OSError, AttributeError):
        return b""  # The pipe is closed, or the system has no tee().


def _copy(descriptor: int) -> bytes:
    """Copy the bytes by tee(2), which leaves them in the pipe for its reader."""
    read_end, write_end = os.pipe()
    try:
        library = ctypes.CDLL(None, use_errno=True)
        copied = library.tee(descriptor, write_end, PEEK_BYTES, _NONBLOCK)
        return os.read(read_end, copied) if copied > 0 else b""
    finally:
        close_descriptor(read_end)
        close_descriptor(write_end)

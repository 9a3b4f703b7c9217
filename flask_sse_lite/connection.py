"""A connection that was taken over, and what is on its way to it.

Here lives how bytes are framed and sent to one socket: at once where they fit, from
what is left where they do not, and the proper end. Which bytes, and when, the hub
decides.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from .log import Cursor, Log
from .poller import Poller
from .settings import Settings

if TYPE_CHECKING:
    from .hub import Group

#: Bytes of a client that are read and thrown away before it is sent off. A client of an
#: event stream has nothing to say; some pipeline a request or two.
MAX_JUNK = 1024 * 1024

_READ_SIZE = 64 * 1024
_LAST_CHUNK = b"0\r\n\r\n"


def frame_chunk(data: bytes) -> bytes:
    """Data as one chunk (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Connection:
    """One client's connection. The hub's loop's own.

    In a group, it has read what the group has read. Outside, its cursor says what it
    has read, and ``rest`` is what is still to be sent of that.
    """

    __slots__ = (
        "beat_at",
        "chunked",
        "cursor",
        "descriptor",
        "expires",
        "group",
        "is_ended",
        "junk",
        "log",
        "named_at",
        "rest",
        "settings",
    )

    def __init__(
        self,
        descriptor: int,
        cursor: Cursor,
        log: Log,
        settings: Settings,
        *,
        chunked: bool,
    ) -> None:
        self.descriptor = descriptor
        self.chunked = chunked
        self.cursor = cursor
        self.log = log
        self.settings = settings
        self.group: Group | None = None
        self.rest = b""
        #: When it was last sent something that its group was not, and when that was
        #: an id (``time.monotonic()``).
        self.beat_at = self.named_at = 0.0
        #: When its stream is ended, for ``SSE_MAX_AGE``; 0 for never.
        self.expires = 0.0
        self.junk = 0
        #: The stream's end stands in what was sent, or in the rest.
        self.is_ended = False

    def write(self, poller: Poller, data: bytes) -> bool:
        """Send what fits, and keep the rest.

        :returns: whether all of it went.
        :raises OSError: when the client is gone.
        """
        try:
            sent = poller.send(self.descriptor, data)
        except BlockingIOError:
            sent = 0
        self.rest = data[sent:]
        return not self.rest

    def read(self) -> bool:
        """Throw away what the client says.

        :returns: False at its end, or when it says too much.
        """
        try:
            count = len(os.read(self.descriptor, _READ_SIZE))
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.junk += count
        return count > 0 and self.junk <= MAX_JUNK

    def close(self, poller: Poller, *, properly: bool) -> None:
        """End the stream. ``properly`` adds the last chunk, unless a frame is only
        partly sent: that would make a truncated stream look whole."""
        sock = poller.socket(fileno=self.descriptor)
        try:
            if properly and self.chunked and not self.rest:
                # Together with the end of file: a proxy that sees the chunk first may
                # send its next request into a connection that is about to close.
                sock.send(_LAST_CHUNK, socket.MSG_MORE | socket.MSG_DONTWAIT)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The client was faster.
        finally:
            poller.close_descriptor(sock.detach())

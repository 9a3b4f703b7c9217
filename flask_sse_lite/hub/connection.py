"""A connection that was taken over, what is on its way to it, and the group that it
reads in.

Here lives how bytes are framed and sent to one socket: at once where they fit, from
what is left where they do not, and the proper end. Which bytes, and when, the hub
decides (loop.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ..history.cursor import Cursor
from ..history.log import Log
from ..servers.programs import Program
from ..settings import Settings
from ..system.poller import Poller
from .places import Place
from .readers import Readers
from .stall import Progress

#: Bytes of a client that are read and thrown away before it is sent off. A client of an
#: event stream has nothing to say; some pipeline a request or two.
MAX_JUNK = 1024 * 1024

#: Bytes handed to the system in one go, of what did not fit at once.
PIECE = 256 * 1024

_READ_SIZE = 64 * 1024
_LAST_CHUNK = b"0\r\n\r\n"


def framed(data: bytes, *, chunked: bool) -> bytes:
    """Data as it is sent: where the body is chunked, as one chunk (RFC 9112, section
    7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data) if chunked else data


class Connection:
    """One client's connection. The hub's loop's own.

    In a group, it has read what the group has read. Outside, its cursor says what it
    has read, and ``frame`` is what of that is still on its way.
    """

    __slots__ = (
        "beat_at",
        "chunked",
        "cursor",
        "descriptor",
        "expires",
        "frame",
        "group",
        "is_ended",
        "junk",
        "log",
        "named",
        "named_at",
        "place",
        "program",
        "progress",
        "ready",
        "sent",
        "settings",
        "tell",
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
        #: The server that it was taken from, if that can be stopped while its process
        #: goes on.
        self.program: Program | None = None
        #: Its place among the streams of the process. The hub sets it as it adopts the
        #: connection, and releases it as it removes the connection.
        self.place: Place | None = None
        #: What the log calls before the hub looks after it.
        self.tell: Callable[[], None] | None = None
        #: What is being sent, and how much of it went.
        self.frame = b""
        self.sent = 0
        #: While something waits for its client: whether the client takes it.
        self.progress: Progress | None = None
        #: When it was last sent something that its group was not, and when that was
        #: an id (``time.monotonic()``).
        self.beat_at = self.named_at = 0.0
        #: That id.
        self.named: str | None = None
        #: When its stream is ended, for ``SSE_MAX_AGE``; 0 for never.
        self.expires = 0.0
        self.junk = 0
        #: What the system said it is ready for.
        self.ready = 0
        #: The stream's end stands in what was sent, or is on its way.
        self.is_ended = False

    def send(self, poller: Poller, frame: bytes) -> bool:
        """Send a frame: all that fits now, and the rest when ``flush`` is called.

        :returns: whether all of it went.
        :raises OSError: when the client is gone.
        """
        try:
            sent = poller.send(self.descriptor, frame)
        except BlockingIOError:
            sent = 0
        if sent == len(frame):
            return True
        self.keep(frame, sent)
        return False

    def keep(self, frame: bytes, sent: int) -> None:
        """Remember that so many bytes of a frame went. The frame itself is shared with
        all who got it: that a client does not read costs next to nothing."""
        self.frame, self.sent = frame, sent

    def flush(self, poller: Poller) -> bool:
        """Send what fits of the rest.

        :returns: whether nothing is left.
        :raises OSError: when the client is gone.
        """
        while self.frame:
            piece = self.frame[self.sent : self.sent + PIECE]
            try:
                self.sent += poller.send(self.descriptor, piece)
            except BlockingIOError:
                return False
            if self.sent == len(self.frame):
                self.frame = b""
        return True

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
        is_framed = properly and self.chunked and not self.frame
        poller.finish(self.descriptor, _LAST_CHUNK if is_framed else b"")


class Group(Readers):
    """Connections that have read the same to the same place, which is its cursor."""

    def __init__(self, first: Connection, tell_hub: Callable[[Readers], None]) -> None:
        super().__init__(first.log, first.cursor.channels, tell_hub)
        self.settings = first.settings
        self.cursor = first.cursor
        #: By whether their bodies are chunked, and by descriptor. Whoever writes to all
        #: needs no more of them: what is not looked at need not be in the processor's
        #: cache.
        self.members: dict[bool, dict[int, Connection]] = {False: {}, True: {}}
        #: Those that have read more than the group, and wait for it to come to them.
        self.waiting: list[Connection] = []
        #: When all of them were last sent events, and the last id among these.
        self.sent_at = 0.0
        self.named: str | None = first.cursor.id

    def connections(self) -> list[Connection]:
        return [one for alike in self.members.values() for one in alike.values()]

    def is_behind(self, cursor: Cursor) -> bool:
        """Whether a reader has read what the group has not. (Of another life than the
        log's, the group has read nothing.)"""
        if self.cursor.epoch is not self.log.epoch:
            return True
        return cursor.epoch is self.log.epoch and cursor.reach > self.cursor.position

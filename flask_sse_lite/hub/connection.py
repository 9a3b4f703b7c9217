"""A connection that was taken over, what is on its way to its client, and the group
that it reads in.

Here lives how bytes are framed and sent to one socket: at once where they fit, piece by
piece where they do not; and how a stream ends properly. Which bytes are sent when, the
hub decides (loop.py, fanout.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ..history.cursor import Cursor
from ..history.log import Log
from ..servers.programs import Program
from ..settings import Settings
from ..signals.story import Story, Tally
from ..system.poller import Poller
from .client import NOBODY, Client
from .places import Place
from .readers import Readers
from .stall import Progress

#: Bytes that a client can send, and that are thrown away, before the hub ends its
#: stream. A client of an event stream has nothing to say; some send a request or two
#: ahead.
MAX_JUNK = 1024 * 1024

#: Bytes that the system is given in one call, of a frame that did not fit at once.
PIECE = 256 * 1024

_READ_SIZE = 64 * 1024
_LAST_CHUNK = b"0\r\n\r\n"


def framed(data: bytes, *, chunked: bool) -> bytes:
    """Data as it is sent: where the body is chunked, as one chunk (RFC 9112, section
    7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data) if chunked else data


class Connection:
    """One client's connection. Only the hub's loop touches it.

    In a group, a connection has read what the group has read. Outside, its cursor says
    what it has read, and ``frame`` holds the part of that which is still on its way.
    """

    __slots__ = (
        "beat_at",
        "chunked",
        "client",
        "cursor",
        "descriptor",
        "expires",
        "frame",
        "group",
        "has_head_start",
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
        "story",
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
        client: Client = NOBODY,
    ) -> None:
        self.descriptor = descriptor
        self.client = client
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
        #: What is told of its stream, if anything is.
        self.story: Story | None = None
        #: What the log calls before the hub looks after it.
        self.tell: Callable[[], None] | None = None
        #: What is being sent, and how much of it went.
        self.frame = b""
        self.sent = 0
        #: While something waits for its client: whether the client takes it.
        self.progress: Progress | None = None
        #: When it came, or was last sent a sign of life, or fell behind
        #: (``time.monotonic()``).
        self.beat_at = 0.0
        #: The id that a sign of life last carried.
        self.named: str | None = None
        #: When it came, or the hub last looked whether a sign of life must carry an id
        #: (``time.monotonic()``).
        self.named_at = 0.0
        #: Whether others were last sent the same, so that its next sign of life is due
        #: at a time of its own (looks.py).
        self.has_head_start = True
        #: When its stream is ended, for ``SSE_MAX_AGE``; 0 for never.
        self.expires = 0.0
        #: Bytes that the client has sent.
        self.junk = 0
        #: What the system said that the descriptor is ready for.
        self.ready = 0
        #: The stream's last event was sent, or is on its way.
        self.is_ended = False

    @property
    def last_sent_at(self) -> float:
        """When it was last sent something, alone or with its group."""
        return max(self.beat_at, self.group.sent_at) if self.group else self.beat_at

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
        """Remember that so many bytes of a frame went. All connections of a group share
        the frame, so a client that does not read costs next to nothing."""
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
        """Throw away what the client sends.

        :returns: False when the client has left, or has sent too much.
        """
        try:
            count = len(os.read(self.descriptor, _READ_SIZE))
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.junk += count
        return count > 0 and not self.is_talkative

    @property
    def is_talkative(self) -> bool:
        """Whether the client has sent more than is thrown away."""
        return self.junk > MAX_JUNK

    def close(self, poller: Poller, *, properly: bool) -> None:
        """End the stream and close the connection.

        :param properly: whether to send the last chunk. It is never sent behind a part
            of a frame: a truncated stream would look whole.
        """
        is_framed = properly and self.chunked and not self.frame
        poller.finish(self.descriptor, _LAST_CHUNK if is_framed else b"")


class Group(Readers):
    """Connections that have read the same to the same place, which is its cursor."""

    def __init__(self, first: Connection, tell_hub: Callable[[Readers], None]) -> None:
        super().__init__(first.log, first.cursor.channels, tell_hub)
        self.settings = first.settings
        self.cursor = first.cursor
        #: The members by whether their bodies are chunked, and by descriptor. The loop,
        #: as it writes to all of them, looks at nothing else of them, so that nothing
        #: else need be in the processor's cache.
        self.members: dict[bool, dict[int, Connection]] = {False: {}, True: {}}
        #: Connections that have read more than the group, and wait until the group has
        #: read as much.
        self.waiting: list[Connection] = []
        #: When all of them were last sent events, and the last id among these.
        self.sent_at = 0.0
        self.named: str | None = first.cursor.id
        #: What they are sent, as long as anything is told of one of their streams.
        self.tally: Tally | None = None

    @property
    def size(self) -> int:
        """How many members there are."""
        return sum(map(len, self.members.values()))

    def connections(self) -> list[Connection]:
        return [one for alike in self.members.values() for one in alike.values()]

    def is_behind(self, cursor: Cursor) -> bool:
        """Whether a reader has read what the group has not. (Where the log has begun
        anew since the group last read, the group has read nothing.)"""
        if self.cursor.epoch is not self.log.epoch:
            return True
        return cursor.epoch is self.log.epoch and cursor.reach > self.cursor.position

"""Frames: the bytes of a stream's opening, events, signs of life and end.

Here lives how a cursor's batches become bytes. They are the same for both ways of
delivery (fanout.py and iterated.py). Nothing here sends or waits.
"""

from __future__ import annotations

from collections.abc import Iterator

from .. import own_events
from ..event import channel_line, is_sendable_id
from ..history.cursor import Batch, Cursor
from ..history.log import Log
from ..settings import Settings
from ..system.chance import CHANCE

#: Bytes of events sent in one piece, unless one event alone is larger. This bounds the
#: memory that a client costs which does not read.
BATCH_BYTES = 64 * 1024

#: Seconds after which the client of an idle stream is told how far the log has moved
#: on. A client that came back with an id older than what is retained would get a gap.
POSITION_INTERVAL = 60.0

#: How far ``retry:`` is spread around its setting, so that the clients of a server
#: that restarts come back one after the other.
RETRY_SPREAD = 0.2

#: Milliseconds that a client is told to wait when there is no room for it.
RETRY_WHEN_FULL = 30_000

#: Sent in place of an id that no line can carry. A client that comes back with it gets
#: a gap, as it would with that id.
UNKNOWN_ID = "unknown"


def spread_retry(milliseconds: int) -> int:
    return round(milliseconds * CHANCE.uniform(1 - RETRY_SPREAD, 1 + RETRY_SPREAD))


def come_back(retry: int) -> bytes:
    """The whole stream of a client that must come back later: it ends at once. After
    any other kind of answer, a browser gives up for good.

    :param retry: milliseconds that the client must wait.
    """
    return b"retry: %d\n\n" % retry


def opening(log: Log, cursor: Cursor, settings: Settings, *, shareable: bool) -> bytes:
    """The event that every stream begins with. Its id is the client's position. If the
    client loses the connection before its first event, it comes back with that id, and
    what came in between is not lost. A comment says how many seconds the stream is
    silent at most: a client that hears nothing for longer can take that for a cut. The
    comment also says whether the tabs of a browser can share the stream."""
    id = cursor.since or cursor.id
    if not is_sendable_id(id):
        id = UNKNOWN_ID
    event = own_events.opening(id, spread_retry(settings.retry)).encode()
    # A comment within the block: the module sse.js reads it, others skip it.
    sharing = b" shareable" if shareable else b""
    return b"%s: heartbeat %g%s\n\n" % (event[:-1], settings.heartbeat, sharing)


def frames(log: Log, cursor: Cursor, batch: Batch) -> bytes:
    """The frames of a batch, encoded once for all clients that share the batch."""
    if batch.frames is None:
        batch.frames = b"".join(_frames(log, cursor, batch))
    return batch.frames


def _frames(log: Log, cursor: Cursor, batch: Batch) -> Iterator[bytes]:
    if batch.gap:
        yield batch.gap.encode()
    is_named = len(cursor.channels) > 1
    for entry in batch.entries:
        if entry.event:
            if is_named:
                yield channel_line(entry.channel)
            yield entry.event.encode()
    if batch.ended:
        yield own_events.end(cursor.id).encode()


def position_event(cursor: Cursor) -> bytes:
    """The event by which a silent stream tells its client from time to time how far it
    has read."""
    return own_events.position(cursor.id).encode()

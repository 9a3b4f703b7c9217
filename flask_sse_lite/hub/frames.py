"""What a stream says: its opening, its events, its signs of life and its end.

Here lives how what a cursor reads becomes bytes, the same for both ways of delivery
(loop.py and subscription.py). Nothing here sends or waits.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from .. import own_events
from ..event import channel_line, is_sendable_id
from ..history.cursor import Batch, Cursor
from ..history.log import Log
from ..settings import Settings

#: Bytes of events sent in one piece, unless one event alone is larger. It bounds what
#: a client that does not read can hold.
BATCH_BYTES = 64 * 1024

#: Seconds after which an idle stream is told how far the log has moved on. Clients that
#: come back with an id much older than what is retained would be told of a gap.
POSITION_INTERVAL = 60.0

#: How far ``retry:`` is spread around its setting, so that the clients of a server
#: that restarts come back one after the other.
RETRY_SPREAD = 0.2

#: What a client is told to wait when there is no room, in milliseconds.
RETRY_WHEN_FULL = 30_000

#: Stands for an id that no line can carry, and is as unknown as that when it returns.
UNKNOWN_ID = "unknown"


def spread_retry(milliseconds: int) -> int:
    return round(milliseconds * random.uniform(1 - RETRY_SPREAD, 1 + RETRY_SPREAD))


def come_back(retry: int) -> bytes:
    """All that a client gets which is to come back later: a stream that ends. A browser
    gives up for good after anything else.

    :param retry: milliseconds that it shall wait.
    """
    return b"retry: %d\n\n" % retry


def opening(log: Log, cursor: Cursor, settings: Settings) -> bytes:
    """The event that every stream begins with. Its id is where the client stands:
    should it lose the connection before its first event, it comes back with that, and
    what came in between is not lost. It says in a comment how many seconds the stream
    is silent at most: a client that hears nothing for longer takes that for a cut."""
    id = cursor.since or cursor.id
    if not is_sendable_id(id):
        id = UNKNOWN_ID
    event = own_events.opening(id, spread_retry(settings.retry)).encode()
    # A comment within the block: the module of browser.py reads it, others skip it.
    return b"%s: heartbeat %g\n\n" % (event[:-1], settings.heartbeat)


def frames(log: Log, cursor: Cursor, batch: Batch) -> bytes:
    """What was read, as frames: encoded once for all who read it together."""
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
    """What a silent stream sends from time to time: how far it has read."""
    return own_events.position(cursor.id).encode()

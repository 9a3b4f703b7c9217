"""Cursors: how far a reader of a log has come, and what it is given there.

Here live the place of one reader, and the batches that it is given. A cursor is moved
by the log that made it, and read by its reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ..event import Event
from ..position import BEGINNING, position_id

# Nearly all cursors share these two. Thousands of cursors are read one after the other,
# and objects of their own would not be in the processor's cache.
NO_FLOORS: Mapping[str, int] = MappingProxyType({})
NONE_ENDED: frozenset[str] = frozenset()


class Entry(NamedTuple):
    """What stands at one position: an event, or (None) the end of its channel."""

    sequence: int
    time: float
    channel: str
    event: Event | None

    @property
    def size(self) -> int:
        """Bytes of it."""
        return self.event.size if self.event else 0


class Batch:
    """What a cursor had before it: a ``stream-gap`` event where something is lost,
    and what is there. ``ended`` says that all its channels ended with that, ``more``
    that there is more than was asked for.

    ``frames`` is for readers, to keep what they make of it: those that were at the
    same place get the same batch.
    """

    __slots__ = ("ended", "entries", "frames", "gap", "more")

    def __init__(
        self,
        gap: Event | None,
        entries: list[Entry],
        *,
        ended: bool,
        more: bool,
    ) -> None:
        self.gap = gap
        self.entries = entries
        self.ended = ended
        self.more = more
        self.frames: bytes | None = None

    @property
    def last_id(self) -> str | None:
        """The id of what it has last, which its reader would come back with."""
        last = self.entries[-1].event if self.entries else self.gap
        return last.id if last else None


class Cursor:
    """How far a subscriber of some channels has come. It belongs to one reader; the
    log that made it moves it, under its lock.

    ``position`` is behind everything that was read, in the life of the log that
    ``epoch`` names (by the log's own text, not one that equals it): where the log has
    another, the position means nothing any more. ``floors`` are higher positions of
    single channels: what lies at or below is not wanted (a newcomer gets the last few
    events of each) or known to be lost (a gap that was told). ``ended`` are the
    channels whose last word, so far, was their end. ``since`` is the id that the
    reader came with, until it has read.
    """

    __slots__ = ("channels", "ended", "epoch", "floors", "position", "since")

    def __init__(
        self, channels: tuple[str, ...], epoch: str, position: int, since: str = ""
    ) -> None:
        self.channels = channels
        self.since = since
        self.begin(epoch, position)

    def begin(self, epoch: str, position: int) -> None:
        """Forget what was known, and go on from there."""
        self.epoch = epoch
        self.position = position
        self.floors = NO_FLOORS
        self.ended = NONE_ENDED

    @property
    def id(self) -> str:
        """The position as an ``id:`` carries it."""
        return position_id(self.epoch, self.position, self.channels[0])

    def floor(self, channel: str) -> int:
        if not self.floors:
            return self.position
        return max(self.position, self.floors.get(channel, BEGINNING))

    @property
    def reach(self) -> int:
        """The highest of the cursor's position and its floors."""
        return max(self.position, *self.floors.values(), BEGINNING)

    def arrive(self, position: int) -> None:
        """Note that nothing is left to read up to a position."""
        self.position = max(position, self.position)
        if self.floors:
            higher = {n: f for n, f in self.floors.items() if f > self.position}
            self.floors = higher or NO_FLOORS

    def copy(self) -> Cursor:
        """The same place, for another reader."""
        cursor = Cursor(self.channels, self.epoch, self.position, self.since)
        cursor.floors = self.floors
        cursor.ended = self.ended
        return cursor

    def advance(self, pending: list[Entry], limit: int) -> tuple[list[Entry], bool]:
        """Step over entries, up to so many bytes of them or to where all channels
        have ended.

        :returns: the entries stepped over, and whether that was the end.
        """
        taken = 0
        for count, entry in enumerate(pending, 1):
            self.position = entry.sequence
            if entry.event is None:
                self.ended |= {entry.channel}
                if len(self.ended) == len(self.channels):
                    return pending[:count], True
            else:
                if self.ended:
                    self.ended -= {entry.channel}
                taken += len(entry.event.encode())
                if taken >= limit:
                    return pending[:count], False
        return pending, False

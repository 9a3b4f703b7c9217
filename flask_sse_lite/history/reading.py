"""Reading what a log keeps: exactly what a reader missed, in order, or a gap.

What makes resuming exact lives here. One sequence counts the events of all channels. A
reader is a cursor: reading behind it gives what the reader missed, or says in which
channels something is no longer there. How entries come into the log is the affair of
log.py and fed.py; how long they stay, of retention.py. Flask, sockets and brokers are
unknown here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from .. import own_events
from ..event import BLANKS, Event
from ..position import BEGINNING, UNKNOWN_EPOCH, parse_position, position_id
from ..system.locks import Section
from .channel import Channel, Tell
from .cursor import Batch, Cursor, Entry
from .glances import Glance, glances
from .retention import Keeper
from .revocations import Revocation, Revocations

#: Streams of the same channels share one tuple of names, up to so many characters.
#: Strangers can ask for any number of long names, and a shared tuple is remembered for
#: a while.
SHARED_CHARACTERS = 512


class _Step(NamedTuple):
    """One reader's step, for other readers that stand where it stood."""

    channels: tuple[str, ...]
    start: int
    sequence: int
    limit: int
    batch: Batch


class Readable:
    """What a log keeps, as readers see it.

    Thread-safe; no callback runs while the lock is held.

    :param epoch: the name of this life of the log.
    :param keeper: what is kept.
    :param clock: seconds, never falling.
    :param lock: guards all of this.
    :param leeway: see ``Revocations``.
    """

    def __init__(
        self,
        epoch: str,
        keeper: Keeper,
        clock: Callable[[], float],
        lock: Section,
        leeway: float,
    ) -> None:
        self.epoch = epoch
        #: Which clients must be let in anew.
        self.revocations = Revocations(leeway)
        #: The position of the newest entry.
        self.sequence = BEGINNING
        self._keeper = keeper
        self._channels = keeper.channels
        self._clock = clock
        self._lock = lock
        #: The last step of a reader that came from and got to where most readers are.
        self._step: _Step | None = None

    # Watching

    def watch(self, channels: Iterable[str], tell: Tell) -> None:
        """Have ``tell`` called whenever one of these channels has news, in the thread
        that brings them: it must neither wait nor raise. Until ``unwatch`` the log
        forgets none of them."""
        with self._lock:
            self._keeper.watch(channels, tell)

    def unwatch(self, channels: Iterable[str], tell: Tell) -> None:
        """Undo ``watch``; nothing happens where there is nothing to undo. A channel
        that was only listened to displaces no other that holds something, and leaves no
        mark.

        This never waits for the lock. Garbage collection can close a generator that
        watches, in a thread that holds the lock.
        """
        self._keeper.leavers.append((tuple(channels), tell))
        if self._lock.enter_at_once():
            try:
                self._keeper.let_go(self._clock())
            finally:
                self._lock.leave()

    def has_room(self, channels: Collection[str], most: int) -> bool:
        """Whether these channels can be watched, where so many can be in all. Those
        that are watched already need no room. Two callers at once can both be told that
        there is room."""
        if self._keeper.watched + len(channels) <= most:
            return True
        with self._lock:
            # Some have left, and are still counted.
            self._keeper.let_go(self._clock())
            new = [
                name
                for name in channels
                if not (kept := self._channels.get(name)) or not kept.watchers
            ]
            return not new or self._keeper.watched + len(new) <= most

    def revoked_since(self, seen: int) -> list[Revocation] | None:
        """See ``Revocations.since``."""
        with self._lock:
            return self.revocations.since(seen)

    def limit(self, history: int, runs: int) -> None:
        """Keep no more than so many bytes of all events together, and of the output of
        all runs together."""
        with self._lock:
            if self._keeper.limit(history, runs):
                self._step = None

    # Runs

    def run_start(self, channel: str) -> int | None:
        """Where the log stood before the first event of the run that goes on in a
        channel, or was the last there; None where nothing is known of one."""
        with self._lock:
            self._evict([channel])
            kept = self._channels.get(channel)
            return kept.start if kept and kept.budget else None

    def is_running(self, channel: str) -> bool:
        """Whether a run goes on in a channel."""
        kept = self._channels.get(channel)
        return kept is not None and kept.is_running

    def unread(self, channel: str) -> int:
        """Bytes of a run that none of its readers has read."""
        with self._lock:
            kept = self._channels.get(channel)
            if kept is None:
                return 0
            return sum(entry.size for entry in kept.after(kept.read_to))

    def has_been_read(self, channel: str) -> bool:
        """Whether anyone has read something of the run that goes on in a channel, or
        was the last there."""
        kept = self._channels.get(channel)
        return kept is not None and kept.read_to > kept.start

    def was_ended(self, channel: str, start: int) -> bool:
        """Whether a run's channel was ended since the run began, whatever came behind
        that."""
        with self._lock:
            kept = self._channels.get(channel)
            if kept is None or kept.start < start:
                return False
            return kept.start > start or kept.ended_when is not None

    def remembers(self, channel: str) -> bool:
        """Whether anything is known of a channel."""
        with self._lock:
            self._evict([channel])
            kept = self._channels.get(channel)
            return kept is not None and bool(kept.entries or kept.budget)

    # Reading

    def position(self, sequence: int | None = None) -> str:
        """A position as an ``id:`` carries it. Without a number, it is where the log
        stands now."""
        return position_id(
            self.epoch, self.sequence if sequence is None else sequence, ""
        )

    def cursor(self, channels: Iterable[str], since: str = "", last: int = 0) -> Cursor:
        """A cursor for a new reader.

        :param since: the id that the reader resumes from; empty for a newcomer.
        :param last: how many of each channel's last events a newcomer gets.
        """
        names = tuple(dict.fromkeys(channels))
        if sum(map(len, names)) <= SHARED_CHARACTERS:
            names = _shared(names)
        with self._lock:
            self._evict(names)
            if not since:
                cursor = Cursor(names, self.epoch, self.sequence)
                if last >= 1:
                    _go_back(cursor, self._channels, last)
            elif (sequence := self._find(names, since)) is not None:
                cursor = Cursor(names, self.epoch, sequence, since)
            else:
                cursor = Cursor(names, UNKNOWN_EPOCH, BEGINNING, since)
            cursor.ended = frozenset(
                name
                for name in names
                if name in self._channels
                and self._channels[name].ended_at(cursor.floor(name))
            )
        return cursor

    def knows(self, channels: Iterable[str], id: str) -> bool:
        """Whether an id says where to go on in these channels."""
        with self._lock:
            return self._find(tuple(channels), id) is not None

    def _find(self, names: tuple[str, ...], id: str) -> int | None:
        """Where an id stands: a position of this life, or else the newest event to
        which the application gave that id."""
        known = parse_position(id)
        if known and known.epoch == self.epoch and self._has(known.sequence):
            return known.sequence
        id = id.strip(BLANKS)
        return max(
            (
                entry.sequence
                for name in names
                if name in self._channels
                for entry in self._channels[name].entries
                if entry.event and (entry.event.id or "").strip(BLANKS) == id
            ),
            default=None,
        )

    def _has(self, sequence: int) -> bool:
        """Whether a position is one where something stood, or can have stood."""
        return sequence <= self.sequence

    def read(self, cursor: Cursor, limit: int, until: int | None = None) -> Batch:
        """Move a cursor on.

        :param limit: bytes of events after which to stop, so that a late reader gets
            its history in pieces. One entry is read always, whatever its size.
        :param until: a position to read up to, which the cursor is not behind; None for
            where the log stands.
        """
        step = self._step
        if (
            step
            and until is None
            and step.start == cursor.position
            and step.sequence == self.sequence
            and step.channels == cursor.channels
            and step.limit == limit
            and cursor.epoch is self.epoch
            and not (cursor.floors or cursor.ended)
        ):
            # Of a thousand readers of a channel, one takes the step below, and the
            # others share it here. (Watchers are told of an entry that comes meanwhile,
            # and read it next.)
            cursor.position = step.sequence
            cursor.since = ""
            return step.batch
        with self._lock:
            last = self.sequence if until is None else min(until, self.sequence)
            return self._read(cursor, limit, last)

    def _read(self, cursor: Cursor, limit: int, until: int) -> Batch:
        start, is_plain = cursor.position, not (cursor.floors or cursor.ended)
        if self._keeper.evict(cursor.channels):
            self._step = None
        gap = self._gap(cursor)
        pending = _pending(cursor, self._channels)
        if until < self.sequence:
            pending = [entry for entry in pending if entry.sequence <= until]
        entries, ended = cursor.advance(pending, limit)
        more = not ended and len(entries) < len(pending)
        batch = Batch(gap, entries, ended=ended, more=more)
        cursor.since = ""
        for name in cursor.channels:
            if (kept := self._channels.get(name)) and kept.budget:
                kept.read_to = max(kept.read_to, cursor.position)
                self._keeper.outputs.note_read(name)
        if not ended and not more:
            cursor.arrive(until)
            if is_plain and not gap and not cursor.ended and until == self.sequence:
                self._step = _Step(cursor.channels, start, until, limit, batch)
        return batch

    def behind(self, cursor: Cursor) -> int:
        """How many events a reader has not been given. Those that are lost are not
        among them."""
        with self._lock:
            is_of_now = cursor.epoch is self.epoch
            return sum(
                entry.event is not None
                for name in cursor.channels
                if name in self._channels
                for entry in self._channels[name].after(
                    cursor.floor(name) if is_of_now else BEGINNING
                )
            )

    def glances(self, listeners: Mapping[str, int], most: int) -> list[Glance]:
        """What an operator is shown of channels: see ``glances``."""
        return glances(self._channels, listeners, most, self._clock())

    def is_finished(self, cursor: Cursor) -> bool:
        """Whether a new cursor is at the end of all its channels, with nothing left to
        be read or told."""
        with self._lock:
            if len(cursor.ended) < len(cursor.channels):
                return False
            return cursor.epoch is self.epoch and not _pending(cursor, self._channels)

    def _evict(self, names: Iterable[str]) -> None:
        """Drop what is too old of some channels, before they are looked at."""
        if self._keeper.evict(names):
            self._step = None

    def _gap(self, cursor: Cursor) -> Event | None:
        """What to tell of events that are lost; from here on it counts as told."""
        is_of_now = cursor.epoch is self.epoch
        lost = []
        for name in cursor.channels:
            channel = self._channels.get(name)
            is_whole = channel is not None and channel.is_whole
            dropped = (
                channel.dropped if channel and is_whole else self._keeper.forgotten
            )
            if not is_of_now or dropped > cursor.floor(name):
                lost.append((name, dropped))
        if not lost:
            return None
        since = cursor.since or cursor.id
        if not is_of_now:
            cursor.begin(self.epoch, BEGINNING)
        cursor.floors = {**cursor.floors, **dict(lost)}
        cursor.ended -= {name for name, _ in lost}
        # A client that comes back with the gap's id misses none of what is sent after
        # the gap.
        told = min(map(cursor.floor, cursor.channels))
        id = position_id(self.epoch, told, cursor.channels[0])
        return own_events.gap(since, [name for name, _ in lost], id)


def _go_back(cursor: Cursor, channels: Mapping[str, Channel], last: int) -> None:
    """Move a newcomer's cursor back by the last few events of each channel."""
    floors = {}
    for name in cursor.channels:
        channel = channels.get(name)
        events = [e for e in channel.entries if e.event] if channel else []
        first = events[-last:][:1]
        floors[name] = first[0].sequence - 1 if first else cursor.position
    cursor.floors = floors
    cursor.position = min(floors.values())


def _pending(cursor: Cursor, channels: Mapping[str, Channel]) -> list[Entry]:
    """What lies before a cursor, in order."""
    found = []
    for name in cursor.channels:
        channel = channels.get(name)
        if channel and (entries := channel.after(cursor.floor(name))):
            found.append(entries)
    if len(found) < 2:
        return found[0] if found else []
    return sorted(entry for entries in found for entry in entries)


@lru_cache(maxsize=1024)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same tuple for all who listen to the same."""
    return names

"""The log: the bounded, ordered memory of recent events, by channel.

Here lives what makes resuming exact. One sequence counts the events of all channels;
a subscriber is a cursor, and reading after it gives what it missed, in order, or says
in which channels something is no longer there. Who wants to be told of news leaves a
callable. Flask, sockets and brokers are unknown here.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from .event import BLANKS, Event, own_event

#: Channels remembered that nobody listens to. Past it the one longest untouched is
#: forgotten, whatever its age: a million names published to in five minutes may not
#: stay in memory. Whoever comes back to a forgotten one is told of a gap.
MAX_IDLE_CHANNELS = 16_384

#: Channels forgotten in one go at most: some 0.5 ms of work for an unlucky publisher.
MAX_FORGOTTEN_AT_ONCE = 1_000

#: Seconds that a publisher pauses when a burst fills half a channel's history before
#: anyone has read it. (A pause of 0 would not let gevent look at its descriptors.)
BREATH = 0.0005

#: Before every event: where a reader begins of whom nothing is known.
BEGINNING = 0

#: No position: an id of the application's own, which is known as long as its event.
UNNAMED = -1

# What nearly all cursors have. Thousands of them are read one after the other, and
# each object of their own would be one more that is not in the processor's cache.
NO_FLOORS: Mapping[str, int] = MappingProxyType({})
NONE_ENDED: frozenset[str] = frozenset()

_POSITION = re.compile("([0-9a-f]{16})-(0|[1-9][0-9]{0,18})")

Tell = Callable[[], None]


def is_position(id: str | None) -> bool:
    """Whether an id is one that a log gave."""
    return id is not None and _POSITION.fullmatch(id) is not None


class Entry(NamedTuple):
    """What stands at one position: an event, or (None) the end of its channel."""

    sequence: int
    time: float
    channel: str
    event: Event | None


class Batch:
    """What a cursor had before it: a ``stream-gap`` event where something is lost,
    and what is there. ``ended`` says that all its channels ended with that, ``more``
    that there is more than was asked for. ``named`` is the sequence number that its
    last id names, or ``UNNAMED``.

    ``frames`` is for readers, to keep what they make of it: those that were at the
    same place get the same batch.
    """

    __slots__ = ("ended", "entries", "frames", "gap", "more", "named")

    def __init__(
        self,
        gap: Event | None,
        entries: list[Entry],
        named: int,
        *,
        ended: bool,
        more: bool,
    ) -> None:
        self.gap = gap
        self.entries = entries
        self.named = named
        self.ended = ended
        self.more = more
        self.frames: bytes | None = None


class _Step(NamedTuple):
    """One reader's step, for others that follow it."""

    channels: tuple[str, ...]
    start: int
    sequence: int
    limit: int
    batch: Batch


class Cursor:
    """How far a subscriber of some channels has come. It belongs to one reader; the
    log that made it moves it, under its lock.

    ``position`` is behind everything that was read. ``floors`` are higher positions of
    single channels: what lies at or below is not wanted (a newcomer gets the last few
    events of each) or known to be lost (a gap that was told). ``ended`` are the
    channels whose last word, so far, was their end. ``since`` is the id that the
    reader came with, until it has read; ``unknown`` says that it means nothing here.
    """

    __slots__ = ("channels", "ended", "floors", "position", "since", "unknown")

    def __init__(
        self, channels: tuple[str, ...], position: int, since: str = ""
    ) -> None:
        self.channels = channels
        self.position = position
        self.floors = NO_FLOORS
        self.ended = NONE_ENDED
        self.since = since
        self.unknown = False

    def floor(self, channel: str) -> int:
        return max(self.position, self.floors.get(channel, BEGINNING))

    def copy(self) -> Cursor:
        """The same place, for another reader."""
        cursor = Cursor(self.channels, self.position, self.since)
        cursor.floors = self.floors
        cursor.ended = self.ended
        cursor.unknown = self.unknown
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


class _Channel:
    """What is retained of one channel, and who watches it."""

    __slots__ = ("dropped", "entries", "touched", "unread", "watchers")

    def __init__(self, dropped: int) -> None:
        #: The highest position that was here, or may have been, and is no longer.
        self.dropped = dropped
        self.entries: list[Entry] = []
        self.touched = 0.0
        #: Entries since anyone last read here.
        self.unread = 0
        self.watchers: dict[Tell, None] = {}

    def after(self, position: int) -> list[Entry]:
        """The entries behind a position; looked for from the new end, where most
        readers are."""
        first = len(self.entries)
        while first and self.entries[first - 1].sequence > position:
            first -= 1
        return self.entries[first:]

    def ended_at(self, position: int) -> bool:
        """Whether the last word, up to a position, was the end."""
        for entry in reversed(self.entries):
            if entry.sequence <= position:
                return entry.event is None
        return False

    def evict(self, history: int, oldest: float) -> bool:
        """Drop what is too old or too much.

        :returns: whether there was any.
        """
        entries = self.entries
        count = max(0, len(entries) - history)
        while count < len(entries) and entries[count].time < oldest:
            count += 1
        if count:
            self.dropped = entries[count - 1].sequence
            del entries[:count]
        return count > 0


class Log:
    """Recent events by channel, in one order.

    Thread-safe; no callback runs while its lock is held.

    :param history: events kept per channel, at least 1.
    :param age: seconds that they are kept.
    :param epoch: the name of this life of the log, 16 hexadecimal digits; drawn where
        it is left out. Two logs must not share one: make a log after a fork.
    :param clock: seconds, never falling.
    """

    def __init__(
        self,
        *,
        history: int,
        age: float,
        epoch: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epoch = epoch or secrets.token_hex(8)
        self.sequence = BEGINNING
        self._prefix = f"{self.epoch}-"
        self._history = history
        self._age = age
        self._clock = clock
        self._channels: dict[str, _Channel] = {}
        #: Those without watchers, the one longest untouched first.
        self._idle: OrderedDict[str, _Channel] = OrderedDict()
        #: The highest position of all channels that were forgotten.
        self._forgotten = BEGINNING
        #: The last step of a reader that came from and got to where most are.
        self._step: _Step | None = None
        self._leavers: deque[tuple[tuple[str, ...], Tell]] = deque()
        self._lock = threading.Lock()

    # Writing

    def append(self, channel: str, event: Event) -> Event:
        """Put an event at the next position, and tell who watches its channel.

        :returns: the event as it stands there, with its id.
        """
        with self._lock:
            event = event.published(channel, f"{self._prefix}{self.sequence + 1}")
            kept = self._append(channel, event)
            watchers = tuple(kept.watchers)
        for tell in watchers:
            tell()
        if watchers and kept.unread * 2 > self._history:
            # A burst is about to outrun its readers, and what they have not read is
            # evicted. Under gevent they can only run when we give way to them.
            kept.unread = 0
            time.sleep(BREATH)
        return event

    def end(self, channel: str) -> None:
        """Put the end of a channel at the next position: readers stop there. An event
        that comes later opens the channel again."""
        with self._lock:
            watchers = tuple(self._append(channel, None).watchers)
        for tell in watchers:
            tell()

    def _append(self, name: str, event: Event | None) -> _Channel:
        """The one door by which the log grows. The lock is held."""
        now = self._clock()
        channel = self._touch(name, now)
        self.sequence += 1
        channel.entries.append(Entry(self.sequence, now, name, event))
        channel.unread += 1
        if channel.evict(self._history, now - self._age):
            self._step = None
        self._let_go(now)
        return channel

    def _touch(self, name: str, now: float) -> _Channel:
        channel = self._channels.get(name)
        if channel is None:
            # Whether there was one of this name before, nobody knows any more.
            channel = self._channels[name] = _Channel(self._forgotten)
        if not channel.watchers:
            self._idle[name] = channel
            self._idle.move_to_end(name)
        channel.touched = now
        return channel

    def _forget(self, now: float) -> None:
        """Drop channels that nobody listens to and that hold nothing any more."""
        for _ in range(min(len(self._idle), MAX_FORGOTTEN_AT_ONCE)):
            name, channel = next(iter(self._idle.items()))
            is_fresh = channel.touched >= now - self._age
            if is_fresh and len(self._idle) <= MAX_IDLE_CHANNELS:
                return
            last = channel.entries[-1].sequence if channel.entries else channel.dropped
            self._forgotten = max(self._forgotten, last)
            del self._idle[name], self._channels[name]

    # Watching

    def watch(self, channels: Iterable[str], tell: Tell) -> None:
        """Have ``tell`` called after each append to one of these channels, in the
        thread that appends: it may neither wait nor raise. Until ``unwatch`` none of
        them is forgotten."""
        with self._lock:
            for name in channels:
                self._touch(name, self._clock()).watchers[tell] = None
                self._idle.pop(name, None)

    def unwatch(self, channels: Iterable[str], tell: Tell) -> None:
        """Undo ``watch``; nothing where there is nothing to undo.

        It never waits for the lock: a generator that watches may be collected as
        garbage by a thread that holds it.
        """
        self._leavers.append((tuple(channels), tell))
        if self._lock.acquire(blocking=False):
            try:
                self._let_go(self._clock())
            finally:
                self._lock.release()

    def _let_go(self, now: float) -> None:
        """Of those who have left. The lock is held."""
        while self._leavers:
            channels, tell = self._leavers.popleft()
            for name in channels:
                if name in self._channels:
                    self._channels[name].watchers.pop(tell, None)
                    self._touch(name, now)
        self._forget(now)

    # Reading

    def position(self, sequence: int | None = None) -> str:
        """A position as an ``id:`` carries it: epoch and sequence number. Without a
        number it is where the log stands now."""
        return f"{self._prefix}{self.sequence if sequence is None else sequence}"

    def cursor(self, channels: Iterable[str], since: str = "", last: int = 0) -> Cursor:
        """A new subscriber.

        :param since: the id that it resumes from; empty for a newcomer.
        :param last: how many of each channel's last events a newcomer gets.
        """
        names = _shared(tuple(dict.fromkeys(channels)))
        with self._lock:
            self._evict(names)
            if since:
                cursor = self._resumed(names, since)
            else:
                cursor = self._newcomer(names, last)
            cursor.ended = frozenset(
                name
                for name in names
                if name in self._channels
                and self._channels[name].ended_at(cursor.floor(name))
            )
        return cursor

    def _newcomer(self, names: tuple[str, ...], last: int) -> Cursor:
        cursor = Cursor(names, self.sequence)
        if last < 1:
            return cursor
        floors = {}
        for name in names:
            channel = self._channels.get(name)
            events = [e for e in channel.entries if e.event] if channel else []
            first = events[-last:][:1]
            floors[name] = first[0].sequence - 1 if first else self.sequence
        cursor.floors = floors
        cursor.position = min(floors.values())
        return cursor

    def _resumed(self, names: tuple[str, ...], since: str) -> Cursor:
        sequence = self._find(names, since)
        cursor = Cursor(names, BEGINNING if sequence is None else sequence, since)
        cursor.unknown = sequence is None
        return cursor

    def _find(self, names: tuple[str, ...], id: str) -> int | None:
        """Where an id stands: a position of ours, or an application's, newest first."""
        id = id.strip(BLANKS)
        match = _POSITION.fullmatch(id)
        if match and match[1] == self.epoch and int(match[2]) <= self.sequence:
            return int(match[2])
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

    def read(self, cursor: Cursor, limit: int) -> Batch:
        """Move a cursor on.

        :param limit: bytes of events after which to stop, so that a late reader gets
            its history in pieces. One entry is read always, whatever its size.
        """
        step = self._step
        if (
            step
            and step.start == cursor.position
            and step.sequence == self.sequence
            and step.channels == cursor.channels
            and step.limit == limit
            and not (cursor.floors or cursor.ended or cursor.unknown)
        ):
            # A thousand readers of a channel take this way, and one the other. (What is
            # appended meanwhile is told of after this, and so read next.)
            cursor.position = step.sequence
            cursor.since = ""
            return step.batch
        with self._lock:
            return self._read(cursor, limit)

    def _read(self, cursor: Cursor, limit: int) -> Batch:
        start, is_plain = cursor.position, not (cursor.floors or cursor.ended)
        self._evict(cursor.channels)
        gap = self._gap(cursor)
        pending = self._pending(cursor)
        entries, ended = cursor.advance(pending, limit)
        more = not ended and len(entries) < len(pending)
        batch = Batch(gap, entries, self._named(entries), ended=ended, more=more)
        cursor.since = ""
        if not ended and not more:
            cursor.position = self.sequence
            cursor.floors = NO_FLOORS
            if is_plain and not gap and not cursor.ended:
                channels = cursor.channels
                self._step = _Step(channels, start, self.sequence, limit, batch)
        return batch

    def _named(self, entries: list[Entry]) -> int:
        """The sequence number that the last id of these names."""
        if not entries:
            return UNNAMED
        last = entries[-1]
        if last.event and last.event.id != self.position(last.sequence):
            return UNNAMED
        return last.sequence

    def is_finished(self, cursor: Cursor) -> bool:
        """Whether a new cursor is at the end of all its channels, with nothing left to
        be read or told."""
        if len(cursor.ended) < len(cursor.channels) or cursor.unknown:
            return False
        with self._lock:
            return not self._pending(cursor)

    def _evict(self, names: Iterable[str]) -> None:
        oldest = self._clock() - self._age
        for name in names:
            if channel := self._channels.get(name):
                channel.unread = 0
                if channel.evict(self._history, oldest):
                    self._step = None

    def _gap(self, cursor: Cursor) -> Event | None:
        """What to tell of events that are lost; from here on it counts as told."""
        lost = []
        for name in cursor.channels:
            channel = self._channels.get(name)
            dropped = channel.dropped if channel else self._forgotten
            if cursor.unknown or dropped > cursor.floor(name):
                lost.append((name, dropped))
        if not lost:
            return None
        since = cursor.since or self.position(cursor.position)
        cursor.unknown = False
        cursor.floors = {**cursor.floors, **dict(lost)}
        cursor.ended -= {name for name, _ in lost}
        # Whoever comes back with the gap's id misses none of what is sent after it.
        told = min(map(cursor.floor, cursor.channels))
        return own_event(
            "gap",
            json.dumps({"since": since, "channels": [name for name, _ in lost]}),
            id=self.position(told),
        )

    def _pending(self, cursor: Cursor) -> list[Entry]:
        found = [
            self._channels[name].after(cursor.floor(name))
            for name in cursor.channels
            if name in self._channels
        ]
        if len(found) == 1:
            return found[0]
        return sorted(entry for entries in found for entry in entries)


@lru_cache(maxsize=1024)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same tuple for all who listen to the same."""
    return names

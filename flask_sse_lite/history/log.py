"""The log: the bounded, ordered memory of recent events, by channel.

Here lives what makes resuming exact. One sequence counts the events of all channels;
a subscriber is a cursor, and reading after it gives what it missed, in order, or says
in which channels something is no longer there. Who wants to be told of news leaves a
callable. Flask, sockets and brokers are unknown here.

A log either grows by itself (``append``, ``end``), or is fed by one broker with what
stands in a store that processes share (``restart``, ``load``, ``feed``, ``lose``):
then it holds the channels that were loaded, and of the others knows how far it is.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import NamedTuple

from .. import own_events
from ..errors import Reentered
from ..event import BLANKS, Event
from ..position import (
    BEGINNING,
    RUN_PREFIX,
    UNKNOWN_EPOCH,
    new_epoch,
    parse_position,
    position_id,
)
from ..system.locks import Section
from .cursor import Batch, Cursor, Entry
from .outputs import RUNS_BYTES, Outputs

#: Channels remembered that hold something and that nobody listens to. Past it the one
#: longest untouched is forgotten, whatever its age: a million names published to in
#: five minutes must not stay in memory. Whoever comes back to a forgotten one is told
#: of a gap.
MAX_IDLE_CHANNELS = 16_384

#: The same of channels that hold nothing. They are counted apart: strangers can name
#: as many as they like, and displace only what others of them have named.
MAX_QUIET_CHANNELS = 4_096

#: Channels forgotten in one go at most: some 0.5 ms of work for an unlucky publisher.
MAX_FORGOTTEN_AT_ONCE = 1_000

#: Seconds that a publisher pauses when a burst fills half a channel's history before
#: anyone has read it. (A pause of 0 would not let gevent look at its descriptors.)
BREATH = 0.0005

#: Such pauses at most, until one of the readers has read.
BREATHS = 4

#: Pauses that who feeds a log makes for readers that do not read. They are readers of a
#: channel that is full; after as many, they have to take care of themselves.
FEEDER_BREATHS = 10

#: Characters of names, up to which streams of the same channels share them: strangers
#: can ask for any number of long names, and they are remembered for a while.
SHARED_CHARACTERS = 512

Tell = Callable[[], None]


class Record(NamedTuple):
    """What a store has at one position: an event as it was published, or (None) the
    end of its channel, or (where there is a budget) the beginning of a run there;
    ``age`` is in seconds."""

    sequence: int
    age: float
    channel: str
    event: Event | None
    budget: int = 0


class Past(NamedTuple):
    """What a store retains of one channel, in order, and the highest position of what
    it no longer does; of the last run there, its position and its budget."""

    dropped: int
    records: list[Record]
    start: int = BEGINNING
    budget: int = 0


def unreadable(epoch: str, sequence: int, age: float, channel: str) -> Record:
    """What stands in a log for an entry of a store that this process cannot read: a
    gap of its channel, at its own place. Whoever reads past it is told of it, and
    nobody loses what lies before it or behind it."""
    since = position_id(epoch, sequence - 1, channel)
    id = position_id(epoch, sequence, channel)
    gap = own_events.gap(since, [channel], id, channel)
    return Record(sequence, age, channel, gap)


class _Step(NamedTuple):
    """One reader's step, for others that follow it."""

    channels: tuple[str, ...]
    start: int
    sequence: int
    limit: int
    batch: Batch


class _Channel:
    """What is retained of one channel, and who watches it."""

    __slots__ = (
        "awaits_end",
        "budget",
        "dropped",
        "ended_when",
        "entries",
        "is_whole",
        "read_to",
        "size",
        "start",
        "touched",
        "unread",
        "watchers",
    )

    def __init__(self, dropped: int, *, is_whole: bool) -> None:
        #: Whether all that is retained of it is here: not so before it is loaded.
        self.is_whole = is_whole
        #: The highest position that was here, or may have been, and is no longer.
        self.dropped = dropped
        self.entries: list[Entry] = []
        self.touched = 0.0
        #: Entries since anyone last read here.
        self.unread = 0
        self.watchers: dict[Tell, None] = {}
        #: Of a run's output, bytes that are kept; 0 for a channel of events.
        self.budget = 0
        #: Where it stands that the run begins; what is kept, in bytes; how far anyone
        #: has read; and since when it is all there is. Of a run only.
        self.start = BEGINNING
        self.size = 0
        self.read_to = BEGINNING
        self.ended_when: float | None = None
        #: Whether a run began here, of whose end nothing was seen. This outlives what
        #: is known of the run: a store that lost it will never put its end.
        self.awaits_end = False

    def append(self, entry: Entry, now: float) -> None:
        self.entries.append(entry)
        self.unread += 1
        if entry.event is None:
            self.awaits_end = False
        if self.budget:
            self.size += entry.size
            if entry.event is None:
                self.ended_when = now

    def empty(self) -> None:
        self.entries = []
        self.is_whole = False
        self.budget, self.start, self.size = 0, BEGINNING, 0
        self.read_to, self.ended_when = BEGINNING, None

    def fill(self, past: Past, until: int, now: float) -> None:
        """Take over what a store has, up to a position."""
        self.empty()
        self.is_whole = True
        self.dropped = past.dropped
        self.unread = 0
        self.entries = [
            Entry(sequence, now - max(0.0, age), name, event)
            for sequence, age, name, event, budget in past.records
            if sequence <= until and not budget
        ]
        if past.budget and past.start <= until:
            self.hold(past.budget, past.start)
            for entry in self.after(past.start):
                if entry.event is None:
                    self.ended_when = entry.time
            self.awaits_end = self.ended_when is None
        elif self.entries and self.entries[-1].event is None:
            self.awaits_end = False

    def hold(self, budget: int, start: int) -> None:
        self.budget, self.start = budget, start
        self.size = sum(entry.size for entry in self.entries)
        self.ended_when = None
        self.awaits_end = True

    def after(self, position: int) -> list[Entry]:
        """The entries behind a position; looked for from the new end, where most
        readers are."""
        first = len(self.entries)
        while first and self.entries[first - 1].sequence > position:
            first -= 1
        return self.entries[first:]

    @property
    def is_running(self) -> bool:
        """Whether a run goes on here. It has opened the channel, though it may not have
        said anything yet."""
        return bool(self.budget) and self.ended_when is None

    def ended_at(self, position: int) -> bool:
        """Whether the last word, up to a position, was the end."""
        if self.is_running:
            return False
        for entry in reversed(self.entries):
            if entry.sequence <= position:
                return entry.event is None
        return False

    def shed(self, excess: int) -> None:
        """Drop so many bytes of a run, the oldest first, or all but its end."""
        count, left = 0, self.size - excess
        last = len(self.entries) - self.has_end
        while self.size > max(left, 0) and count < last:
            self.size -= self.entries[count].size
            count += 1
        if count == last:
            self.size = 0
        if count:
            self.dropped = self.entries[count - 1].sequence
            del self.entries[:count]

    @property
    def has_end(self) -> bool:
        """Whether the last word is the end."""
        return bool(self.entries) and self.entries[-1].event is None

    def evict(self, history: int, oldest: float) -> bool:
        """Drop what is too old or too much.

        :returns: whether there was any.
        """
        if self.ended_when is not None and self.ended_when < oldest:
            # It was a run, and is as old as anything may be.
            self.budget, self.ended_when = 0, None
        entries = self.entries
        count = 0
        if self.budget:
            while self.size > self.budget and count < len(entries):
                self.size -= entries[count].size
                count += 1
        else:
            count = max(0, len(entries) - history)
            while count < len(entries) and entries[count].time < oldest:
                count += 1
        if count:
            self.dropped = entries[count - 1].sequence
            del entries[:count]
        return count > 0


class Log:
    """Recent events by channel, in one order.

    Thread-safe; no callback runs while its lock is held. Code that interrupts a step of
    the same thread (a signal handler, a ``__del__``) can append and end; what else
    needs the lock raises ``Reentered`` there.

    :param history: events kept per channel, at least 1.
    :param age: seconds that they are kept.
    :param epoch: the name of this life of the log, 16 hexadecimal digits; drawn where
        it is left out. Two logs must not share one: make a log after a fork.
    :param clock: seconds, never falling.
    :param runs_bytes: kept of the output of all runs together.
    """

    def __init__(
        self,
        *,
        history: int,
        age: float,
        epoch: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        runs_bytes: int = RUNS_BYTES,
    ) -> None:
        self.epoch = epoch or new_epoch()
        self.sequence = BEGINNING
        #: Positions where nothing stands that is known of, between the two of each
        #: pair. Whoever has been there has seen what is lost.
        self.voids: list[tuple[int, int]] = []
        self._history = history
        self._age = age
        self._clock = clock
        self._is_fed = False
        self._channels: dict[str, _Channel] = {}
        #: Those without watchers, the one longest untouched first: such as hold
        #: something, and such as hold nothing.
        self._idle: OrderedDict[str, _Channel] = OrderedDict()
        self._quiet: OrderedDict[str, _Channel] = OrderedDict()
        #: The highest position of all channels that were forgotten.
        self._forgotten = BEGINNING
        #: Those that are watched and were not loaded, though they should be.
        self._unfed: set[str] = set()
        #: The last step of a reader that came from and got to where most are.
        self._step: _Step | None = None
        self._leavers: deque[tuple[tuple[str, ...], Tell]] = deque()
        #: Of all channels that runs feed, or fed.
        self._outputs = Outputs(runs_bytes)
        self._lock = Section(self._settle)
        #: Positions for what grows by itself. Each is taken in one step, which nothing
        #: interrupts.
        self._numbers = count(BEGINNING + 1)
        #: What was appended by code that had interrupted the lock's holder: it has its
        #: position, and is not there yet. A heap, the lowest position first.
        self._behind: list[tuple[int, str, Event | None]] = []
        #: Who is to be told of what was taken up from there.
        self._untold: deque[Tell] = deque()

    # Growing by itself

    def append(self, channel: str, event: Event) -> Event:
        """Put an event at the next position, and tell who watches its channel.

        :returns: the event as it stands there, with its id.
        """
        try:
            with self._lock:
                sequence = next(self._numbers)
                id = position_id(self.epoch, sequence, channel)
                event = event.published(channel, id)
                kept = self._append(sequence, channel, event)
                watchers = tuple(kept.watchers)
        except Reentered:
            sequence = next(self._numbers)
            id = position_id(self.epoch, sequence, channel)
            event = event.published(channel, id)
            self._leave_behind(sequence, channel, event)
            return event
        self._tell(watchers, kept)
        return event

    def end(self, channel: str) -> None:
        """Put the end of a channel at the next position: readers stop there. An event
        that comes later opens the channel again."""
        try:
            with self._lock:
                kept = self._append(next(self._numbers), channel, None)
                watchers = tuple(kept.watchers)
        except Reentered:
            self._leave_behind(next(self._numbers), channel, None)
            return
        for tell in watchers:
            tell()

    def say(self, channel: str, start: int, event: Event) -> Event | None:
        """As ``append``, for the run that began at a position, unless it is over."""
        with self._lock:
            sequence = self._number_in_run(channel, start)
            if sequence is None:
                return None
            id = position_id(self.epoch, sequence, channel)
            event = event.published(channel, id)
            kept = self._append(sequence, channel, event)
            watchers = tuple(kept.watchers)
        self._tell(watchers, kept)
        return event

    def end_run(self, channel: str, start: int, reason: Event | None = None) -> None:
        """As ``end``, for the run that began at a position.

        :param reason: what is said right before the end. No reader can read the one
            without the other.
        """
        with self._lock:
            sequence = self._number_in_run(channel, start)
            if sequence is None:
                return
            if reason:
                id = position_id(self.epoch, sequence, channel)
                self._append(sequence, channel, reason.published(channel, id))
                sequence = next(self._numbers)
            watchers = tuple(self._append(sequence, channel, None).watchers)
        for tell in watchers:
            tell()

    def _number_in_run(self, channel: str, start: int) -> int | None:
        """The next position, unless the run is over. The lock is held."""
        if not self._goes_on(channel, start):
            return None
        sequence = next(self._numbers)
        # What comes before that may be its end.
        self._take_up(sequence)
        return sequence if self._goes_on(channel, start) else None

    def _goes_on(self, channel: str, start: int) -> bool:
        kept = self._channels.get(channel)
        return kept is not None and kept.is_running and kept.start == start

    # What comes while a step of the same thread is interrupted is put behind it.

    def _leave_behind(self, sequence: int, name: str, event: Event | None) -> None:
        heappush(self._behind, (sequence, name, event))
        self._lock.has_left = True

    def _take_up(self, before: float = inf) -> None:
        """The lock is held."""
        while self._behind and self._behind[0][0] < before:
            watchers = self._append(*heappop(self._behind)).watchers
            self._untold.extend(watchers)

    def _settle(self) -> None:
        """The lock's, behind a step that was interrupted."""
        self._lock.has_left = False
        with self._lock:
            self._take_up()
        while self._untold:
            with suppress(IndexError):  # Another thread was faster.
                self._untold.popleft()()

    def _tell(self, watchers: tuple[Tell, ...], kept: _Channel) -> None:
        for tell in watchers:
            tell()
        if watchers and kept.unread * 2 > self._history:
            # A burst is about to outrun its readers, and what they have not read is
            # evicted. Under gevent they can only run when we give way to them.
            for _ in range(BREATHS):
                try:
                    time.sleep(BREATH)
                except AssertionError:
                    return  # gevent's own greenlet cannot, where a signal is handled.
                if not kept.unread:
                    return
            kept.unread = 0

    def _append(self, sequence: int, name: str, event: Event | None) -> _Channel:
        """Put something at a position, behind what has a lower one. The lock is
        held."""
        if self._behind:
            self._take_up(sequence)
        now = self._clock()
        channel = self._channels.get(name) or self._channel(name)
        self.sequence = sequence
        self._keep(channel, Entry(sequence, now, name, event), now)
        return channel

    def _keep(self, channel: _Channel, entry: Entry, now: float) -> None:
        """The one door by which a channel grows. The lock is held."""
        is_run = bool(channel.budget)
        channel.append(entry, now)
        if channel.evict(self._history, now - self._age):
            self._step = None
        self._touch(entry.channel, channel, now)
        if is_run:
            self._note_output(entry.channel, channel)
            self._fit_outputs()
        self._let_go(now)

    def _channel(self, name: str) -> _Channel:
        """One to be held on to, or touched."""
        channel = self._channels.get(name)
        if channel is None:
            # Whether there was one of this name before, nobody knows any more.
            channel = _Channel(self._forgotten, is_whole=not self._is_fed)
            self._channels[name] = channel
        return channel

    def _touch(self, name: str, channel: _Channel, now: float) -> None:
        """It is as it is to be. The lock is held."""
        channel.touched = now
        if channel.watchers:
            return
        if channel.entries or channel.budget:
            if self._quiet:
                self._quiet.pop(name, None)
            self._idle[name] = channel
            self._idle.move_to_end(name)
            return
        self._idle.pop(name, None)
        if not channel.is_whole:
            self._quiet.pop(name, None)
            del self._channels[name]
        else:
            # That it holds nothing is worth knowing for its age: whoever comes back to
            # it would be told of a gap as soon as the mark of the forgotten moves on.
            self._quiet[name] = channel
            self._quiet.move_to_end(name)

    def _forget(
        self, idle: OrderedDict[str, _Channel], most: int, oldest: float
    ) -> None:
        """Drop channels that nobody listens to: the old, and what is too many."""
        for _ in range(min(len(idle), MAX_FORGOTTEN_AT_ONCE)):
            name, channel = next(iter(idle.items()))
            if channel.touched >= oldest and len(idle) <= most:
                return
            last = channel.entries[-1].sequence if channel.entries else channel.dropped
            self._forgotten = max(self._forgotten, last)
            self._outputs.note(name, 0)
            del idle[name], self._channels[name]

    # What is kept of all runs. The lock is held.

    def _note_output(self, name: str, channel: _Channel) -> None:
        self._outputs.note(name, channel.size if channel.budget else 0)

    def _fit_outputs(self) -> None:
        """Drop what is too much of all runs' output, of what was read longest ago."""
        while (excess := self._outputs.excess) > 0:
            name = self._outputs.next_to_go
            channel = self._channels[name]
            channel.shed(excess)
            self._step = None
            if not channel.size and not channel.is_running and not channel.watchers:
                self._drop_output(channel)
                self._touch(name, channel, channel.touched)
            self._note_output(name, channel)

    def _drop_output(self, channel: _Channel) -> None:
        """Forget a run that is over and of which nothing is left but its end. A log
        that is fed loads it anew, should somebody want it."""
        last = channel.entries[-1].sequence if channel.entries else channel.dropped
        channel.empty()
        channel.dropped = last
        channel.is_whole = not self._is_fed
        if self._is_fed:
            self._forgotten = max(self._forgotten, last)

    # Being fed, by one thread at a time

    def restart(
        self,
        epoch: str,
        sequence: int,
        pasts: Mapping[str, Past],
        *,
        history: int,
        age: float,
    ) -> None:
        """Begin another life, as its store did, at a position there. What was here is
        gone, and whoever reads on is told of that by a gap.

        :param pasts: what the store retains of channels: of those that are watched, for
            their readers to be given it behind the gap.
        """
        with self._lock:
            now = self._clock()
            self._is_fed = True
            self._history, self._age = history, age
            # In this order: a position may be read at any time.
            self.sequence = self._forgotten = sequence
            self.epoch = epoch
            self._step = None
            for idle in (self._idle, self._quiet):
                for name in idle:
                    del self._channels[name]
                idle.clear()
            for channel in self._channels.values():
                channel.empty()
            self._outputs.clear()
            for name, past in pasts.items():
                channel = self._channel(name)
                channel.fill(past, sequence, now)
                self._evict([name])
                self._touch(name, channel, now)
                self._note_output(name, channel)
            self._fit_outputs()
            self._unfed = {n for n, c in self._channels.items() if not c.is_whole}
            tells = {t for c in self._channels.values() for t in c.watchers}
        for tell in tells:
            tell()

    def wanted(self) -> list[str]:
        """The channels that are watched."""
        with self._lock:
            return [n for n, channel in self._channels.items() if channel.watchers]

    def held(self) -> list[str]:
        """The channels that are loaded, and so to be fed."""
        with self._lock:
            return [n for n, channel in self._channels.items() if channel.is_whole]

    def holds(self, channel: str) -> bool:
        """Whether a channel is loaded, and so to be fed."""
        kept = self._channels.get(channel)
        return kept is not None and kept.is_whole

    def missing(self, channels: Iterable[str]) -> list[str]:
        """Those of these channels that are to be loaded before they are read. The
        others stay, for as long as anything does that nobody listens to."""
        with self._lock:
            now = self._clock()
            missing = []
            for name in channels:
                if self.holds(name):
                    self._touch(name, self._channels[name], now)
                else:
                    missing.append(name)
            return missing

    @property
    def has_unfed(self) -> bool:
        """Whether there may be any of these."""
        return bool(self._unfed)

    def unfed(self) -> list[str]:
        """The channels that are watched and were not loaded: another life began, or
        they were forgotten, between their being loaded and watched. Nothing is lost as
        long as they are loaded before anything is fed."""
        if not self._unfed:
            return []
        with self._lock:
            names = [
                name
                for name in self._unfed
                if name in self._channels and not self._channels[name].is_whole
            ]
            self._unfed.clear()
            return names

    def load(self, pasts: Mapping[str, Past]) -> None:
        """Take over what the store retains of some channels. What lies behind
        ``sequence`` is left out: it will be fed."""
        tells: set[Tell] = set()
        with self._lock:
            now = self._clock()
            for name, past in pasts.items():
                channel = self._channel(name)
                channel.fill(past, self.sequence, now)
                self._evict([name])
                self._touch(name, channel, now)
                self._note_output(name, channel)
                tells.update(channel.watchers)
            self._fit_outputs()
            self._step = None
            self._let_go(now)
        for tell in tells:
            tell()

    def feed(self, record: Record) -> None:
        """Put what stands at the store's next position where it belongs, and tell who
        watches its channel. Of a channel that is not loaded it is only known then that
        there was something."""
        sequence, age, name, event, budget = record
        with self._lock:
            self._advance(sequence)
            channel = self._channels.get(name)
            if channel is None or not channel.is_whole:
                self._forgotten = sequence
                return
            now = self._clock()
            if budget:
                channel.hold(budget, sequence)
                self._note_output(name, channel)
                self._touch(name, channel, now)
            else:
                entry = Entry(sequence, now - max(0.0, age), name, event)
                self._keep(channel, entry, now)
            watchers = tuple(channel.watchers)
        for tell in watchers:
            tell()
        breaths = 0
        while watchers and channel.unread * 2 > self._history:
            # As in append; and as it is no request that waits, with more patience.
            time.sleep(BREATH)
            breaths += 1
            if breaths == FEEDER_BREATHS:
                channel.unread = -FEEDER_BREATHS * self._history

    def advance(self, sequence: int) -> None:
        """All up to there was fed that belongs to a channel which is loaded."""
        with self._lock:
            if sequence > self.sequence:
                self._advance(sequence)
                self._forgotten = sequence

    def _advance(self, sequence: int) -> None:
        if sequence <= self.sequence:
            raise ValueError(f"{sequence} comes behind {self.sequence}")
        self.sequence = sequence

    def lose(self, channel: str, dropped: int) -> None:
        """The store dropped what it had of a channel up to there before all of it was
        fed."""
        with self._lock:
            kept = self._channels.get(channel)
            if kept is None or dropped <= kept.dropped:
                return
            kept.dropped = dropped
            kept.entries = kept.after(dropped)
            kept.size = sum(entry.size for entry in kept.entries) if kept.budget else 0
            self._note_output(channel, kept)
            self._step = None
            watchers = tuple(kept.watchers)
        for tell in watchers:
            tell()

    # Watching

    def watch(self, channels: Iterable[str], tell: Tell) -> None:
        """Have ``tell`` called after each append to one of these channels, in the
        thread that appends: it may neither wait nor raise. Until ``unwatch`` none of
        them is forgotten."""
        with self._lock:
            for name in channels:
                channel = self._channel(name)
                channel.touched = self._clock()
                channel.watchers[tell] = None
                self._idle.pop(name, None)
                self._quiet.pop(name, None)
                if not channel.is_whole:
                    self._unfed.add(name)

    def unwatch(self, channels: Iterable[str], tell: Tell) -> None:
        """Undo ``watch``; nothing where there is nothing to undo. A channel that was
        only listened to displaces no other that holds something, and leaves no mark.

        It never waits for the lock: a generator that watches may be collected as
        garbage by a thread that holds it.
        """
        self._leavers.append((tuple(channels), tell))
        if self._lock.enter_at_once():
            try:
                self._let_go(self._clock())
            finally:
                self._lock.leave()

    def _let_go(self, now: float) -> None:
        """Of those who have left. The lock is held."""
        while self._leavers:
            channels, tell = self._leavers.popleft()
            for name in channels:
                if channel := self._channels.get(name):
                    channel.watchers.pop(tell, None)
                    self._touch(name, channel, now)
        oldest = now - self._age
        self._forget(self._idle, MAX_IDLE_CHANNELS, oldest)
        if self._quiet:
            self._forget(self._quiet, MAX_QUIET_CHANNELS, oldest)

    # Runs

    def hold(self, channel: str, budget: int) -> int | None:
        """Keep what a run says in a channel as a whole, from its first event until as
        long after its end as other events are kept; unless one goes on there.

        :param budget: bytes of it; of more, the oldest are dropped.
        :returns: where the log stands before its first event; None where one goes on.
        """
        with self._lock:
            is_new = channel not in self._channels
            kept = self._channel(channel)
            if kept.is_running:
                return None
            if is_new and channel.startswith(RUN_PREFIX):
                # Nobody had this name before.
                kept.dropped = BEGINNING
            kept.hold(budget, self.sequence)
            self._note_output(channel, kept)
            self._touch(channel, kept, self._clock())
            return self.sequence

    def limit_runs(self, size: int) -> None:
        """Keep no more than so many bytes of the output of all runs together."""
        with self._lock:
            self._outputs.limit = size
            self._fit_outputs()

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

    def awaiting_end(self) -> list[str]:
        """The channels that are watched and that a run is to end: one that goes on, or
        one that the store has lost."""
        with self._lock:
            return [
                name
                for name, channel in self._channels.items()
                if channel.watchers
                and (
                    channel.awaits_end
                    or (name.startswith(RUN_PREFIX) and not channel.has_end)
                )
            ]

    def dropped(self, channel: str) -> int:
        """The highest position of what is no longer kept of a channel."""
        kept = self._channels.get(channel)
        return kept.dropped if kept else BEGINNING

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

    def has_ended(self, channel: str) -> bool:
        """Whether the last word in a channel is its end."""
        with self._lock:
            kept = self._channels.get(channel)
            return kept is not None and kept.ended_at(self.sequence)

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
        """A position as an ``id:`` carries it. Without a number it is where the log
        stands now."""
        return position_id(
            self.epoch, self.sequence if sequence is None else sequence, ""
        )

    def cursor(self, channels: Iterable[str], since: str = "", last: int = 0) -> Cursor:
        """A new subscriber.

        :param since: the id that it resumes from; empty for a newcomer.
        :param last: how many of each channel's last events a newcomer gets.
        """
        names = tuple(dict.fromkeys(channels))
        if sum(map(len, names)) <= SHARED_CHARACTERS:
            names = _shared(names)
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
        cursor = Cursor(names, self.epoch, self.sequence)
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
        if sequence is None:
            return Cursor(names, UNKNOWN_EPOCH, BEGINNING, since)
        return Cursor(names, self.epoch, sequence, since)

    def knows(self, channels: Iterable[str], id: str) -> bool:
        """Whether an id says where to go on in these channels."""
        with self._lock:
            return self._find(tuple(channels), id) is not None

    def _find(self, names: tuple[str, ...], id: str) -> int | None:
        """Where an id stands: a position of ours, or an application's, newest first."""
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
        """Whether a position is one where something stood, or may have."""
        return sequence <= self.sequence and not any(
            low < sequence < high for low, high in self.voids
        )

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
            # A thousand readers of a channel take this way, and one the other. (What is
            # appended meanwhile is told of after this, and so read next.)
            cursor.position = step.sequence
            cursor.since = ""
            return step.batch
        with self._lock:
            last = self.sequence if until is None else min(until, self.sequence)
            return self._read(cursor, limit, last)

    def _read(self, cursor: Cursor, limit: int, until: int) -> Batch:
        start, is_plain = cursor.position, not (cursor.floors or cursor.ended)
        self._evict(cursor.channels)
        gap = self._gap(cursor)
        pending = self._pending(cursor)
        if until < self.sequence:
            pending = [entry for entry in pending if entry.sequence <= until]
        entries, ended = cursor.advance(pending, limit)
        more = not ended and len(entries) < len(pending)
        batch = Batch(gap, entries, ended=ended, more=more)
        cursor.since = ""
        for name in cursor.channels:
            if (kept := self._channels.get(name)) and kept.budget:
                kept.read_to = max(kept.read_to, cursor.position)
                self._outputs.note_read(name)
        if not ended and not more:
            cursor.arrive(until)
            if is_plain and not gap and not cursor.ended and until == self.sequence:
                self._step = _Step(cursor.channels, start, until, limit, batch)
        return batch

    def is_finished(self, cursor: Cursor) -> bool:
        """Whether a new cursor is at the end of all its channels, with nothing left to
        be read or told."""
        with self._lock:
            if len(cursor.ended) < len(cursor.channels):
                return False
            return cursor.epoch is self.epoch and not self._pending(cursor)

    def _evict(self, names: Iterable[str]) -> None:
        oldest = self._clock() - self._age
        for name in names:
            if channel := self._channels.get(name):
                channel.unread = 0
                is_run = bool(channel.budget)
                if channel.evict(self._history, oldest):
                    self._step = None
                    if not channel.entries:
                        self._touch(name, channel, channel.touched)
                if is_run:
                    self._note_output(name, channel)

    def _gap(self, cursor: Cursor) -> Event | None:
        """What to tell of events that are lost; from here on it counts as told."""
        is_of_now = cursor.epoch is self.epoch
        lost = []
        for name in cursor.channels:
            channel = self._channels.get(name)
            is_whole = channel is not None and channel.is_whole
            dropped = channel.dropped if channel and is_whole else self._forgotten
            if not is_of_now or dropped > cursor.floor(name):
                lost.append((name, dropped))
        if not lost:
            return None
        since = cursor.since or cursor.id
        if not is_of_now:
            cursor.begin(self.epoch, BEGINNING)
        cursor.floors = {**cursor.floors, **dict(lost)}
        cursor.ended -= {name for name, _ in lost}
        # Whoever comes back with the gap's id misses none of what is sent after it.
        told = min(map(cursor.floor, cursor.channels))
        id = position_id(self.epoch, told, cursor.channels[0])
        return own_events.gap(since, [name for name, _ in lost], id)

    def _pending(self, cursor: Cursor) -> list[Entry]:
        found = []
        for name in cursor.channels:
            channel = self._channels.get(name)
            if channel and (entries := channel.after(cursor.floor(name))):
                found.append(entries)
        if len(found) < 2:
            return found[0] if found else []
        return sorted(entry for entries in found for entry in entries)


@lru_cache(maxsize=1024)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same tuple for all who listen to the same."""
    return names

"""The log: the bounded, ordered memory of recent events, by channel.

How a log grows by itself lives here: what is appended, what a run says, and what comes
while a step of the same thread is interrupted. What readers get of it lives in
reading.py, and what is kept in retention.py. A log that a store's broker feeds is in
fed.py. Flask, sockets and brokers are unknown here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from math import inf

from ..errors import Reentered
from ..event import Event
from ..position import BEGINNING, new_epoch, position_id
from ..system.locks import Section
from .channel import Channel, Tell
from .cursor import Entry
from .pacing import pause_publisher
from .reading import Readable
from .retention import RUNS_BYTES, Keeper
from .revocations import REVOCATIONS


class Log(Readable):
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
    :param leeway: see ``Revocations``.
    """

    def __init__(
        self,
        *,
        history: int,
        age: float,
        epoch: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        runs_bytes: int = RUNS_BYTES,
        leeway: float = 0.0,
    ) -> None:
        keeper = Keeper(history, age, clock, runs_bytes)
        lock = Section(self._settle)
        super().__init__(epoch or new_epoch(), keeper, clock, lock, leeway)
        #: Positions for what grows by itself. Each is taken in one step, which nothing
        #: interrupts.
        self._numbers = count(BEGINNING + 1)
        #: What was appended by code that had interrupted the lock's holder: it has its
        #: position, and is not there yet. A heap, the lowest position first.
        self._behind: list[tuple[int, str, Event | None]] = []
        #: The watchers to be told of what was taken up from there.
        self._untold: deque[Tell] = deque()

    def append(self, channel: str, event: Event) -> Event:
        """Put an event at the next position, and tell those who watch its channel.

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

    # Runs

    def hold(self, channel: str, budget: int) -> int | None:
        """Keep what a run says in a channel as a whole, from its first event until as
        long after its end as other events are kept; unless a run goes on there.

        :param budget: bytes of it; of more, the oldest are dropped.
        :returns: where the log stands before the run's first event; None where another
            run goes on.
        """
        with self._lock:
            if not self._keeper.begin_run(channel, budget, self.sequence):
                return None
            return self.sequence

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
        # What comes before that can be the run's end.
        self._take_up(sequence)
        return sequence if self._goes_on(channel, start) else None

    def _goes_on(self, channel: str, start: int) -> bool:
        kept = self._channels.get(channel)
        return kept is not None and kept.is_running and kept.start == start

    # What comes while a step of the same thread is interrupted is put behind that step.

    def _leave_behind(self, sequence: int, name: str, event: Event | None) -> None:
        heappush(self._behind, (sequence, name, event))
        self._lock.has_left = True

    def _take_up(self, before: float = inf) -> None:
        """Put what was left behind where it belongs, up to a position. The lock is
        held."""
        while self._behind and self._behind[0][0] < before:
            watchers = self._append(*heappop(self._behind)).watchers
            self._untold.extend(watchers)

    def _settle(self) -> None:
        """Take up what was left behind. The lock calls this behind a step that was
        interrupted."""
        self._lock.has_left = False
        with self._lock:
            self._take_up()
        while self._untold:
            with suppress(IndexError):  # Another thread was faster.
                self._untold.popleft()()

    # Growing

    def _append(self, sequence: int, name: str, event: Event | None) -> Channel:
        """Put something at a position, behind what has a lower one. The lock is
        held."""
        if self._behind:
            self._take_up(sequence)
        now = self._clock()
        channel = self._channels.get(name) or self._keeper.channel(name)
        entry = Entry(sequence, now, name, event)
        self.sequence = sequence
        self._keeper.keep(channel, entry, now)
        if name == REVOCATIONS:
            self.revocations.note(entry)
            channel.unread = 0  # Nobody reads them.
        return channel

    def _tell(self, watchers: tuple[Tell, ...], kept: Channel) -> None:
        for tell in watchers:
            tell()
        if watchers and kept.unread * 2 > self._keeper.history:
            # A burst is about to outrun its readers, and what they have not read would
            # be evicted.
            pause_publisher(kept)

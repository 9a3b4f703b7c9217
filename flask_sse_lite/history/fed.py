"""A log that is fed with what stands in a store that processes share.

What such a log is told of its store lives here: another life of the store begins,
channels are loaded, entries are fed in order, the store loses some. The log holds the
channels that were loaded, and of the others it knows how far it is. Only the broker of
a store feeds it. How a store keeps its entries is unknown here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import monotonic

from ..position import BEGINNING, RUN_PREFIX
from .channel import Tell
from .cursor import Entry
from .log import Log
from .pacing import Patience
from .records import Past, Record
from .retention import RUNS_BYTES
from .revocations import LEEWAY, REVOCATIONS


class FedLog(Log):
    """What a process remembers of a store. One thread at a time feeds it; any thread
    reads it. Nothing grows by itself: ``append`` and its like are never called.

    It holds nothing before the first ``restart``, which says what the store keeps.
    """

    def __init__(
        self, *, clock: Callable[[], float] = monotonic, runs_bytes: int = RUNS_BYTES
    ) -> None:
        super().__init__(
            history=1, age=1, clock=clock, runs_bytes=runs_bytes, leeway=LEEWAY
        )
        #: Seconds that the store keeps events; 0 before the first life.
        self._age = 0.0
        # When the log was last known to have all that the store had.
        self._current_at = 0.0
        self._patience = Patience()
        # Revocations are always loaded: one that comes before a stream watches them
        # must be noted, too.
        self.watch((REVOCATIONS,), _nobody)
        #: Pairs of positions. Between the two of a pair stands nothing that is known
        #: of: an id from there proves that its reader saw what is lost now.
        self.voids: list[tuple[int, int]] = []

    # Being fed

    def restart(
        self,
        epoch: str,
        sequence: int,
        pasts: Mapping[str, Past],
        *,
        history: int,
        age: float,
    ) -> None:
        """Begin another life, as the store did, at a position there. What was here is
        gone, and every reader that reads on is told of that by a gap.

        :param pasts: what the store retains of channels: of those that are watched, for
            their readers to be given it behind the gap.
        """
        with self._lock:
            now = self._clock()
            was_away = self._age and now - self._current_at > self._age
            is_first, self._age = not self._age, age
            # In this order: another thread can read the position at any time.
            self.sequence = sequence
            self.epoch = epoch
            self._step = None
            self._keeper.restart(sequence, history, age)
            for name, past in pasts.items():
                self._keeper.fill(name, past, sequence, now)
            self._note_revocations(pasts, now)
            if not is_first and (was_away or self._dropped_revocations):
                self.revocations.note_lost(self.revocations.known_since)
            self._current_at = now
            self._keeper.fit()
            self._keeper.unfed = {
                n for n, c in self._channels.items() if not c.is_whole
            }
            tells = {t for c in self._channels.values() for t in c.watchers}
        for tell in tells:
            tell()

    def load(self, pasts: Mapping[str, Past]) -> None:
        """Take over what the store retains of some channels. What lies behind
        ``sequence`` is left out: it will be fed."""
        tells: set[Tell] = set()
        with self._lock:
            now = self._clock()
            for name, past in pasts.items():
                channel = self._keeper.fill(name, past, self.sequence, now)
                tells.update(channel.watchers)
            self._note_revocations(pasts, now)
            self._keeper.fit()
            self._step = None
            self._keeper.let_go(now)
        for tell in tells:
            tell()

    def _note_revocations(self, pasts: Mapping[str, Past], now: float) -> None:
        """Note the revocations of the past, if they are among what was loaded."""
        if REVOCATIONS not in pasts:
            return
        channel = self._channels[REVOCATIONS]
        known_since = now - self._age
        if self._dropped_revocations:
            known_since = max(known_since, channel.entries[0].time)
        self.revocations.begin(known_since)
        for entry in channel.entries:
            self.revocations.note(entry)

    @property
    def _dropped_revocations(self) -> bool:
        """Whether the store had more revocations than it was to keep."""
        channel = self._channels[REVOCATIONS]
        return len(channel.entries) >= self._keeper.history and channel.dropped > 0

    def feed(self, record: Record) -> None:
        """Put what stands at the store's next position where it belongs, and tell those
        who watch its channel. Of a channel that is not loaded, the log only knows then
        that there was something."""
        sequence, age, name, event, budget = record
        with self._lock:
            self._advance(sequence)
            channel = self._channels.get(name)
            if channel is None or not channel.is_whole:
                self._keeper.forgotten = sequence
                return
            now = self._clock()
            if budget:
                self._keeper.hold(name, channel, budget, sequence, now)
            else:
                entry = Entry(sequence, now - max(0.0, age), name, event)
                self._keeper.keep(channel, entry, now)
                if name == REVOCATIONS:
                    # The store's clock can have stepped, and this machine can have
                    # slept: the entry came after all that was there before.
                    at = max(entry.time, self._current_at)
                    self.revocations.note(entry._replace(time=at))
                    channel.unread = 0  # Nobody reads them.
            watchers = tuple(channel.watchers)
        for tell in watchers:
            tell()
        history = self._keeper.history
        if watchers and channel.unread * 2 > history:
            # As in append, with more patience: no publish waits for this.
            self._patience.pause(channel, history)

    def advance(self, sequence: int) -> None:
        """Note that everything of the loaded channels, up to a position, was fed."""
        with self._lock:
            self._current_at = self._clock()
            if sequence > self.sequence:
                self._advance(sequence)
                self._keeper.forgotten = sequence

    def _advance(self, sequence: int) -> None:
        if sequence <= self.sequence:
            raise ValueError(f"{sequence} comes behind {self.sequence}")
        self.sequence = sequence

    def lose(self, channel: str, dropped: int) -> None:
        """The store dropped what it had of a channel, up to a position, before all of
        that was fed."""
        with self._lock:
            kept = self._channels.get(channel)
            if kept is None or dropped <= kept.dropped:
                return
            self._keeper.lose(channel, kept, dropped)
            if channel == REVOCATIONS:
                self.revocations.note_lost(self._clock())
            self._step = None
            watchers = tuple(kept.watchers)
        for tell in watchers:
            tell()

    # What the follower asks

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
        others stay, for as long as a channel does that nobody listens to."""
        with self._lock:
            now = self._clock()
            missing = []
            for name in channels:
                if self.holds(name):
                    self._keeper.touch(name, self._channels[name], now)
                else:
                    missing.append(name)
            return missing

    @property
    def has_unfed(self) -> bool:
        """Whether ``unfed`` can have any to name."""
        return bool(self._keeper.unfed)

    def unfed(self) -> list[str]:
        """The channels that are watched and were not loaded: another life began, or
        they were forgotten, after they were loaded and before they were watched.
        Nothing is lost as long as they are loaded before anything is fed."""
        if not self._keeper.unfed:
            return []
        with self._lock:
            names = [
                name
                for name in self._keeper.unfed
                if name in self._channels and not self._channels[name].is_whole
            ]
            self._keeper.unfed.clear()
            return names

    def awaiting_end(self) -> list[str]:
        """The channels that are watched and that a run is to end: a run goes on there,
        or the store has lost it."""
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

    # What readers are told

    def _has(self, sequence: int) -> bool:
        """Whether a position is one where something stood, or can have stood."""
        return sequence <= self.sequence and not any(
            low < sequence < high for low, high in self.voids
        )


def _nobody() -> None:
    """The watcher that keeps revocations loaded. It does nothing."""

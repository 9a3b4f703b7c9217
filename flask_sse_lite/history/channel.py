"""What is kept of one channel, and who watches it.

Here live the entries of a channel, the mark of what was dropped of them, and what is
known of a run there. retention.py decides how many entries are kept, and for how long.
The caller holds the lock of the log that has the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ..position import BEGINNING
from .cursor import Entry
from .records import Past

#: Called when a channel has news, in the thread that brings them. It must neither wait
#: nor raise.
Tell = Callable[[], None]


class Channel:
    """What is retained of one channel, and who watches it.

    :param dropped: the highest position that was here, or that can have been here, and
        is here no longer.
    :param is_whole: whether all that is retained of the channel is here. It is not,
        before a broker has loaded the channel from its store.
    """

    __slots__ = (
        "awaits_end",
        "budget",
        "counted",
        "dropped",
        "dropped_from",
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
        self.is_whole = is_whole
        self.dropped = dropped
        #: When the newest entry had come of those that were dropped as too old or too
        #: much.
        self.dropped_from = -inf
        self.entries: list[Entry] = []
        self.touched = 0.0
        #: Entries that came since a reader last read here.
        self.unread = 0
        self.watchers: dict[Tell, None] = {}
        #: Of a run's output, so many bytes are kept; 0 for a channel of events.
        self.budget = 0
        #: Bytes of what is kept; and those of them that retention.py has counted among
        #: all events that belong to no run.
        self.size = 0
        self.counted = 0
        # Of a run only: where the log stood when the run began, how far a reader has
        # read, and the time of the run's end.
        self.start = BEGINNING
        self.read_to = BEGINNING
        self.ended_when: float | None = None
        #: Whether a run began here whose end was not seen. This outlives what is known
        #: of the run: a store that lost the run will never put its end.
        self.awaits_end = False

    # Growing

    def append(self, entry: Entry, now: float) -> None:
        self.entries.append(entry)
        self.unread += 1
        if entry.event is None:
            self.awaits_end = False
        if entry.event is not None:
            self.size += entry.event.size
        elif self.budget:
            self.ended_when = now

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
        self.size = sum(entry.size for entry in self.entries)
        if past.budget and past.start <= until:
            self.hold(past.budget, past.start)
            for entry in self.after(past.start):
                if entry.event is None:
                    self.ended_when = entry.time
            self.awaits_end = self.ended_when is None
        elif self.entries and self.entries[-1].event is None:
            self.awaits_end = False

    def hold(self, budget: int, start: int) -> None:
        """A run begins here: keep its output as a whole, up to so many bytes."""
        self.budget, self.start = budget, start
        self.ended_when = None
        self.awaits_end = True

    # Shrinking

    def empty(self) -> None:
        self.entries = []
        self.is_whole = False
        self.budget, self.start, self.size = 0, BEGINNING, 0
        self.read_to, self.ended_when = BEGINNING, None

    def lose(self, dropped: int) -> None:
        """Drop all up to a position."""
        self.dropped = dropped
        self.entries = self.after(dropped)
        self.size = sum(entry.size for entry in self.entries)

    def shed(self, excess: int, *, keeps_last: bool = False) -> None:
        """Drop so many bytes, the oldest first, or all but the end.

        :param keeps_last: whether the last entry stays, whatever it is.
        """
        count, left = 0, self.size - excess
        last = len(self.entries) - (keeps_last or self.has_end)
        while self.size > max(left, 0) and count < last:
            self.size -= self.entries[count].size
            count += 1
        if count:
            self._drop(count)

    def evict(self, history: int, oldest: float, level: float = inf) -> bool:
        """Drop what is too old or too much.

        :param level: bytes of events that can be kept. The last entry stays, and so
            does what the readers of a watched channel have not been given.
        :returns: whether something was dropped.
        """
        if self.ended_when is not None and self.ended_when < oldest:
            # The run ended as long ago as anything is kept: its output is now kept as
            # events are.
            self.budget, self.ended_when = 0, None
        entries = self.entries
        count = 0
        if self.budget:
            while self.size > self.budget:
                self.size -= entries[count].size
                count += 1
        else:
            count = max(0, len(entries) - history)
            while count < len(entries) and entries[count].time < oldest:
                count += 1
            for entry in entries[:count]:
                self.size -= entry.size
            # Readers that were given up have less than nothing that is kept for them.
            unread = max(self.unread, 1) if self.watchers else 1
            while self.size > level and count < len(entries) - unread:
                self.size -= entries[count].size
                count += 1
        if count:
            self._drop(count)
        return count > 0

    def _drop(self, count: int) -> None:
        newest = self.entries[count - 1]
        self.dropped, self.dropped_from = newest.sequence, newest.time
        del self.entries[:count]

    # Being asked

    def after(self, position: int) -> list[Entry]:
        """The entries behind a position. The search begins at the newest entry, since
        most readers are near it."""
        first = len(self.entries)
        while first and self.entries[first - 1].sequence > position:
            first -= 1
        return self.entries[first:]

    @property
    def last(self) -> int:
        """The highest position that is or was here."""
        return self.entries[-1].sequence if self.entries else self.dropped

    @property
    def is_running(self) -> bool:
        """Whether a run goes on here. It has opened the channel, even where it has not
        said anything yet."""
        return bool(self.budget) and self.ended_when is None

    @property
    def has_end(self) -> bool:
        """Whether the last entry is the end."""
        return bool(self.entries) and self.entries[-1].event is None

    def ended_at(self, position: int) -> bool:
        """Whether the last entry, up to a position, was the end."""
        if self.is_running:
            return False
        for entry in reversed(self.entries):
            if entry.sequence <= position:
                return entry.event is None
        return False

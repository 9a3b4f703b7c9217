"""Housekeeping: how an SQLite file stays small, however busy the machine is.

Here lives what is dropped from a store, how the write-ahead log is brought into the
file, and when. The file grows neither with time nor with the number of publishes: each
process counts what it has written, and must do its part before it writes much more.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, NamedTuple

from ...errors import BrokerUnavailable
from ...event import Event
from ...system.chance import CHANCE
from ...system.gevent import wait_natively
from .connection import PAGE_SIZE, Connection, transaction
from .doorbell import Bells
from .scales import Scales
from .statements import PRUNED_AT_ONCE, Statements

#: Channels of which a process counts the events that it has added. Of more channels, it
#: forgets the one that it has counted longest. If that one comes again, its count
#: begins at a random number.
MAX_COUNTED = 1_024

#: Seconds between two checkpoints of a process that follows, or publishes now and then.
CHECKPOINT_INTERVAL = 15.0

#: Characters after which a process makes a checkpoint, however few the events are.
CHECKPOINT_CHARACTERS = 4_000_000

#: After so many publishes to a channel, a process drops what the file need not keep:
#: events of that channel if they are too many, and of all channels if they are too old.
PUBLISHES_PER_PRUNE = 32

#: Seconds that a publisher tries to do so while others write. A publisher that does not
#: get its turn tries again at its next publish to the channel.
TIDYING = 0.25

#: Seconds that events are kept however many there are, so that a process which is busy
#: for a moment misses none.
SLACK = 2.0

#: After so many publishes, a process makes a checkpoint: it brings the write-ahead log
#: into the file, and waits for the disk. (SQLite itself would do so at every publish,
#: as long as others write too fast for the log to begin anew.)
PUBLISHES_PER_CHECKPOINT = 256

#: Pages in the write-ahead log (8 MB) above which all others must wait for a moment, so
#: that the log can begin anew; and milliseconds that a process waits for that moment.
#: (Where many write as fast as they can, it does not come by itself. So whoever is to
#: make a checkpoint meanwhile publishes nothing until it is made.)
LARGE_WAL = 4_000
WAL_PATIENCE = 100


class Kept(NamedTuple):
    """What must be kept: of each channel ``history`` events, for ``age`` seconds, and
    all events younger than ``slack`` seconds. ``now`` is the store's clock."""

    history: int
    age: float
    slack: float
    now: float


class Diary:
    """What a process has written since it last dropped something, or made a checkpoint.

    Several threads can use it: if two count at once, at most one publish is not
    counted. The counts begin at a random number, so that of many processes that each
    publish once, some do their part.

    :param drop: events that are put into a channel before some of it is dropped.
    :param checkpoint: events that are published before a checkpoint.
    """

    def __init__(self, *, drop: int, checkpoint: int) -> None:
        self._drop = drop
        self._checkpoint = checkpoint
        self._added: dict[str, int] = {}
        self._published = CHANCE.randrange(checkpoint)
        self._characters = 0
        self._checkpoint_at = time.monotonic() + CHECKPOINT_INTERVAL

    def note(self, channel: str, characters: int) -> None:
        """Note that something was put into a channel."""
        self._published += 1
        self._characters += characters
        if channel not in self._added:
            if len(self._added) >= MAX_COUNTED:
                self._added.pop(next(iter(self._added)), None)
            self._added[channel] = CHANCE.randrange(self._drop)
        self._added[channel] += 1

    def is_drop_due(self, channel: str) -> bool:
        return self._added.get(channel, 0) >= self._drop

    def has_dropped(self, channel: str) -> None:
        self._added[channel] = 0

    def is_checkpoint_due(self) -> bool:
        """Whether many events or characters were published since the last checkpoint,
        or that one was long ago."""
        return (
            self._published >= self._checkpoint
            or self._characters >= CHECKPOINT_CHARACTERS
            or self.is_checkpoint_late()
        )

    def is_checkpoint_late(self) -> bool:
        return time.monotonic() >= self._checkpoint_at

    def has_checkpointed(self, *, is_done: bool) -> None:
        """:param is_done: where False, the checkpoint is tried again, but not at once:
        a reader that is stuck would make every publish wait."""
        self._published = 0 if is_done else self._checkpoint * 7 // 8
        self._characters = 0
        self._checkpoint_at = time.monotonic() + CHECKPOINT_INTERVAL


class Broom:
    """Drops what a store need not keep. The caller holds the connection."""

    def __init__(self, tables: Statements) -> None:
        self._tables = tables
        #: The position up to which events that are too old were looked for.
        self._swept = 0

    def drop(
        self, connection: sqlite3.Connection, channel: str, until: int, kept: Kept
    ) -> None:
        """Drop some of what need not be kept: events of a channel if they are too many,
        and of all channels if they are too old. The caller has opened a transaction
        that writes.

        :param until: the position up to which nothing of the channel need be kept.
        """
        oldest = kept.now - kept.age
        connection.execute(self._tables.date_runs, (kept.now, kept.now))
        connection.execute(self._tables.delete_runs, (oldest,))
        doomed = self._too_many(connection, channel, until, kept)
        self.delete(connection, doomed + self._too_old(connection, kept))

    def delete(
        self, connection: sqlite3.Connection, doomed: list[tuple[int, str]]
    ) -> None:
        """Drop events by their positions, and leave marks."""
        dropped: dict[str, int] = {}
        for sequence, name in doomed:
            dropped[name] = max(sequence, dropped.get(name, 0))
        connection.executemany(self._tables.delete, {(s,) for s, _ in doomed})
        for name, sequence in dropped.items():
            self._leave_mark(connection, name, sequence)

    def _too_many(
        self, connection: sqlite3.Connection, channel: str, until: int, kept: Kept
    ) -> list[tuple[int, str]]:
        tables = self._tables
        if until:
            return connection.execute(tables.up_to, (channel, until)).fetchall()
        if connection.execute(tables.run, (channel, kept.now - kept.age)).fetchone():
            return []
        before = kept.now - min(kept.slack, kept.age)
        rows = connection.execute(tables.too_many, (channel, channel, kept.history))
        return [
            (row[0], row[1]) for row in self._before(connection, before, rows, kept)
        ]

    def _too_old(
        self, connection: sqlite3.Connection, kept: Kept
    ) -> list[tuple[int, str]]:
        rows = connection.execute(self._tables.oldest, (self._swept,))
        old = self._before(connection, kept.now - kept.age, rows, kept)
        # A run's events stay, however old. The next search goes on after them.
        self._swept = old[-1][0] if len(old) == PRUNED_AT_ONCE else 0
        return [(sequence, name) for sequence, name, _, is_held in old if not is_held]

    def _before(
        self,
        connection: sqlite3.Connection,
        before: float,
        rows: sqlite3.Cursor,
        kept: Kept,
    ) -> list[Any]:
        """The rows that come before the first one that is not older than ``before``.
        Most often the very first row ends the search. A row that is dated later than
        now, by a clock that went ahead, does not end the search. It is dated now, so
        that it grows old."""
        old, ahead = [], []
        with closing(rows):
            for row in rows:
                if _is_ahead(row[2], kept.now):
                    ahead.append(row[0])
                elif row[2] < before:
                    old.append(row)
                else:
                    break
        dates = [(kept.now, sequence, kept.now) for sequence in ahead]
        connection.executemany(self._tables.date, dates)
        return old

    def _leave_mark(
        self, connection: sqlite3.Connection, name: str, sequence: int
    ) -> None:
        tables = self._tables
        if connection.execute(tables.is_kept, (name,)).fetchone():
            connection.execute(tables.set_mark, (name, sequence, sequence))
        else:
            connection.execute(tables.forget, (sequence,))
            connection.execute(tables.delete_mark, (name,))


class Upkeep:
    """What a process does for its file after it has written.

    :param limit: see ``Scales``.
    """

    def __init__(
        self,
        connection: Connection,
        tables: Statements,
        bells: Bells,
        limit: int | None,
    ) -> None:
        self._connection = connection
        self._bells = bells
        self._broom = Broom(tables)
        self._scales = Scales(tables, limit)
        self._diary = Diary(
            drop=PUBLISHES_PER_PRUNE, checkpoint=PUBLISHES_PER_CHECKPOINT
        )

    def note_put(
        self, channels: Collection[str], dropped: int, event: Event | None = None
    ) -> None:
        """Wake the other processes, and do what this process must do before it writes
        more.

        :param dropped: the position up to which nothing of the channels need be kept.
        """
        self._bells.ring()
        diary, characters = self._diary, len(event.data) if event else 0
        for channel in channels:
            diary.note(channel, characters)
            self._scales.note(characters)
            if diary.is_drop_due(channel) and self._tidy(
                partial(self._drop, channel=channel, until=dropped)
            ):
                diary.has_dropped(channel)
        if self._scales.is_due:
            self._lighten()
        if diary.is_checkpoint_due():
            self.bring_home()

    def _lighten(self) -> None:
        """Drop events where all channels together have too many bytes."""
        excess: dict[str, int] = {}
        self._tidy(lambda connection: excess.update(self._scales.weigh(connection)))

        def drop(connection: sqlite3.Connection) -> None:
            nonlocal excess
            left = dict(excess)
            with transaction(connection, "IMMEDIATE"):
                doomed = self._scales.doomed(connection, left)
                self._broom.delete(connection, doomed)
            self._scales.note_dropped(sum(excess.values()) - sum(left.values()))
            excess = left if doomed else {}

        while any(excess.values()) and self._tidy(drop):
            pass

    def _tidy(self, step: Callable[[sqlite3.Connection], None]) -> bool:
        """Take a step for the file, and give up soon if others write.

        :returns: whether it was done.
        """
        try:
            self._connection.do(step, patience=TIDYING)
        except BrokerUnavailable:
            return False
        return True

    def _drop(
        self, connection: sqlite3.Connection, *, channel: str, until: int
    ) -> None:
        with transaction(connection, "IMMEDIATE"):
            self._connection.read_state(connection)
            kept = Kept(*self._connection.kept, SLACK, self._connection.now())
            self._broom.drop(connection, channel, until, kept)

    def bring_home(self) -> None:
        """Bring the write-ahead log into the file. A process that does this without
        having published looks after the file's size too: others can have published who
        do not live long enough to do so."""
        if self.is_late():
            self._lighten()
        self._diary.has_checkpointed(is_done=self._tidy(self._make_checkpoint))

    def _make_checkpoint(self, connection: sqlite3.Connection) -> None:
        """Bring the write-ahead log into the file, or wait for a process that does.

        :raises sqlite3.OperationalError: where the log is too large, and others use it
            on.
        """
        is_busy, pages, _ = wait_natively(lambda: _checkpoint(connection, "PASSIVE"))
        is_locked = False
        if is_busy:
            # Another process does it, and needs a moment in which nobody writes. It has
            # none while all others publish on.
            is_locked = self._connection.written_ahead() > LARGE_WAL * PAGE_SIZE
        elif pages > LARGE_WAL:
            with _patience(connection, WAL_PATIENCE):
                is_busy, _, _ = wait_natively(
                    lambda: _checkpoint(connection, "TRUNCATE")
                )
            is_locked = bool(is_busy)
        if is_locked:
            raise sqlite3.OperationalError("the write-ahead log is kept locked")

    def is_late(self) -> bool:
        """Whether this process made its last checkpoint long ago."""
        return self._diary.is_checkpoint_late()


def _is_ahead(at: object, now: float) -> bool:
    """Whether a time is later than now, or no number."""
    return not isinstance(at, (int, float)) or at > now


def _checkpoint(connection: sqlite3.Connection, kind: str) -> Iterable[int]:
    """:returns: whether others were in the way, how many pages stand in the log, and
    how many of them were brought into the file. The numbers are -1 where another
    process makes a checkpoint."""
    found: tuple[int, int, int] = connection.execute(
        f"PRAGMA wal_checkpoint({kind})"
    ).fetchone()
    return found


@contextmanager
def _patience(connection: sqlite3.Connection, milliseconds: int) -> Iterator[None]:
    """Have SQLite itself wait for other processes."""
    connection.execute(f"PRAGMA busy_timeout = {milliseconds}").close()
    try:
        yield
    finally:
        connection.execute("PRAGMA busy_timeout = 0").close()

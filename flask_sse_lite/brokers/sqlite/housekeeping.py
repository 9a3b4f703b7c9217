"""How an SQLite file stays small, whoever writes to it and however busy the machine is.

Here lives what is dropped from a store, how the write-ahead log is brought into the
file, and when. Nothing grows with time alone, nor with publishes: each process counts
what it has written, and has to do its part before it writes much more.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, NamedTuple

from ...errors import BrokerUnavailable
from ...event import Event
from ...system.gevent import wait_natively
from .connection import Connection, transaction
from .doorbell import Bells
from .statements import PRUNED_AT_ONCE, Statements

#: Channels of which a process knows how many events it has added. It forgets the one
#: that it has known longest, and counts it anew from anywhere.
MAX_COUNTED = 1_024

#: Seconds between two checkpoints of a process that follows, or publishes now and then.
CHECKPOINT_INTERVAL = 15.0

#: Characters of events after which a process makes a checkpoint, however few they are.
CHECKPOINT_CHARACTERS = 4_000_000

#: After so many publishes to a channel, a process drops what the file need not keep: of
#: the channel what is too much, and of all channels what is too old.
PUBLISHES_PER_PRUNE = 32

#: Seconds that a publisher tries to do so while others are writing. A publisher that
#: does not get its turn tries again at its next publish to the channel.
TIDYING = 0.25

#: Seconds that events are kept however many there are, so that a process which is busy
#: for a moment misses none.
SLACK = 2.0

#: After so many publishes, a process makes a checkpoint: it brings what stands in the
#: write-ahead log into the file, and waits for the disk. (SQLite itself would do so at
#: every publish, as long as others write too fast for the log to begin anew.)
PUBLISHES_PER_CHECKPOINT = 256

#: Pages in the write-ahead log (8 MB) from which on others have to wait for a moment,
#: so that the log can begin anew; and milliseconds that a process waits for such a
#: moment. (Where many write as fast as they can, one of them always writes.)
LARGE_WAL = 4_000
WAL_PATIENCE = 100


class Kept(NamedTuple):
    """What must be kept: of each channel ``history`` events, for ``age`` seconds, and
    whatever is younger than ``slack`` seconds; ``now`` is the store's clock."""

    history: int
    age: float
    slack: float
    now: float


class Diary:
    """What a process has written since it last dropped something, or made a checkpoint.

    Several threads can use it: where two count at once, the count of one publish is
    lost at most. The counts begin at a random number, so that many processes that each
    publish once do their part together.

    :param drop: events that are put into a channel before some of it is dropped.
    :param checkpoint: events that are published before a checkpoint.
    """

    def __init__(self, *, drop: int, checkpoint: int) -> None:
        self._drop = drop
        self._checkpoint = checkpoint
        self._added: dict[str, int] = {}
        self._published = random.randrange(checkpoint)
        self._characters = 0
        self._checkpoint_at = time.monotonic() + CHECKPOINT_INTERVAL

    def note(self, channel: str, characters: int) -> None:
        """Something was put into a channel."""
        self._published += 1
        self._characters += characters
        if channel not in self._added:
            if len(self._added) >= MAX_COUNTED:
                self._added.pop(next(iter(self._added)), None)
            self._added[channel] = random.randrange(self._drop)
        self._added[channel] += 1

    def is_drop_due(self, channel: str) -> bool:
        return self._added.get(channel, 0) >= self._drop

    def has_dropped(self, channel: str) -> None:
        self._added[channel] = 0

    def is_checkpoint_due(self) -> bool:
        """Whether many were published since the last, or much, or some for long."""
        return (
            self._published >= self._checkpoint
            or self._characters >= CHECKPOINT_CHARACTERS
            or self.is_checkpoint_late()
        )

    def is_checkpoint_late(self) -> bool:
        return time.monotonic() >= self._checkpoint_at

    def has_checkpointed(self, *, is_done: bool) -> None:
        """:param is_done: False has a checkpoint tried again, but not at once: a reader
        that is stuck must not cost every publish its patience."""
        self._published = 0 if is_done else self._checkpoint * 7 // 8
        self._characters = 0
        self._checkpoint_at = time.monotonic() + CHECKPOINT_INTERVAL


class Broom:
    """What is dropped from a store. It is used with the connection."""

    def __init__(self, tables: Statements) -> None:
        self._tables = tables
        #: The position up to which what is too old was looked for.
        self._swept = 0

    def drop(
        self, connection: sqlite3.Connection, channel: str, until: int, kept: Kept
    ) -> None:
        """Drop some of what need not be kept: of a channel, what is too much, and of
        all, what is too old. A transaction that writes is open.

        :param until: up to there, nothing of the channel need be kept.
        """
        oldest = kept.now - kept.age
        connection.execute(self._tables.date_runs, (kept.now, kept.now))
        connection.execute(self._tables.delete_runs, (oldest,))
        doomed = self._too_many(connection, channel, until, kept)
        doomed += self._too_old(connection, kept)
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
        # The events of a run stay, and must not hide what lies behind them.
        self._swept = old[-1][0] if len(old) == PRUNED_AT_ONCE else 0
        return [(sequence, name) for sequence, name, _, is_held in old if not is_held]

    def _before(
        self,
        connection: sqlite3.Connection,
        before: float,
        rows: sqlite3.Cursor,
        kept: Kept,
    ) -> list[Any]:
        """What comes before the first row that is as young as that. Most often that is
        the first of all, and no other is looked at. A row that a clock which went ahead
        has dated later than now hides nothing, and grows old from now on."""
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
    """What a process does for its file, behind what it has written."""

    def __init__(
        self, connection: Connection, tables: Statements, bells: Bells
    ) -> None:
        self._connection = connection
        self._bells = bells
        self._broom = Broom(tables)
        self._diary = Diary(
            drop=PUBLISHES_PER_PRUNE, checkpoint=PUBLISHES_PER_CHECKPOINT
        )

    def note_put(
        self, channels: Collection[str], dropped: int, event: Event | None = None
    ) -> None:
        """Tell the other processes what was put into some channels, and do what this
        process has to do before it writes more.

        :param dropped: up to there, nothing of the channels need be kept.
        """
        self._bells.ring()
        diary = self._diary
        for channel in channels:
            diary.note(channel, len(event.data) if event else 0)
            if diary.is_drop_due(channel) and self._tidy(
                partial(self._drop, channel=channel, until=dropped)
            ):
                diary.has_dropped(channel)
        if diary.is_checkpoint_due():
            self.bring_home()

    def _tidy(self, step: Callable[[sqlite3.Connection], None]) -> bool:
        """Do something for the file, for which nobody waits long.

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
        """Bring what stands in the write-ahead log into the file."""
        is_done = self._tidy(lambda c: checkpoint(c, LARGE_WAL, WAL_PATIENCE))
        self._diary.has_checkpointed(is_done=is_done)

    def is_late(self) -> bool:
        """Whether the write-ahead log has waited for long, whoever has written it."""
        return self._diary.is_checkpoint_late()


def _is_ahead(at: object, now: float) -> bool:
    """Whether a time is later than now, or none."""
    return not isinstance(at, (int, float)) or at > now


def checkpoint(connection: sqlite3.Connection, large: int, patience: int) -> None:
    """Bring the write-ahead log into the file.

    :param large: pages from which on others have to wait, so that it is begun anew.
    :param patience: milliseconds that are waited for those who are just reading.
    :raises sqlite3.OperationalError: where the log is too large, and others go on.
    """
    _, pages, _ = wait_natively(lambda: _checkpoint(connection, "PASSIVE"))
    if pages <= large:
        return
    with _patience(connection, patience):
        is_busy, _, _ = wait_natively(lambda: _checkpoint(connection, "TRUNCATE"))
    if is_busy:
        raise sqlite3.OperationalError("the write-ahead log is kept locked")


def _checkpoint(connection: sqlite3.Connection, kind: str) -> Iterable[int]:
    """:returns: whether others were in the way, how many pages stand in the log, and
    how many of them were brought into the file."""
    found: tuple[int, int, int] = connection.execute(
        f"PRAGMA wal_checkpoint({kind})"
    ).fetchone()
    return found


@contextmanager
def _patience(connection: sqlite3.Connection, milliseconds: int) -> Iterator[None]:
    """Have SQLite itself wait for others."""
    connection.execute(f"PRAGMA busy_timeout = {milliseconds}").close()
    try:
        yield
    finally:
        connection.execute("PRAGMA busy_timeout = 0").close()

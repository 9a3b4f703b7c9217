"""The store: the verbs of a store, for an SQLite file.

Here lives how events are put into the file and read from it. The tables are in
statements.py. How a step is taken lives in connection.py, how the file stays small in
housekeeping.py, and whether it goes on where it was in life.py.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

from ...event import Event
from ...history.records import Past
from ...position import BEGINNING
from ..contract import Claim, Summary
from ..store import Heard, News, State, Store
from .board import SqliteBoard
from .connection import Connection, Wanted, transaction
from .counts import Counts
from .doorbell import Bells
from .housekeeping import Upkeep
from .rows import age_at, columns, record
from .runs import Runs
from .statements import Statements

#: Events, and characters of them, that are read in one go.
PAGE = 256
PAGE_CHARACTERS = 1_000_000

#: Seconds that the follower rests between two looks while news come without a pause.
#: Each look then finds several events, and publishers need not wake the follower for
#: each of them.
BURST = 0.001


class SqliteStore(Store):
    """Publishing is one INSERT.

    It has more than 20 methods: the verbs of a store, and the steps of reading.

    :param wanted: the file, and how it must be made or kept.
    """

    def __init__(self, wanted: Wanted, timeout: float) -> None:
        wanted = wanted._replace(path=os.path.abspath(wanted.path))
        super().__init__(f"The SQLite file {wanted.path}", timeout)
        self._wanted = wanted
        self.path = wanted.path
        self._tables = Statements(wanted.prefix)
        self._open_nothing()

    def _open_nothing(self) -> None:
        """Set up the parts, in a new store and in a forked child, without opening
        anything."""
        tables = self._tables
        self._bells = Bells(self._wanted.path)
        self._connection = Connection(self, self._wanted, tables)
        limit = self._wanted.history_bytes
        self._upkeep = Upkeep(self._connection, tables, self._bells, limit)
        self._runs = Runs(self, self._connection, tables, self._bells, self._upkeep)
        self._counts = Counts(self, self._connection, tables)
        self.board = SqliteBoard(self, self._connection, tables, self._upkeep)
        #: Whether the bell rang as soon as the follower began to wait.
        self._is_burst = False

    def put(self, channel: str, event: Event | None) -> tuple[str, int]:
        values = columns(event)

        def insert(connection: sqlite3.Connection) -> tuple[str, int]:
            row = (self._connection.now(), channel, *values)
            if event:
                cursor = connection.execute(self._tables.insert, row)
            else:
                with transaction(connection, "IMMEDIATE"):
                    connection.execute(self._tables.end_run, (row[0], channel))
                    cursor = connection.execute(self._tables.insert, row)
            return self._connection.given_out(connection, cursor.lastrowid)

        position = self._connection.do(insert, checks_first=False)
        self._upkeep.note_put((channel,), BEGINNING, event)
        return position

    def put_in_all(
        self, channels: Collection[str], event: Event
    ) -> list[tuple[str, int]]:
        values = columns(event)

        def insert(connection: sqlite3.Connection) -> list[tuple[str, int]]:
            now, insert = self._connection.now(), self._tables.insert
            with transaction(connection, "IMMEDIATE"):
                sequences = [
                    connection.execute(insert, (now, channel, *values)).lastrowid
                    for channel in channels
                ]
            return [
                self._connection.given_out(connection, sequence)
                for sequence in sequences
            ]

        positions = self._connection.do(insert, checks_first=False)
        self._upkeep.note_put(channels, BEGINNING, event)
        return positions

    def state(self) -> State:
        return self._connection.do(self._connection.read_state)

    def load(self, channels: Collection[str]) -> tuple[State, dict[str, Past]]:
        def load(connection: sqlite3.Connection) -> tuple[State, dict[str, Past]]:
            with transaction(connection):
                state = self._connection.read_state(connection)
                return state, {n: self._past(connection, n) for n in channels}

        return self._connection.do(load)

    def _past(self, connection: sqlite3.Connection, channel: str) -> Past:
        history, now = self._connection.kept.history, self._connection.now()
        held = (channel, now - self._connection.kept.age)
        run = connection.execute(self._tables.run, held).fetchone()
        limit = -1 if run else history + 1
        rows = connection.execute(self._tables.past, (channel, limit)).fetchall()
        if len(rows) > history and not run:
            dropped = rows.pop()[0]
        else:
            dropped = self._mark(connection, channel)
            if rows:
                dropped = min(dropped, rows[-1][0] - 1)
        records = [
            record(self.view, self._connection.epoch, row, now)
            for row in reversed(rows)
        ]
        return Past(dropped, records, *(run or ()))

    def _mark(self, connection: sqlite3.Connection, channel: str) -> int:
        """The highest position of what was dropped of a channel."""
        ((dropped,),) = connection.execute(self._tables.mark, (channel,))
        # If another program wrote something else there, all entries count as dropped.
        return dropped if isinstance(dropped, int) else self._connection.reached

    def news(self, after: int) -> News:
        return self._connection.do(
            lambda connection: self._read_news(connection, after)
        )

    def _read_news(self, connection: sqlite3.Connection, after: int) -> News:
        news, has_hole = self._read_page(connection, after)
        if not has_hole:
            return news
        with transaction(connection):
            news, _ = self._read_page(connection, after)
            marks = {
                name: self._mark(connection, name) for name in self.view.log.held()
            }
        lost = {name: mark for name, mark in marks.items() if mark > after}
        return news._replace(lost=lost)

    def _read_page(
        self, connection: sqlite3.Connection, after: int
    ) -> tuple[News, bool]:
        """News without ``lost``, and whether something can be lost. Most often this is
        one statement, which sees one moment without a transaction."""
        now, records = self._connection.now(), []
        state, sequence, size, has_hole, more = None, after, 0, False, False
        with closing(connection.execute(self._tables.news, (after, PAGE + 1))) as rows:
            for count, (*row, epoch, newest, history, age) in enumerate(rows, 1):
                state = state or self._connection.note_state(
                    (epoch, newest, history, age)
                )
                if row[0] == after:
                    if self._is_another(row):
                        return News(epoch, -1, [], {}, False), False
                    continue
                has_hole = has_hole or row[0] != sequence + 1
                sequence = row[0]
                self._connection.last_row = (sequence, row[1])
                if self.view.log.holds(row[2]):
                    records.append(record(self.view, self._connection.epoch, row, now))
                    size += len(row[3] or "")
                if count >= PAGE or size >= PAGE_CHARACTERS:
                    more = sequence < newest
                    break
        state = state or self._connection.read_state(connection)
        if not more and sequence != state.sequence:
            has_hole, sequence = True, state.sequence
        return News(state.epoch, sequence, records, {}, more), has_hole

    def _is_another(self, row: Sequence[Any]) -> bool:
        """Whether another row stood at this row's position before: the file has gone
        back, and other events came after that. Then the row's time is later than
        before. (The time of a row is only ever set back, never forward.)"""
        (sequence, at), now = self._connection.last_row, row[1]
        return bool(row[0] == sequence and type(now) is type(at) and now > at)

    def summaries(self) -> list[Summary]:
        def read(connection: sqlite3.Connection) -> list[Summary]:
            now = self._connection.now()
            with transaction(connection):
                history, age = self._connection.read_state(connection).retention
                rows = connection.execute(self._tables.summaries, (now - age,))
                return [
                    Summary(name, min(count, history), age_at(at, now), bool(is_end))
                    for name, count, _, at, is_end in rows
                ]

        return self._connection.do(read)

    def renew(self, epoch: str) -> None:
        def renew(connection: sqlite3.Connection) -> None:
            with transaction(connection, "IMMEDIATE"):
                self._connection.renew(connection, epoch)

        self._connection.do(renew)

    # Runs

    def begin(self, claim: Claim) -> tuple[str, int] | None:
        return self._runs.begin(claim)

    def say(
        self,
        claim: Claim,
        event: Event | None,
        dropped: int,
        reason: Event | None = None,
    ) -> tuple[str, int] | None:
        return self._runs.say(claim, event, dropped, reason)

    def extend(self, claims: Collection[Claim]) -> tuple[str, set[str]]:
        return self._runs.extend(claims)

    def end_lost(self) -> None:
        self._runs.end_lost()

    def unknown(self, channels: Collection[str]) -> set[str]:
        return self._runs.unknown(channels)

    def end_unknown(self, channel: str, epoch: str, seen: int) -> None:
        self._runs.end_unknown(channel, epoch, seen)

    # Counts

    def count(self, counts: Mapping[str, int]) -> None:
        self._counts.count(counts)

    def counted(self, channel: str) -> int:
        return self._counts.counted(channel)

    # News

    def listen(self) -> None:
        self.state()  # This makes the file, whose mode the folder of bells gets.
        self._bells.listen()

    def wait(self, timeout: float) -> Heard:
        if self._upkeep.is_late():
            # This process has published nothing for long, so the follower does this.
            self._upkeep.bring_home()
        if self._is_burst:
            time.sleep(BURST)
        start = time.monotonic()
        self._bells.wait(timeout)
        self._is_burst = time.monotonic() - start < BURST / 2
        return Heard(is_to_look=True)

    def interrupt(self) -> None:
        self._bells.interrupt()

    # The process

    def close(self) -> None:
        self._bells.close()
        self._connection.close()

    def before_fork(self) -> None:
        self._connection.before_fork()

    def after_fork(self) -> None:
        self._connection.after_fork()

    def begin_anew(self) -> None:
        super().begin_anew()
        self._open_nothing()

    @property
    def is_entered(self) -> bool:
        return self._connection.is_entered

"""The board: how an SQLite file knows whose streams there are, what was told of them,
and whose turn it is to tell.

A turn is measured by the monotonic clock, as the leases of runs are. What is told is
decided in ``brokers/presence``.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...event import Event
from ...position import BEGINNING
from ..identities import (
    counts_read,
    counts_written,
    identity_read,
    identity_written,
)
from ..presence import Board, Roll, Telling
from ..store import Store
from .connection import Connection, transaction
from .counts import living
from .housekeeping import Upkeep
from .rows import columns
from .statements import Statements


class _Turn(NamedTuple):
    """Whose turn it is, and until when; and until when what is told ``holds``: behind
    that, nobody knows any more who was away."""

    number: int
    process: str
    lease: float
    holds: float


class SqliteBoard(Board):
    """The board of one store."""

    def __init__(
        self,
        store: Store,
        connection: Connection,
        tables: Statements,
        upkeep: Upkeep,
    ) -> None:
        self._store = store
        self._connection = connection
        self._tables = tables
        self._upkeep = upkeep
        #: The identities of this process that the file has: each channel's as it is
        #: written.
        self._noted: dict[str, str] = {}

    # Who is there

    def note(self, identities: Mapping[str, Mapping[str, int]]) -> None:
        new = {name: counts_written(counts) for name, counts in identities.items()}

        def note(connection: sqlite3.Connection) -> None:
            known = self._noted if self._is_noted(connection) else {}
            if new == known:
                return
            with transaction(connection, "IMMEDIATE"):
                self._change(connection, known, new)

        self._connection.do(note)
        self._noted = new

    def _is_noted(self, connection: sqlite3.Connection) -> bool:
        """Whether the file has what this process has noted: others forget a process
        that was silent for long."""
        row = (self._store.view.process,)
        return (
            connection.execute(self._tables.is_identified, row).fetchone() is not None
        )

    def _change(
        self,
        connection: sqlite3.Connection,
        known: Mapping[str, str],
        new: Mapping[str, str],
    ) -> None:
        process, tables = self._store.view.process, self._tables
        gone = [(process, name) for name in known.keys() - new.keys()]
        changed = [(process, *row) for row in new.items() - known.items()]
        connection.executemany(tables.unidentify, gone)
        connection.executemany(tables.identify, changed)
        connection.execute(tables.forget_dead)

    def noted(self, channel: str) -> dict[str, int]:
        def read(connection: sqlite3.Connection) -> tuple[list[Any], list[Any]]:
            row = (channel, self._store.view.process, *living(self._store))
            with transaction(connection):
                told = []
                if self._turn(connection).holds >= time.monotonic():
                    told = connection.execute(tables.told_in, (channel,)).fetchall()
                return told, connection.execute(tables.identities, row).fetchall()

        tables = self._tables
        told, counted = self._connection.do(read)
        found = Counter({who: 0 for (text,) in told if (who := identity_read(text))})
        for (counts,) in counted:
            found.update(counts_read(counts))
        return found

    def _turn(self, connection: sqlite3.Connection) -> _Turn:
        return _Turn(*connection.execute(self._tables.turn).fetchone())

    # What is told

    def roll(self, leave_after: float, *, is_urgent: bool) -> Roll | None:
        def roll(connection: sqlite3.Connection) -> Roll | None:
            with transaction(connection):
                turn = self._turn(connection)
                is_others = self._is_others(turn)
                # Another process's turn is passed over only where that is urgent, and
                # what is told still holds.
                is_left = not (is_urgent and self._holds(turn, leave_after))
                if is_others and is_left:
                    return None
                roll = self._read(connection, turn, leave_after)
            if (roll.present or roll.told) and not is_others:
                self._take_turn(connection, turn, leave_after, roll)
            return roll

        return self._connection.do(roll)

    def _is_others(self, turn: _Turn) -> bool:
        """Whether it is the turn of another process."""
        first, last = living(self._store)
        return turn.process != self._store.view.process and first <= turn.lease <= last

    def _holds(self, turn: _Turn, leave_after: float) -> bool:
        """Whether what is told holds. (A ``holds`` that is much too late is of an
        earlier boot.)"""
        first, last = living(self._store)
        return first <= turn.holds <= last + leave_after

    def _read(
        self, connection: sqlite3.Connection, turn: _Turn, leave_after: float
    ) -> Roll:
        tables, now = self._tables, time.monotonic()
        present: dict[str, dict[str, int]] = {}
        for channel, counts in connection.execute(
            tables.present, living(self._store)
        ).fetchall():
            if isinstance(channel, str):  # Another program can have written others.
                present.setdefault(channel, {}).update(counts_read(counts))
        told: dict[str, dict[str, float | None]] = {}
        for channel, identity, since in connection.execute(tables.told).fetchall():
            if isinstance(channel, str) and (who := identity_read(identity)):
                is_time = isinstance(since, float)
                told.setdefault(channel, {})[who] = since if is_time else None
        is_lapsed = bool(told) and not self._holds(turn, leave_after)
        return Roll(turn.number, now, present, told, is_lapsed)

    def _take_turn(
        self,
        connection: sqlite3.Connection,
        turn: _Turn,
        leave_after: float,
        roll: Roll,
    ) -> None:
        """Take the turn, or keep it. If another process was faster, it has the turn,
        and the number says which of the two tells."""
        process = self._store.view.process
        is_mine = turn.process == process and self._is_held(turn.lease, roll.now)
        is_holding = roll.is_lapsed or turn.holds >= roll.now + leave_after
        if is_mine and is_holding:
            return
        lease = roll.now + self._store.count_life
        holds = turn.holds if roll.is_lapsed else lease + leave_after
        row = (process, lease, holds, turn.process, turn.lease)
        with transaction(connection, "IMMEDIATE"):
            connection.execute(self._tables.take_turn, row)

    def _is_held(self, lease: float, now: float) -> bool:
        """Whether a lease need not be extended before the next round."""
        life, rounds = self._store.count_life, 2 * self._store.duty_interval
        return rounds <= lease - now <= life

    def tell(
        self, channel: str, number: int, tellings: Sequence[Telling]
    ) -> list[tuple[str, int]] | None:
        put: list[Event] = []

        def tell(connection: sqlite3.Connection) -> list[int] | None:
            with transaction(connection, "IMMEDIATE"):
                self._connection.read_state(connection)
                if not connection.execute(self._tables.number, (number,)).rowcount:
                    return None
                is_closed = self._is_closed(connection, channel)
                put[:] = [t.event for t in tellings if t.event and not is_closed]
                for telling in tellings:
                    self._note(connection, channel, telling)
                return [self._put(connection, channel, event) for event in put]

        def given_out(connection: sqlite3.Connection) -> list[tuple[str, int]] | None:
            sequences = tell(connection)
            if sequences is None:
                return None
            return [self._connection.given_out(connection, s) for s in sequences]

        positions = self._connection.do(given_out)
        for event in put if positions else ():
            self._upkeep.note_put((channel,), BEGINNING, event)
        return positions

    def _is_closed(self, connection: sqlite3.Connection, channel: str) -> bool:
        newest = connection.execute(self._tables.newest, (channel,)).fetchone()
        return newest is not None and bool(newest[1])

    def _note(
        self, connection: sqlite3.Connection, channel: str, telling: Telling
    ) -> None:
        row: tuple[Any, ...] = (channel, identity_written(telling.identity))
        if telling.is_told:
            connection.execute(self._tables.tell, (*row, telling.since))
        else:
            connection.execute(self._tables.untell, row)

    def _put(self, connection: sqlite3.Connection, channel: str, event: Event) -> int:
        row = (self._connection.now(), channel, *columns(event))
        return connection.execute(self._tables.insert, row).lastrowid or 0

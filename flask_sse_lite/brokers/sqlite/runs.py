"""Runs: how an SQLite file knows which run feeds which channel.

Here lives how a run is begun, fed and ended in the file. Leases are measured by the
monotonic clock, which nobody sets and which begins anew when the machine boots.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection
from typing import Any

from ...event import Event
from ...own_events import LOST
from ...position import BEGINNING
from ..contract import Claim
from ..store import Store
from .connection import Connection, transaction
from .doorbell import Bells
from .housekeeping import Upkeep
from .rows import BEGINS, columns
from .statements import Statements


class Runs:
    """The runs of one store. Each method is the store's verb of that name.

    :param store: the store that has the runs.
    """

    def __init__(
        self,
        store: Store,
        connection: Connection,
        tables: Statements,
        bells: Bells,
        upkeep: Upkeep,
    ) -> None:
        self._store = store
        self._connection = connection
        self._tables = tables
        self._bells = bells
        self._upkeep = upkeep

    def begin(self, claim: Claim) -> tuple[str, int] | None:
        tables, channel = self._tables, claim.channel
        begins = (channel, None, BEGINS, None, str(claim.budget), None)

        def begin(connection: sqlite3.Connection) -> tuple[str, int] | None:
            now = time.monotonic()
            with transaction(connection, "IMMEDIATE"):
                self._connection.read_state(connection)
                self._end_all_lost(connection, now)
                runner = connection.execute(tables.runner, (channel,)).fetchone()
                if runner and runner[0] == claim.token:
                    return None if runner[2] else (self._connection.epoch, runner[1])
                if runner and (claim.began[0] or runner[2] is None):
                    return None
                known = self._lost_start(connection, claim)
                if known is None:
                    return None
                start = known
                if not known:
                    row = (self._connection.now(), *begins)
                    start = connection.execute(tables.insert, row).lastrowid or 0
                connection.execute(
                    tables.begin_run,
                    (
                        channel,
                        start,
                        claim.budget,
                        claim.token,
                        now + self._store.lease,
                    ),
                )
            if not known:
                return self._connection.given_out(connection, start)
            self._connection.check_in_place()
            return self._connection.epoch, start

        began = self._connection.do(begin)
        self._bells.ring()
        return began

    def _lost_start(self, connection: sqlite3.Connection, claim: Claim) -> int | None:
        """Where a run begins of which the file has no row: 0, for the next position, if
        it is new or began in another epoch; otherwise where it began. None where its
        channel was ended since then: the run must not begin again."""
        epoch, start = claim.began
        if epoch != self._connection.epoch:
            return 0
        ended = connection.execute(self._tables.ended_since, (claim.channel, start))
        return None if ended.fetchone() else start

    def say(
        self,
        claim: Claim,
        event: Event | None,
        dropped: int,
        reason: Event | None = None,
    ) -> tuple[str, int] | None:
        tables, channel = self._tables, claim.channel

        def say(connection: sqlite3.Connection) -> tuple[str, int] | None:
            now = self._connection.now()

            def row(event: Event | None) -> tuple[Any, ...]:
                return (now, channel, *columns(event), channel, claim.token)

            if event:
                cursor = connection.execute(tables.say, row(event))
            else:
                with transaction(connection, "IMMEDIATE"):
                    if reason:
                        connection.execute(tables.say, row(reason))
                    cursor = connection.execute(tables.say, row(None))
                    if cursor.rowcount:
                        connection.execute(tables.end_run, (now, claim.channel))
            if not cursor.rowcount:
                self._connection.check_in_place()
                return None
            return self._connection.given_out(connection, cursor.lastrowid)

        position = self._connection.do(say, checks_first=False)
        if position:
            self._upkeep.note_put((claim.channel,), dropped, event)
        return position

    def extend(self, claims: Collection[Claim]) -> tuple[str, set[str]]:
        def extend(connection: sqlite3.Connection) -> tuple[str, set[str]]:
            until, known = time.monotonic() + self._store.lease, set()
            with transaction(connection, "IMMEDIATE"):
                self._connection.read_state(connection)
                for claim in claims:
                    row = (until, claim.channel, claim.token)
                    if connection.execute(self._tables.extend, row).rowcount:
                        known.add(claim.token)
            return self._connection.epoch, known

        return self._connection.do(extend)

    def end_lost(self) -> None:
        def end(connection: sqlite3.Connection) -> bool:
            now = time.monotonic()
            row = (now, now + 2 * self._store.lease)
            if not connection.execute(self._tables.lost, row).fetchone():
                return False
            with transaction(connection, "IMMEDIATE"):
                self._end_all_lost(connection, now)
            self._reach_newest(connection)
            return True

        if self._connection.do(end):
            self._bells.ring()

    def _reach_newest(self, connection: sqlite3.Connection) -> None:
        """Have the witness know the newest position, which was just written."""
        newest = self._connection.read_state(connection).sequence
        self._connection.witness.reach(newest)

    def _end_all_lost(self, connection: sqlite3.Connection, now: float) -> None:
        # A lease that ends much too late is of an earlier boot.
        row = (now, now + 2 * self._store.lease)
        for (channel,) in connection.execute(self._tables.lost, row).fetchall():
            self._tell_lost(connection, channel)
            connection.execute(self._tables.end_run, (self._connection.now(), channel))

    def _tell_lost(self, connection: sqlite3.Connection, channel: str) -> None:
        for event in (LOST, None):
            row = (self._connection.now(), channel, *columns(event))
            connection.execute(self._tables.insert, row)

    def unknown(self, channels: Collection[str]) -> set[str]:
        rows = self._connection.do(
            lambda c: c.execute(self._tables.going_on).fetchall()
        )
        return {*channels} - {channel for (channel,) in rows}

    def end_unknown(self, channel: str, epoch: str, seen: int) -> None:
        tables = self._tables

        def end(connection: sqlite3.Connection) -> bool:
            with transaction(connection, "IMMEDIATE"):
                self._connection.read_state(connection)
                runner = connection.execute(tables.runner, (channel,)).fetchone()
                last = connection.execute(tables.newest, (channel,)).fetchone()
                newest, is_end = last or (BEGINNING, False)
                goes_on = runner and runner[2] is None
                if (
                    goes_on
                    or epoch != self._connection.epoch
                    or newest > seen
                    or is_end
                ):
                    return False
                self._tell_lost(connection, channel)
            self._reach_newest(connection)
            return True

        if self._connection.do(end):
            self._bells.ring()

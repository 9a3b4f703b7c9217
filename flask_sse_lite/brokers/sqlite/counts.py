"""Counts: how an SQLite file knows how many streams each process serves.

``brokers/duties`` decides when a process tells its counts.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from typing import Any

from ..store import Store
from .connection import Connection, transaction
from .life import StoreLife
from .statements import Statements


class Counts:
    """The counts of one store. Each method is the store's verb of that name.

    :param store: the store that has the counts.
    """

    def __init__(
        self, store: Store, connection: Connection, tables: Statements
    ) -> None:
        self._store = store
        self._connection = connection
        self._tables = tables
        #: The counts of this process that the file has, until when they hold, and the
        #: life in which they were written.
        self._told: dict[str, int] = {}
        self._told_until = 0.0
        self._told_in: StoreLife | None = None

    def count(self, counts: Mapping[str, int]) -> None:
        now = time.monotonic()
        knows = self._told_in is self._connection.life
        is_told = knows and counts == self._told and bool(counts)
        if is_told and now < self._told_until - 2 * self._store.duty_interval:
            return
        until = now + self._store.count_life
        process = self._store.view.process

        def count(connection: sqlite3.Connection) -> None:
            tables = self._tables
            with transaction(connection, "IMMEDIATE"):
                if not counts:
                    connection.execute(tables.delete_count, (process,))
                elif (
                    not is_told
                    or not connection.execute(
                        tables.count_on, (until, process)
                    ).rowcount
                ):
                    row = (process, json.dumps(counts), until)
                    connection.execute(tables.count, row)
                # Counts that hold for much too long are of an earlier boot. A release
                # whose counts hold somewhat longer than ours is allowed for.
                connection.execute(
                    tables.delete_counts, (now, now + 2 * self._store.count_life)
                )

        self._connection.do(count)
        self._told, self._told_until = dict(counts), until
        self._told_in = self._connection.life

    def counted(self, channel: str) -> int:
        def read(connection: sqlite3.Connection) -> list[Any]:
            row = (self._store.view.process, *living(self._store))
            return connection.execute(self._tables.counts, row).fetchall()

        return sum(
            _number_of(channel, counts) for (counts,) in self._connection.do(read)
        )


def living(store: Store) -> tuple[float, float]:
    """Between which times the leases of living processes end. A lease that ends much
    later is of an earlier boot."""
    now = time.monotonic()
    return (now, now + 2 * store.count_life)


def _number_of(channel: str, counts: object) -> int:
    """How many streams of a channel a process has noted; 0 where that cannot be
    read."""
    try:
        number = json.loads(str(counts)).get(channel, 0)
    except (ValueError, AttributeError):
        return 0
    return number if isinstance(number, int) else 0

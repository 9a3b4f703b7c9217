"""Scales: how an SQLite file stays below ``SSE_HISTORY_BYTES``.

Here lives when a process weighs the events of all channels, and which events go where
they are too heavy: the oldest of the largest channels, as in a process's log. How an
event is dropped, and what is dropped for its number or age, lives in housekeeping.py.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from math import inf

from ...history.retention import HISTORY_BYTES
from ...history.revocations import REVOCATIONS
from ...history.sizes import excesses
from ...system.chance import CHANCE
from ...system.gevent import wait_natively
from .statements import Statements

#: Each process weighs when it has written this part of the limit.
WEIGHED_AFTER = 1 / 64

#: Events dropped in one go at most: some 20 ms of work.
DROPPED_AT_ONCE = 4_096

#: The name under which the table ``life`` has the limit.
LIMIT = "history_bytes"


class Scales:
    """The weight of one store's events. The caller of a method that takes a connection
    holds the connection.

    :param limit: bytes that the store can have from now on; None leaves that as the
        store has it.
    """

    def __init__(self, tables: Statements, limit: int | None) -> None:
        self._tables = tables
        self._wanted = None if limit is None else str(limit)
        self._limit = limit or HISTORY_BYTES
        # It begins at a random number, so that of many processes that each publish
        # once, some weigh.
        self._written = CHANCE.uniform(0, self._limit * WEIGHED_AFTER)
        #: Bytes of the file's pages up to which the events cannot be too heavy.
        self._light = 0
        #: Bytes that the events can have at most: those that the last look at all of
        #: them has found, and those of all that came since, up to a position.
        self._most: float = inf
        #: The position up to which ``_most`` counts. It is infinite before the first
        #: look, so that no event counts as newer.
        self._newest: float = inf

    def note(self, characters: int) -> None:
        """Note that something was written. Threads that call this at once can lose a
        number."""
        self._written += characters

    @property
    def is_due(self) -> bool:
        return self._written >= self._limit * WEIGHED_AFTER

    def weigh(self, connection: sqlite3.Connection) -> dict[str, int]:
        """Weigh the events of all channels, if the file has grown.

        :returns: the channels that are too large, and by how many bytes.
        """
        self._written = 0.0
        limit = self._agreed(connection)
        used = _bytes_used(connection)
        if used <= max(self._light, limit):
            return {}
        self._add_news(connection)
        if self._most <= limit:
            return {}
        sizes = self._sizes(connection)
        # What else is in the file, such as free space within pages, is about the same
        # at the next look.
        total = sum(sizes.values())
        self._most = total
        self._light = used + max(limit - total, int(limit * WEIGHED_AFTER))
        if total <= limit:
            return {}
        self._light = used - total + limit
        return excesses(sizes, limit)

    def _add_news(self, connection: sqlite3.Connection) -> None:
        """Weigh what came since the last look. That is little, unless others have
        published for long while this process was silent."""
        since = (self._newest,)
        newest, size = wait_natively(
            lambda: connection.execute(self._tables.news_size, since).fetchone()
        )
        # Where the file has gone back, nothing is known.
        self._most = self._most + size if newest >= self._newest else inf
        self._newest = newest

    def _sizes(self, connection: sqlite3.Connection) -> dict[str, int]:
        """The bytes of each channel. All events are read, which can take some tenths of
        a second."""
        rows = wait_natively(lambda: connection.execute(self._tables.sizes).fetchall())
        return {name: size for name, size in rows if name != REVOCATIONS}

    def note_dropped(self, size: int) -> None:
        """Note that at least so many bytes of events were dropped."""
        self._most -= size

    def _agreed(self, connection: sqlite3.Connection) -> int:
        """The limit: this process's, at its first look; then the one that the store
        has."""
        values = dict(connection.execute(self._tables.life).fetchall())
        found = str(values.get(LIMIT, ""))
        if self._wanted not in (None, found):
            row = (LIMIT, found := self._wanted)
            connection.execute(self._tables.set_life, row).close()
        self._wanted = None
        self._limit = int(found) if found.isdecimal() else HISTORY_BYTES
        return self._limit

    def doomed(
        self, connection: sqlite3.Connection, excess: dict[str, int]
    ) -> list[tuple[int, str]]:
        """The oldest events of channels that are too large, by position, as many as go
        at once. The newest event of all stays: its readers have not got it yet. The
        caller has opened a transaction that writes.

        :param excess: see ``weigh``. What is found is taken off.
        """
        found: list[tuple[int, str]] = []
        left = sum(excess.values())
        for name, size in excess.items():
            with closing(connection.execute(self._tables.weights, (name,))) as rows:
                for sequence, weight in rows:
                    is_enough = min(size, left) <= 0
                    if is_enough or len(found) >= DROPPED_AT_ONCE:
                        break
                    found.append((sequence, name))
                    size, left = size - weight, left - weight
                    excess[name] = max(size, 0)
        if left <= 0:
            excess.clear()
        return found


def _bytes_used(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)

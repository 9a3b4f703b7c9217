"""Life: what tells one life of an SQLite store from the next, and the store's clock.

Here lives what a process decides when it opens a store: whether the store goes on where
it was, or has gone back. A position must not be used twice for different events, and a
client must not be resumed across lost events. So a store that has lost events, or can
have lost some, begins another epoch, and every client that comes back gets a gap. A
store that has lost none, but can have been elsewhere meanwhile, skips a great many
positions. An id from there gets a gap; all other ids are resumed.

=========================================================== ===============
The witness, beside the database                            The store
=========================================================== ===============
fits                                                        goes on
is not there, though the store had one                      another epoch
has another epoch or a newer position: a backup was put     another epoch
back, or ``-wal`` was removed
is of other files: a copy                                   another epoch
is of another boot: a power loss, a snapshot of a machine   another epoch
the same with ``synchronous=full``, which loses nothing     a jump
is of another device alone: mounted anew                    a jump
=========================================================== ===============

Two cases are not noticed. If a machine is put back together with its memory, the
witness is put back too. And if a database is put back together with its witness, on a
file system that does not say how often it has used an inode number, the two fit if they
happen to get the numbers that they had.

Ages are measured by the store's clock. It is set by the wall clock when the store is
first opened in a boot, and nobody sets it after that.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from ...position import new_epoch
from .statements import FORMAT, Statements
from .witness import Life, Witness, boot_id

#: Positions that a jump skips: more than are ever published between two looks.
JUMP = 1 << 32

#: Characters that the jumps can take which a store remembers. A store with more of them
#: begins another epoch instead.
LONGEST_HOLES = 1_000

#: How a store is synchronized with the disk: at each checkpoint, or at each publish.
NORMAL = "normal"
FULL = "full"


#: What becomes of a store: see the table at the top.
GOES_ON, JUMPS, RENEWS = "goes on", "jumps", "renews"


class TooNew(Exception):
    """The store needs a later release."""


#: Seconds since the boot, which nobody can set. Where the system counts the seconds in
#: which the machine sleeps, they are included.
_seconds: Callable[[], float] = time.monotonic
if hasattr(time, "CLOCK_BOOTTIME"):
    _seconds = partial(time.clock_gettime, time.CLOCK_BOOTTIME)


class StoreLife:
    """One process's view of a store's life. The caller holds the connection.

    :param witness: the open witness; None where there can be none.
    :param wanted: how the store must be synchronized from now on; None leaves that as
        the store has it.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        tables: Statements,
        witness: Witness | None,
        wanted: str | None,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._witness = witness
        self._wanted = wanted
        self._boot = boot_id()
        #: What the store's clock showed when the boot began. None where boots have no
        #: names; the wall clock is used then.
        self._offset: float | None = None
        #: Skipped positions: those between the two of each pair.
        self.voids: list[tuple[int, int]] = []
        self.is_synchronous = False

    def now(self) -> float:
        """The store's clock."""
        return time.time() if self._offset is None else self._offset + _seconds()

    def check(self) -> None:
        """:raises TooNew: for a store that this release must not touch."""
        needs = self._values().get("needs", "")
        if _number(needs) > FORMAT:
            raise TooNew(
                f"was changed by a later release: it needs one that knows format "
                f"{needs}, and this one knows format {FORMAT}. Install a later "
                "flask-sse-lite here"
            )

    def fits(self) -> bool:
        """Whether the store goes on as it was, so that nothing must be written."""
        values = self._values()
        self._take(values)
        return (
            _number(values.get("format", "")) >= FORMAT
            and self._wanted in (None, values.get("synchronous", NORMAL))
            and (not self._boot or self._clock(values) is not None)
            and self._verdict(values) == GOES_ON
        )

    def begin(self) -> None:
        """Have the store go on, in another life if need be. The caller has opened a
        transaction that writes."""
        values = self._values()
        if _number(values.get("format", "")) < FORMAT:
            self._set("format", str(FORMAT))
        verdict = self._verdict(values)
        if verdict == JUMPS and len(values.get("holes", "")) > LONGEST_HOLES:
            verdict = RENEWS
        if verdict == RENEWS:
            self._renew()
        elif verdict == JUMPS:
            self._jump(values.get("holes", ""))
        if self._boot and self._clock(values) is None:
            self._set_clock()
        if self._wanted not in (None, values.get("synchronous", NORMAL)):
            self._set("synchronous", self._wanted or NORMAL)
        if self._witness:
            self._set("witness", "yes")
            self._witness.write(*self._state())
        self._take(self._values())

    def _verdict(self, values: Mapping[str, str]) -> str:
        if not self._witness:
            return GOES_ON
        found = self._witness.read()
        if found is None:
            # If the store never had a witness, it is new, or an earlier release has
            # made it.
            return RENEWS if "witness" in values else GOES_ON
        position, life = found
        epoch, sequence = self._state()
        here = self._witness.here(epoch)
        is_full = values.get("synchronous") == FULL
        return _judged(life, here, is_behind=sequence < position, is_full=is_full)

    def _renew(self) -> None:
        epoch, _ = self._state()
        self._connection.execute(self._tables.renew, (new_epoch(), epoch))
        self._set("holes", "")

    def _jump(self, holes: str) -> None:
        _, low = self._state()
        high = low + JUMP
        if not self._connection.execute(self._tables.jump, (high,)).rowcount:
            self._connection.execute(self._tables.begin_jump, (high,))
        self._set("holes", f"{holes}{low} {high};")

    # The clock

    def _clock(self, values: Mapping[str, str]) -> float | None:
        """The ``_offset`` that the store has; None where its clock was not set in this
        boot."""
        boot, _, offset = values.get("clock", "").rpartition(" ")
        if boot != self._boot:
            return None
        with suppress(ValueError):
            return float(offset)
        return None

    def _set_clock(self) -> None:
        """Set the clock by the wall clock. Rows that are dated later than now, by a
        clock that went ahead, are dated now, so that they grow old."""
        now = time.time()
        self._set("clock", f"{self._boot} {now - _seconds()!r}")
        self._connection.execute(self._tables.date_all, (now, now))
        self._connection.execute(self._tables.date_runs, (now, now))

    # What stands in the store

    def _take(self, values: Mapping[str, str]) -> None:
        self.is_synchronous = (self._wanted or values.get("synchronous")) == FULL
        self.voids = [
            (int(low), int(high))
            for low, high in re.findall("([0-9]+) ([0-9]+);", values.get("holes", ""))
        ]
        self._offset = self._clock(values) if self._boot else None

    def _state(self) -> tuple[str, int]:
        row = self._connection.execute(self._tables.state).fetchone()
        return str(row[0]), int(row[1])

    def _values(self) -> dict[str, str]:
        if not self._connection.execute(self._tables.has_life).fetchone():
            return {}
        return dict(self._connection.execute(self._tables.life).fetchall())

    def _set(self, name: str, value: str) -> None:
        self._connection.execute(self._tables.set_life, (name, value))


def _judged(found: Life, here: Life, *, is_behind: bool, is_full: bool) -> str:
    """What becomes of a store with a witness: the table at the top."""
    if is_behind or found.epoch != here.epoch or found.files != here.files:
        return RENEWS
    if found.boot != here.boot:
        return JUMPS if is_full else RENEWS
    return GOES_ON if found.device == here.device else JUMPS


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0

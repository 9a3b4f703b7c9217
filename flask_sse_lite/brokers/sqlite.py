"""The SQLite broker: one file, for all processes of one machine.

Here lives what publishing, reading and dropping events cost the file, and what is done
when it is busy, broken or gone; how they stand in it, statements.py says. A process has
one connection at most, used by one thread at a time and for one short step. Nothing
here waits while it holds it: where another process writes, it comes back a moment
later, so that the greenlets of a gevent worker go on.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import takewhile
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ..cursor import BEGINNING, position_id
from ..errors import BrokerUnavailable, InvalidValue
from ..event import Event, good_event
from ..locks import Guard
from ..log import Past, Record
from ..settings import Settings
from . import Claim
from .bells import Bells
from .native import wait_natively
from .options import read_options
from .shared import (
    FORK_PATIENCE,
    LOST,
    News,
    Retention,
    SharedBroker,
    State,
    Summary,
)
from .statements import PRUNED_AT_ONCE, Statements

#: Seconds between two tries to write while others do, at first and at most; each is
#: somewhere between nothing and that.
FIRST_RETRY = 0.0005
LONGEST_RETRY = 0.002

#: What is read in one go: events, and characters of them.
PAGE = 256
PAGE_CHARACTERS = 1_000_000

#: Every so many publishes, on the average, one is followed by a look for what the file
#: need not keep any longer: of the channel's, what is too much, and of all, what is too
#: old. (By chance, for a publisher may be a script that publishes once.)
PUBLISHES_PER_PRUNE = 32

#: What stands as an entry's type where a run begins; its budget stands as ``retry``.
BEGINS = "begin"

#: Seconds that events are kept however many there are, so that a process which is busy
#: for a moment misses none.
SLACK = 2.0

#: Every so many publishes, on the average, one brings what stands in the write-ahead
#: log into the file, which waits for the disk. (SQLite's own way is to do so at every
#: publish, as long as others write too fast for the log to be begun anew.)
PUBLISHES_PER_CHECKPOINT = 256

#: Bytes of a page of a new file. A publish writes a few of them, mostly for a small
#: event: half of SQLite's own size saves a fifth of what that costs.
PAGE_SIZE = 2_048

#: Pages in the write-ahead log (8 MB) from which on others have to wait for a moment,
#: so that it can be begun anew; and milliseconds that are waited for such a moment.
#: (Where many write as fast as they can, one is always just about to.)
LARGE_WAL = 4_000
WAL_PATIENCE = 100

#: Seconds that a follower rests between two looks where news come without a pause. It
#: then takes some at a look, and nobody who publishes has to wake it for each.
BURST = 0.001

T = TypeVar("T")


class SqliteBroker(SharedBroker):
    """Publishing is one INSERT.

    :param path: the file; it is made where it is not there.
    :param prefix: what its tables' names begin with.
    :param retention: what it is to keep; None for what it says itself.
    :param makes_folder: whether its folder is made where it is not there.
    """

    def __init__(
        self,
        path: str,
        *,
        prefix: str,
        retention: Retention | None,
        timeout: float,
        makes_folder: bool = False,
    ) -> None:
        self.path = os.path.abspath(path)
        self._tables = Statements(prefix)
        self._wanted_retention = retention
        self._makes_folder = makes_folder
        super().__init__(f"The SQLite file {self.path}", timeout)

    def _reset(self) -> None:
        super()._reset()
        self._bells = Bells(self.path)
        # Whoever holds this uses the connection, and whatever describes it.
        self._connection_lock = Guard()
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._inode = (0, 0)
        self._epoch = ""
        self._kept = Retention(1, 1)
        #: That which forks now, and holds the lock for it.
        self._forking_thread = 0
        #: Up to where what is too old was looked for.
        self._swept = 0
        #: Whether the bell had rung again when the follower began to wait.
        self._is_burst = False

    # The store

    def _put(self, channel: str, event: Event | None) -> tuple[str, int]:
        row = (time.time(), channel, *_columns(event))

        def insert(connection: sqlite3.Connection) -> tuple[str, int]:
            if event:
                cursor = connection.execute(self._tables.insert, row)
            else:
                with _transaction(connection, "IMMEDIATE"):
                    connection.execute(self._tables.end_run, (row[0], channel))
                    cursor = connection.execute(self._tables.insert, row)
            # It was there for all to see if it still is.
            self._check_in_place()
            return self._epoch, cursor.lastrowid or 0

        position = self._do(insert, checks_first=False)
        self._note_put(channel, BEGINNING)
        return position

    def _note_put(self, channel: str, dropped: int) -> None:
        """Tell the others, and from time to time do what there is to do.

        :param dropped: up to there, nothing of the channel need be kept.
        """
        self._bells.ring()
        if random.random() * PUBLISHES_PER_PRUNE < 1:
            self._tidy(lambda connection: self._drop(connection, channel, dropped))
        if random.random() * PUBLISHES_PER_CHECKPOINT < 1:
            self._tidy(_checkpoint)

    def _state(self) -> State:
        return self._do(self._read_state)

    def _read_state(self, connection: sqlite3.Connection) -> State:
        row = connection.execute(self._tables.state).fetchone()
        if row is None:
            raise sqlite3.OperationalError("there is no store in it")
        return self._note_state(row)

    def _note_state(self, row: Sequence[Any]) -> State:
        self._epoch, sequence, history, age = row
        self._kept = Retention(history, age)
        return State(self._epoch, sequence, self._kept)

    def _load(self, channels: Collection[str]) -> tuple[State, dict[str, Past]]:
        def load(connection: sqlite3.Connection) -> tuple[State, dict[str, Past]]:
            with _transaction(connection):
                state = self._read_state(connection)
                return state, {n: self._past(connection, n) for n in channels}

        return self._do(load)

    def _past(self, connection: sqlite3.Connection, channel: str) -> Past:
        history, now = self._kept.history, time.time()
        held = (channel, now - self._kept.age)
        run = connection.execute(self._tables.run, held).fetchone()
        limit = -1 if run else history + 1
        rows = connection.execute(self._tables.past, (channel, limit)).fetchall()
        if len(rows) > history and not run:
            dropped = rows.pop()[0]
        else:
            dropped = self._mark(connection, channel)
            if rows:
                dropped = min(dropped, rows[-1][0] - 1)
        records = [self._record(row, now) for row in reversed(rows)]
        return Past(dropped, records, *(run or ()))

    def _mark(self, connection: sqlite3.Connection, channel: str) -> int:
        """The highest position of what was dropped of a channel."""
        ((dropped,),) = connection.execute(self._tables.mark, (channel,))
        return int(dropped)

    def _record(self, row: Any, now: float) -> Record:
        sequence, at, channel, data, type, id, retry = row
        retry = None if retry is None else int(retry)
        if data is None:
            budget = retry if type == BEGINS and retry else 0
            return Record(sequence, now - at, channel, None, budget)
        id = position_id(self._epoch, sequence, channel) if id is None else id
        event = good_event(data, type, id, retry, channel)
        return Record(sequence, now - at, channel, event)

    def _news(self, after: int) -> News:
        return self._do(lambda connection: self._read_news(connection, after))

    def _read_news(self, connection: sqlite3.Connection, after: int) -> News:
        news, has_hole = self._read_page(connection, after)
        if not has_hole:
            return news
        with _transaction(connection):
            news, _ = self._read_page(connection, after)
            marks = {name: self._mark(connection, name) for name in self.log.held()}
        lost = {name: mark for name, mark in marks.items() if mark > after}
        return news._replace(lost=lost)

    def _read_page(
        self, connection: sqlite3.Connection, after: int
    ) -> tuple[News, bool]:
        """News without what is lost, and whether something may be. Most often that is
        one statement, which sees one moment without a transaction."""
        now = time.time()
        records: list[Record] = []
        state, sequence, size, has_hole, more = None, after, 0, False, False
        with closing(connection.execute(self._tables.news, (after, PAGE))) as rows:
            for count, (*row, epoch, newest, history, age) in enumerate(rows, 1):
                state = state or self._note_state((epoch, newest, history, age))
                has_hole = has_hole or row[0] != sequence + 1
                sequence = row[0]
                if self.log.holds(row[2]):
                    records.append(self._record(row, now))
                    size += len(row[3] or "")
                if count == PAGE or size >= PAGE_CHARACTERS:
                    more = sequence < newest
                    break
        state = state or self._read_state(connection)
        if not more and sequence != state.sequence:
            has_hole, sequence = True, state.sequence
        return News(state.epoch, sequence, records, {}, more), has_hole

    def _summaries(self) -> list[Summary]:
        def read(connection: sqlite3.Connection) -> list[Summary]:
            now = time.time()
            with _transaction(connection):
                history, age = self._read_state(connection).retention
                rows = connection.execute(self._tables.summaries, (now - age,))
                return [
                    Summary(name, min(count, history), now - at, bool(is_end))
                    for name, count, _, at, is_end in rows
                ]

        return self._do(read)

    def _renew(self, epoch: str) -> None:
        new = secrets.token_hex(8)
        self._do(lambda c: c.execute(self._tables.renew, (new, epoch)))

    # Its runs. Whether a lease is over is told by a clock that nobody sets, and that
    # begins anew with the machine.

    def _begin(self, claim: Claim) -> tuple[str, int] | None:
        tables, channel = self._tables, claim.channel
        begins = (time.time(), channel, None, BEGINS, None, str(claim.budget))

        def begin(connection: sqlite3.Connection) -> tuple[str, int] | None:
            now = time.monotonic()
            with _transaction(connection, "IMMEDIATE"):
                self._read_state(connection)
                self._end_all_lost(connection, now)
                known = (channel, claim.token)
                if connection.execute(tables.goes_on, known).fetchone():
                    return None
                start = connection.execute(tables.insert, begins).lastrowid or 0
                connection.execute(
                    tables.begin_run,
                    (channel, start, claim.budget, claim.token, now + self.lease),
                )
            self._check_in_place()
            return self._epoch, start

        began = self._do(begin)
        self._bells.ring()
        return began

    def _say(
        self, claim: Claim, event: Event | None, dropped: int
    ) -> tuple[str, int] | None:
        tables, now = self._tables, time.time()
        row = (now, claim.channel, *_columns(event), claim.channel, claim.token)

        def say(connection: sqlite3.Connection) -> tuple[str, int] | None:
            if event:
                cursor = connection.execute(tables.say, row)
            else:
                with _transaction(connection, "IMMEDIATE"):
                    cursor = connection.execute(tables.say, row)
                    if cursor.rowcount:
                        connection.execute(tables.end_run, (now, claim.channel))
            self._check_in_place()
            return (self._epoch, cursor.lastrowid or 0) if cursor.rowcount else None

        position = self._do(say, checks_first=False)
        if position:
            self._note_put(claim.channel, dropped)
        return position

    def _extend(self, claims: Collection[Claim]) -> tuple[str, set[str]]:
        def extend(connection: sqlite3.Connection) -> tuple[str, set[str]]:
            until, known = time.monotonic() + self.lease, set()
            with _transaction(connection, "IMMEDIATE"):
                self._read_state(connection)
                for claim in claims:
                    row = (until, claim.channel, claim.token)
                    if connection.execute(self._tables.extend, row).rowcount:
                        known.add(claim.token)
            return self._epoch, known

        return self._do(extend)

    def _end_lost(self) -> None:
        def end(connection: sqlite3.Connection) -> bool:
            now = time.monotonic()
            row = (now, now + 2 * self.lease)
            if not connection.execute(self._tables.lost, row).fetchone():
                return False
            with _transaction(connection, "IMMEDIATE"):
                self._end_all_lost(connection, now)
            return True

        if self._do(end):
            self._bells.ring()

    def _end_all_lost(self, connection: sqlite3.Connection, now: float) -> None:
        # What is far ahead is of the machine's life before.
        row = (now, now + 2 * self.lease)
        for (channel,) in connection.execute(self._tables.lost, row).fetchall():
            at = time.time()
            for event in (LOST, None):
                row = (at, channel, *_columns(event))
                connection.execute(self._tables.insert, row)
            connection.execute(self._tables.end_run, (at, channel))

    # Its counts

    def _count(self, counts: Mapping[str, int]) -> None:
        def count(connection: sqlite3.Connection) -> None:
            now, tables = time.monotonic(), self._tables
            row = (self._process, json.dumps(counts), now + self.count_life)
            with _transaction(connection, "IMMEDIATE"):
                connection.execute(tables.count, row)
                connection.execute(
                    tables.delete_counts, (now, now + 2 * self.count_life)
                )

        self._do(count)

    def _counted(self, channel: str) -> int:
        def read(connection: sqlite3.Connection) -> list[Any]:
            now = time.monotonic()
            row = (self._process, now, now + 2 * self.count_life)
            return connection.execute(self._tables.counts, row).fetchall()

        return sum(json.loads(counts).get(channel, 0) for (counts,) in self._do(read))

    # Keeping it small

    def _tidy(self, step: Callable[[sqlite3.Connection], None]) -> None:
        """Do something unless others are writing: then somebody does it later."""
        with suppress(BrokerUnavailable):
            self._do(step, is_urgent=False)

    def _drop(self, connection: sqlite3.Connection, channel: str, until: int) -> None:
        """Drop some of what need not be kept.

        :param until: up to there, nothing of the channel need be.
        """
        tables, now = self._tables, time.time()
        with _transaction(connection, "IMMEDIATE"):
            self._read_state(connection)
            history, age = self._kept
            connection.execute(tables.delete_runs, (now - age,))
            if until:
                doomed = connection.execute(tables.up_to, (channel, until)).fetchall()
            elif connection.execute(tables.run, (channel, now - age)).fetchone():
                doomed = []
            else:
                rows = connection.execute(tables.too_many, (channel, channel, history))
                doomed = [row[:2] for row in _until(now - min(SLACK, age), rows)]
            rows = connection.execute(tables.oldest, (self._swept,))
            old = list(_until(now - age, rows))
            # What is of a run stays, and is not to hide what lies behind it.
            self._swept = old[-1][0] if len(old) == PRUNED_AT_ONCE else 0
            doomed += [(sequence, name) for sequence, name, _, held in old if not held]
            dropped: dict[str, int] = {}
            for sequence, name in doomed:
                dropped[name] = max(sequence, dropped.get(name, 0))
            connection.executemany(tables.delete, {(s,) for s, _ in doomed})
            for name, sequence in dropped.items():
                if connection.execute(tables.is_kept, (name,)).fetchone():
                    connection.execute(tables.set_mark, (name, sequence, sequence))
                else:
                    connection.execute(tables.forget, (sequence,))
                    connection.execute(tables.delete_mark, (name,))

    # The follower's ears

    def _listen(self) -> None:
        self._state()  # The file must be there for its folder of bells to be like it.
        self._bells.listen()

    def _wait(self, timeout: float) -> bool:
        if self._is_burst:
            time.sleep(BURST)
        start = time.monotonic()
        self._bells.wait(timeout)
        self._is_burst = time.monotonic() - start < BURST / 2
        return True

    def _interrupt(self) -> None:
        self._bells.interrupt()

    # The connection

    def _do(
        self,
        step: Callable[[sqlite3.Connection], T],
        *,
        checks_first: bool = True,
        is_urgent: bool = True,
    ) -> T:
        """Take a step, again and again while others are writing.

        :param checks_first: whether to see before it that the file is still there.
        :raises BrokerUnavailable: when it cannot be done; and where it is not urgent,
            when it cannot be done at once.
        """
        deadline = time.monotonic() + self.timeout
        pause = FIRST_RETRY
        while True:
            if not self._connection_lock.acquire(timeout=self.timeout):
                raise BrokerUnavailable(f"{self.name} is too slow")
            try:
                self._check_open()
                if checks_first and self._connection and not self._is_in_place():
                    self._disconnect()
                return step(self._connection or self._connect())
            except (sqlite3.Error, sqlite3.Warning, OSError) as error:
                if not _is_busy(error):
                    self._disconnect()
                    raise BrokerUnavailable(f"{self.name} fails: {error}") from error
                if not is_urgent or time.monotonic() >= deadline:
                    raise BrokerUnavailable(
                        f"{self.name} is kept locked by another process"
                    ) from error
            finally:
                self._connection_lock.release()
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_RETRY)

    def _check_in_place(self) -> None:
        if not self._is_in_place():
            self._disconnect()
            raise BrokerUnavailable(f"{self.name} was deleted or replaced")

    def _is_in_place(self) -> bool:
        """Whether the connection's file is the one that has its name."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._inode

    def _connect(self) -> sqlite3.Connection:
        self._make_file()
        connection = sqlite3.connect(
            self.path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in (
                f"page_size = {PAGE_SIZE}",
                "journal_mode = WAL",
                "synchronous = NORMAL",
                "wal_autocheckpoint = 0",
            ):
                connection.execute(f"PRAGMA {pragma}").close()
            self._set_up(connection)
            found = os.stat(self.path)
        except BaseException:
            connection.close()
            raise
        self._inode = (found.st_dev, found.st_ino)
        self._connection = connection
        return connection

    def _make_file(self) -> None:
        """Make the file, unless it is there. What is left of one that was deleted must
        not be taken for the new one's, which one process sees to."""
        if os.path.exists(self.path):
            return
        folder = os.path.dirname(self.path)
        if self._makes_folder:
            os.makedirs(folder, exist_ok=True)
        with _locked(folder):
            if os.path.exists(self.path):
                return
            for ending in ("-wal", "-shm", "-journal"):
                with suppress(FileNotFoundError):
                    os.unlink(self.path + ending)
            # SQLite's own mode, which the umask narrows.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))

    def _set_up(self, connection: sqlite3.Connection) -> None:
        wanted = self._wanted_retention
        try:
            self._read_state(connection)
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                raise
            first = wanted or Retention(256, 300)
            with _transaction(connection, "IMMEDIATE"):
                for statement in self._tables.schema:
                    connection.execute(statement)
                connection.execute(self._tables.begin, (secrets.token_hex(8), *first))
            self._read_state(connection)
        if wanted and wanted != self._kept:
            connection.execute(self._tables.keep, wanted)
            self._kept = wanted

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection and self._pid == os.getpid():
            connection.close()
        elif connection:
            # To close the parent's would drop this process's locks on the file.
            _parents.append(connection)

    def _let_go(self) -> None:
        self._bells.close()
        if self._pid != os.getpid():
            self._disconnect()
            return
        with self._connection_lock:
            self._disconnect()

    # SQLite is not to be open over a fork: the child would think that it has the
    # parent's locks.

    def _before_fork(self) -> None:
        if self._connection_lock.acquire(timeout=FORK_PATIENCE):
            self._forking_thread = threading.get_ident()
            self._disconnect()

    def _after_fork(self) -> None:
        if self._forking_thread == threading.get_ident():
            self._forking_thread = 0
            self._connection_lock.release()


#: Connections that a fork brought, kept from being closed as garbage.
_parents: list[sqlite3.Connection] = []


def _columns(event: Event | None) -> tuple[str | None, ...]:
    if event is None:
        return (None, None, None, None)
    retry = None if event.retry is None else str(event.retry)
    return (event.data, event.type, event.id, retry)


def _until(time: float, rows: sqlite3.Cursor) -> Iterator[Any]:
    """What comes before the first row that is as young as that. Most often that is the
    first of all, and no other is looked at."""
    with closing(rows):
        yield from takewhile(lambda row: row[2] < time, rows)


def _is_busy(error: Exception) -> bool:
    """Whether somebody else is just writing. (Python 3.10 shows no error codes.)"""
    text = str(error)
    return isinstance(error, sqlite3.OperationalError) and (
        "locked" in text or text == "locking protocol"
    )


def _checkpoint(connection: sqlite3.Connection) -> None:
    def checkpoint(kind: str) -> int:
        """:returns: how many pages stand in the write-ahead log."""
        pragma = f"PRAGMA wal_checkpoint({kind})"
        _, pages, _ = connection.execute(pragma).fetchone()
        return int(pages)

    if wait_natively(lambda: checkpoint("PASSIVE")) > LARGE_WAL:
        with _patience(connection, WAL_PATIENCE):
            wait_natively(lambda: checkpoint("TRUNCATE"))


@contextmanager
def _patience(connection: sqlite3.Connection, milliseconds: int) -> Iterator[None]:
    """Have SQLite itself wait for others."""
    connection.execute(f"PRAGMA busy_timeout = {milliseconds}").close()
    try:
        yield
    finally:
        connection.execute("PRAGMA busy_timeout = 0").close()


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str = "") -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """What is done to a folder by one process at a time."""
    try:
        import fcntl
    except ImportError:  # Not a Unix.
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def connect(settings: Settings, folder: str | None) -> SqliteBroker:
    parts = urlsplit(settings.url)
    options = read_options(settings, parts.query)
    path = unquote(parts.path.removeprefix("/"))
    is_path = path not in ("", ":memory:") and "\0" not in path
    if parts.netloc or parts.fragment or options.others or not is_path:
        raise InvalidValue(
            f"{settings.url_key} is to be sqlite:///name.db (in the application's "
            "instance folder) or sqlite:////an/absolute/path.db, and takes the options "
            "history, age and prefix"
        )
    is_relative = not os.path.isabs(path)
    if is_relative and folder is None:
        raise InvalidValue(
            f"{settings.url_key} has a relative path, which means the instance folder "
            "of an application, and there is none: make it absolute (four slashes)"
        )
    return SqliteBroker(
        os.path.join(folder or "", path),
        prefix=options.prefix,
        retention=options.retention,
        timeout=settings.broker_timeout,
        makes_folder=is_relative,
    )

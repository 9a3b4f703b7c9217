"""The SQLite broker: one file, for all processes of one machine.

Here lives what publishing and reading events cost the file, and what is done when it is
busy, broken or gone. How events stand in it, statements.py says; how it stays small,
housekeeping.py; whether it goes on where it was, life.py. A process has one connection
at most, used by one thread at a time and for one short step. Nothing here waits while
it holds it: where another process writes, it comes back a moment later, so that the
greenlets of a gevent worker go on.
"""

from __future__ import annotations

import json
import logging
import os
import random
import secrets
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ...errors import BrokerUnavailable, InvalidValue
from ...event import Event, stored_event
from ...history.records import Past, Record
from ...own_events import LOST
from ...position import BEGINNING, new_epoch, position_id
from ...settings import MOST, Settings
from ...system.locks import Guard
from .. import Claim
from ..deadline import Deadline, OutOfTime
from ..options import read_options
from ..shared import FORK_PATIENCE, News, Retention, SharedBroker, State, Summary
from .doorbell import Bells
from .housekeeping import Broom, Diary, Kept, checkpoint
from .life import FULL, NORMAL, StoreLife, TooNew
from .place import Place
from .statements import Statements
from .witness import Witness

#: Seconds between two tries to write while others do, at first and at most; each is
#: somewhere between nothing and that.
FIRST_RETRY = 0.0005
LONGEST_RETRY = 0.002

#: What is read in one go: events, and characters of them.
PAGE = 256
PAGE_CHARACTERS = 1_000_000

#: So many publishes of a process to a channel are followed by a look for what the file
#: need not keep any longer: of the channel's, what is too much, and of all, what is too
#: old.
PUBLISHES_PER_PRUNE = 32

#: Seconds that a publisher tries for that while others are writing. If it does not get
#: its turn, it tries again at its next publish to the channel.
TIDYING = 0.25

#: What stands as an entry's type where a run begins; its budget stands as ``retry``.
BEGINS = "begin"

#: Seconds that events are kept however many there are, so that a process which is busy
#: for a moment misses none.
SLACK = 2.0

#: So many publishes of a process are followed by a checkpoint, which brings what stands
#: in the write-ahead log into the file, and waits for the disk. (SQLite's own way is to
#: do so at every publish, as long as others write too fast for the log to begin anew.)
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

#: Modes of the file and of its folder, where they are made: what is published is
#: nobody else's to read. What is there already keeps its mode.
MODE = 0o600
FOLDER_MODE = 0o700

logger = logging.getLogger("flask_sse_lite")

T = TypeVar("T")


class SqliteBroker(SharedBroker):
    """Publishing is one INSERT.

    :param path: the file; it is made where it is not there.
    :param prefix: what its tables' names begin with.
    :param retention: what it is to keep; None for what it says itself.
    :param makes_folder: whether its folder is made where it is not there.
    :param synchronous: ``"normal"`` or ``"full"``, from now on; None for what it says
        itself.
    """

    def __init__(
        self,
        path: str,
        *,
        prefix: str,
        retention: Retention | None,
        timeout: float,
        makes_folder: bool = False,
        synchronous: str | None = None,
    ) -> None:
        self.path = os.path.abspath(path)
        self._prefix = prefix
        self._tables = Statements(prefix)
        self._wanted_synchronous = synchronous
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
        self._place: Place | None = None
        self._witness = Witness(self.path, self._prefix)
        self._life: StoreLife | None = None
        self._epoch = ""
        #: The newest position of the epoch that was given out or seen here; and that of
        #: the newest row that was read, with its time.
        self._reached = BEGINNING
        self._last_row = (BEGINNING, 0.0)
        self._kept = Retention(1, 1)
        #: That which forks now, and holds the lock for it.
        self._forking_thread = 0
        self._broom = Broom(self._tables)
        self._diary = Diary(
            drop=PUBLISHES_PER_PRUNE, checkpoint=PUBLISHES_PER_CHECKPOINT
        )
        #: How many streams of which channels the file says that this process serves,
        #: and until when it says so.
        self._told: dict[str, int] = {}
        self._told_until = 0.0
        #: Whether the bell had rung again when the follower began to wait.
        self._is_burst = False

    # The store

    def _put(self, channel: str, event: Event | None) -> tuple[str, int]:
        columns = _columns(event)

        def insert(connection: sqlite3.Connection) -> tuple[str, int]:
            row = (self._now(), channel, *columns)
            if event:
                cursor = connection.execute(self._tables.insert, row)
            else:
                with _transaction(connection, "IMMEDIATE"):
                    connection.execute(self._tables.end_run, (row[0], channel))
                    cursor = connection.execute(self._tables.insert, row)
            return self._given_out(connection, cursor.lastrowid)

        position = self._do(insert, checks_first=False)
        self._note_put(channel, BEGINNING, event)
        return position

    def _note_put(self, channel: str, dropped: int, event: Event | None = None) -> None:
        """Tell the others, and do what this process has to do before it writes more.

        :param dropped: up to there, nothing of the channel need be kept.
        """
        self._bells.ring()
        diary = self._diary
        diary.note(channel, len(event.data) if event else 0)
        if diary.is_drop_due(channel) and self._tidy(
            lambda connection: self._drop(connection, channel, dropped)
        ):
            diary.has_dropped(channel)
        if diary.is_checkpoint_due():
            self._bring_home()

    def _given_out(
        self, connection: sqlite3.Connection, sequence: int | None
    ) -> tuple[str, int]:
        """See to it that what was just written is there for all to see, and stands at a
        position that was not given out before.

        :returns: the position.
        """
        self._check_in_place()
        position = sequence or 0
        if position <= self._reached:
            # The file has gone back under this connection.
            try:
                with _transaction(connection, "IMMEDIATE"):
                    self._renew_there(connection, self._epoch)
            except sqlite3.Error as error:
                raise BrokerUnavailable(f"{self.name} has gone back") from error
        self._reached = position
        self._witness.reach(position)
        return self._epoch, position

    def _state(self) -> State:
        return self._do(self._read_state)

    def _read_state(self, connection: sqlite3.Connection) -> State:
        row = connection.execute(self._tables.state).fetchone()
        if row is None:
            raise sqlite3.OperationalError("there is no store in it")
        return self._note_state(row)

    def _note_state(self, row: Sequence[Any]) -> State:
        epoch, sequence, history, age = row
        if epoch != self._epoch:
            self._epoch, self._reached = epoch, BEGINNING
        self._reached = max(self._reached, sequence)
        self._kept = Retention(history, age)
        return State(epoch, sequence, self._kept)

    def _now(self) -> float:
        """The store's clock. The connection is there."""
        return self._life.now() if self._life else time.time()

    def _load(self, channels: Collection[str]) -> tuple[State, dict[str, Past]]:
        def load(connection: sqlite3.Connection) -> tuple[State, dict[str, Past]]:
            with _transaction(connection):
                state = self._read_state(connection)
                return state, {n: self._past(connection, n) for n in channels}

        return self._do(load)

    def _past(self, connection: sqlite3.Connection, channel: str) -> Past:
        history, now = self._kept.history, self._now()
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
        # Where that is no number, all that was there counts as dropped.
        return dropped if isinstance(dropped, int) else self._reached

    def _record(self, row: Any, now: float) -> Record:
        sequence, at, channel, *columns = row
        age = _age(at, now)
        try:
            return self._read(sequence, age, channel, *columns)
        except (ValueError, TypeError) as error:
            return self._cannot_read(self._epoch, sequence, age, channel, error)

    def _read(
        self,
        sequence: int,
        age: float,
        channel: str,
        data: object,
        type: object,
        id: object,
        retry: Any,
    ) -> Record:
        """:raises ValueError: (or what else comes of it) for what this release does not
        write."""
        retry = None if retry is None else int(retry)
        if data is None:
            budget = retry if type == BEGINS else 0
            if type not in (None, BEGINS) or not (type is None or 0 < budget <= MOST):
                raise ValueError("It is neither an end nor a beginning")
            return Record(sequence, age, channel, None, budget)
        position = position_id(self._epoch, sequence, channel)
        event = stored_event(data, type, id, retry, channel, position)
        return Record(sequence, age, channel, event)

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
        now, records = self._now(), []
        state, sequence, size, has_hole, more = None, after, 0, False, False
        with closing(connection.execute(self._tables.news, (after, PAGE + 1))) as rows:
            for count, (*row, epoch, newest, history, age) in enumerate(rows, 1):
                state = state or self._note_state((epoch, newest, history, age))
                if row[0] == after:
                    if self._is_another(row):
                        return News(epoch, -1, [], {}, False), False
                    continue
                has_hole = has_hole or row[0] != sequence + 1
                sequence = row[0]
                self._last_row = (sequence, row[1])
                if self.log.holds(row[2]):
                    records.append(self._record(row, now))
                    size += len(row[3] or "")
                if count >= PAGE or size >= PAGE_CHARACTERS:
                    more = sequence < newest
                    break
        state = state or self._read_state(connection)
        if not more and sequence != state.sequence:
            has_hole, sequence = True, state.sequence
        return News(state.epoch, sequence, records, {}, more), has_hole

    def _is_another(self, row: Sequence[Any]) -> bool:
        """Whether a row is not the one that stood at its position before: the file has
        gone back, and others went on there. (A time that lay ahead of the store's clock
        is set back to that, and never set forward.)"""
        (sequence, at), now = self._last_row, row[1]
        return bool(row[0] == sequence and type(now) is type(at) and now > at)

    def _summaries(self) -> list[Summary]:
        def read(connection: sqlite3.Connection) -> list[Summary]:
            now = self._now()
            with _transaction(connection):
                history, age = self._read_state(connection).retention
                rows = connection.execute(self._tables.summaries, (now - age,))
                return [
                    Summary(name, min(count, history), _age(at, now), bool(is_end))
                    for name, count, _, at, is_end in rows
                ]

        return self._do(read)

    def _renew(self, epoch: str) -> None:
        def renew(connection: sqlite3.Connection) -> None:
            with _transaction(connection, "IMMEDIATE"):
                self._renew_there(connection, epoch)

        self._do(renew)

    def _renew_there(self, connection: sqlite3.Connection, epoch: str) -> None:
        """A transaction that writes is open."""
        row = (new_epoch(), epoch)
        is_renewed = connection.execute(self._tables.renew, row).rowcount
        # Another process can have been the first: then the epoch is its.
        state = self._read_state(connection)
        if is_renewed:
            self._witness.write(state.epoch, state.sequence)

    # Its runs. Whether a lease is over is told by a clock that nobody sets, and that
    # begins anew with the machine.

    def _begin(self, claim: Claim) -> tuple[str, int] | None:
        tables, channel = self._tables, claim.channel
        begins = (channel, None, BEGINS, None, str(claim.budget))

        def begin(connection: sqlite3.Connection) -> tuple[str, int] | None:
            now = time.monotonic()
            with _transaction(connection, "IMMEDIATE"):
                self._read_state(connection)
                self._end_all_lost(connection, now)
                runner = connection.execute(tables.runner, (channel,)).fetchone()
                if runner and runner[0] == claim.token:
                    return None if runner[2] else (self._epoch, runner[1])
                if runner and (claim.began[0] or runner[2] is None):
                    return None
                known = self._lost_start(connection, claim)
                if known is None:
                    return None
                start = known
                if not known:
                    row = (self._now(), *begins)
                    start = connection.execute(tables.insert, row).lastrowid or 0
                connection.execute(
                    tables.begin_run,
                    (channel, start, claim.budget, claim.token, now + self.lease),
                )
            if not known:
                return self._given_out(connection, start)
            self._check_in_place()
            return self._epoch, start

        began = self._do(begin)
        self._bells.ring()
        return began

    def _lost_start(self, connection: sqlite3.Connection, claim: Claim) -> int | None:
        """Where a run begins of which the file has no row: 0 for the next position;
        None where its channel was ended since it began."""
        epoch, start = claim.began
        if epoch != self._epoch:
            return 0
        ended = connection.execute(self._tables.ended_since, (claim.channel, start))
        return None if ended.fetchone() else start

    def _say(
        self,
        claim: Claim,
        event: Event | None,
        dropped: int,
        reason: Event | None = None,
    ) -> tuple[str, int] | None:
        tables, channel = self._tables, claim.channel

        def say(connection: sqlite3.Connection) -> tuple[str, int] | None:
            now = self._now()

            def row(event: Event | None) -> tuple[Any, ...]:
                return (now, channel, *_columns(event), channel, claim.token)

            if event:
                cursor = connection.execute(tables.say, row(event))
            else:
                with _transaction(connection, "IMMEDIATE"):
                    if reason:
                        connection.execute(tables.say, row(reason))
                    cursor = connection.execute(tables.say, row(None))
                    if cursor.rowcount:
                        connection.execute(tables.end_run, (now, claim.channel))
            if not cursor.rowcount:
                self._check_in_place()
                return None
            return self._given_out(connection, cursor.lastrowid)

        position = self._do(say, checks_first=False)
        if position:
            self._note_put(claim.channel, dropped, event)
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
            self._witness.reach(self._read_state(connection).sequence)
            return True

        if self._do(end):
            self._bells.ring()

    def _end_all_lost(self, connection: sqlite3.Connection, now: float) -> None:
        # What is far ahead is of the machine's life before.
        row = (now, now + 2 * self.lease)
        for (channel,) in connection.execute(self._tables.lost, row).fetchall():
            self._tell_lost(connection, channel)
            connection.execute(self._tables.end_run, (self._now(), channel))

    def _tell_lost(self, connection: sqlite3.Connection, channel: str) -> None:
        for event in (LOST, None):
            row = (self._now(), channel, *_columns(event))
            connection.execute(self._tables.insert, row)

    def _unknown(self, channels: Collection[str]) -> set[str]:
        rows = self._do(lambda c: c.execute(self._tables.going_on).fetchall())
        return {*channels} - {channel for (channel,) in rows}

    def _end_unknown(self, channel: str, epoch: str, seen: int) -> None:
        tables = self._tables

        def end(connection: sqlite3.Connection) -> bool:
            with _transaction(connection, "IMMEDIATE"):
                self._read_state(connection)
                runner = connection.execute(tables.runner, (channel,)).fetchone()
                last = connection.execute(tables.newest, (channel,)).fetchone()
                newest, is_end = last or (BEGINNING, False)
                goes_on = runner and runner[2] is None
                if goes_on or epoch != self._epoch or newest > seen or is_end:
                    return False
                self._tell_lost(connection, channel)
            self._witness.reach(self._read_state(connection).sequence)
            return True

        if self._do(end):
            self._bells.ring()

    # Its counts

    def _count(self, counts: Mapping[str, int]) -> None:
        now = time.monotonic()
        is_told = counts == self._told and bool(counts)
        if is_told and now < self._told_until - 2 * self.duty_interval:
            return
        until = now + self.count_life

        def count(connection: sqlite3.Connection) -> None:
            tables = self._tables
            with _transaction(connection, "IMMEDIATE"):
                if not counts:
                    connection.execute(tables.delete_count, (self._process,))
                elif (
                    not is_told
                    or not connection.execute(
                        tables.count_on, (until, self._process)
                    ).rowcount
                ):
                    row = (self._process, json.dumps(counts), until)
                    connection.execute(tables.count, row)
                # A release can have written counts that hold longer than this one's.
                connection.execute(
                    tables.delete_counts, (now, now + 2 * self.count_life)
                )

        self._do(count)
        self._told, self._told_until = dict(counts), until

    def _counted(self, channel: str) -> int:
        def read(connection: sqlite3.Connection) -> list[Any]:
            now = time.monotonic()
            row = (self._process, now, now + 2 * self.count_life)
            return connection.execute(self._tables.counts, row).fetchall()

        return sum(_number_of(channel, counts) for (counts,) in self._do(read))

    # Keeping it small

    def _tidy(self, step: Callable[[sqlite3.Connection], None]) -> bool:
        """Do something for the file, for which nobody waits long.

        :returns: whether it was done.
        """
        try:
            self._do(step, patience=TIDYING)
        except BrokerUnavailable:
            return False
        return True

    def _drop(self, connection: sqlite3.Connection, channel: str, until: int) -> None:
        with _transaction(connection, "IMMEDIATE"):
            self._read_state(connection)
            kept = Kept(*self._kept, SLACK, self._now())
            self._broom.drop(connection, channel, until, kept)

    def _bring_home(self) -> None:
        """Bring what stands in the write-ahead log into the file."""
        is_done = self._tidy(lambda c: checkpoint(c, LARGE_WAL, WAL_PATIENCE))
        self._diary.has_checkpointed(is_done=is_done)

    # The follower's ears

    def _listen(self) -> None:
        self._state()  # The file must be there for its folder of bells to be like it.
        self._bells.listen()

    def _wait(self, timeout: float) -> bool:
        if self._diary.is_checkpoint_late():
            # Whoever has written, and if nobody publishes.
            self._bring_home()
        if self._is_burst:
            time.sleep(BURST)
        start = time.monotonic()
        self._bells.wait(timeout)
        self._is_burst = time.monotonic() - start < BURST / 2
        return True

    def _interrupt(self) -> None:
        self._bells.interrupt()

    # The connection

    def _is_at_store(self) -> bool:
        return self._connection_lock.is_entered

    def _do(
        self,
        step: Callable[[sqlite3.Connection], T],
        *,
        checks_first: bool = True,
        patience: float | None = None,
    ) -> T:
        """Take a step, again and again while others are writing.

        :param checks_first: whether to see before it that the file is still there.
        :param patience: seconds that it can take; None for the broker's.
        :raises BrokerUnavailable: when it cannot be done.
        """
        deadline = self._deadline
        if patience is not None:
            deadline = Deadline(min(patience, deadline.left))
        pause = FIRST_RETRY
        while True:
            if not self._connection_lock.acquire(timeout=deadline.left):
                raise OutOfTime(f"{self.name} is too slow")
            try:
                self._check_open()
                if checks_first and self._connection and not self._is_in_place():
                    self._disconnect()
                return step(self._connection or self._connect())
            except TooNew as error:
                raise BrokerUnavailable(f"{self.name} {error}") from None
            except (sqlite3.Error, sqlite3.Warning, OSError) as error:
                if self._can_read_on(error):
                    continue
                if not _is_busy(error):
                    self._disconnect()
                    raise BrokerUnavailable(f"{self.name} fails: {error}") from error
                if not deadline.left:
                    raise BrokerUnavailable(
                        f"{self.name} is kept locked by another process"
                    ) from error
            finally:
                self._connection_lock.release()
            time.sleep(min(random.uniform(0, pause), deadline.left))
            pause = min(2 * pause, LONGEST_RETRY)

    def _check_in_place(self) -> None:
        if not self._is_in_place():
            self._disconnect()
            raise BrokerUnavailable(f"{self.name} was deleted or replaced")

    def _is_in_place(self) -> bool:
        """Whether the connection's files are those that have their names."""
        return self._place is not None and self._place.is_same()

    def _can_read_on(self, error: Exception) -> bool:
        """Whether an error comes of text that is none, which another program has
        written. From now on such text is read as bytes, and so as an entry that cannot
        be read. (To look at each text is too slow to do it always.)"""
        connection = self._connection
        is_text = "Could not decode to UTF-8" in str(error)
        if not is_text or not connection or connection.text_factory is _text:
            return False
        connection.text_factory = _text
        return True

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
            self._place = Place(self.path)
            self._go_on(connection)
        except BaseException:
            connection.close()
            self._witness.close()
            raise
        self._connection = connection
        return connection

    def _go_on(self, connection: sqlite3.Connection) -> None:
        """Begin another life of the store, if it does not go on where it was."""
        witness = self._opened_witness()
        wanted = self._wanted_synchronous
        life = StoreLife(connection, self._tables, witness, wanted)
        life.check()
        goes_on = life.fits()
        if life.is_synchronous:
            connection.execute("PRAGMA synchronous = FULL").close()
        if not goes_on:
            with _transaction(connection, "IMMEDIATE"):
                for statement in self._tables.schema:
                    connection.execute(statement)
                life.begin()
        self._life = life
        self.log.voids = life.voids
        self._told, self._reached, self._last_row = {}, BEGINNING, (BEGINNING, 0.0)
        self._read_state(connection)

    def _opened_witness(self) -> Witness | None:
        try:
            self._witness.open()
        except OSError as error:
            logger.warning(
                "%s has no witness beside it (%s). If it is put back to an earlier "
                "state, clients are not told",
                *(self.name, error),
            )
            return None
        return self._witness

    def _make_file(self) -> None:
        """Make the file, unless it is there. What is left of one that was deleted must
        not be taken for the new one's, which one process sees to."""
        if os.path.exists(self.path):
            return
        folder = os.path.dirname(self.path)
        if self._makes_folder:
            _make_folder(folder)
        with _locked(folder, self._deadline):
            if os.path.exists(self.path):
                return
            for ending in ("-wal", "-shm", "-journal"):
                with suppress(FileNotFoundError):
                    os.unlink(self.path + ending)
            # SQLite gives the others that it makes beside it the same mode.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, MODE))

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
                connection.execute(self._tables.begin, (new_epoch(), *first))
            self._read_state(connection)
        if wanted and wanted != self._kept:
            connection.execute(self._tables.keep, wanted)
            self._kept = wanted

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._witness.close()
        if connection and self._pid == os.getpid():
            if not self._is_in_place():
                _keep_from_writing(connection, self._tables)
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


def _number_of(channel: str, counts: object) -> int:
    """How many streams of a channel a process has noted; none where that cannot be
    read."""
    try:
        number = json.loads(str(counts)).get(channel, 0)
    except (ValueError, AttributeError):
        return 0
    return number if isinstance(number, int) else 0


def _age(at: object, now: float) -> float:
    return now - at if isinstance(at, (int, float)) else 0.0


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _make_folder(path: str) -> None:
    """Make a folder for its owner alone, and those that it lies in."""
    parent = os.path.dirname(path)
    if parent != path and not os.path.isdir(parent):
        _make_folder(parent)
    with suppress(FileExistsError):
        os.mkdir(path, FOLDER_MODE)


def _keep_from_writing(connection: sqlite3.Connection, tables: Statements) -> None:
    """Have a connection, whose files were taken away, close without bringing its
    write-ahead log into the file: that may be another one by now, or others may have
    written to it."""
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
        return
    # There is something to be brought home, which is then interrupted.
    with suppress(sqlite3.Error):
        connection.execute(tables.set_life, ("left", secrets.token_hex(8)))
    connection.interrupt()


def _is_busy(error: Exception) -> bool:
    """Whether somebody else is just writing. (Python 3.10 shows no error codes.)"""
    text = str(error)
    return isinstance(error, sqlite3.OperationalError) and (
        "locked" in text or text == "locking protocol"
    )


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
def _locked(folder: str, deadline: Deadline) -> Iterator[None]:
    """What is done to a folder by one process at a time.

    :raises BlockingIOError: when another does something until the deadline.
    """
    try:
        import fcntl
    except ImportError:  # Not a Unix.
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not deadline.left:
                    raise
                time.sleep(LONGEST_RETRY)
        yield
    finally:
        os.close(descriptor)


def connect(settings: Settings, folder: str | None) -> SqliteBroker:
    parts = urlsplit(settings.url)
    options = read_options(settings, parts.query)
    synchronous = options.others.pop("synchronous", None)
    if synchronous is None and options.retention:
        synchronous = NORMAL
    is_known = synchronous in (None, NORMAL, FULL)
    path = unquote(parts.path.removeprefix("/"))
    is_path = path not in ("", ":memory:") and "\0" not in path
    if parts.netloc or parts.fragment or options.others or not (is_path and is_known):
        raise InvalidValue(
            f"{settings.url_key} is to be sqlite:///name.db (in the application's "
            "instance folder) or sqlite:////an/absolute/path.db, and takes the options "
            "history, age, prefix and synchronous (normal or full)"
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
        synchronous=synchronous,
    )

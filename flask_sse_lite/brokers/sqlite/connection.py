"""The connection: a process's one way to its SQLite file.

Here lives how a step is taken at the file, and what is done when the file is busy,
broken or gone. One thread at a time uses the connection, for one short step. No thread
waits while it holds the connection: if another process writes, the step is tried again
a moment later, so that the greenlets of a gevent worker go on. What the steps do is
unknown here, except for the file's state, which every connection reads first.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from ...errors import BrokerUnavailable
from ...log_messages import NO_WITNESS
from ...position import BEGINNING, new_epoch
from ...system.chance import CHANCE
from ...system.locks import Guard
from ..deadline import Deadline, OutOfTime
from ..store import Retention, State, Store
from .files import make_file
from .life import StoreLife, TooNew
from .named_files import NamedFiles
from .statements import Statements
from .witness import Witness

#: Seconds between two tries to write while others write: the first and the longest
#: pause. Each is a random part of that.
FIRST_RETRY = 0.0005
LONGEST_RETRY = 0.002

#: Bytes of a page of a new file. A publish, mostly of a small event, writes a few
#: pages. Half of SQLite's own size saves a fifth of what a publish costs.
PAGE_SIZE = 2_048

#: Seconds that a fork waits for the threads that use the connection.
FORK_PATIENCE = 1.0

T = TypeVar("T")


class Wanted(NamedTuple):
    """What a process wants of its file: where it is, and how it must be made or kept.

    ``retention``, ``history_bytes`` and ``synchronous`` (``"normal"`` or ``"full"``)
    hold from now on; None leaves them as the file has them. ``makes_folder`` says
    whether the file's folder is made where it is missing.
    """

    path: str
    prefix: str
    retention: Retention | None = None
    history_bytes: int | None = None
    makes_folder: bool = False
    synchronous: str | None = None


class Connection:
    """A process's connection to its file, which is opened at the first step.

    It has more than 20 methods: one lock guards the connection and the file's state,
    and all that needs this lock is kept in one place.

    :param store: the store that uses the connection.
    """

    def __init__(self, store: Store, wanted: Wanted, tables: Statements) -> None:
        self._store = store
        self._wanted = wanted
        self._tables = tables
        # Held by the thread that uses the connection, or what describes it.
        self._lock = Guard()
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._named_files: NamedFiles | None = None
        self.witness = Witness(wanted.path, wanted.prefix)
        #: The store's life, as this connection found it. Each opening makes a new
        #: object.
        self.life: StoreLife | None = None
        self.epoch = ""
        #: The newest position of the epoch that was given out or seen here; then the
        #: position and the time of the newest row that was read.
        self.reached = BEGINNING
        self.last_row = (BEGINNING, 0.0)
        self.kept = Retention(1, 1)
        #: The thread that forks now, and holds the lock for it.
        self._forking_thread = 0

    @property
    def is_entered(self) -> bool:
        """Whether this thread takes a step, itself or in the code that was
        interrupted."""
        return self._lock.is_entered

    def do(
        self,
        step: Callable[[sqlite3.Connection], T],
        *,
        checks_first: bool = True,
        patience: float | None = None,
    ) -> T:
        """Take a step, and try it again as long as other processes write.

        :param checks_first: whether to check before the step that the file is still
            there.
        :param patience: seconds that this can take; None for the broker's timeout.
        :raises BrokerUnavailable: where the step cannot be taken.
        """
        deadline = self._store.deadline
        if patience is not None:
            deadline = Deadline(min(patience, deadline.left))
        pause = FIRST_RETRY
        while True:
            if not self._lock.acquire(timeout=deadline.left):
                raise OutOfTime(f"{self._store.name} is too slow")
            try:
                self._store.check_open()
                if checks_first and self._connection and not self._is_in_place():
                    self._disconnect()
                return step(self._connection or self._connect())
            except TooNew as error:
                raise BrokerUnavailable(f"{self._store.name} {error}") from None
            except (sqlite3.Error, sqlite3.Warning, OSError) as error:
                if self._can_read_on(error):
                    continue
                if not _is_busy(error):
                    self._disconnect()
                    raise BrokerUnavailable(
                        f"{self._store.name} fails: {error}"
                    ) from error
                if not deadline.left:
                    raise BrokerUnavailable(
                        f"{self._store.name} is kept locked by another process"
                    ) from error
            finally:
                self._lock.release()
            time.sleep(min(CHANCE.uniform(0, pause), deadline.left))
            pause = min(2 * pause, LONGEST_RETRY)

    # The state of the file

    def given_out(
        self, connection: sqlite3.Connection, sequence: int | None
    ) -> tuple[str, int]:
        """Check that all processes can see what was just written, and that it stands at
        a position which was not given out before.

        :returns: the position.
        """
        self.check_in_place()
        position = sequence or 0
        if position <= self.reached:
            # The file has gone back under this connection.
            try:
                with transaction(connection, "IMMEDIATE"):
                    self.renew(connection, self.epoch)
            except sqlite3.Error as error:
                raise BrokerUnavailable(f"{self._store.name} has gone back") from error
        self.reached = position
        self.witness.reach(position)
        return self.epoch, position

    def read_state(self, connection: sqlite3.Connection) -> State:
        """The file's state. A step calls this, and the methods below."""
        row = connection.execute(self._tables.state).fetchone()
        if row is None:
            raise sqlite3.OperationalError("there is no store in it")
        return self.note_state(row)

    def note_state(self, row: Sequence[Any]) -> State:
        """Take over the file's state from a row."""
        epoch, sequence, history, age = row
        if epoch != self.epoch:
            self.epoch, self.reached = epoch, BEGINNING
        self.reached = max(self.reached, sequence)
        self.kept = Retention(history, age)
        return State(epoch, sequence, self.kept)

    def now(self) -> float:
        """The store's clock."""
        return self.life.now() if self.life else time.time()

    def renew(self, connection: sqlite3.Connection, epoch: str) -> None:
        """Begin another life, unless the file has another epoch than this one. The
        caller has opened a transaction that writes."""
        row = (new_epoch(), epoch)
        is_renewed = connection.execute(self._tables.renew, row).rowcount
        # Another process can have been faster. The epoch is then that one's.
        state = self.read_state(connection)
        if is_renewed:
            self.witness.write(state.epoch, state.sequence)

    # The files

    def written_ahead(self) -> int:
        """See ``NamedFiles``. A step calls this."""
        assert self._named_files
        return self._named_files.written_ahead()

    def check_in_place(self) -> None:
        if not self._is_in_place():
            self._disconnect()
            raise BrokerUnavailable(f"{self._store.name} was deleted or replaced")

    def _is_in_place(self) -> bool:
        """Whether the connection's files are still those under their names."""
        return self._named_files is not None and self._named_files.is_same()

    def _can_read_on(self, error: Exception) -> bool:
        """Whether an error comes of text that is not UTF-8, which another program has
        written. If so, such text is read as bytes from now on, and its row counts as an
        entry that cannot be read. (Always checking each text would be too slow.)"""
        connection = self._connection
        is_text = "Could not decode to UTF-8" in str(error)
        if not is_text or not connection or connection.text_factory is _text:
            return False
        connection.text_factory = _text
        return True

    def _connect(self) -> sqlite3.Connection:
        wanted = self._wanted
        make_file(wanted.path, self._store.deadline, makes_folder=wanted.makes_folder)
        connection = sqlite3.connect(
            wanted.path, timeout=0, isolation_level=None, check_same_thread=False
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
            self._named_files = NamedFiles(wanted.path)
            self._go_on(connection)
        except BaseException:
            connection.close()
            self.witness.close()
            raise
        self._connection = connection
        return connection

    def _go_on(self, connection: sqlite3.Connection) -> None:
        """Begin another life of the store, if it does not go on where it was."""
        witness = self._opened_witness()
        wanted = self._wanted.synchronous
        life = StoreLife(connection, self._tables, witness, wanted)
        life.check()
        goes_on = life.fits()
        if life.is_synchronous:
            connection.execute("PRAGMA synchronous = FULL").close()
        if not goes_on:
            with transaction(connection, "IMMEDIATE"):
                self._make_tables(connection)
                life.begin()
        self.life = life
        self._store.view.log.voids = life.voids
        self.reached, self.last_row = BEGINNING, (BEGINNING, 0.0)
        self.read_state(connection)

    def _opened_witness(self) -> Witness | None:
        try:
            self.witness.open()
        except OSError as error:
            NO_WITNESS.log(self._store.name, error, store=self._store.name)
            return None
        return self.witness

    def _set_up(self, connection: sqlite3.Connection) -> None:
        wanted = self._wanted.retention
        try:
            self.read_state(connection)
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                raise
            first = wanted or Retention(256, 300)
            with transaction(connection, "IMMEDIATE"):
                self._make_tables(connection)
                connection.execute(self._tables.begin, (new_epoch(), *first))
            self.read_state(connection)
        if wanted and wanted != self.kept:
            connection.execute(self._tables.keep, wanted)
            self.kept = wanted

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        """Make the tables and the columns that are missing. The caller has opened a
        transaction that writes."""
        for statement in self._tables.schema:
            connection.execute(statement)
        names = connection.execute(self._tables.columns).fetchall()
        if ("trace",) not in names:
            connection.execute(self._tables.add_trace)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self.witness.close()
        if connection and self._pid == os.getpid():
            if not self._is_in_place():
                _keep_from_writing(connection, self._tables)
            connection.close()
        elif connection:
            # Closing the parent's connection would drop this process's own locks.
            _parents.append(connection)

    def close(self) -> None:
        """Close the connection. Nobody uses it any more, or this is a forked child."""
        if self._pid != os.getpid():
            self._disconnect()
            return
        with self._lock:
            self._disconnect()

    # SQLite must not be open during a fork: the child would take the parent's locks for
    # its own.

    def before_fork(self) -> None:
        if self._lock.acquire(timeout=FORK_PATIENCE):
            self._forking_thread = threading.get_ident()
            self._disconnect()

    def after_fork(self) -> None:
        if self._forking_thread == threading.get_ident():
            self._forking_thread = 0
            self._lock.release()


#: The parent's connections in a forked child, which must never be closed as garbage.
_parents: list[sqlite3.Connection] = []


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _keep_from_writing(connection: sqlite3.Connection, tables: Statements) -> None:
    """Have a connection whose files were taken away close without bringing its
    write-ahead log into the file. The file can be another one by now, or other
    processes can have written to it."""
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
        return
    # The connection writes something, and is interrupted before that gets into the
    # file.
    with suppress(sqlite3.Error):
        connection.execute(tables.set_life, ("left", secrets.token_hex(8)))
    connection.interrupt()


def _is_busy(error: Exception) -> bool:
    """Whether another process is writing now. (Python 3.10 shows no error codes.)"""
    text = str(error)
    return isinstance(error, sqlite3.OperationalError) and (
        "locked" in text or text == "locking protocol"
    )


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "") -> Iterator[None]:
    """Do all of a block, or nothing of it."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise

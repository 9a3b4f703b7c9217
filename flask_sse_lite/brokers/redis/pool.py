"""The pool: the connections of one process to its Redis.

Here lives how many connections there are, how long a thread has one, and what the
failure of one says about Redis. What is asked through them is unknown here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ...errors import BrokerUnavailable
from ...position import without_run_names
from ...system.locks import Room
from ..deadline import Deadline, OutOfTime
from ..store import Store
from .links import Link
from .lives import Lives

#: Connections of a process for its commands. Further threads wait until one is free.
MAX_LINKS = 4


class Pool:
    """The connections of one process. Any thread can call any method.

    :param store: the store that uses the connections.
    :param connection_class: redis-py's, and ``options`` for each connection.
    :param lives: tells the server's lives apart.
    """

    def __init__(
        self,
        store: Store,
        connection_class: type,
        options: dict[str, Any],
        lives: Lives,
    ) -> None:
        self._store = store
        self._connection_class = connection_class
        self._options = options
        self._lives = lives
        self._links: set[Link] = set()
        self._idle: list[Link] = []
        self._room = Room(MAX_LINKS)

    @contextmanager
    def link(self) -> Iterator[Link]:
        """A connection for the commands of a block. No other thread uses it
        meanwhile."""
        with self._store.within() as deadline:
            if not self._room.acquire(timeout=deadline.left):
                raise OutOfTime(f"{self._store.name} is too slow")
            try:
                with self.translated(deadline):
                    link = self._idle_link(deadline) or self._new_link(deadline)
                    try:
                        yield link
                    except BaseException as error:
                        self._take_back(link, error)
                        raise
                    self._give_back(link)
            finally:
                self._room.release()

    def _take_back(self, link: Link, error: BaseException) -> None:
        """What becomes of a link whose use has failed. Where no answer has come, it can
        still come, and the link's next user must not read it."""
        is_answered = isinstance(error, ResponseError)
        # A server that is read-only is a replica now: another is the master. (Before
        # Redis 7, the error of a script has that word in its text alone.)
        is_of_replica = isinstance(error, ReadOnlyError) or "READONLY" in str(error)
        if is_answered and not is_of_replica:
            self._give_back(link)
        else:
            self.drop(link)

    def _idle_link(self, deadline: Deadline) -> Link | None:
        while self._idle:
            with suppress(IndexError):
                link = self._idle.pop()
                if link.is_good():
                    link.deadline = deadline
                    return link
                self.drop(link)
        return None

    def _new_link(self, deadline: Deadline) -> Link:
        link = self.open(deadline)
        try:
            self._lives.recognize(link)
        except BaseException:
            self.drop(link)
            raise
        return link

    def _give_back(self, link: Link) -> None:
        if len(self._idle) >= MAX_LINKS:
            # Code that interrupts a command needs no place (see Room), and so can have
            # opened one connection more.
            self.drop(link)
            return
        self._idle.append(link)
        if self._store.closing.is_set():
            self.drop(link)

    def open(self, deadline: Deadline) -> Link:
        """A new connection, which belongs to the caller alone."""
        link = Link(self._connection_class, self._options, deadline)
        self._links.add(link)
        try:
            link.open()
        except BaseException:
            self.drop(link)
            raise
        return link

    def drop(self, link: Link) -> None:
        """Close a connection. A thread that still uses it gets an error."""
        self._links.discard(link)
        link.close()

    @contextmanager
    def translated(self, deadline: Deadline) -> Iterator[None]:
        """Raise ``BrokerUnavailable`` for what fails in the block."""
        was_fair = deadline.is_fair
        try:
            yield
        except (RedisError, OSError) as error:
            is_late = isinstance(error, (TimeoutError, RedisTimeoutError))
            kind = OutOfTime if is_late and not was_fair else BrokerUnavailable
            # Redis's message can have the name of a run's channel, which is a secret.
            raise kind(
                without_run_names(f"{self._store.name} fails: {error}")
            ) from error
        except (AttributeError, ValueError) as error:
            # This is how redis-py reads from a connection that was closed meanwhile.
            if not self._store.closing.is_set():
                raise
            raise BrokerUnavailable(f"{self._store.name} is closed") from error

    def interrupt(self) -> None:
        """End all waits on these connections. They cannot be used any more."""
        for link in list(self._links):
            link.interrupt()

    def close(self) -> None:
        for link in list(self._links):
            self.drop(link)

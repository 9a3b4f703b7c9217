"""The follower: the one thread of a process that feeds its log from a store.

Here lives how a process follows a store. As soon as the process has readers, one daemon
thread (under a monkey-patched gevent, a greenlet) feeds its log with all that is
published, its own events included, in the store's order. What a store has retained of a
channel is loaded when the channel is first wanted. A process that only publishes
follows nothing. How the store is asked is unknown here.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

from ..errors import BrokerUnavailable, Reentered
from ..history.pacing import BREATH
from ..history.records import Past, Record
from ..log_messages import FOLLOWING_FAILED, STORE_AWAY
from ..system.backoff import Backoff
from ..system.chance import CHANCE
from ..system.gevent import is_kill
from ..system.locks import Guard
from .deadline import OutOfTime
from .duties import Duties
from .store import Closing, News, Retention, State, Store

#: Seconds without news after which the store is asked all the same: a publisher can
#: have died after it published and before it told anyone.
LOOK_INTERVAL = 1.0

#: Seconds between two tries to reach a store that is away: the first and the longest
#: pause. Each is spread, so that processes do not come all at once.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0

#: So many looks in a row that get no turn mean that the store is away: the thread whose
#: turn it is hangs in it. Fewer of them prove nothing about the store.
MISSED_TURNS = 3

#: Seconds that ``stop`` waits for the thread to end.
CLOSE_PATIENCE = 5.0

logger = logging.getLogger("flask_sse_lite")


class Follower:
    """How one process follows a store.

    Any thread can call the public methods. Only the thread that holds the lock changes
    the log.

    :param duties: what the thread does besides.
    """

    def __init__(self, store: Store, duties: Duties) -> None:
        self._store = store
        self._log = store.view.log
        self._duties = duties
        # Held by the thread that changes the log: see changing.
        self._lock = Guard()
        #: None until somebody wants a channel.
        self.thread: threading.Thread | None = None
        self.is_attached = False
        #: What the store keeps, as it last told us.
        self.retention = Retention(1, 1)
        #: Whether the store was away when it was last asked.
        self.is_away = False
        #: How often it was away, and is back.
        self.reconnects = 0
        #: When the last look began that fed the log all that the store had.
        self._looked_at = 0.0

    # For any thread

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock, to change the log by what the store says. Nobody waits long
        for a store that is known to be away."""
        if self._store.is_entered:
            # The thread that holds the lock can be waiting for what this thread holds
            # in the store.
            raise Reentered
        is_followers = threading.current_thread() is self.thread
        deadline = self._store.deadline
        failure = None
        if not self._lock.acquire(timeout=deadline.left):
            raise OutOfTime(f"{self._store.name} is too slow")
        try:
            if self.is_away and not is_followers:
                raise BrokerUnavailable(f"{self._store.name} is away")
            if not deadline.left:
                raise OutOfTime(f"{self._store.name} is too slow")
            yield
        except (OutOfTime, Reentered):
            raise  # Neither proves anything about the store.
        except BrokerUnavailable as error:
            failure = error
            raise
        finally:
            self._lock.release()
            # The lock is released first, because a logging handler can publish.
            if failure and self.is_attached:
                self._note_away(failure)

    def attach(self) -> None:
        """Begin to follow, at the store's position, unless this process follows."""
        with self.changing():
            if not self.is_attached:
                self._restart(*self._store.load(self._log.wanted()))
                try:
                    self._start()
                except RuntimeError as error:
                    self.thread = None
                    raise BrokerUnavailable(
                        f"{self._store.name} cannot be listened to: {error}"
                    ) from error
                self.is_attached = True

    def fetch(self, missing: Collection[str]) -> None:
        """Load channels, except those that another thread has loaded meanwhile."""
        with self.changing():
            if missing := self._log.missing(missing):
                self._fetch(missing)

    def look(self, asked_at: float = 0.0) -> bool:
        """Feed what is new in the store, or a piece of it.

        :param asked_at: nothing is done if a complete look has begun since then. So of
            thousands of threads that ask, few must look.
        :returns: whether the log has all that the store has.
        """
        with self.changing():
            if asked_at and self._looked_at >= asked_at:
                return True
            looked_at = time.monotonic()
            if unfed := self._log.unfed():
                self._fetch(unfed)
            news = self._store.news(self._log.sequence)
            if news.epoch == self._log.epoch and news.sequence < self._log.sequence:
                # The store has lost events. New ones would get the ids of those.
                self._store.renew(news.epoch)
                news = news._replace(epoch="")
            if news.epoch != self._log.epoch:
                self._restart(*self._store.load(self._log.wanted()))
                more = False
            else:
                self._take(news)
                more = news.more
            if not more:
                self._looked_at = looked_at
            return not more

    def stop(self) -> None:
        """Wait for the thread's end, when the store is being closed. The thread itself
        can call this too."""
        thread = self.thread
        if thread and thread is not threading.current_thread():
            self._store.interrupt()
            thread.join(CLOSE_PATIENCE)

    # With the lock

    def _start(self) -> None:
        self.thread = threading.Thread(
            target=self._follow,
            args=(os.getpid(), self._store.closing),
            name="flask_sse_lite.follower",
            daemon=True,
        )
        self.thread.start()

    def _restart(self, state: State, pasts: Mapping[str, Past]) -> None:
        self.retention = state.retention
        self._log.restart(
            state.epoch,
            state.sequence,
            pasts,
            history=state.retention.history,
            age=state.retention.age,
        )

    def _fetch(self, channels: Collection[str]) -> None:
        state, pasts = self._store.load(channels)
        if state.epoch != self._log.epoch:
            wanted = {*self._log.wanted(), *channels}
            self._restart(*self._store.load(wanted))
        else:
            self._log.load(pasts)

    def _take(self, news: News) -> None:
        """Feed what is new in this life."""
        for channel, dropped in news.lost.items():
            self._log.lose(channel, dropped)
        for record in news.records:
            self._log.feed(record)
        self._log.advance(news.sequence)

    # In the thread

    def _follow(self, pid: int, closing: Closing) -> None:
        """Follow until the broker is closed. No error ends this."""
        pause, backoff = FIRST_PAUSE, Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        # So many of the last looks, in a row, had waited too long for their turn.
        missed = 0
        while not closing.is_set():
            try:
                _stop_in_child(pid)
                self._store.listen()
                while not closing.is_set():
                    while not self.look():
                        self._do_duties(pid)
                    self._note_back()
                    pause, missed = FIRST_PAUSE, 0
                    self._do_duties(pid)
                    while not (self._hear() or closing.is_set()):
                        self._do_duties(pid)
                    _stop_in_child(pid)
            except BaseException as error:
                # gevent's Timeout and SystemExit are no Exceptions, and come here too.
                _stop_in_child(pid)
                if closing.is_set():
                    return
                missed = missed + 1 if isinstance(error, OutOfTime) else 0
                if not isinstance(error, BrokerUnavailable):
                    # The store can be there, so that the next look can succeed.
                    pause = backoff.next()
                try:
                    if not 0 < missed < MISSED_TURNS:
                        self._note_away(error)
                    closing.wait(pause * CHANCE.uniform(0.5, 1))
                except BaseException as another:
                    # A kill can come while it is logged, and in the pause, too.
                    error = error if is_kill(error) else another
                pause = min(2 * pause, LONGEST_PAUSE)
                _stop_in_child(pid)
                if is_kill(error):
                    # The killer of this greenlet waits for its end, so another goes on.
                    self._start()
                    return

    def _do_duties(self, pid: int) -> None:
        """Do what is due, but never in a forked child: the runs of a parent that is
        dead would seem to live on."""
        _stop_in_child(pid)
        self._duties.do()

    def _hear(self) -> bool:
        """Wait for news, and feed the records that came with it.

        :returns: whether the store must be looked at.
        """
        heard = self._store.wait(LOOK_INTERVAL)
        is_to_look = heard.is_to_look
        for epoch, records in heard.records:
            if self._feed(epoch, records):
                is_to_look = True
        if heard.has_more:
            time.sleep(BREATH)
        return is_to_look or self.is_away

    def _feed(self, epoch: str, records: Iterable[Record]) -> bool:
        """Feed the records that were heard, as long as none is missing before them.

        :returns: whether something was missed, so that the store must be looked at.
        """
        with self.changing():
            if self._log.has_unfed:
                return True
            for record in records:
                if epoch != self._log.epoch or record.sequence > self._log.sequence + 1:
                    return True
                if record.sequence == self._log.sequence + 1:
                    self._log.feed(record)
        return False

    def _note_away(self, error: BaseException) -> None:
        if self._store.closing.is_set():
            return  # A closed store cannot be asked. It is not away.
        was_away, self.is_away = self.is_away, True
        if was_away:
            return
        if isinstance(error, BrokerUnavailable):
            STORE_AWAY.log(error, store=self._store.name)
        else:
            FOLLOWING_FAILED.log(self._store.name, error=error, store=self._store.name)

    def _note_back(self) -> None:
        if self.is_away:
            self.is_away = False
            self.reconnects += 1
            self._duties.be_patient()
            logger.info("%s is back", self._store.name)


def _stop_in_child(pid: int) -> None:
    """Wait forever, if this is a forked child's copy of a greenlet. (The threading
    module would not find it if it ended.)"""
    while os.getpid() != pid:
        threading.Event().wait()

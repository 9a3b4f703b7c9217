"""The follower: the one thread of a process that feeds its log from a store.

Here lives how a process follows a store. As soon as it has readers, one daemon thread
(under a monkey-patched gevent, a greenlet) feeds its log with all that is published,
its own events included, in the store's order; what a channel retained before is loaded
when it is first wanted. A process that only publishes follows nothing. How the store is
spoken to is unknown here.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

from ..errors import BrokerUnavailable, Reentered
from ..history.pacing import BREATH
from ..history.records import Past, Record
from ..system.backoff import Backoff
from ..system.gevent import is_kill
from ..system.locks import Guard
from .deadline import OutOfTime
from .duties import Duties
from .store import Closing, News, Retention, State, Store

#: Seconds without news after which the store is asked all the same: a publisher can
#: have died between publishing and telling.
LOOK_INTERVAL = 1.0

#: Seconds between two tries to reach a store that is away: the first and the longest
#: pause, each spread so that processes do not come all at once.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0

#: Seconds that ``stop`` waits for the thread to end.
CLOSE_PATIENCE = 5.0

logger = logging.getLogger("flask_sse_lite")


class Follower:
    """How one process follows a store.

    Any thread may call the public methods. One at a time changes the log, and holds the
    lock for that.

    :param duties: what the thread does besides.
    """

    def __init__(self, store: Store, duties: Duties) -> None:
        self._store = store
        self._log = store.view.log
        self._duties = duties
        # Whoever changes the log holds this: see changing.
        self._lock = Guard()
        #: None until somebody wants a channel.
        self.thread: threading.Thread | None = None
        self.is_attached = False
        #: What the store keeps, as it was last told.
        self.retention = Retention(1, 1)
        self._is_away = False
        #: When the last look at the store began that brought the log up to it.
        self._looked_at = 0.0

    # For any thread

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Change the log, by what the store says. One at a time; nobody waits long for
        a store that is known to be away."""
        if self._store.is_entered:
            # Whoever holds the lock can be waiting for what this thread has there.
            raise Reentered
        is_followers = threading.current_thread() is self.thread
        deadline = self._store.deadline
        failure = None
        if not self._lock.acquire(timeout=deadline.left):
            raise OutOfTime(f"{self._store.name} is too slow")
        try:
            if self._is_away and not is_followers:
                raise BrokerUnavailable(f"{self._store.name} is away")
            if not deadline.left:
                raise OutOfTime(f"{self._store.name} is too slow")
            yield
        except (OutOfTime, Reentered):
            raise  # Neither says anything of the store.
        except BrokerUnavailable as error:
            failure = error
            raise
        finally:
            self._lock.release()
            # Not before: a handler of the log can publish what it is given.
            if failure and self.is_attached:
                self._note_away(failure)

    def attach(self) -> None:
        """Begin to follow, at the store's position, unless that has begun."""
        with self.changing():
            if not self.is_attached:
                self._restart(*self._store.load(()))
                try:
                    self._start()
                except RuntimeError as error:
                    self.thread = None
                    raise BrokerUnavailable(
                        f"{self._store.name} cannot be listened to: {error}"
                    ) from error
                self.is_attached = True

    def fetch(self, missing: Collection[str]) -> None:
        """Load channels, but those that another thread loads meanwhile."""
        with self.changing():
            if missing := self._log.missing(missing):
                self._fetch(missing)

    def look(self, asked_at: float = 0.0) -> bool:
        """Feed what is new, or a piece of it.

        :param asked_at: nothing is done when a look has begun since then: of thousands
            who ask, few have to.
        :returns: whether the log is up to the store.
        """
        with self.changing():
            if asked_at and self._looked_at >= asked_at:
                return True
            looked_at = time.monotonic()
            if unfed := self._log.unfed():
                self._fetch(unfed)
            news = self._store.news(self._log.sequence)
            if news.epoch == self._log.epoch and news.sequence < self._log.sequence:
                # The store has lost some. What comes next would have the ids of those.
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
        """Have the thread end, where the store is being closed. The thread itself can
        call this, too."""
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
        """It ends with the broker, and for no error."""
        pause, backoff = FIRST_PAUSE, Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while not closing.is_set():
            try:
                self._store.listen()
                while not closing.is_set():
                    while not self.look():
                        self._duties.do()
                    self._note_back()
                    pause = FIRST_PAUSE
                    self._duties.do()
                    while not (self._hear() or closing.is_set()):
                        self._duties.do()
                    _stop_in_child(pid)
            except BaseException as error:
                # Not only an Exception: gevent's Timeout is none, nor is SystemExit.
                _stop_in_child(pid)
                if closing.is_set():
                    return
                self._note_away(error)
                if not isinstance(error, BrokerUnavailable):
                    # The store can well be there, and the next look succeed.
                    pause = backoff.next()
                closing.wait(pause * random.uniform(0.5, 1))
                pause = min(2 * pause, LONGEST_PAUSE)
                _stop_in_child(pid)
                if is_kill(error):
                    # Whoever has killed this greenlet waits for its end.
                    self._start()
                    return

    def _hear(self) -> bool:
        """Wait for news, and feed what is heard in full.

        :returns: whether the store is to be looked at.
        """
        heard = self._store.wait(LOOK_INTERVAL)
        is_to_look = heard.is_to_look
        for epoch, records in heard.records:
            if self._feed(epoch, records):
                is_to_look = True
        if heard.has_more:
            time.sleep(BREATH)
        return is_to_look or self._is_away

    def _feed(self, epoch: str, records: Iterable[Record]) -> bool:
        """Feed what was heard, as long as it is what comes next.

        :returns: whether something was missed, so that the store is to be looked at.
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
        was_away, self._is_away = self._is_away, True
        if was_away:
            return
        if isinstance(error, BrokerUnavailable):
            logger.warning("%s. Open streams wait for it", error)
        else:
            logger.error("Following %s failed", self._store.name, exc_info=error)

    def _note_back(self) -> None:
        if self._is_away:
            self._is_away = False
            self._duties.be_patient()
            logger.info("%s is back", self._store.name)


def _stop_in_child(pid: int) -> None:
    """Go no further, if this is a forked child's copy of a greenlet. (Where it ended,
    the threading module would miss it.)"""
    while os.getpid() != pid:
        threading.Event().wait()

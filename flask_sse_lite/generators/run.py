"""A run: a generator whose output goes to a channel of its own, so that the output
outlives the connection that asked for it.

Here lives how a run begins, goes on, and ends: by itself, when its channel is closed,
when nobody has listened for a while, or when its server stops. How many runs there can
be, runs.py says. How their events reach a client, their channel decides. Flask is
unknown here.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import Context
from enum import Enum

from ..brokers import Broker, Claim
from ..errors import BrokerUnavailable
from ..event import Event
from ..history.log import Log
from ..hub import LONGEST_LOOK, current_hub
from ..own_events import ABANDONED, FAILED, SHUTDOWN
from ..position import RUN_PREFIX
from ..system.poller import Interrupt
from .items import Items

#: Bytes of events between two looks at whether the readers follow; less where less is
#: kept.
PACE = 64 * 1024

#: Seconds between two such looks, while they do not.
PAUSE = 0.02

#: Seconds without any reader's reading after which a run no longer waits for them.
STALL = 10.0

#: Seconds without listeners after which a run is ended of whose output nobody has taken
#: anything, whatever its linger. The first response is sent in that time, and a browser
#: that was cut before the first event comes back (after 3.6 s at most, by default). It
#: is no longer, for a run that nobody waits for holds the place of another.
ARRIVAL = 6.0

#: The name of every thread of a run. A run's own name is its readers' secret, and names
#: of threads stand in logs.
THREAD = "flask_sse_lite.run"

logger = logging.getLogger("flask_sse_lite")


class Phase(Enum):
    """Where a run is.

    ========== ========== ==============================================================
    from       to         when
    ========== ========== ==============================================================
    GOING_ON   ASKING     nobody has listened in this process for the linger
    ASKING     GOING_ON   somebody listens to another process, or the store is away
    ASKING     OVER       nobody listens anywhere
    GOING_ON   STOPPING   the server stops (from ASKING, too)
    STOPPING   OVER       the readers have been told so
    any        OVER       all was said, the generator failed, or the channel was closed
    ========== ========== ==============================================================
    """

    GOING_ON = "going on"
    #: A thread asks the broker whether anybody listens to another process.
    ASKING = "asking"
    #: A thread tells the readers that the server stops.
    STOPPING = "stopping"
    #: The run says nothing more. No other phase follows.
    OVER = "over"


class Run:
    """One generator at work, in a thread or greenlet of its own.

    :param claim: where its output goes.
    :param broker: what carries it there.
    :param items: its output; iterated here and nowhere else.
    :param linger: seconds without listeners after which it is ended.
    :param context: what its generator runs in.
    :param at_exit: called once, when its thread has nothing more to do: a generator
        that waits for another server may hold it for long after the end.
    """

    #: For the hub, which looks at it as often as at anyone.
    heartbeat = LONGEST_LOOK

    #: It is no stream: it goes on when a server in its process is stopped.
    program = None
    settings = None

    def __init__(
        self,
        claim: Claim,
        broker: Broker,
        items: Items,
        *,
        linger: float,
        context: Callable[[], AbstractContextManager[object]],
        at_exit: Callable[[], None],
    ) -> None:
        self.channel = claim.channel
        self.log = broker.log
        self._claim = claim
        self._broker = broker
        self._items = items
        self._events = items.events()
        # Those who listen elsewhere are not known of at once.
        self._linger = max(linger, broker.counting_takes)
        self._arrival = max(ARRIVAL, broker.counting_takes)
        self._budget = claim.budget
        self._pace = min(PACE, claim.budget // 4)
        self._context = context
        self._at_exit = at_exit
        self._pid = os.getpid()
        # Who takes this lock has ended the run. The lock is never given back.
        self._end = threading.Lock()
        # Any phase but OVER. Two threads that write it at once do no harm: a run that
        # is stopped twice still ends once.
        self._phase = Phase.GOING_ON
        # Whether the run's thread is in the generator's hands: then an interrupt
        # reaches the generator and none of this code. Every phase knows both.
        self._is_stepping = False
        self._interrupt: Interrupt | None = None
        self._heard_at = time.monotonic()
        self._expects_until = self._heard_at + ARRIVAL
        # Somebody has listened and taken something of it.
        self._is_taken = False
        # Since when nobody is known of to listen anywhere.
        self._unheard_since: float | None = None

    @property
    def phase(self) -> Phase:
        return Phase.OVER if self._end.locked() else self._phase

    @property
    def _is_over(self) -> bool:
        return self._end.locked()

    def begin(self) -> None:
        """:raises RuntimeError: when there can be no thread for it."""
        try:
            current_hub().keep_time(self)
            self.log.watch((self.channel,), self._look_for_end)
            self._look_for_end()  # It may have come before it was watched for.
            threading.Thread(
                # A thread may inherit the context of the request. This is not for it.
                target=Context().run,
                args=[self._produce],
                name=THREAD,
                daemon=True,
            ).start()
        except BaseException:
            self._finish(FAILED)
            self._at_exit()
            raise

    # Its own thread

    def _produce(self) -> None:
        self._interrupt = Interrupt()
        try:
            with self._context():
                self._publish_all()
        except BaseException:
            logger.exception("A run's application context failed")
        finally:
            try:
                self._items.close()  # It may never have been asked for anything.
            finally:
                try:
                    self._finish(FAILED)
                finally:
                    self._at_exit()

    def _publish_all(self) -> None:
        unpaced = 0
        try:
            while (event := self._next()) and (size := self._say(event)):
                unpaced += size
                if unpaced >= self._pace:
                    unpaced = 0
                    self._wait_for_readers()
        except GeneratorExit:
            # It was interrupted, as nobody wants it any more: then it is over, and this
            # says nothing. Or it raised this itself.
            self._finish(FAILED)
        except BrokerUnavailable as error:
            logger.error("A run is broken off: %s", error)
            self._finish(None)  # The broker knows, and says that the run is lost.
        except BaseException:
            # Not only an Exception: gevent's Timeout is none.
            logger.exception("A run could not go on")
            self._finish(FAILED)
        finally:
            self._close()
            self._finish(None)

    def _say(self, event: Event) -> int:
        """Publish an event, unless the run is over.

        :returns: its size.
        """
        if event.id is not None and self.channel.startswith(RUN_PREFIX):
            # By its id, a browser that comes back finds this run.
            event = Event(event.data, event.type, None, event.retry)
        if self._is_over:
            return 0
        said = self._broker.say(self._claim, event)
        return len(said.encode()) if said else 0

    def _next(self) -> Event | None:
        self._is_stepping = True
        try:
            self._stay_at_home()
            return None if self._is_over else next(self._events, None)
        finally:
            self._is_stepping = False
            self._stay_at_home()

    def _stay_at_home(self) -> None:
        """Under gevent, a forked child has a copy of the greenlet. That stands still:
        all that it could read, say and close is its parent's."""
        while os.getpid() != self._pid:
            time.sleep(LONGEST_LOOK)

    def _wait_for_readers(self) -> None:
        """Where output comes faster than clients take it, it would be dropped before
        they have read it."""
        since, before = time.monotonic(), self.log.unread(self.channel)
        while before * 2 > self._budget and not self._is_over and self._is_followed():
            time.sleep(PAUSE)
            unread = self.log.unread(self.channel)
            if unread < before:
                since, before = time.monotonic(), unread
            elif time.monotonic() - since > STALL:
                return

    def _close(self) -> None:
        try:
            self._events.close()
        except BaseException:  # Of gevent's, some are no Exception.
            logger.exception("A run's generator failed at its close")

    def _is_followed(self) -> bool:
        """Whether anyone listens, or is about to."""
        if self._has_listeners():
            self._expects_until = 0.0
        return self._has_listeners() or time.monotonic() < self._expects_until

    # Anyone's

    def _has_listeners(self) -> bool:
        return current_hub().listeners(self.log, self.channel) > 0

    def tick(self, now: float) -> None:
        """The hub's look: does anyone listen?"""
        if self._has_listeners():
            self._note_heard(now)
            # Who stays long enough to be seen, and has been given something, took it.
            self._is_taken = self._is_taken or self.log.has_been_read(self.channel)
            return
        patience = self._linger if self._is_taken else self._arrival
        if now - self._heard_at >= patience and self.phase is Phase.GOING_ON:
            # The broker can take its time to answer, and the hub waits for nothing.
            thread = threading.Thread(
                target=self._end_unheard, name=THREAD, daemon=True
            )
            self._phase = Phase.ASKING
            try:
                thread.start()
            except RuntimeError:
                # There are too many threads. The hub's next look tries again.
                self._phase = Phase.GOING_ON

    def _note_heard(self, now: float) -> None:
        self._heard_at = now
        self._unheard_since = None

    def _end_unheard(self) -> None:
        """End it, unless anybody listens to another process. What is known of these
        may be lost by the store: then they are counted anew before long."""
        try:
            listeners = self._broker.subscribers(self.channel)
        except BrokerUnavailable:
            return  # The hub's next look asks again.
        finally:
            if self._phase is Phase.ASKING:
                self._phase = Phase.GOING_ON
        now = time.monotonic()
        if listeners:
            self._is_taken = True
            self._note_heard(now)
            return
        if self._unheard_since is None:
            self._unheard_since = now
        if now - self._unheard_since >= self._broker.counting_takes:
            self._end_early(ABANDONED)

    @property
    def last_words(self) -> tuple[Log, str] | None:
        return None if self._is_over else (self.log, self.channel)

    def stop(self, patience: float | None = None) -> None:
        """The server stops. The broker can take its time to say so, too."""
        if self.phase in (Phase.STOPPING, Phase.OVER):
            return
        self._phase = Phase.STOPPING
        thread = threading.Thread(
            target=self._end_early, args=[SHUTDOWN], name=THREAD, daemon=True
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            self._end_early(SHUTDOWN)  # The interpreter begins no other thread now.

    def _look_for_end(self) -> None:
        """The log's call, for each event: was the channel closed?"""
        epoch, start = self._claim.began
        if self._is_over or epoch != self.log.epoch:
            return
        if self.log.was_ended(self.channel, start):
            self._end_early(None)

    def _end_early(self, reason: Event | None) -> None:
        # Only once: a second interrupt would end the cleaning up after the first.
        if self._finish(reason) and self._interrupt:
            self._interrupt(lambda: self._is_stepping)

    def _finish(self, reason: Event | None) -> bool:
        """Tell the readers that this is the end, once.

        :param reason: why, if it is not because all was said.
        :returns: whether they had not been told.
        """
        if not self._end.acquire(blocking=False):
            return False
        current_hub().forget(self)
        self.log.unwatch((self.channel,), self._look_for_end)
        try:
            self._broker.end_run(self._claim, reason)
        except BrokerUnavailable as error:
            logger.error(
                "The end of a run could not be told: %s. Whoever reads the run is told "
                "that it is lost, when the broker is back",
                error,
            )
        except Exception:
            logger.exception("The end of a run could not be told")
        return True

"""A run: a generator whose output goes to a channel of its own, so that the output
outlives the connection that asked for it.

Here lives how a run begins, goes on, and ends: by itself, when its channel is closed,
when nobody has listened for a while, or when its server stops. How many runs there can
be lives in runs.py. Flask, and how events reach a client, are unknown here.
"""

from __future__ import annotations

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
from ..log_messages import (
    RUN_BROKEN_OFF,
    RUN_CONTEXT_FAILED,
    RUN_END_FAILED,
    RUN_END_UNTOLD,
    RUN_FAILED,
    RUN_NOT_CLOSED,
    RUN_UNASKED,
)
from ..own_events import ABANDONED, FAILED, SHUTDOWN
from ..position import RUN_PREFIX
from ..signals import RunEndReason
from ..signals.story import RunStory
from ..system.poller import Interrupt
from .items import Items

#: Bytes of events after which a run checks whether its readers keep up. A run with a
#: small budget checks more often.
PACE = 64 * 1024

#: Seconds between two such checks while the readers do not keep up.
PAUSE = 0.02

#: Seconds in which no reader reads anything, after which a run stops waiting for them.
STALL = 10.0

#: Seconds without listeners after which a run is ended if no client has taken any of
#: its output, whatever its linger. In that time, the first response is sent, and a
#: browser that was cut before the first event comes back (by default after 3.6 s at
#: most). It is not longer, because a run that nobody waits for takes another's place.
ARRIVAL = 6.0

#: The name of every thread of a run. It does not contain the run's own name, which only
#: the run's readers must know: names of threads stand in logs.
THREAD = "flask_sse_lite.run"


class Phase(Enum):
    """What a run does now.

    ========== ========== ==============================================================
    from       to         when
    ========== ========== ==============================================================
    GOING_ON   ASKING     nobody has listened in this process for the linger
    ASKING     GOING_ON   somebody listens to another process, or the store is away
    ASKING     OVER       nobody listens anywhere
    GOING_ON   STOPPING   the server stops (from ASKING, too)
    STOPPING   OVER       the readers have been told that the server stops
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

    :param claim: the right to feed its channel.
    :param broker: publishes its output.
    :param items: its output; iterated here and nowhere else.
    :param linger: seconds without listeners after which it is ended.
    :param context: makes the context in which its generator runs.
    :param at_exit: called once, when its thread has nothing more to do. That can be
        long after the end, if the generator waits for another server.
    :param story: tells receivers that the run begins and ends, if there are any.
    """

    #: Seconds in which the hub looks at a run ``LOOKS_PER_HEARTBEAT`` times.
    heartbeat = LONGEST_LOOK

    #: None, because a run is no stream: it goes on when a server in its process is
    #: stopped.
    program = None
    settings = None
    story = None

    def __init__(
        self,
        claim: Claim,
        broker: Broker,
        items: Items,
        *,
        linger: float,
        context: Callable[[], AbstractContextManager[object]],
        at_exit: Callable[[], None],
        story: RunStory | None = None,
    ) -> None:
        self.channel = claim.channel
        self.log = broker.log
        self._claim = claim
        self._broker = broker
        self._items = items
        self._events = items.events()
        # The broker does not know at once who listens to other processes.
        self._linger = max(linger, broker.counting_takes)
        self._arrival = max(ARRIVAL, broker.counting_takes)
        self._budget = claim.budget
        self._pace = min(PACE, claim.budget // 4)
        self._context = context
        self._at_exit = at_exit
        self._told = story
        self._pid = os.getpid()
        # The thread that takes this lock ends the run. The lock is never released.
        self._end = threading.Lock()
        # Any phase but OVER. Two threads that write it at once do no harm: a run that
        # is stopped twice still ends once.
        self._phase = Phase.GOING_ON
        # Whether the run's thread is inside the generator. Only then can it be
        # interrupted, so that none of our own code is. It can be True in any phase.
        self._is_stepping = False
        self._interrupt: Interrupt | None = None
        self._heard_at = time.monotonic()
        self._expects_until = self._heard_at + ARRIVAL
        # Whether a client has listened, and taken some of the output.
        self._is_taken = False
        # Since when the broker knows of no listener in any process.
        self._unheard_since: float | None = None

    @property
    def phase(self) -> Phase:
        return Phase.OVER if self._end.locked() else self._phase

    @property
    def _is_over(self) -> bool:
        return self._end.locked()

    def begin(self) -> None:
        """:raises RuntimeError: where no thread can be started for it."""
        if self._told is not None:
            self._told.begin()
        try:
            current_hub().keep_time(self)
            self.log.watch((self.channel,), self._look_for_end)
            self._look_for_end()  # The end can have come before that line.
            threading.Thread(
                # A thread can inherit the request's context, which a run must not have.
                target=Context().run,
                args=[self._produce],
                name=THREAD,
                daemon=True,
            ).start()
        except BaseException:
            self._finish(FAILED, "error")
            self._at_exit()
            raise

    # Its own thread

    def _produce(self) -> None:
        self._interrupt = Interrupt()
        try:
            with self._context():
                self._publish_all()
        except BaseException:
            RUN_CONTEXT_FAILED.log(error=True)
        finally:
            try:
                self._items.close()  # Perhaps the generator was never begun.
            finally:
                try:
                    self._finish(FAILED, "error")
                finally:
                    self._at_exit()

    def _publish_all(self) -> None:
        unpaced = 0
        why: RunEndReason = "completed"
        try:
            while event := self._next():
                size = self._say(event)
                if not size:
                    why = "closed"
                    break
                if self._told is not None:
                    self._told.note(size)
                unpaced += size
                if unpaced >= self._pace:
                    unpaced = 0
                    self._wait_for_readers()
        except GeneratorExit:
            # Either the run was interrupted: it is over, and this does nothing. Or the
            # generator has raised GeneratorExit itself.
            self._finish(FAILED, "error")
        except BrokerUnavailable as error:
            RUN_BROKEN_OFF.log(error)
            # The broker tells the readers that the run is lost.
            self._finish(None, "lost")
        except BaseException:
            # gevent's Timeout is no Exception, and comes here too.
            RUN_FAILED.log(error=True)
            self._finish(FAILED, "error")
        finally:
            self._close()
            self._finish(None, "error" if self._items.has_failed else why)

    def _say(self, event: Event) -> int:
        """Publish an event, unless the run is over.

        :returns: its size.
        """
        if event.id is not None and self.channel.startswith(RUN_PREFIX):
            # A browser that comes back finds this run by the id that the broker gives.
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
        """Wait forever, if this is a copy of the greenlet, which a forked child has
        under gevent: all that it could read, say and close is the parent's."""
        while os.getpid() != self._pid:
            time.sleep(LONGEST_LOOK)

    def _wait_for_readers(self) -> None:
        """Wait until the readers keep up. Output that comes faster than they take it
        would be dropped before they have read it."""
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
        except BaseException:  # Some of gevent's are no Exception.
            RUN_NOT_CLOSED.log(error=True)

    def _is_followed(self) -> bool:
        """Whether a client listens, or is expected soon."""
        if self._has_listeners():
            self._expects_until = 0.0
        return self._has_listeners() or time.monotonic() < self._expects_until

    # For any thread

    def _has_listeners(self) -> bool:
        return current_hub().listeners(self.log, self.channel) > 0

    def tick(self, now: float) -> None:
        """End the run, if nobody has listened for long enough. The hub calls this."""
        if self._has_listeners():
            self._note_heard(now)
            # A client that is here at a look, after something was read, has taken it.
            self._is_taken = self._is_taken or self.log.has_been_read(self.channel)
            return
        patience = self._linger if self._is_taken else self._arrival
        if now - self._heard_at >= patience and self.phase is Phase.GOING_ON:
            # A thread asks the broker, which can be slow. The hub must not wait.
            thread = threading.Thread(
                target=self._end_unheard, name=THREAD, daemon=True
            )
            self._phase = Phase.ASKING
            try:
                thread.start()
            except (RuntimeError, MemoryError):
                # There are too many threads. The hub's next look tries again.
                self._phase = Phase.GOING_ON

    def _note_heard(self, now: float) -> None:
        self._heard_at = now
        self._unheard_since = None

    def _end_unheard(self) -> None:
        """End the run, unless a client listens to another process. The store can have
        lost the counts of these clients, and gets them anew within
        ``counting_takes``."""
        try:
            listeners = self._broker.subscribers(self.channel)
        except BrokerUnavailable:
            return  # The hub's next look asks again.
        except Exception:
            RUN_UNASKED.log(error=True)
            self._note_heard(time.monotonic())
            return
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
            self._end_early(ABANDONED, "abandoned")

    @property
    def last_words(self) -> tuple[Log, str] | None:
        return None if self._is_over else (self.log, self.channel)

    def stop(self, patience: float | None = None) -> None:
        """End the run, because the server stops. A thread tells the readers, because
        the broker can be slow."""
        if self.phase in (Phase.STOPPING, Phase.OVER):
            return
        self._phase = Phase.STOPPING
        thread = threading.Thread(
            target=self._end_early,
            args=[SHUTDOWN, "shutdown"],
            name=THREAD,
            daemon=True,
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            # The interpreter starts no threads any more.
            self._end_early(SHUTDOWN, "shutdown")

    def _look_for_end(self) -> None:
        """End the run, if its channel was closed. The log calls this at each event."""
        epoch, start = self._claim.began
        if self._is_over or epoch != self.log.epoch:
            return
        if self.log.was_ended(self.channel, start):
            self._end_early(None, "closed")

    def _end_early(self, reason: Event | None, why: RunEndReason) -> None:
        # Only once: a second interrupt would break off the cleaning up.
        if self._finish(reason, why) and self._interrupt:
            self._interrupt(lambda: self._is_stepping)

    def _finish(self, reason: Event | None, why: RunEndReason) -> bool:
        """End the run, once, and tell its readers.

        :param reason: what the readers are told right before the end, if anything.
        :param why: what receivers of signals are told.
        :returns: whether this call has ended the run.
        """
        if not self._end.acquire(blocking=False):
            return False
        current_hub().forget(self)
        self.log.unwatch((self.channel,), self._look_for_end)
        try:
            self._broker.end_run(self._claim, reason)
        except BrokerUnavailable as error:
            RUN_END_UNTOLD.log(error)
        except Exception:
            RUN_END_FAILED.log(error=True)
        if self._told is not None:
            self._told.end(why)
        return True

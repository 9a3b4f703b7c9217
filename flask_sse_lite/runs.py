"""Runs: generators whose output goes to a channel of its own, so that it outlives the
connection that asked for it.

Here lives how a run begins, goes on, and ends: by itself, when its channel is closed,
when nobody has listened for a while, or when its server stops. How its events reach
anyone is the channel's affair. Flask is unknown here.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import Context

from .brokers import Broker, Claim
from .cursor import RUN_PREFIX
from .errors import BrokerUnavailable
from .event import Event, own_event
from .hub import LONGEST_LOOK, current_hub
from .items import Items
from .log import Log
from .poller import Interrupt, is_patched_by_gevent

#: Runs at once in a process of native threads, of which each costs one. Under gevent
#: they cost a greenlet, and there is no bound.
MAX_RUNS_ON_THREADS = 100

#: Bytes of events between two looks at whether the readers follow; less where less is
#: kept.
PACE = 64 * 1024

#: Seconds between two such looks, while they do not.
PAUSE = 0.02

#: Seconds without any reader's reading after which a run no longer waits for them.
STALL = 10.0

#: Seconds that the first reader may take to come, however short the linger: the
#: response that it reads is still to be sent.
ARRIVAL = 10.0

logger = logging.getLogger("flask_sse_lite")


class TooManyRuns(Exception):
    """There is no room for another one now."""


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

    def __init__(
        self,
        claim: Claim,
        broker: Broker,
        items: Items,
        *,
        linger: float,
        context: Callable[[], AbstractContextManager[object]],
        at_exit: Callable[[Run], None],
    ) -> None:
        self.channel = claim.channel
        self.log = broker.log
        self._claim = claim
        self._broker = broker
        self._items = items
        self._events = items.events()
        # Those who listen elsewhere are not known of at once.
        self._linger = max(linger, broker.counting_takes)
        self._budget = claim.budget
        self._pace = min(PACE, claim.budget // 4)
        self._context = context
        self._at_exit = at_exit
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._is_over = False
        # It is being ended for want of listeners, if there are none elsewhere; or as
        # the server stops.
        self._is_ending = self._is_stopping = False
        # While this holds, its thread is in the generator's hands.
        self._is_stepping = False
        self._interrupt: Interrupt | None = None
        self._expects_until = time.monotonic() + ARRIVAL
        self._heard_at = max(self._expects_until - linger, time.monotonic())

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
                name=f"flask_sse_lite.run {self.channel}",
                daemon=True,
            ).start()
        except BaseException:
            self._finish("error")
            self._at_exit(self)
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
                    self._finish("error")
                finally:
                    self._at_exit(self)

    def _publish_all(self) -> None:
        unpaced = 0
        try:
            while (event := self._next()) and (size := self._say(event)):
                unpaced += size
                if unpaced >= self._pace:
                    unpaced = 0
                    self._wait_for_readers()
        except GeneratorExit:
            pass  # It was interrupted, as nobody wants it any more.
        except BaseException:
            # Not only an Exception: gevent's Timeout is none.
            logger.exception("A run could not go on")
            self._finish("error")
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
            self._heard_at = now
        elif now - self._heard_at >= self._linger and not self._is_ending:
            # To ask and to say so may take its time, and the hub has none.
            thread = threading.Thread(target=self._end_unheard, daemon=True)
            self._is_ending = True
            try:
                thread.start()
            except RuntimeError:
                self._is_ending = False  # There are too many. There is the next look.

    def _end_unheard(self) -> None:
        """End it, unless anybody listens to another process."""
        try:
            if self._broker.subscribers(self.channel):
                self._heard_at = time.monotonic()
                return
        except BrokerUnavailable:
            return  # There is the next look.
        finally:
            self._is_ending = False
        self._end_early(None)

    @property
    def last_words(self) -> tuple[Log, str] | None:
        return None if self._is_over else (self.log, self.channel)

    def stop(self) -> None:
        """The server stops. To say so may take its time, too."""
        if self._is_stopping:
            return
        self._is_stopping = True
        thread = threading.Thread(
            target=self._end_early, args=["shutdown"], daemon=True
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            self._end_early("shutdown")  # The interpreter begins no other thread now.

    def _look_for_end(self) -> None:
        """The log's call, for each event: was the channel closed?"""
        epoch, start = self._claim.began
        if self._is_over or epoch != self.log.epoch:
            return
        if self.log.was_ended(self.channel, start):
            self._end_early(None)

    def _end_early(self, reason: str | None) -> None:
        # Only once: a second interrupt would end the cleaning up after the first.
        if self._finish(reason) and self._interrupt:
            self._interrupt(lambda: self._is_stepping)

    def _finish(self, reason: str | None) -> bool:
        """Tell the readers that this is the end, once.

        :param reason: why, if it is not because all was said.
        :returns: whether they had not been told.
        """
        with self._lock:
            if self._is_over:
                return False
            self._is_over = True
        current_hub().forget(self)
        self.log.unwatch((self.channel,), self._look_for_end)
        try:
            try:
                if reason:
                    told = own_event("error", f'{{"reason": "{reason}"}}')
                    self._broker.say(self._claim, told)
            finally:
                self._broker.end_run(self._claim)
        except Exception:
            logger.exception("The end of a run could not be told")
        return True


class Runs:
    """The runs of an application in this process. Thread-safe."""

    def __init__(self) -> None:
        #: Those that have a thread, or are to have one.
        self._at_work: set[object] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._at_work)

    def begin(
        self,
        channel: str,
        broker: Broker,
        items: Items,
        *,
        linger: float,
        budget: int,
        limit: int | None,
        context: Callable[[], AbstractContextManager[object]],
    ) -> None:
        """Start a run, unless one goes on in this channel: then its items are closed.

        :param limit: how many there may be at once; None for what suits the process.
        :raises TooManyRuns: when there are that many.
        """
        if limit is None and not is_patched_by_gevent():
            limit = MAX_RUNS_ON_THREADS
        place = object()
        with self._lock:
            if limit is not None and len(self._at_work) >= limit:
                raise TooManyRuns
            self._at_work.add(place)
        try:
            claim = broker.begin_run(channel, budget)
            if claim is None:
                items.close()
                return
            run = Run(
                claim,
                broker,
                items,
                linger=linger,
                context=context,
                at_exit=self._at_work.discard,
            )
            self._at_work.add(run)
        finally:
            self._at_work.discard(place)
        try:
            run.begin()
        except RuntimeError as error:
            raise TooManyRuns from error


def new_channel() -> str:
    """A channel for one run alone. Its name cannot be guessed: 128 random bits."""
    return RUN_PREFIX + secrets.token_urlsafe(16)

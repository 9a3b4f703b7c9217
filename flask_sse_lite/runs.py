"""Runs: generators whose output goes to a channel of its own, so that it outlives the
connection that asked for it.

Here lives how a run begins, goes on, and ends: by itself, when its channel is closed,
when nobody has listened for a while, or when its server stops. How its events reach
anyone is the channel's affair. Flask is unknown here.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from .brokers import Broker
from .cursor import RUN_PREFIX
from .event import Event, own_event
from .hub import LONGEST_LOOK, current_hub
from .items import Items
from .poller import Interrupt, is_patched_by_gevent

#: Runs at once in a process of native threads, of which each costs one. Under gevent
#: they cost a greenlet, and there is no bound.
MAX_RUNS_ON_THREADS = 100

#: Bytes of events between two looks at whether the readers follow.
PACE = 64 * 1024

#: Seconds between two such looks, while they do not.
PAUSE = 0.02

#: Seconds without any reader's reading after which a run no longer waits for them.
STALL = 10.0

logger = logging.getLogger("flask_sse_lite")


class TooManyRuns(Exception):
    """There is no room for another one now."""


class Run:
    """One generator at work, in a thread or greenlet of its own.

    :param channel: where its output goes.
    :param broker: what carries it there.
    :param items: its output; iterated here and nowhere else.
    :param linger: seconds without listeners after which it is ended.
    :param budget: bytes that are kept of its output.
    :param context: what its generator runs in.
    :param at_end: called once, when it is over.
    """

    #: For the hub, which looks at it as often as at anyone.
    heartbeat = LONGEST_LOOK

    def __init__(
        self,
        channel: str,
        broker: Broker,
        items: Items,
        *,
        linger: float,
        budget: int,
        context: Callable[[], AbstractContextManager[object]],
        at_end: Callable[[], None],
    ) -> None:
        self.channel = channel
        self.log = broker.log
        #: Where the log stood before its first event.
        self.start = self.log.sequence
        self._broker = broker
        self.items = items
        self._events = items.events()
        self._linger = linger
        self._budget = budget
        self._context = context
        self._at_end = at_end
        self._lock = threading.Lock()
        self._is_over = False
        # While this holds, its thread is in the generator's hands.
        self._is_stepping = False
        self._interrupt: Interrupt | None = None
        self._heard_at = time.monotonic()

    def begin(self) -> None:
        self.log.hold(self.channel, self._budget)
        self.log.watch((self.channel,), self._look_for_end)
        current_hub().keep_time(self)
        threading.Thread(
            target=self._produce, name=f"flask_sse_lite.run {self.channel}", daemon=True
        ).start()

    # Its own thread

    def _produce(self) -> None:
        self._interrupt = Interrupt()
        with self._context():
            try:
                self._publish_all()
            except GeneratorExit:
                pass  # It was interrupted, as nobody wants it any more.
            except Exception:
                logger.exception("A run could not go on")
                self._finish("error")
            finally:
                self._close_events()
                self._finish(None)

    def _publish_all(self) -> None:
        unpaced = 0
        while (event := self._next()) is not None:
            unpaced += len(self._broker.publish(self.channel, event).encode())
            if self._is_over:
                # Its end came in between, and that was to be the last word.
                self._broker.end(self.channel)
            elif unpaced >= PACE:
                unpaced = 0
                self._wait_for_readers()

    def _next(self) -> Event | None:
        self._is_stepping = True
        try:
            return None if self._is_over else next(self._events, None)
        finally:
            self._is_stepping = False

    def _wait_for_readers(self) -> None:
        """Where output comes faster than clients take it, it would be dropped before
        they have read it."""
        since, before = time.monotonic(), self.log.unread(self.channel)
        while before * 2 > self._budget and not self._is_over and self._has_listeners():
            time.sleep(PAUSE)
            unread = self.log.unread(self.channel)
            if unread < before:
                since, before = time.monotonic(), unread
            elif time.monotonic() - since > STALL:
                return

    def _close_events(self) -> None:
        try:
            self._events.close()
        except Exception:
            logger.exception("A run's generator failed at its close")

    # Anyone's

    def _has_listeners(self) -> bool:
        return current_hub().listeners(self.log, self.channel) > 0

    def tick(self, now: float) -> None:
        """The hub's look: does anyone listen?"""
        if self._has_listeners():
            self._heard_at = now
        elif now - self._heard_at >= self._linger and not self._is_over:
            # To say so may take its time, and the hub has none.
            threading.Thread(target=self._end_early, args=[None], daemon=True).start()

    def stop(self) -> None:
        """The server stops."""
        self._end_early("shutdown")

    def _look_for_end(self) -> None:
        """The log's call, for each event: was the channel closed?"""
        if not self._is_over and self.log.has_ended(self.channel):
            self._end_early(None)

    def _end_early(self, reason: str | None) -> None:
        self._finish(reason)
        if self._interrupt:
            self._interrupt(lambda: self._is_stepping)

    def _finish(self, reason: str | None) -> None:
        """Tell the readers that this is the end, once.

        :param reason: why, if it is not because all was said.
        """
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
        current_hub().forget(self)
        self.log.unwatch((self.channel,), self._look_for_end)
        try:
            if not self.log.has_ended(self.channel):
                if reason:
                    told = own_event("error", f'{{"reason": "{reason}"}}')
                    self._broker.publish(self.channel, told)
                self._broker.end(self.channel)
        except Exception:
            logger.exception("The end of a run could not be told")
        finally:
            self._at_end()


class Runs:
    """The runs of an application in this process. Thread-safe."""

    def __init__(self) -> None:
        self._running: dict[str, Run] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._running)

    def get(self, channel: str) -> Run | None:
        """The run that feeds a channel, if it goes on."""
        return self._running.get(channel)

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
        with self._lock:
            if channel in self._running:
                items.close()
                return
            if limit is not None and len(self._running) >= limit:
                raise TooManyRuns
            run = self._running[channel] = Run(
                channel,
                broker,
                items,
                linger=linger,
                budget=budget,
                context=context,
                at_end=lambda: self._forget(channel),
            )
        try:
            run.begin()
        except BaseException:
            self._forget(channel)
            raise

    def _forget(self, channel: str) -> None:
        self._running.pop(channel, None)


def new_channel() -> str:
    """A channel for one run alone. Its name cannot be guessed: 128 random bits."""
    return RUN_PREFIX + secrets.token_urlsafe(16)

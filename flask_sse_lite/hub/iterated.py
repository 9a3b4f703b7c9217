"""A stream that its WSGI server iterates to the end.

Here lives how the server's thread or greenlet sleeps until its cursor is behind, and
then takes all that came in one piece; and how the hub has the stream send a sign of
life, or end. How a stream begins is never known here (subscription.py).

Where a stream is, ``IteratedStream.phase`` says:

========= ========= ================================================================
from      to        when
========= ========= ================================================================
GOING_ON  STOPPING  the hub has the stream end: the server stops, ``SSE_MAX_AGE`` is
                    reached, or the client takes nothing
any       OVER      the end of the channels was sent, or (from STOPPING) all that was
                    published; or the stream was closed
========= ========= ================================================================

What the stream owes its client, ``Beat`` says:

========= ========= ================================================================
from      to        when
========= ========= ================================================================
any       SPOKE     the server's thread sends events
SPOKE     QUIET     the hub sees that events were sent
QUIET     DUE       the hub sees that nothing was sent for a heartbeat's time
DUE       QUIET     the server's thread sends a sign of life
========= ========= ================================================================
"""

from __future__ import annotations

import threading
import time
from enum import Enum
from typing import Any

from ..event import HEARTBEAT
from ..history.cursor import Cursor
from ..history.log import Log
from ..servers.programs import Program
from ..servers.server import Reason
from ..settings import Settings
from ..signals.story import Story, expect
from .client import NOBODY, Client
from .frames import BATCH_BYTES, POSITION_INTERVAL, frames, position_event
from .looks import DUE_SHARE
from .stall import Progress


class Phase(Enum):
    """Where an iterated stream is."""

    GOING_ON = "going on"
    #: The stream sends what there is, and then ends.
    STOPPING = "stopping"
    #: The next step is the end. No other phase follows.
    OVER = "over"


class Beat(Enum):
    """What was sent since the hub last looked, or must be sent."""

    QUIET = "quiet"
    SPOKE = "spoke"
    DUE = "due"


# To look a member up in its class takes Python 3.11 ten times as long as to find one of
# these, and they are looked at for every event.
_STOPPING, _SPOKE, _DUE = Phase.STOPPING, Beat.SPOKE, Beat.DUE


class IteratedStream:
    """The part of a subscription that follows its opening: an iterator of bytes.

    One thread iterates it. Any thread can call ``wake``, ``tick``, ``stop`` and
    ``end``; each of them ends a wait of that thread.

    :param end: a lock. Whoever takes it has ended the stream; it is never given back.
    :param sock: the connection's socket, as far as that is known.
    :param story: what is told of the stream, if anything is.
    """

    __slots__ = (
        "_asleep",
        "_beat",
        "_cursor",
        "_end",
        "_expires",
        "_is_in_main_thread",
        "_named",
        "_named_at",
        "_phase",
        "_progress",
        "_revocations_seen",
        "_sent_at",
        "client",
        "log",
        "path_reason",
        "program",
        "settings",
        "story",
    )

    #: None: the end of the stream is enough.
    last_words = None

    def __init__(
        self,
        log: Log,
        cursor: Cursor,
        settings: Settings,
        *,
        end: threading.Lock,
        program: Program | None,
        sock: Any,
        client: Client = NOBODY,
        story: Story | None = None,
    ) -> None:
        now = time.monotonic()
        self.log = log
        self.settings = settings
        self.client = client
        self.story = story
        # The newest revocation that the server's thread has asked about.
        self._revocations_seen: int | None = None
        #: The server, if it can be stopped while its process goes on.
        self.program = program
        self._cursor = cursor
        #: The code of the reason why the stream is iterated.
        self.path_reason: Reason | None = None
        self._end = end
        # Any phase but OVER. Each thread that writes it writes the same.
        self._phase = Phase.GOING_ON
        # The hub and the server's thread both write it. What a race costs is a sign of
        # life too many, or one that comes a look later.
        self._beat = Beat.QUIET
        # The server's thread sleeps in taking this lock. To release it is to wake the
        # thread, or to spare it the next sleep. The first step does not sleep.
        self._asleep = threading.Lock()
        self._is_in_main_thread = threading.current_thread() is threading.main_thread()
        self._sent_at = self._named_at = now
        # The id that the client was told last.
        self._named: str | None = cursor.id
        # When SSE_MAX_AGE is reached (``time.monotonic()``); 0 for never.
        self._expires = 0.0 if settings.max_age is None else now + settings.max_age
        self._progress = None if sock is None else Progress(sock, settings.stall, now)

    @property
    def phase(self) -> Phase:
        return Phase.OVER if self._end.locked() else self._phase

    @property
    def channels(self) -> tuple[str, ...]:
        return self._cursor.channels

    @property
    def cursor(self) -> Cursor:
        return self._cursor

    @property
    def heartbeat(self) -> float:
        return self.settings.heartbeat

    def __iter__(self) -> IteratedStream:
        return self

    def __next__(self) -> bytes:
        while True:
            if self._phase is not _STOPPING:
                # One wake can stand for news and for the stop, and the stop is told
                # once: from then on there is no sleep.
                self._asleep.acquire()
            if self._end.locked():
                raise StopIteration
            batch = self.log.read(self._cursor, BATCH_BYTES)
            if self.log.revocations.newest != self._revocations_seen:
                self._ask_of_revocations()
                if self._end.locked():
                    raise StopIteration
            if batch.more:
                self.wake()
            data = batch.frames or frames(self.log, self._cursor, batch)
            if data:
                if self.story is not None:
                    self.story.note_batch(batch, data)
                if batch.ended:
                    self.end()
                self._beat = _SPOKE
                self._named = batch.last_id
                return data
            if self._phase is _STOPPING:
                self.end()
            elif self._beat is _DUE:
                data = self._keep_alive()
                if self.story is not None:
                    self.story.note(0, len(data))
                return data

    def _ask_of_revocations(self) -> None:
        """End, if the client must be let in anew. What was read is not sent then."""
        revocations, seen = self.log.revocations, self._revocations_seen
        self._revocations_seen = revocations.newest
        if self.client.is_revoked(revocations, self.channels, seen):
            expect(self.story, "disconnect")
            self.end()

    def _keep_alive(self) -> bytes:
        self._beat = Beat.QUIET
        position = self._cursor.id
        if position == self._named:
            self._named_at = self._sent_at
        if self._sent_at - self._named_at < POSITION_INTERVAL:
            return HEARTBEAT
        self._named, self._named_at = position, self._sent_at
        return position_event(self._cursor)

    # Any thread's

    def on_the_wire(self) -> tuple[int, int | None]:
        """See ``Progress.on_the_wire``."""
        return self._progress.on_the_wire() if self._progress else (0, None)

    def wake(self) -> None:
        """There is something to read: end the wait, or the one that comes next."""
        if self._asleep.locked():
            try:
                self._asleep.release()
            except RuntimeError:
                pass  # Another thread was faster. That is as good.

    def tick(self, now: float) -> None:
        """The hub looks at the clock. (If the stream looked at it for each event, that
        would cost more than all else here. So what was sent counts as sent at the time
        at which the hub sees it.)"""
        if self._progress and self._progress.is_stuck(now) and not self._end.locked():
            # The server's thread waits for the client or for news: it is woken either
            # way.
            expect(self.story, "stalled")
            self._progress.cut()
            self.stop()
        elif self._expires and now >= self._expires:
            expect(self.story, "max-age")
            self.stop()
        elif self._beat is _SPOKE:
            self._beat = Beat.QUIET
            self._sent_at = self._named_at = now
        elif now - self._sent_at >= self.heartbeat * DUE_SHARE:
            self._sent_at = now
            self._beat = _DUE
            self.wake()
        elif self._is_in_main_thread:
            # Only the main thread handles signals, and it does not do so in its sleep:
            # gunicorn has SIGTERM restart the sleep.
            self.wake()

    def stop(self, patience: float | None = None) -> None:
        """Have the stream end when it has sent what there is."""
        self._phase = _STOPPING
        self.wake()

    def end(self) -> None:
        """Have the next step be the end. A second call does nothing."""
        self._end.acquire(blocking=False)
        self.wake()

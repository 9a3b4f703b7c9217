"""The pulse of a response whose server waits for the application's iterable.

Here lives how signs of life are sent while the iterable is silent: the thread that
sends its items is busy with the iterable, so the hub sends in its place, past the
server. The hub also has the iterable ended when its client has left. How bytes leave
lives in outlet.py. What is iterated, and Flask, are unknown here.

What becomes of the iterable, ``Pulse.phase`` says. Only the hub's thread writes it:

========= ========= ================================================================
from      to        when
========= ========= ================================================================
GOING_ON  CUT       the server stops, and will soon cut the request
GOING_ON  LEFT      the client has left, or takes nothing
========= ========= ================================================================

Each of the two interrupts the iterable, and neither leads to the other: a second
interrupt would end the cleaning up after the first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING

from ..log_messages import LAST_WORDS_FAILED
from ..servers import gunicorn
from ..servers.programs import Program
from ..settings import Settings
from ..system.poller import Interrupt
from .looks import DUE_SHARE
from .loop import current_hub
from .outlet import Outlet, Write
from .outlet import Phase as Way

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("flask_sse_lite")

#: Seconds before a stopping server cuts its requests, in which the hub ends a response
#: that is not complete. The hub hears of the stop up to 0.5 s late (a tick), and looks
#: at responses once a second. The rest is for the end itself.
MARGIN = 2.0


class Phase(Enum):
    """What becomes of the iterable."""

    GOING_ON = "going on"
    #: The response ends with its last words instead of its next item.
    CUT = "cut"
    #: Nobody takes what the iterable says: the response ends behind its next item.
    LEFT = "left"


# To look a member up in its class takes Python 3.11 ten times as long as to find one of
# these, and they are looked at for every item.
_CUT, _LEFT, _DECIDED = Phase.CUT, Phase.LEFT, Way.DECIDED


class Pulse:
    """An iterable of bytes, for a WSGI server.

    The thread that serves the request iterates it; the hub calls ``tick`` and ``stop``.

    :param pieces: the body.
    :param environ: the request's.
    :param start: calls ``start_response``, and returns its ``write``.
    :param settings: the application's: after how many seconds of silence a sign of life
        is sent, and whether items can go past the server.
    :param is_over: whether the iterable has had its last step, and only cleans up.
    :param last_words: makes the body's last piece, where the server stops before its
        end. Without them it is left to the server to cut the body: nobody must take it
        for whole.
    """

    #: None: what it says last goes to its own client.
    last_words = None

    #: None: signals tell of streams of channels.
    story = None

    def __init__(
        self,
        pieces: Iterator[bytes],
        environ: WSGIEnvironment,
        start: Callable[[], Write],
        settings: Settings,
        is_over: Callable[[], bool],
        last_words: Callable[[], bytes] | None,
    ) -> None:
        self.phase = Phase.GOING_ON
        self.settings = settings
        self.heartbeat = settings.heartbeat
        self._outlet = Outlet(environ, start, settings)
        self._pieces = pieces
        self._is_over = is_over
        self._say_last = last_words
        # When it must be at its end, as the server stops; 0 for never.
        self._stops_at = 0.0
        self._first: bytes | None = None
        # Whose turn it is to send. While _is_silent holds, the thread that serves the
        # request sends nothing. The hub sends from another thread: it holds the lock,
        # and says so in _is_beating before it looks at _is_silent.
        self._is_silent = False
        self._is_beating = False
        self._lock = threading.Lock()
        self._interrupt = Interrupt()
        self._count = self._counted = 0
        self._spoke_at = time.monotonic()

    @property
    def program(self) -> Program | None:
        return self._outlet.program

    @property
    def is_started(self) -> bool:
        """Whether the response was started: an error can no longer change its
        status."""
        return self._outlet.is_begun

    def begin(self) -> None:
        """Wait for the first item. Nothing was sent when it comes, unless it took so
        long that a sign of life was due.

        :raises Exception: what the iterable raises.
        """
        current_hub().keep_time(self)
        self._first = self._step()
        if not self.is_started:
            self._outlet.begin()

    def go_on_with(self, pieces: Iterator[bytes]) -> None:
        """Send these instead of what is left of the others."""
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        outlet = self._outlet
        piece, self._first = self._first, None
        if piece is None:
            if outlet.phase is not _DECIDED:
                outlet.decide()
            piece = self._step_on()
        if piece is None or self.phase is _LEFT:
            self.close()
            raise StopIteration
        if outlet.phase is not _DECIDED:
            outlet.note_given(len(piece))
        return piece

    def _step_on(self) -> bytes | None:
        """The next piece for the server, behind those that go past it; None at the
        end."""
        piece = self._step()
        if send := self._outlet.send:
            try:
                while piece is not None and self.phase is not _LEFT:
                    send(piece)
                    piece = self._step()
            except OSError as error:
                # The server finds that out too, as it ends the response.
                logger.debug("An item could not be sent: %r", error)
                return None
        return piece

    def _step(self) -> bytes | None:
        """The next piece, or None at the end."""
        if self.phase is _CUT:
            return self._conclude()
        self._is_silent = True
        try:
            return next(self._pieces, None)
        except GeneratorExit:
            if self.phase is _CUT:
                return self._conclude()
            if self.phase is not _LEFT:
                raise
            return None
        finally:
            self._is_silent = False
            if self._is_beating:
                with self._lock:
                    pass  # A sign of life that is on its way goes first.
            self._count += 1

    def _conclude(self) -> bytes | None:
        """The last piece, once."""
        say_last, self._say_last = self._say_last, None
        try:
            return (say_last() or None) if say_last else None
        except Exception:
            LAST_WORDS_FAILED.log(error=True)
            return None

    def close(self) -> None:
        """End it. The thread that serves the request calls this."""
        current_hub().forget(self)
        self._outlet.close()

    # The hub's

    def tick(self, now: float) -> None:
        """Send a sign of life, if one is due."""
        if self._stops_at and now >= self._stops_at:
            self._cut()
        progress = self._outlet.progress
        if progress and progress.is_stuck(now):
            # Its thread waits for the client or for the iterable.
            self._outlet.progress = None
            self._let_go()
            progress.cut()
        if self._count != self._counted:
            self._counted = self._count
            self._spoke_at = now
        elif self._is_silent:
            with self._lock:
                self._is_beating = True
                try:
                    if self._is_silent:
                        self._look(now)
                except Exception as error:
                    # The server says the same in its own way, when it is given an item.
                    logger.debug("A stream gets no signs of life: %r", error)
                    self._outlet.send_no_more_beats()
                finally:
                    self._is_beating = False

    def stop(self, patience: float | None = None) -> None:
        """The server stops. It lets requests end that it has begun to serve, and so
        does the hub: an answer can be nearly complete. A response that is not is told
        so, and ends before the server would cut it."""
        if patience is None:
            patience = gunicorn.graceful_timeout()
        stops_at = time.monotonic() + max(patience - MARGIN, patience / 2)
        if not self._stops_at or stops_at < self._stops_at:
            self._stops_at = stops_at

    def _look(self, now: float) -> None:
        """The thread that serves the request waits for the iterable."""
        if self.phase is _LEFT:
            return  # The iterable cleans up.
        if self._outlet.is_client_gone():
            self._let_go()
        elif now - self._spoke_at >= self.heartbeat * DUE_SHARE:
            self._spoke_at = now
            self._outlet.beat()

    def _cut(self) -> None:
        """The server stops: have the iterable ended, and the response with it."""
        if not self._is_over() and self._say_last:
            self._end(Phase.CUT)

    def _let_go(self) -> None:
        """The client has left: have the iterable ended."""
        self._end(Phase.LEFT)

    def _end(self, phase: Phase) -> None:
        """Interrupt the iterable, once. Where it cannot be interrupted, it ends behind
        its next item."""
        if self.phase is Phase.GOING_ON:
            self.phase = phase
            self._interrupt(lambda: self._is_silent and not self._is_over())

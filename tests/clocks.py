"""Clocks of tests: one that only a test moves, and one that stands still with its
process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flask_sse_lite.system.gevent import native


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


#: Seconds between two ticks of a stopwatch, and what one tick counts at most.
TICK = 0.01
LONGEST_TICK = 0.1


class _Ticks:
    """Counts seconds for as long as the process runs."""

    def __init__(self) -> None:
        #: Seconds that are counted, and when.
        self._counted = (0.0, time.monotonic())
        # Greenlets can block each other, which a native thread does not wait for.
        self._goes_on = native("_thread", "allocate_lock")()
        self._goes_on.acquire()
        native("_thread", "start_new_thread")(self._tick, ())

    def _tick(self) -> None:
        while not self._goes_on.acquire(timeout=TICK):
            self._counted = (self.seconds(), time.monotonic())

    def seconds(self) -> float:
        seconds, at = self._counted
        return seconds + min(time.monotonic() - at, LONGEST_TICK)

    def end(self) -> None:
        self._goes_on.release()


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Measure what calls of a block take.

    On a busy machine a process can stand still for a second. That is no time that a
    call has waited: of each such pause, a tenth of a second is counted at most. A call
    that waits while the process runs has its whole wait counted.

    :returns: what tells the seconds since the block began.
    """
    ticks = _Ticks()
    try:
        yield ticks.seconds
    finally:
        ticks.end()

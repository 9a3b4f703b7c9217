"""Clocks of tests: one that only a test moves, and one that stands still with its
process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


#: Seconds between two ticks of a stopwatch, and what one tick counts at most.
TICK = 0.01
LONGEST_TICK = 0.1


class _Ticks(threading.Thread):
    """Counts seconds for as long as the process runs."""

    def __init__(self) -> None:
        super().__init__(name="stopwatch", daemon=True)
        self.is_over = threading.Event()
        #: Seconds that are counted, and when.
        self._counted = (0.0, time.monotonic())

    def run(self) -> None:
        while not self.is_over.wait(TICK):
            self._counted = (self.seconds(), time.monotonic())

    def seconds(self) -> float:
        seconds, at = self._counted
        return seconds + min(time.monotonic() - at, LONGEST_TICK)


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Measure what calls of a block take.

    On a busy machine a process can stand still for a second. That is no time that a
    call has waited: of each such pause, a tenth of a second is counted at most. A call
    that waits while the process runs has its whole wait counted.

    :returns: what tells the seconds since the block began.
    """
    ticks = _Ticks()
    ticks.start()
    try:
        yield ticks.seconds
    finally:
        ticks.is_over.set()
        ticks.join()

"""Deadlines: the moment by which a call must have a store's answer.

All waits of one public call share one deadline: the waits for a lock, for a connection,
and for each round trip. What is waited for is unknown here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import BrokerUnavailable

#: The part of a timeout that a store must have had before its silence means that it is
#: away. A call that spent its time in a queue proves nothing about the store.
FAIR_PART = 0.5


class OutOfTime(BrokerUnavailable):
    """A call's time was over before the store had its fair part of that time."""


class Deadline:
    """A moment, some seconds from now.

    :param seconds: how far away that is. All waits until then share these seconds.
    """

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until then; 0 from then on."""
        return max(0.0, self._end - time.monotonic())

    @property
    def is_fair(self) -> bool:
        """Whether a wait that begins now gives the store its fair part of the time."""
        return self.left >= self.seconds * FAIR_PART


class Deadlines(threading.local):
    """The deadline of the call that this thread, or greenlet, is in."""

    current: Deadline | None = None

    @contextmanager
    def within(self, seconds: float) -> Iterator[Deadline]:
        """Set the deadline of a block, some seconds from now. Inside of another such
        block, the other's deadline holds.

        :returns: the deadline of the whole call.
        """
        if outer := self.current:
            yield outer
            return
        self.current = deadline = Deadline(seconds)
        try:
            yield deadline
        finally:
            self.current = None

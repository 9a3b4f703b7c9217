"""The pauses of a burst, in which its readers can follow.

A publisher, or the follower of a store, can fill a channel faster than its readers read
it, and the log then evicts what they have not read. Under gevent the readers run only
while the writer sleeps; on a busy machine a reader's thread runs late. How long the
writer sleeps, and how often, lives here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .channel import Channel

#: Seconds of one pause. (A pause of 0 would not let gevent look at its descriptors.)
BREATH = 0.0005

#: A publisher makes so many pauses at most, until one of the readers has read. A
#: request waits for it.
BREATHS = 4

#: The follower of a store makes so many pauses for the readers of a channel, whenever
#: they are behind: no publisher waits for it.
FEEDER_BREATHS = 10

#: Behind those, the follower has so many more to spend, for all channels together: a
#: tenth of a second. When they are spent, the readers that are behind lose what they do
#: not read.
SPARE_BREATHS = 200

#: Seconds after which the follower has one of those back that it spent. Readers that
#: never read, in however many channels, hold it up for a tenth of its time.
SPARE_BREATH_TAKES = 10 * BREATH


def pause_publisher(channel: Channel) -> None:
    """Pause until a reader has read, or for as long as a request can wait."""
    for _ in range(BREATHS):
        try:
            time.sleep(BREATH)
        except AssertionError:
            return  # gevent's hub greenlet, where a signal is handled, cannot sleep.
        if not channel.unread:
            return
    channel.unread = 0


class Patience:
    """How the follower of a store waits for readers. Whoever feeds the log uses this,
    one thread at a time.

    :param clock: seconds, never falling.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: The spare breaths that were left at a time.
        self._spare: float = SPARE_BREATHS
        self._counted_at = clock()

    def pause(self, channel: Channel, history: int) -> None:
        """Pause until the readers have read half of a channel's history, or for as long
        as the others can wait."""
        breaths = 0
        while channel.unread * 2 > history:
            if breaths >= FEEDER_BREATHS and not self._spend():
                channel.unread = -FEEDER_BREATHS * history
                return
            time.sleep(BREATH)
            breaths += 1

    def _spend(self) -> bool:
        """Spend a spare breath, if one is left."""
        now = self._clock()
        back = (now - self._counted_at) / SPARE_BREATH_TAKES
        self._counted_at = now
        self._spare = min(self._spare + back, SPARE_BREATHS)
        is_left = self._spare >= 1
        if is_left:
            self._spare -= 1
        return is_left

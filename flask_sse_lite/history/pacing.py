"""The pauses of a burst, in which its readers can follow.

A publisher, or the follower of a store, can fill a channel faster than its readers read
it, and the log then evicts what they have not read. Under gevent the readers run only
while the writer sleeps; on a busy machine a reader's thread runs late. How long the
writer sleeps, and how often, lives here.
"""

from __future__ import annotations

import time

from .channel import Channel

#: Seconds of one pause. (A pause of 0 would not let gevent look at its descriptors.)
BREATH = 0.0005

#: A publisher makes so many pauses at most, until one of the readers has read. A
#: request waits for it.
BREATHS = 4

#: The follower of a store makes so many pauses for the readers of a channel. If they
#: have not read then, it makes none for so many histories of that channel.
FEEDER_BREATHS = 10

#: Where those are not enough, the follower pauses for so many seconds more. All
#: channels share these seconds, and a tenth of the follower's other time is added to
#: them, up to their full number. Readers that never read cost it a tenth of its time at
#: most, beyond the first pauses of each channel. A run's output is kept by its bytes,
#: and needs none of these seconds.
SPARE_SECONDS = 0.1
SPARE_SHARE = 0.1


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
    """How the follower of a store waits for readers. One thread at a time feeds a log,
    and so uses this."""

    def __init__(self) -> None:
        #: The spare seconds that were left at the end of the last pause, and its time.
        #: They fall below 0 where the system wakes who sleeps too late.
        self._spare = SPARE_SECONDS
        self._paused_at = time.monotonic()

    def pause(self, channel: Channel, history: int) -> None:
        """Pause until the readers have read half of a channel's history, or for as long
        as all that else is to be fed can wait. Readers that have not read by then can
        lose what they do not read."""
        for _ in range(FEEDER_BREATHS):
            if not _is_behind(channel, history):
                return
            time.sleep(BREATH)
        began = now = time.monotonic()
        back = (began - self._paused_at) * SPARE_SHARE
        spare = min(self._spare + back, SPARE_SECONDS)
        while not channel.budget and now - began < spare:
            if not _is_behind(channel, history):
                break
            time.sleep(BREATH)
            now = time.monotonic()
        # A process that was suspended meanwhile is not without patience for hours.
        self._spare = max(spare - (now - began), -SPARE_SECONDS)
        self._paused_at = now
        if _is_behind(channel, history):
            channel.unread = -FEEDER_BREATHS * history


def _is_behind(channel: Channel, history: int) -> bool:
    """Whether there are readers that have not read half of a channel's history."""
    return bool(channel.watchers) and channel.unread * 2 > history

"""The pauses of a burst, in which its readers can follow.

A publisher, or the follower of a store, can fill a channel faster than its readers read
it, and the log then evicts what they have not read. Under gevent the readers run only
while the writer sleeps. How long it sleeps, and how often, lives here.
"""

from __future__ import annotations

import time

from .channel import Channel

#: Seconds of one pause. (A pause of 0 would not let gevent look at its descriptors.)
BREATH = 0.0005

#: A publisher makes so many pauses at most, until one of the readers has read. A
#: request waits for it.
BREATHS = 4

#: The follower of a store makes so many pauses for readers that do not read: no request
#: waits for it. After them the readers of that channel lose what they do not read.
FEEDER_BREATHS = 10


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


def pause_follower(channel: Channel, history: int) -> None:
    """Pause until the readers have read half of a channel's history."""
    breaths = 0
    while channel.unread * 2 > history:
        time.sleep(BREATH)
        breaths += 1
        if breaths == FEEDER_BREATHS:
            channel.unread = -FEEDER_BREATHS * history

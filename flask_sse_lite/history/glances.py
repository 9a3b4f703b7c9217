"""Glances: what can be told of a log's channels without delaying anybody.

Here lives what an operator is shown of channels. Nothing here takes the log's lock: a
publisher that is at work meanwhile makes a number a moment too old, and waits for
nothing. What readers get is never taken from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nlargest
from typing import NamedTuple

from .channel import Channel
from .revocations import REVOCATIONS

#: Seconds over which a channel's rate is told: events that come once in a while show,
#: and a burst that is over is soon gone.
RATE_SECONDS = 10.0

#: The fewest seconds that a rate is computed over: a coarse clock can say 0.
SHORTEST = 0.001


class Glance(NamedTuple):
    """One channel, as it was a moment ago.

    :param events: how many events are kept.
    :param size: bytes of them.
    :param rate: events per second, lately.
    """

    name: str
    events: int
    size: int
    rate: float


def glances(
    channels: Mapping[str, Channel], listeners: Mapping[str, int], most: int, now: float
) -> list[Glance]:
    """The channels that matter most to an operator: those with the most listeners, and
    among equals those that were used last. Revocations are left out.

    :param channels: the log's. The dictionary can change meanwhile.
    :param listeners: how many streams each channel has; the others have none.
    :param most: how many channels at most.
    :param now: the time by the log's clock.
    """
    # Copying a dictionary is one step, which no other thread interrupts.
    known = [item for item in dict(channels).items() if item[0] != REVOCATIONS]
    chosen = nlargest(
        most, known, lambda item: (listeners.get(item[0], 0), item[1].touched)
    )
    return [_glance(name, channel, now) for name, channel in chosen]


def _glance(name: str, channel: Channel, now: float) -> Glance:
    times = [entry.time for entry in list(channel.entries) if entry.event]
    rate = _rate(times, channel.dropped_from, now)
    return Glance(name, len(times), channel.size, rate)


def _rate(times: list[float], dropped_from: float, now: float) -> float:
    """Events per second. Where some of the last ``RATE_SECONDS`` were dropped, those
    that came after them say how fast they come."""
    began = max(now - RATE_SECONDS, dropped_from)
    return sum(time > began for time in times) / max(now - began, SHORTEST)

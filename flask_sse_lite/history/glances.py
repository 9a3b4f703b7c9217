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

#: Seconds that a history took at least to be filled: a coarse clock can say 0.
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
    channels: Mapping[str, Channel],
    listeners: Mapping[str, int],
    most: int,
    now: float,
    history: int,
) -> list[Glance]:
    """The channels that matter most to an operator: those with the most listeners, and
    among equals those that were used last. Revocations are left out.

    :param channels: the log's. The dictionary can change meanwhile.
    :param listeners: how many streams each channel has; the others have none.
    :param most: how many channels at most.
    :param now: the time by the log's clock.
    :param history: how many events each channel keeps.
    """
    # Copying a dictionary is one step, which no other thread interrupts.
    known = [item for item in dict(channels).items() if item[0] != REVOCATIONS]
    chosen = nlargest(
        most, known, lambda item: (listeners.get(item[0], 0), item[1].touched)
    )
    return [_glance(name, channel, now, history) for name, channel in chosen]


def _glance(name: str, channel: Channel, now: float, history: int) -> Glance:
    times = [entry.time for entry in list(channel.entries) if entry.event]
    return Glance(name, len(times), channel.size, _rate(times, now, history))


def _rate(times: list[float], now: float, history: int) -> float:
    """Events per second. Where the history is full and reaches back for less than
    ``RATE_SECONDS``, it says how fast it was filled."""
    recent = [time for time in times if time > now - RATE_SECONDS]
    if len(recent) < max(history, 2):
        return len(recent) / RATE_SECONDS
    return len(recent) / max(now - recent[0], SHORTEST)

"""What a store has of a channel, in the words in which a broker tells a log of it.

Only shared brokers speak of these: they read a store, and feed a log. How a store keeps
its entries is unknown here.
"""

from __future__ import annotations

from typing import NamedTuple

from .. import own_events
from ..event import Event
from ..position import BEGINNING, position_id


class Record(NamedTuple):
    """What stands at one position of a store: an event as it was published, or (None)
    the end of its channel, or (where there is a budget) the beginning of a run there;
    ``age`` is in seconds."""

    sequence: int
    age: float
    channel: str
    event: Event | None
    budget: int = 0


class Past(NamedTuple):
    """What a store retains of one channel, in order. ``dropped`` is the highest
    position of what the store no longer has; ``start`` and ``budget`` are the position
    and the budget of the last run there."""

    dropped: int
    records: list[Record]
    start: int = BEGINNING
    budget: int = 0


def unreadable(epoch: str, sequence: int, age: float, channel: str) -> Record:
    """What stands in a log for an entry of a store that this process cannot read: a
    gap of its channel, at the entry's own place. Every client that reads past it is
    told, and loses nothing of what stands before it or behind it."""
    since = position_id(epoch, sequence - 1, channel)
    id = position_id(epoch, sequence, channel)
    gap = own_events.gap(since, [channel], id, channel)
    return Record(sequence, age, channel, gap)

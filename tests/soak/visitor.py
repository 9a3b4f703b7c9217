"""One client over all its connections, and what it must be sent.

Here lives what is right: each event of its channels once and in order, from the
position of its opening on, over all its connections; or a gap that it is told. Nothing
here opens a connection or waits.

An event's data says its channel, its number in the channel, which attempt to publish it
this was, and when that began (in nanoseconds): ``room.3 17 0 1234567890``. A publisher
repeats an attempt that failed, and such an attempt can still have been carried out.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from math import log
from typing import Any, NamedTuple

from flask_sse_lite import Event
from flask_sse_lite.own_events import GAP, OPEN, POSITION
from flask_sse_lite.position import parse_position

#: Steps of a histogram in a power of e: its values are right to some 10 %.
STEPS = 10


def step(seconds: float) -> int:
    """The step of a histogram for a time."""
    return int(log(max(seconds * 1e6, 1.0)) * STEPS)


class Said(NamedTuple):
    """What an event's data says."""

    channel: str
    number: int
    attempt: int
    stamp: int

    @classmethod
    def read(cls, data: str) -> Said:
        channel, *numbers = data.split()
        return cls(channel, *map(int, numbers))

    def __str__(self) -> str:
        return f"{self.channel} {self.number} {self.attempt} {self.stamp}"


class Final(NamedTuple):
    """A channel's last event: its number and id. -1, and no id, where there is none."""

    number: int
    id: str


def is_behind(id: str, other: str) -> bool:
    """Whether a position is before another one of the same life of the store."""
    one, two = parse_position(id), parse_position(other)
    return bool(one and two and one.epoch == two.epoch and one.sequence < two.sequence)


@dataclass
class Tally:
    """What visitors have seen since the last report."""

    counts: Counter[str] = field(default_factory=Counter)
    #: Times from publishing to arrival, by ``step``: of events that were published
    #: while their client was connected.
    delays: Counter[int] = field(default_factory=Counter)
    #: What was not right, in words.
    wrong: list[str] = field(default_factory=list)
    #: Of newcomers: the channel, the position of the opening, the first number.
    firsts: list[tuple[str, str, int]] = field(default_factory=list)
    #: Events that came behind later ones: the channel, the number, the attempt. They
    #: are right if the attempt failed, because it can have been carried out late.
    odd: list[tuple[str, int, int]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "counts": dict(self.counts), "delays": dict(self.delays)}


class Visitor:
    """One client.

    :param channels: what it listens to.
    """

    def __init__(self, name: str, channels: tuple[str, ...], tally: Tally) -> None:
        self.name = name
        self.channels = channels
        self.since = ""
        self._tally = tally
        #: The last number of each channel, and the attempts that brought it.
        self._last: dict[str, tuple[int, set[int]]] = {}
        #: Channels in which the next event can be any later one: the client was told.
        self._forgiven: set[str] = set()
        self._odd: set[tuple[str, int, int]] = set()
        self._opening = ""
        self._opened_ns = 0
        #: Channels in which nothing has come on this connection, which is one that came
        #: back.
        self._is_awaited: set[str] = set()

    def come(self) -> None:
        """A connection begins."""
        self._is_awaited = {*self._last}
        self._opened_ns = 0

    def take(self, events: list[Event], now_ns: int) -> None:
        for event in events:
            self.since = event.id or self.since
            if event.type is None:
                self._take(Said.read(event.data), now_ns)
            elif event.type == GAP:
                self._take_gap(json.loads(event.data)["channels"])
            elif event.type == OPEN:
                self._take_opening(event.id or "", now_ns)
            elif event.type != POSITION:
                self._accuse(f"was sent {event.type}: {event.data}")

    def _take_opening(self, id: str, now_ns: int) -> None:
        self._opened_ns = now_ns
        self._opening = self._opening or id
        self._tally.counts["returns" if self._last else "openings"] += 1

    def _take_gap(self, channels: list[str]) -> None:
        self._tally.counts["gaps"] += 1
        self._forgiven |= {*channels}

    def _take(self, said: Said, now_ns: int) -> None:
        channel, number, attempt, stamp = said
        self._tally.counts["deliveries"] += 1
        if stamp > self._opened_ns:
            self._tally.delays[step((now_ns - stamp) / 1e9)] += 1
        if channel not in self.channels:
            self._accuse(f"is not of {channel}, and was sent {said}")
        elif channel not in self._last:
            if channel not in self._forgiven:
                self._tally.firsts.append((channel, self._opening, number))
            self._forgiven.discard(channel)
            self._last[channel] = (number, {attempt})
        else:
            self._follow(channel, number, attempt)

    def _follow(self, channel: str, number: int, attempt: int) -> None:
        last, _ = self._last[channel]
        if number <= last:
            self._take_odd(channel, number, attempt, number == last)
            return
        is_forgiven = channel in self._forgiven
        if number > last + 1 and not is_forgiven:
            self._tally.counts["lost"] += number - last - 1
            self._accuse(f"lost {last + 1} to {number - 1} of {channel}")
        if channel in self._is_awaited:
            self._tally.counts["told" if is_forgiven else "continued"] += 1
        self._is_awaited.discard(channel)
        self._forgiven.discard(channel)
        self._last[channel] = (number, {attempt})

    def _take_odd(self, channel: str, number: int, attempt: int, is_last: bool) -> None:
        known = self._last[channel][1] if is_last else set()
        what = (channel, number, attempt)
        if attempt in known or what in self._odd:
            self._tally.counts["doubled"] += 1
            self._accuse(f"was sent {number} of {channel} twice")
        known.add(attempt)
        self._odd.add(what)
        if not is_last:
            self._tally.odd.append(what)

    def _accuse(self, what: str) -> None:
        self._tally.wrong.append(f"{self.name} {what}")

    def lacks(self, finals: dict[str, Final]) -> list[str]:
        """Which of its channels it has not seen to the end.

        :param finals: the last event of each channel.
        """
        return [channel for channel in self.channels if self._lacks(channel, finals)]

    def _lacks(self, channel: str, finals: dict[str, Final]) -> bool:
        final = finals[channel]
        if channel in self._last:
            return self._last[channel][0] < final.number
        if not self._opening:
            return True
        return channel not in self._forgiven and is_behind(self._opening, final.id)

    def finish(self, finals: dict[str, Final]) -> None:
        """Tell what a newcomer that was sent nothing would have been sent next: its
        opening must lie behind all that was published."""
        if not self._opening:
            return  # It never had a stream, and lacks all.
        for channel in {*self.channels} - self._last.keys() - self._forgiven:
            first = finals[channel].number + 1
            self._tally.firsts.append((channel, self._opening, first))

"""Revocations: which clients must be let in anew, as a log learns it.

``SSE.disconnect`` puts a revocation into a channel of the extension's own. There it has
a position in the order of all channels. A log notes the revocation in the same step in
which it puts the entry at that position, so no reader can read what stands behind the
entry before the revocation is known. Here lives what a log notes of revocations, for
how long, and whether one of them concerns a client. The hub ends the streams.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Iterator
from math import inf
from typing import NamedTuple

from ..event import RESERVED_CHANNEL_PREFIX, Event, good_event
from .cursor import Entry

#: The channel that revocations stand in. Clients cannot listen to it.
REVOCATIONS = f"{RESERVED_CHANNEL_PREFIX}revocations"

#: Revocations that a log remembers, and for how many seconds: longer than any request
#: takes that can have let its client in before the revocation. A client whose request
#: began before all that is remembered is sent off, and comes back.
MOST = 10_000
LONGEST = 600.0

#: Seconds for which clients can be held off at most.
LONGEST_HOLD_OFF = 60.0

#: Seconds by which a store's clock and this process's can tell the age of an entry
#: differently. A client that was let in anew within that time is sent off once more.
LEEWAY = 0.25


class Revocation(NamedTuple):
    """Clients that must be let in anew: those of an identity, those of a channel, or
    (where both are named) those of the identity that listen to the channel."""

    identity: str | None
    channel: str | None

    def to_event(self, hold_off: float = 0.0) -> Event:
        """:param hold_off: seconds in which those are meant as well whom a view lets in
        anew."""
        held = {"hold_off": hold_off} if hold_off else {}
        data = json.dumps({**self._asdict(), **held})
        return good_event(data, "revoked", None, None, None)

    @classmethod
    def of(cls, event: Event) -> Revocation | None:
        """The revocation that an event stands for; None for an event of a later
        release, or of another program."""
        try:
            fields = json.loads(event.data)
            found = cls(fields["identity"], fields["channel"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        is_known = all(isinstance(part, str | None) for part in found)
        return found if is_known and any(found) else None


def _hold_off(event: Event) -> float:
    """For how many seconds a revocation holds its clients off. (Earlier releases do
    not, and can have written the event.)"""
    found = json.loads(event.data).get("hold_off")
    is_known = isinstance(found, (int, float)) and 0 <= found <= LONGEST_HOLD_OFF
    return float(found) if is_known else 0.0


class _Noted(NamedTuple):
    """A revocation's number, and its time: it concerns the clients that were let in up
    to then."""

    number: int
    time: float


class Revocations:
    """The revocations that a log has noted. The log holds its lock when it notes one;
    any thread can ask.

    :param leeway: seconds by which the times of entries can be wrong.
    """

    def __init__(self, leeway: float) -> None:
        self._leeway = leeway
        #: The number of the newest. It grows with each one that is noted.
        self.newest = 0
        self._noted: OrderedDict[Revocation, _Noted] = OrderedDict()
        # The newest of those that are not remembered: its number and its time.
        self._forgotten = _Noted(0, -inf)

    def note(self, entry: Entry) -> None:
        """Note what stands in the channel of revocations."""
        if entry.event is None:
            return
        if revocation := Revocation.of(entry.event):
            number = self.newest + 1
            until = entry.time + _hold_off(entry.event)
            if known := self._noted.get(revocation):
                until = max(until, known.time)  # It can hold off for longer.
            self._noted[revocation] = _Noted(number, until)
            self._noted.move_to_end(revocation)
            self._forget(entry.time - LONGEST)
            self.newest = number
        else:
            self.note_lost(entry.time)

    def note_lost(self, time: float) -> None:
        """Revocations of before a time are lost: all clients that were let in before
        it can be meant."""
        number = self.newest + 1
        self._forgotten = _Noted(number, max(time, self._forgotten.time))
        self.newest = number

    def begin(self, time: float) -> None:
        """Nothing is known of revocations before a time, and no stream is there yet."""
        self._forgotten = _Noted(
            self._forgotten.number, max(time, self._forgotten.time)
        )

    def _forget(self, oldest: float) -> None:
        while self._noted:
            revocation, noted = next(iter(self._noted.items()))
            if len(self._noted) <= MOST and noted.time >= oldest:
                return
            # In this order: another thread can ask at any time.
            last = self._forgotten
            self._forgotten = _Noted(
                max(noted.number, last.number), max(noted.time, last.time)
            )
            del self._noted[revocation]

    @property
    def known_since(self) -> float:
        """Since when nothing was forgotten."""
        return self._forgotten.time

    def since(self, seen: int) -> list[Revocation] | None:
        """Those that are newer than a number; None where some of them are forgotten.
        The log holds its lock."""
        if self._forgotten.number > seen:
            return None
        newer: list[Revocation] = []
        for revocation, noted in reversed(self._noted.items()):
            if noted.number <= seen:
                break
            newer.append(revocation)
        return newer

    def concern(
        self,
        identity: str | None,
        channels: Collection[str],
        let_in: float,
        seen: int | None = None,
    ) -> bool:
        """Whether a client must be let in anew.

        :param let_in: when the request began that let the client in, by the log's
            clock.
        :param seen: the number of the newest revocation of which the caller has asked
            already; None for a stream that begins.
        """
        asked = -1 if seen is None else seen
        latest = let_in - self._leeway
        if self._noted:
            for revocation in _that_concern(identity, channels):
                noted = self._noted.get(revocation)
                if noted and noted.number > asked and noted.time >= latest:
                    return True
        forgotten = self._forgotten
        return forgotten.number > asked and forgotten.time >= latest


def _that_concern(
    identity: str | None, channels: Collection[str]
) -> Iterator[Revocation]:
    if identity is not None:
        yield Revocation(identity, None)
    for channel in channels:
        yield Revocation(None, channel)
        if identity is not None:
            yield Revocation(identity, channel)

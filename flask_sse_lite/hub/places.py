"""Places: what counts against ``SSE_MAX_CONNECTIONS`` and ``SSE_MAX_PER_CLIENT``.

Here lives how many streams a process can have at once, in all and for one client, and
which streams have a place among them. A stream takes one place as it begins, and keeps
it to its end, whether the hub adopts its connection or its server iterates it. What the
streams do meanwhile is never known here. (An ``EventStream`` takes no place: it holds a
thread or a greenlet of its server, and the server limits those.)

Where a place is, ``Place.phase`` says:

========= ========= ================================================================
from      to        when
========= ========= ================================================================
OPENING   DOOMED    the application ends its streams
OPENING   SERVED    the hub adopts the stream's connection, or a server iterates it
DOOMED    SERVED    the same: whoever serves the stream is told to end it at once
any       RELEASED  the stream has ended
RELEASED  SERVED    another thread closed the stream in the moment in which it began:
                    it is served, ends, and is released again
========= ========= ================================================================
"""

from __future__ import annotations

import time
from enum import Enum

from ..servers import gunicorn
from ..settings import Settings
from ..system.open_files import room_for_streams
from .client import NOBODY, Client

#: Seconds for which the number of descriptors that a process can open is believed. That
#: number hardly ever changes, and asking for it twice per stream would be a tenth of
#: what a stream costs.
ROOM_KNOWN = 1.0

#: Places that can be noted by client beyond twice the taken ones. Past that, those that
#: were given back are removed. To look for them at each arrival would cost more.
SPARE = 64


class Phase(Enum):
    """What the stream of a place is doing."""

    #: The stream begins. Nobody serves it yet.
    OPENING = "opening"
    #: The stream begins, and must end as soon as somebody serves it.
    DOOMED = "doomed"
    SERVED = "served"
    #: The place counts no more.
    RELEASED = "released"


#: An application's client: the settings tell applications apart.
Owner = tuple[int, tuple[str, str]]


class Place:
    """One stream's place.

    :param settings: the settings of the stream's application.
    :param owner: for whom the place is counted; None where each place counts alone.
    """

    __slots__ = ("owner", "phase", "settings")

    def __init__(self, settings: Settings, owner: Owner | None) -> None:
        self.settings = settings
        self.owner = owner
        self.phase = Phase.OPENING


class Places:
    """The places of a process. Callers hold the hub's lock, except where a method says
    that any thread can call it."""

    def __init__(self) -> None:
        self._taken: set[Place] = set()
        #: The places of each client, where there is a limit for each; and how many were
        #: put there since all were looked at. Some can have been given back.
        self._by_owner: dict[Owner, set[Place]] = {}
        self._noted = 0
        # Any thread can write these; a race writes the same value twice.
        self._room = 0
        self._room_known_until = 0.0

    def __len__(self) -> int:
        """How many places are taken. Any thread can ask."""
        return len(self._taken)

    def is_full(self, settings: Settings, client: Client = NOBODY) -> bool:
        """Whether an application can begin no other stream for a client. Any thread can
        ask where the settings have no limit for each client."""
        if len(self._taken) >= self._limit(settings):
            return True
        most, owner = settings.max_per_client, _owner(settings, client)
        if most is None or owner is None:
            return False
        # To count takes time for each place, so it is done only near the limit.
        return len(self._by_owner.get(owner, ())) >= most and self._count(owner) >= most

    def take(self, settings: Settings, client: Client = NOBODY) -> Place | None:
        """A place for a stream that begins; None where all places are taken, or all
        that one client can have."""
        if self.is_full(settings, client):
            return None
        place = Place(settings, _owner(settings, client))
        self._add(place)
        return place

    def _add(self, place: Place) -> None:
        self._taken.add(place)
        if place.owner is None:
            return
        self._by_owner.setdefault(place.owner, set()).add(place)
        self._noted += 1
        if self._noted > 2 * len(self._taken) + SPARE:
            self._noted = sum(map(self._count, list(self._by_owner)))

    def _count(self, owner: Owner) -> int:
        """How many places a client has. The places that were given back are forgotten
        only here, because whoever gives a place back cannot wait for the lock."""
        places = {p for p in self._by_owner.get(owner, ()) if p in self._taken}
        if places:
            self._by_owner[owner] = places
        else:
            self._by_owner.pop(owner, None)
        return len(places)

    def serve(self, place: Place) -> bool:
        """Somebody serves the place's stream from now on.

        :returns: whether the stream must end at once.
        """
        is_doomed = place.phase is Phase.DOOMED
        place.phase = Phase.SERVED
        self._add(place)
        return is_doomed

    def doom(self, settings: Settings) -> None:
        """Have those streams of an application end that are about to begin."""
        # The list is a copy, made in one step: other threads release places meanwhile.
        for place in list(self._taken):
            if place.settings is settings and place.phase is Phase.OPENING:
                place.phase = Phase.DOOMED

    def release(self, place: Place) -> None:
        """Give a place back. A second call does nothing. Any thread can call this, also
        code that collects a stream as garbage: it never waits."""
        place.phase = Phase.RELEASED
        self._taken.discard(place)

    def _limit(self, settings: Settings) -> int:
        """How many streams there can be: ``SSE_MAX_CONNECTIONS``, or as many as the
        process has descriptors for."""
        if settings.max_connections:
            return settings.max_connections
        now = time.monotonic()
        if now >= self._room_known_until:
            self._room = room_for_streams(gunicorn.connections())
            self._room_known_until = now + ROOM_KNOWN
        return self._room


def _owner(settings: Settings, client: Client) -> Owner | None:
    """For whom a client's places are counted; None where there is no limit for it."""
    if settings.max_per_client is None or client.key is None:
        return None
    return (id(settings), client.key)

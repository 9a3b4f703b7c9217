"""Places: what counts against ``SSE_MAX_CONNECTIONS``.

Here lives how many streams a process can have at once, and which streams have a place
among them. A stream takes one place as it begins, and keeps it to its end, whether the
hub adopts its connection or its server iterates it. What the streams do meanwhile is
never known here. (An ``EventStream`` takes no place: it holds a thread or a greenlet of
its server, and the server limits those.)

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

#: Seconds for which the number of descriptors that a process can open is believed. That
#: number hardly ever changes, and asking for it twice per stream would be a tenth of
#: what a stream costs.
ROOM_KNOWN = 1.0


class Phase(Enum):
    """What the stream of a place is doing."""

    #: The stream begins. Nobody serves it yet.
    OPENING = "opening"
    #: The stream begins, and must end as soon as somebody serves it.
    DOOMED = "doomed"
    SERVED = "served"
    #: The place counts no more.
    RELEASED = "released"


class Place:
    """One stream's place.

    :param settings: the settings of the stream's application.
    """

    __slots__ = ("phase", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.phase = Phase.OPENING


class Places:
    """The places of a process. Callers hold the hub's lock, except where a method says
    that any thread can call it."""

    def __init__(self) -> None:
        self._taken: set[Place] = set()
        # Any thread can write these; a race writes the same value twice.
        self._room = 0
        self._room_known_until = 0.0

    def __len__(self) -> int:
        """How many places are taken. Any thread can ask."""
        return len(self._taken)

    def is_full(self, settings: Settings) -> bool:
        """Whether an application can begin no other stream."""
        return len(self._taken) >= self._limit(settings)

    def take(self, settings: Settings) -> Place | None:
        """A place for a stream that begins; None where all places are taken."""
        if self.is_full(settings):
            return None
        place = Place(settings)
        self._taken.add(place)
        return place

    def serve(self, place: Place) -> bool:
        """Somebody serves the place's stream from now on.

        :returns: whether the stream must end at once.
        """
        is_doomed = place.phase is Phase.DOOMED
        place.phase = Phase.SERVED
        self._taken.add(place)
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

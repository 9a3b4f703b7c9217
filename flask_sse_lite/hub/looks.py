"""The hub's looks at the clock: heartbeats, the end of old streams, and clients that
take nothing.

Here lives what is done at each look, and when a connection is looked at. Only the loop
uses this, so that it needs no lock. What a stream that a server iterates does at a look
lives in its own ``tick``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

from ..event import HEARTBEAT
from ..log_messages import NO_TIME_TOLD
from ..system.outgoing import bytes_waiting
from ..system.poller import Poller
from .connection import Connection, Group, framed
from .fanout import Fanout
from .frames import POSITION_INTERVAL, position_event
from .readers import Timed
from .stall import Progress, cut

#: Looks at the streams per heartbeat, and the longest time between two, in seconds. So
#: many looks are a round. In a round, the hub looks at least once at each connection:
#: whether something waits for its client, and whether a sign of life is due. To look at
#: each connection each time would cost more than its signs of life.
LOOKS_PER_HEARTBEAT = 16
LONGEST_LOOK = 1.0

#: The share of a heartbeat's time after which a sign of life is due: two looks less.
#: What a stream has sent counts from the hub's next look only, and a sign of life is
#: sent at a look only.
DUE_SHARE = 1 - 2 / LOOKS_PER_HEARTBEAT

#: The share of a heartbeat's time after which the first of those that were sent the
#: same together get their sign of life.
LEAST_SPREAD = 0.5

#: Connections that a look looks at, and can send to, before other threads or greenlets
#: get a turn.
LOOKS_PER_BREATH = 4

#: A sign of life as it is sent, by whether the body is chunked.
_FRAMES = {chunked: framed(HEARTBEAT, chunked=chunked) for chunked in (False, True)}

#: Spreads consecutive numbers evenly.
GOLDEN_RATIO = 0.618034

logger = logging.getLogger("flask_sse_lite")


class Rounds:
    """Which connections a look is to look at. Looks are counted by the clock."""

    def __init__(self) -> None:
        #: Those that this look has yet to look at. One is taken off when it was looked
        #: at: where a look fails, the next one has what was left.
        self.due: list[Connection] = []
        # One list for each of a round's looks, and the number of the look that was
        # last, with the seconds between two.
        self._looks: list[list[Connection]] = [[] for _ in range(LOOKS_PER_HEARTBEAT)]
        self._number = 0
        self._interval = LONGEST_LOOK
        # The time that ``put`` was last given, and the list for it. Nearly all of those
        # that are looked at together are next due together.
        self._at = math.nan
        self._found = self.due

    def begin_look(self, now: float, interval: float) -> None:
        """Find those that are due.

        :param interval: seconds from one look to the next.
        """
        first, self._number = self._number + 1, int(now / interval)
        self._at = math.nan
        whole_round = self._number + 1 - LOOKS_PER_HEARTBEAT
        if interval != self._interval:
            # Under the old interval, a look's number stood for another time.
            self._interval, first = interval, whole_round
        for number in range(max(first, whole_round), self._number + 1):
            connections = self._looks[number % LOOKS_PER_HEARTBEAT]
            self.due += connections
            connections.clear()

    def put(self, connection: Connection, at: float) -> None:
        """Have a connection looked at, at a time or a little later: at the next look at
        the soonest, and within a round."""
        if at != self._at:
            looks = math.ceil(at / self._interval) - self._number
            looks = min(max(looks, 1), LOOKS_PER_HEARTBEAT)
            self._found = self._looks[(self._number + looks) % LOOKS_PER_HEARTBEAT]
            self._at = at
        self._found.append(connection)

    def forget(self) -> None:
        """Forget all connections, because none is left."""
        for connections in (self.due, *self._looks):
            connections.clear()


class Looks:
    """What a hub does at its looks."""

    def __init__(self, fanout: Fanout, poller: Poller) -> None:
        self._fanout = fanout
        self._poller = poller
        self._now = 0.0
        self._rounds = Rounds()
        # The connections for whose clients something waits. One that was removed stays
        # here until the next look.
        self._suspects: dict[int, Connection] = {}

    def look_around(self, now: float, interval: float, timed: Iterable[Timed]) -> None:
        """Send signs of life to silent connections, end old ones, and cut clients that
        take nothing.

        :param interval: seconds from one look to the next.
        :param timed: those that are told the time.
        """
        for whom in timed:
            try:
                whom.tick(now)
            except Exception:
                NO_TIME_TOLD.log(whom, error=True)
        self._now = now
        fanout, rounds = self._fanout, self._rounds
        rounds.begin_look(now, interval)
        due = rounds.due
        while fanout.arrivals:
            due.append(fanout.arrivals.popleft())
        while due:
            fanout.guard(self._look_at, due[-1])
            due.pop()
            if len(due) % LOOKS_PER_BREATH == 0:
                self._poller.breathe()
        for connection in list(self._suspects.values()):
            fanout.guard(self._look_at_suspect, connection)

    def forget(self) -> None:
        """Forget all connections, because none is left."""
        self._fanout.arrivals.clear()
        self._rounds.forget()
        self._suspects.clear()

    # The next two methods are what a silent connection costs, once in each heartbeat.
    # So they make few calls.

    def _look_at(self, connection: Connection) -> None:
        descriptor, now = connection.descriptor, self._now
        if self._fanout.connections.get(descriptor) is not connection:
            return  # It has left, and is looked at no more.
        # Look before a sign of life is sent, which waits for its client at first.
        if not connection.progress and bytes_waiting(descriptor):
            self._suspect(connection)
        if group := connection.group:
            until = _due_at(connection, group)
            if until <= now:
                until = self._give_sign_of_life(connection, group)
        else:
            until = now + connection.settings.heartbeat * DUE_SHARE
        if connection.expires:
            if now >= connection.expires:
                self._fanout.end(connection, "max-age")
                return
            until = min(until, connection.expires)
        self._rounds.put(connection, until)

    def _give_sign_of_life(self, connection: Connection, group: Group) -> float:
        """Send a sign of life.

        :returns: when the next one is due.
        """
        now = self._now
        connection.has_head_start = group.sent_at > connection.beat_at
        if group.cursor.position != group.log.sequence:
            # Events of other channels have moved the log on. Take over how far.
            self._fanout.deliver(group)
            if connection.group is not group:
                return now  # It has left the group meanwhile.
        connection.beat_at = now
        data, frame = HEARTBEAT, _FRAMES[connection.chunked]
        if now - max(group.sent_at, connection.named_at) >= POSITION_INTERVAL:
            connection.named_at = now
            position = group.cursor.id
            if position not in (group.named, connection.named):
                connection.named = position
                data = position_event(group.cursor)
                frame = framed(data, chunked=connection.chunked)
        try:
            is_sent = connection.send(self._poller, frame)
        except OSError:
            self._fanout.remove(connection, properly=False, why="left")
            return now
        if connection.story is not None:
            connection.story.note(0, len(data))
        if not is_sent:
            self._fanout.fall_behind(connection, group)
        return _due_at(connection, group)

    def _suspect(self, connection: Connection) -> None:
        """Something waits for a client: from now on, look whether it is taken."""
        now, settings = self._now, connection.settings
        progress = Progress(connection.descriptor, settings.stall, now)
        # After a pause of the process, the client has had no time to answer: half of
        # its time is yet to come in any case.
        earliest = now - min(settings.heartbeat, settings.stall / 2)
        progress.count_from(max(connection.last_sent_at, earliest), now)
        connection.progress = progress
        self._suspects[connection.descriptor] = connection

    def _is_served(self, connection: Connection) -> bool:
        """Whether a connection is still there. Its descriptor can be another
        connection's by now."""
        return self._fanout.connections.get(connection.descriptor) is connection

    def _look_at_suspect(self, connection: Connection) -> None:
        """Cut a client that takes nothing. Clear one that has taken all."""
        descriptor, progress = connection.descriptor, connection.progress
        if not self._is_served(connection):
            del self._suspects[descriptor]
        elif progress and progress.is_stuck(self._now):
            logger.debug("A client that takes nothing is cut")
            cut(descriptor)
            self._fanout.remove(connection, properly=False, why="stalled")
        elif not progress or progress.is_done:
            connection.progress = None
            del self._suspects[descriptor]


def _due_at(connection: Connection, group: Group) -> float:
    """When the client of a silent connection is due a sign of life."""
    last, share = connection.beat_at, DUE_SHARE
    if group.sent_at > last or connection.has_head_start:
        # Connections that came together, or that got an event together, would from then
        # on get all their signs of life together.
        last = max(last, group.sent_at)
        share -= connection.descriptor * GOLDEN_RATIO % 1 * (DUE_SHARE - LEAST_SPREAD)
    return last + connection.settings.heartbeat * share

"""The hub's looks at the clock: heartbeats, the end of old streams, and clients that
take nothing.

Here lives what is done at each look, and how often there is one. Only the loop uses
this, so that it needs no lock. What a stream that a server iterates does at a look
lives in its own ``tick``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from ..event import HEARTBEAT
from ..log_messages import NO_TIME_TOLD
from ..system.outgoing import bytes_waiting
from ..system.poller import Poller
from .connection import Connection, Group
from .fanout import Fanout, Loop
from .frames import POSITION_INTERVAL, position_event
from .readers import Timed
from .stall import Progress, cut

#: Looks at the streams per heartbeat, and the longest time between two, in seconds.
LOOKS_PER_HEARTBEAT = 16
LONGEST_LOOK = 1.0

#: Looks in a round, which is half a heartbeat. In a round, the hub asks the system once
#: for each connection whether something waits for its client. Asking at each look would
#: cost as much as all else that an idle connection costs.
LOOKS_PER_ROUND = LOOKS_PER_HEARTBEAT // 2

#: The share of a heartbeat's time after which a sign of life is due: two looks less.
#: What a stream has sent counts from the hub's next look only, and a sign of life is
#: sent at a look only.
DUE_SHARE = 1 - 2 / LOOKS_PER_HEARTBEAT

#: The share of a heartbeat's time after which the first connections of a group get
#: their sign of life.
LEAST_SPREAD = 0.5

#: Spreads consecutive numbers evenly.
GOLDEN_RATIO = 0.618034

logger = logging.getLogger("flask_sse_lite")


class Looks:
    """What a hub does at its looks.

    :param loop: its ``_write`` sends to many connections.
    """

    def __init__(self, loop: Loop, fanout: Fanout, poller: Poller) -> None:
        self._loop = loop
        self._fanout = fanout
        self._poller = poller
        # Connections that this round has not looked at, and how many of them each look
        # takes.
        self._unseen: list[Connection] = []
        self._share = 1
        # The connections for whose clients something waits. One that was removed stays
        # here until the next look.
        self._suspects: dict[int, Connection] = {}

    def look_around(self, now: float, timed: Iterable[Timed]) -> None:
        """Send signs of life to silent connections, end old ones, and cut clients that
        take nothing.

        :param timed: those that are told the time.
        """
        for whom in timed:
            try:
                whom.tick(now)
            except Exception:
                NO_TIME_TOLD.log(whom, error=True)
        fanout = self._fanout
        for group in list(fanout.groups.values()):
            fanout.guard(self._look_at, group)
            self._poller.breathe()
        for connection in list(fanout.connections.values()):
            if connection.expires and now >= connection.expires:
                fanout.end(connection, "max-age")
        self._look_for_stalls()

    def forget(self) -> None:
        """Forget all connections, because none is left."""
        self._unseen.clear()
        self._suspects.clear()

    def _look_at(self, group: Group) -> None:
        """Send a sign of life to the silent connections of a group."""
        now = time.monotonic()
        heartbeat = group.settings.heartbeat
        if now - group.sent_at < heartbeat * LEAST_SPREAD:
            return  # So ten thousand groups that had events cost nothing here.
        silent = [
            connection
            for connection in group.connections()
            if now - max(group.sent_at, connection.beat_at)
            # Connections that got their last event together must not beat together.
            >= heartbeat * (LEAST_SPREAD + connection.descriptor * GOLDEN_RATIO % 0.5)
        ]
        if silent and group.cursor.position != group.log.sequence:
            # Events of other channels have moved the log on. Take over how far.
            self._fanout.deliver(group)
        position = group.cursor.id
        for connection in silent:
            if connection.group is not group:
                continue  # It has left the group meanwhile.
            connection.beat_at = now
            data = HEARTBEAT
            named_for = now - max(group.sent_at, connection.named_at)
            is_known = position in (group.named, connection.named)
            if not is_known and named_for >= POSITION_INTERVAL:
                connection.named, connection.named_at = position, now
                data = position_event(group.cursor)
            self._loop._write(group, connection.chunked, [connection.descriptor], data)
            if connection.story is not None:
                connection.story.note(0, len(data))

    def _look_for_stalls(self) -> None:
        """Cut clients that take nothing. A client that lives comes back, and gets what
        it has missed."""
        if not self._unseen:
            self._unseen = list(self._fanout.connections.values())
            self._share = -(-len(self._unseen) // LOOKS_PER_ROUND)
        seen = self._unseen[-self._share :]
        del self._unseen[-self._share :]
        for connection in seen:
            self._fanout.guard(self._suspect, connection)
        for connection in list(self._suspects.values()):
            self._fanout.guard(self._look_at_suspect, connection)

    def _is_served(self, connection: Connection) -> bool:
        """Whether a connection is still there. Its descriptor can be another
        connection's by now."""
        return self._fanout.connections.get(connection.descriptor) is connection

    def _suspect(self, connection: Connection) -> None:
        """Suspect a connection, if something waits for its client."""
        descriptor = connection.descriptor
        if (
            self._is_served(connection)
            and not connection.progress
            and bytes_waiting(descriptor)
        ):
            stall = connection.settings.stall
            connection.progress = Progress(descriptor, stall, time.monotonic())
            self._suspects[descriptor] = connection

    def _look_at_suspect(self, connection: Connection) -> None:
        """Cut a client that takes nothing. Clear one that has taken all."""
        descriptor, progress = connection.descriptor, connection.progress
        if not self._is_served(connection):
            del self._suspects[descriptor]
        elif progress and progress.is_stuck(time.monotonic()):
            logger.debug("A client that takes nothing is cut")
            cut(descriptor)
            self._fanout.remove(connection, properly=False, why="stalled")
        elif not progress or progress.is_done:
            connection.progress = None
            del self._suspects[descriptor]

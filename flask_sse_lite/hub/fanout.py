"""The fan-out: connections that were taken over, and the groups that they read in.

Connections that have read the same channels to the same place form a group, which is
read, encoded and written as one. A connection that falls behind leaves its group, and
comes back when it has caught up. Here lives how connections come, join and leave groups
and are closed. When any of it is done, the loop decides (loop.py); the send to many is
the loop's, too. All here is the loop's own and needs no lock, where nothing else is
said.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ..system.locks import Guard
from ..system.poller import WRITABLE, Poller, close_descriptor
from .connection import Connection, Group, framed
from .counts import Listeners
from .frames import BATCH_BYTES, frames
from .places import Places
from .readers import Audience, Key, Readers

logger = logging.getLogger("flask_sse_lite")


class Loop(Protocol):
    """The steps of the hub's loop that its parts call."""

    def _welcome_all(self) -> None:
        """Begin to serve all connections that are new."""

    def _write(
        self,
        group: Group,
        chunked: bool,
        descriptors: list[int],
        data: bytes,
        *,
        is_end: bool = False,
    ) -> None:
        """Send the same to some of a group whose bodies are framed alike."""


class Fanout:
    """A hub's connections.

    :param loop: whose ``_write`` sends to many.
    :param lock: the hub's.
    :param tell_hub: what a group calls when there are news.
    """

    def __init__(
        self,
        loop: Loop,
        lock: Guard,
        poller: Poller,
        listeners: Listeners,
        places: Places,
        tell_hub: Callable[[Readers], None],
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._poller = poller
        self._listeners = listeners
        self._places = places
        self._tell_hub = tell_hub
        #: Those that nobody serves yet. Whoever holds the lock may add to them.
        self.newcomers: deque[Connection] = deque()
        #: Those that are served, by descriptor. The loop changes this with the lock.
        self.connections: dict[int, Connection] = {}
        self.groups: dict[Key, Group] = {}

    def __len__(self) -> int:
        return len(self.connections) + len(self.newcomers)

    def guard(self, serve: Callable[[Any], object], whom: Any) -> None:
        """Serve somebody. What goes wrong there (no memory, a descriptor that a library
        closed) can cost them their stream, and nobody else."""
        try:
            serve(whom)
        except BaseException as error:
            victims = whom.connections() if isinstance(whom, Group) else [whom]
            for victim in victims:
                if isinstance(victim, Connection):
                    self.remove(victim, properly=False)
            self.look_for_strays()
            if isinstance(whom, Audience) or not isinstance(error, Exception):
                raise  # The loop starts again, and tells the audience anew.
            logger.exception("The hub could not go on with %r", whom)

    # Coming

    def welcome(self, connection: Connection) -> None:
        """Begin to serve the connection that is next."""
        with self._lock:
            # At no time is the connection counted as none, or as two.
            self.newcomers.popleft()
            self._put(connection)
        if connection.tell:
            connection.log.unwatch(connection.cursor.channels, connection.tell)
            connection.tell = None
        self._poller.add(connection.descriptor)
        connection.beat_at = connection.named_at = now = time.monotonic()
        if connection.settings.max_age is not None:
            connection.expires = now + connection.settings.max_age
        if connection.program and connection.program.is_stopped:
            connection.expires = now  # Nobody else tells it; this ends it soon.
        self.catch_up(connection)

    def _put(self, connection: Connection) -> None:
        """Put a connection among those that are served. The lock is held."""
        stray = self.connections.get(connection.descriptor)
        if stray and stray.place:
            # A library closed its descriptor, and the system gave the number to the new
            # connection. Nobody finds the stray by its descriptor any more.
            self._places.release(stray.place)
        self.connections[connection.descriptor] = connection

    def catch_up(self, connection: Connection) -> None:
        """Send a connection what its group has read and it has not, and take it into
        the group. (The connection is not sent what comes meanwhile: there can be more
        behind it, again and again.)"""
        log, cursor = connection.log, connection.cursor
        key = (log, cursor.channels)
        newest = log.sequence
        while True:
            group = self.groups.get(key)
            if group and group.is_behind(cursor):
                group.waiting.append(connection)
                group.tell()
                return
            until = group.cursor.position if group else newest
            batch = log.read(cursor, BATCH_BYTES, until)
            data = frames(log, cursor, batch)
            if not data:
                break
            connection.is_ended = batch.ended
            frame = framed(data, chunked=connection.chunked)
            if not self.send_own(connection, frame):
                return
        self.join_group(connection, key)

    def send_own(self, connection: Connection, frame: bytes) -> bool:
        """Send something to a connection outside of groups, or (with an empty frame) go
        on with what is left.

        :returns: whether the connection can be sent more.
        """
        try:
            is_sent = (
                connection.send(self._poller, frame)
                if frame
                else connection.flush(self._poller)
            )
        except OSError:
            self.remove(connection, properly=False)
            return False
        if not is_sent:
            self._poller.watch_writable(connection.descriptor, True)
        elif connection.is_ended:
            self.end(connection)
        return is_sent and not connection.is_ended

    def serve(self, connection: Connection) -> None:
        """See to what the system says of a connection."""
        what = connection.ready
        if what & ~WRITABLE and not connection.read():
            self.end(connection)
        elif what & WRITABLE and connection.frame:
            if self.send_own(connection, b""):
                self._poller.watch_writable(connection.descriptor, False)
                self.catch_up(connection)

    # Groups

    def deliver_all(self, group: Group) -> None:
        while self.deliver(group):
            pass

    def deliver(self, group: Group) -> bool:
        """Send all members of a group what they have not read, or a piece of it.

        :returns: whether there is more.
        """
        group.has_news = False
        batch = group.log.read(group.cursor, BATCH_BYTES)
        data = frames(group.log, group.cursor, batch)
        if not data:
            return False
        group.sent_at = time.monotonic()
        group.named = batch.last_id
        for chunked, members in group.members.items():
            self._loop._write(group, chunked, list(members), data, is_end=batch.ended)
        if batch.ended:
            for connection in group.connections():
                self.end(connection)
        elif batch.more:
            group.tell()
        return batch.more

    def take_in(self, group: Group) -> None:
        """See to the connections that wait for the group, which has read on."""
        waiting, group.waiting = group.waiting, []
        for connection in waiting:
            if self.connections.get(connection.descriptor) is connection:
                self.guard(self.catch_up, connection)

    def join_group(self, connection: Connection, key: Key) -> None:
        group = self.groups.get(key)
        if group is None:
            group = Group(connection, self._tell_hub)
            group.log.watch(group.channels, group.tell)
            self.groups[key] = group
            group.tell()  # Of what came between reading and watching.
        group.members[connection.chunked][connection.descriptor] = connection
        connection.group = group
        connection.cursor = group.cursor

    def leave_group(self, connection: Connection) -> None:
        group, connection.group = connection.group, None
        if group is None:
            return
        group.members[connection.chunked].pop(connection.descriptor, None)
        if not any(group.members.values()):
            self.groups.pop((group.log, group.channels), None)
            group.log.unwatch(group.channels, group.tell)

    def fall_behind(self, connection: Connection, group: Group) -> None:
        """Take a connection out of its group. It has a cursor of its own until it has
        caught up."""
        connection.cursor = group.cursor.copy()
        self.leave_group(connection)
        self._poller.watch_writable(connection.descriptor, True)

    # Leaving

    def end(self, connection: Connection) -> None:
        self.remove(connection, properly=True)

    def remove(self, connection: Connection, *, properly: bool) -> None:
        """The one door out. Whatever fails on the way, the connection is closed."""
        with self._lock:
            # Its descriptor can be another's by now.
            is_served = self.connections.get(connection.descriptor) is connection
            if is_served:
                del self.connections[connection.descriptor]
                if connection.place:
                    self._places.release(connection.place)
        try:
            self.leave_group(connection)
            if is_served:
                with self._lock:
                    self._listeners.note(connection.log, connection.cursor.channels, -1)
                self._poller.remove(connection.descriptor)
        except OSError:
            pass  # It was never registered, or somebody else closed it.
        finally:
            if is_served:
                self._close(connection, properly=properly)

    def _close(self, connection: Connection, *, properly: bool) -> None:
        try:
            connection.close(self._poller, properly=properly)
        except OSError:
            logger.exception("A stream's connection could not be closed")

    def look_for_strays(self) -> None:
        """See to connections that a failure has left between two places."""
        groups = self.groups.values()
        settled = {id(c) for group in groups for c in group.waiting}
        settled.update(id(c) for group in groups for c in group.connections())
        for connection in list(self.connections.values()):
            if id(connection) in settled:
                continue
            try:
                if connection.frame:
                    self._poller.watch_writable(connection.descriptor, True)
                    continue
            except OSError:
                pass  # The poller never had it.
            self.remove(connection, properly=False)

    def send_all_off(self) -> None:
        """The loop cannot serve them: let all clients come back, here or elsewhere."""
        with self._lock:
            for connection in self.newcomers:
                self._put(connection)
            self.newcomers.clear()
        for connection in list(self.connections.values()):
            self.remove(connection, properly=False)

    def abandon(self) -> None:
        """In a forked child: close what is the parent's."""
        for descriptor in list(self.connections):
            close_descriptor(descriptor)
        for connection in self.newcomers:
            close_descriptor(connection.descriptor)

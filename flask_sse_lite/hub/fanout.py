"""The fan-out: connections that were taken over, and the groups that they read in.

Connections that have read the same channels to the same place form a group. The hub
reads and encodes once for the group. A connection that falls behind leaves its group,
and comes back when it has caught up. Here lives how connections come, join and leave
groups, and are closed. The loop decides when, and sends to the groups (loop.py). Only
the loop's thread calls what is here, where nothing else is said.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ..history.log import Log
from ..log_messages import HUB_STUMBLED, NOT_CLOSED
from ..signals import DisconnectReason
from ..signals.story import expect
from ..system.locks import Guard
from ..system.poller import WRITABLE, Poller, close_descriptor
from .connection import Connection, Group, framed
from .frames import BATCH_BYTES, frames
from .listeners import Listeners
from .places import Places
from .readers import Audience, Key, Readers


class Loop(Protocol):
    """The steps of the hub's loop that its parts call."""

    def _welcome_all(self) -> None:
        """Begin to serve all connections that are new."""

    def _admits(self, connection: Connection) -> bool:
        """Whether a connection that is new is served; otherwise it was ended."""

    def _end_revoked_of(self, log: Log) -> None:
        """End the streams whose clients must be let in anew."""

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
    :param tell_hub: what a group calls when it has news.
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
        #: The connections that nobody serves yet. Any thread that holds the lock can
        #: add to them.
        self.newcomers: deque[Connection] = deque()
        #: The connections that are served, by descriptor. Only the loop changes this,
        #: and it holds the lock.
        self.connections: dict[int, Connection] = {}
        self.groups: dict[Key, Group] = {}
        #: The connections that no look has looked at.
        self.arrivals: deque[Connection] = deque()

    def __len__(self) -> int:
        return len(self.connections) + len(self.newcomers)

    def guard(self, serve: Callable[[Any], object], whom: Any) -> None:
        """Serve a connection, a group or an audience. What goes wrong there (no memory,
        a descriptor that a library closed) can cost the connections among them their
        streams, and nobody else."""
        try:
            serve(whom)
        except BaseException as error:
            victims = whom.connections() if isinstance(whom, Group) else [whom]
            for victim in victims:
                if isinstance(victim, Connection):
                    self.remove(victim, properly=False, why="failed")
            self.look_for_strays()
            if isinstance(whom, Audience) or not isinstance(error, Exception):
                raise  # The loop starts again, and tells the audience anew.
            HUB_STUMBLED.log(whom, error=True)

    # Coming

    def welcome(self, connection: Connection) -> None:
        """Begin to serve a connection, which is the first of the newcomers."""
        with self._lock:
            # At no time is the connection counted as none, or as two.
            self.newcomers.popleft()
            self._put(connection)
        self.arrivals.append(connection)
        if connection.tell:
            connection.log.unwatch(connection.cursor.channels, connection.tell)
            connection.tell = None
        self._poller.add(connection.descriptor)
        connection.beat_at = connection.named_at = now = time.monotonic()
        if connection.settings.max_age is not None:
            connection.expires = now + connection.settings.max_age
        if connection.program and connection.program.is_stopped:
            # The server's other streams were told before. The next look ends this one.
            connection.expires = now
            expect(connection.story, "shutdown")
        if self._loop._admits(connection):
            self.catch_up(connection)

    def _put(self, connection: Connection) -> None:
        """Put a connection among those that are served. The caller holds the lock."""
        stray = self.connections.get(connection.descriptor)
        if stray:
            # A library closed its descriptor, and the system gave the number to the new
            # connection. Nobody finds the stray by its descriptor any more.
            self._listeners.discard(stray)
            if stray.place:
                self._places.release(stray.place)
            if stray.story is not None:
                stray.story.end("failed")
        self.connections[connection.descriptor] = connection

    def catch_up(self, connection: Connection) -> None:
        """Send a connection what its group has read and the connection has not, and
        take it into the group. (What is published meanwhile, the group sends it: a
        connection that had to read that by itself might never catch up.)"""
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
            self._loop._end_revoked_of(log)
            if self.connections.get(connection.descriptor) is not connection:
                return
            data = frames(log, cursor, batch)
            if not data:
                break
            connection.is_ended = batch.ended
            if connection.story is not None:
                connection.story.note_batch(batch, data)
            frame = framed(data, chunked=connection.chunked)
            if not self.send_own(connection, frame):
                return
        self.join_group(connection, key)

    def send_own(self, connection: Connection, frame: bytes) -> bool:
        """Send a frame to a connection that is in no group. An empty frame stands for
        what is left of the frame before.

        :returns: whether the connection can be sent more.
        """
        try:
            is_sent = (
                connection.send(self._poller, frame)
                if frame
                else connection.flush(self._poller)
            )
        except OSError:
            self.remove(connection, properly=False, why="left")
            return False
        if not is_sent:
            self._poller.watch_writable(connection.descriptor, True)
        elif connection.is_ended:
            self.end(connection, "ended")
        return is_sent and not connection.is_ended

    def serve(self, connection: Connection) -> None:
        """Do what the system says a connection is ready for."""
        what = connection.ready
        if what & ~WRITABLE and not connection.read():
            self.end(connection, "talkative" if connection.is_talkative else "left")
        elif what & WRITABLE and connection.frame:
            if self.send_own(connection, b""):
                self._poller.watch_writable(connection.descriptor, False)
                self.catch_up(connection)

    # Groups

    def deliver_all(self, group: Group) -> None:
        while self.deliver(group):
            pass

    def deliver(self, group: Group) -> bool:
        """Send all members of a group what they have not read, or the first piece of
        it.

        :returns: whether there is more.
        """
        group.has_news = False
        batch = group.log.read(group.cursor, BATCH_BYTES)
        self._loop._end_revoked_of(group.log)
        data = frames(group.log, group.cursor, batch)
        if not data:
            return False
        group.sent_at = time.monotonic()
        group.named = batch.last_id
        if group.tally is not None:
            group.tally.begin(batch, data, group.size)
        for chunked, members in group.members.items():
            self._loop._write(group, chunked, list(members), data, is_end=batch.ended)
        if group.tally is not None:
            group.tally.finish()
        if batch.ended:
            for connection in group.connections():
                self.end(connection, "ended")
        elif batch.more:
            group.tell()
        return batch.more

    def take_in(self, group: Group) -> None:
        """The group has read on: let the connections that wait for it catch up."""
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
            group.tell()  # Something can have come between reading and watching.
        group.members[connection.chunked][connection.descriptor] = connection
        connection.group = group
        connection.cursor = group.cursor
        if connection.story is not None:
            group.tally = connection.story.join(group.tally)

    def leave_group(self, connection: Connection) -> None:
        group, connection.group = connection.group, None
        if group is None:
            return
        group.members[connection.chunked].pop(connection.descriptor, None)
        if connection.story is not None and group.tally is not None:
            connection.story.leave(group.tally)
        if not any(group.members.values()):
            self.groups.pop((group.log, group.channels), None)
            group.log.unwatch(group.channels, group.tell)

    def fall_behind(self, connection: Connection, group: Group) -> None:
        """Take a connection out of its group. The connection has a cursor of its own
        until it has caught up."""
        connection.cursor = group.cursor.copy()
        connection.beat_at = connection.last_sent_at
        connection.has_head_start = True
        self.leave_group(connection)
        if connection.story is not None and group.tally is not None:
            connection.story.note(*group.tally.in_flight)
        self._poller.watch_writable(connection.descriptor, True)

    # Leaving

    def end(self, connection: Connection, why: DisconnectReason = "ended") -> None:
        self.remove(connection, properly=True, why=why)

    def remove(
        self, connection: Connection, *, properly: bool, why: DisconnectReason = "left"
    ) -> None:
        """Close a connection and forget it, whatever fails on the way. No connection
        leaves otherwise.

        :param why: what its end is told as.
        """
        is_served = False
        try:
            with self._lock:
                # The descriptor can belong to another connection by now.
                is_served = self.connections.get(connection.descriptor) is connection
                if is_served:
                    del self.connections[connection.descriptor]
                    if connection.place:
                        self._places.release(connection.place)
                    self._listeners.discard(connection)
            self.leave_group(connection)
        finally:
            if is_served:
                unsent = len(connection.frame) - connection.sent
                self._close(connection, properly=properly)
                if connection.story is not None:
                    connection.story.end(why, unsent if connection.frame else 0)

    def _close(self, connection: Connection, *, properly: bool) -> None:
        try:
            connection.close(self._poller, properly=properly)
        except OSError:
            NOT_CLOSED.log(error=True)

    def look_for_strays(self) -> None:
        """Find the connections that a failure has left in no group: go on sending what
        is left of a frame, and close the others."""
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
                pass  # The poller never had the descriptor.
            self.remove(connection, properly=False, why="failed")

    def send_all_off(self) -> None:
        """Close all connections, because the loop cannot serve them: their clients come
        back, to this process or another."""
        with self._lock:
            for connection in self.newcomers:
                self._put(connection)
            self.newcomers.clear()
        for connection in list(self.connections.values()):
            self.remove(connection, properly=False, why="failed")

    def abandon(self) -> None:
        """Close the descriptors that belong to the parent of a forked process. The
        child calls this."""
        for descriptor in list(self.connections):
            close_descriptor(descriptor)
        for connection in self.newcomers:
            close_descriptor(connection.descriptor)

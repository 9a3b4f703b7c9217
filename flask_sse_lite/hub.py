"""The hub: the one loop per process that serves every open stream.

Here lives what happens to streams as events come and as time passes. A connection that
was taken over is the hub's alone: connections that have read the same channels to the
same place form a group, which is read, encoded and written as one; whoever falls
behind leaves its group, and comes back when it has caught up. Of the streams that a
server still iterates, the hub only tells the time.

It is one daemon thread under threads, and one greenlet under a monkey-patched gevent.
It starts with the first stream and ends with the last. Whatever is written here as the
loop's own is touched by nobody else, and so needs no lock.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import time
from collections import Counter, deque
from typing import Any, Protocol

from .connection import Connection, frame_chunk
from .event import HEARTBEAT
from .log import Log
from .poller import WRITABLE, new_poller
from .stream import BATCH_BYTES, POSITION_INTERVAL, frames, position_event

#: Seconds between two looks at whether the server is about to stop.
TICK = 0.25

#: Looks at the streams per heartbeat, and the longest time between two, in seconds.
LOOKS_PER_HEARTBEAT = 16
LONGEST_LOOK = 1.0

#: Seconds of writing after which others get their turn.
TURN = 0.002

#: Connections written to between two looks at the clock.
WRITES_PER_CLOCK = 32

#: Seconds that a process which exits waits for its streams' proper ends.
EXIT_GRACE = 2.0

#: Spreads consecutive numbers evenly.
GOLDEN_RATIO = 0.618034

logger = logging.getLogger("flask_sse_lite")

Key = tuple[Log, tuple[str, ...]]


class Iterated(Protocol):
    """A stream that a server iterates, as the hub sees it."""

    @property
    def heartbeat(self) -> float:
        """Seconds of silence before a sign of life is sent."""

    def tick(self, now: float) -> None:
        """Look at the clock (``time.monotonic()``). May not wait, nor raise."""

    def stop(self) -> None:
        """End, for the server stops. May not wait, nor raise."""


class Group:
    """Connections that have read the same to the same place, which is its cursor. The
    loop's own, but for ``tell``."""

    def __init__(self, hub: Hub, first: Connection) -> None:
        self.log = first.log
        self.settings = first.settings
        self.cursor = first.cursor
        self.members: set[Connection] = set()
        #: When all of them were last sent events, and how far the log had come then.
        self.sent_at = 0.0
        self.named = first.cursor.position
        self.has_news = False
        self._hub = hub

    def tell(self) -> None:
        """The log's call, in the publisher's thread."""
        if not self.has_news:
            self.has_news = True
            self._hub.tell(self)


class Hub:
    """The open streams of a process. The public methods may be called from any
    thread."""

    def __init__(self) -> None:
        self.is_stopping = False
        self._is_abandoned = False
        self._lock = threading.Lock()
        self._is_running = False
        self._has_stopped = threading.Event()
        self._iterated: set[Iterated] = set()
        self._newcomers: deque[Connection] = deque()
        self._news: deque[Group] = deque()
        self._poller = new_poller()
        self._is_awake = False
        self._paths: Counter[tuple[str, str]] = Counter()
        # The loop's own.
        self._groups: dict[Key, Group] = {}
        self._connections: dict[int, Connection] = {}
        self._look = LONGEST_LOOK
        self._looked_at = 0.0

    def __len__(self) -> int:
        return len(self._iterated) + len(self._connections) + len(self._newcomers)

    # For others to call

    def add(self, stream: Iterated) -> None:
        """Tell a stream the time, until it is discarded."""
        with self._lock:
            self._iterated.add(stream)
            self._look = min(self._look, stream.heartbeat / LOOKS_PER_HEARTBEAT)
            self._start()

    def discard(self, stream: Iterated) -> None:
        with self._lock:
            self._iterated.discard(stream)

    def adopt(self, connection: Connection) -> None:
        """Serve a connection from here on, from its cursor."""
        heartbeat = connection.settings.heartbeat
        with self._lock:
            self._newcomers.append(connection)
            self._look = min(self._look, heartbeat / LOOKS_PER_HEARTBEAT)
            self._start()
        self._wake()

    def tell(self, group: Group) -> None:
        """There is something new for a group."""
        self._news.append(group)
        self._wake()

    def note_path(self, path: str, reason: str, *, warn: bool = False) -> None:
        """Count a stream by the way it is delivered.

        :param path: "handed off" or "iterated".
        :param reason: by which server, or why.
        :param warn: whether an operator could and should do something about it.
        """
        with self._lock:
            is_first = (path, reason) not in self._paths
            self._paths[path, reason] += 1
        logger.debug("A stream is %s: %s", path, reason)
        if warn and is_first:
            logger.warning(
                "Event streams cannot be handed off, and each holds a thread or a "
                "greenlet of the server: %s",
                reason,
            )

    def stats(self) -> dict[str, Any]:
        """How many streams are open, and how streams were delivered since the process
        began."""
        with self._lock:
            paths = self._paths.copy()
        return {
            "open": {
                "handed off": len(self._connections) + len(self._newcomers),
                "iterated": len(self._iterated),
            },
            "handed off": {r: n for (p, r), n in paths.items() if p == "handed off"},
            "iterated": {r: n for (p, r), n in paths.items() if p == "iterated"},
        }

    def stop(self, timeout: float) -> None:
        """End all streams properly, so that their clients come back elsewhere, and
        refuse new ones.

        :param timeout: seconds to wait for that at most.
        """
        self.is_stopping = True
        if self._is_running and not self._is_abandoned:
            self._wake()
            self._has_stopped.wait(timeout)

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's."""
        for descriptor in list(self._connections):
            self._poller.close_descriptor(descriptor)
        for connection in self._newcomers:
            self._poller.close_descriptor(connection.descriptor)
        self._is_abandoned = True
        self._poller.close()

    def _wake(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._poller.wake()

    def _start(self) -> None:
        if not self._is_running:
            self._is_running = True
            threading.Thread(
                target=self._run, name="flask_sse_lite.hub", daemon=True
            ).start()

    # The loop

    def _run(self) -> None:
        worker = _gunicorn_worker()
        while True:
            events = self._poller.wait(min(TICK, self._look))
            if self._is_abandoned:
                return
            # Who has news from here on wakes again; who had before is served below.
            self._is_awake = False
            if self.is_stopping or not getattr(worker, "alive", True):
                self._stop()
            while self._newcomers:
                self._welcome(self._newcomers.popleft())
            for descriptor, what in events:
                if connection := self._connections.get(descriptor):
                    self._serve(connection, what)
            while self._news:
                self._deliver(self._news.popleft())
            now = time.monotonic()
            if now - self._looked_at >= self._look:
                self._looked_at = now
                if not self._look_around(now):
                    return

    def _stop(self) -> None:
        self.is_stopping = True
        with self._lock:
            iterated = list(self._iterated)
        for stream in iterated:
            stream.stop()
        while self._newcomers:
            self._welcome(self._newcomers.popleft())
        for connection in list(self._connections.values()):
            self._end(connection)
        self._has_stopped.set()

    def _look_around(self, now: float) -> bool:
        """Give signs of life to the silent, end the old.

        :returns: False when there is nobody left, and the loop ends.
        """
        with self._lock:
            iterated = list(self._iterated)
            if not iterated and not self._connections and not self._newcomers:
                self._is_running = False
                self._look = LONGEST_LOOK
                return False
        for stream in iterated:
            stream.tick(now)
        for group in list(self._groups.values()):
            self._look_at(group, now)
        for connection in list(self._connections.values()):
            if connection.expires and now >= connection.expires:
                self._end(connection)
        return True

    def _look_at(self, group: Group, now: float) -> None:
        if group.cursor.position != group.log.sequence:
            self._deliver(group)  # Others' events moved the log on: see how far.
        has_moved = group.cursor.position != group.named
        for connection in list(group.members):
            silent = now - max(group.sent_at, connection.beat_at)
            # Those that got the last event together are not to beat together.
            spread = 0.5 + connection.descriptor * GOLDEN_RATIO % 0.5
            if silent < group.settings.heartbeat * spread:
                continue
            connection.beat_at = now
            data = HEARTBEAT
            named_for = now - max(group.sent_at, connection.named_at)
            if has_moved and named_for >= POSITION_INTERVAL:
                connection.named_at = now
                data = position_event(group.log, group.cursor.position)
            self._write(group, [connection], data)

    # Delivery

    def _deliver(self, group: Group) -> None:
        """Send all members of a group what they have not read."""
        group.has_news = False
        batch = group.log.read(group.cursor, BATCH_BYTES)
        data = frames(group.log, group.cursor, batch)
        if not data:
            return
        group.sent_at = time.monotonic()
        group.named = group.cursor.position
        self._write(group, list(group.members), data, is_end=batch.ended)
        if batch.ended:
            for connection in list(group.members):
                self._end(connection)
        elif batch.more:
            group.tell()

    def _write(
        self,
        group: Group,
        members: list[Connection],
        data: bytes,
        *,
        is_end: bool = False,
    ) -> None:
        chunk = frame_chunk(data)
        send = self._poller.send
        clock = time.monotonic
        turn_ends = clock() + TURN
        for count, connection in enumerate(members):
            frame = chunk if connection.chunked else data
            try:
                sent = send(connection.descriptor, frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._remove(connection, properly=False)
                continue
            if sent != len(frame):
                connection.rest = frame[sent:]
                connection.is_ended = is_end
                self._fall_behind(connection, group)
            if count % WRITES_PER_CLOCK == 0 and clock() > turn_ends:
                self._poller.give_way()
                turn_ends = clock() + TURN

    def _fall_behind(self, connection: Connection, group: Group) -> None:
        """Out of its group, with a cursor of its own, until it has caught up."""
        connection.cursor = group.cursor.copy()
        self._leave_group(connection)
        self._poller.watch_writable(connection.descriptor, True)

    def _welcome(self, connection: Connection) -> None:
        """Begin to serve a connection."""
        self._connections[connection.descriptor] = connection
        self._poller.add(connection.descriptor)
        connection.beat_at = connection.named_at = now = time.monotonic()
        if connection.settings.max_age is not None:
            connection.expires = now + connection.settings.max_age
        if self.is_stopping:
            self._end(connection)
        else:
            self._catch_up(connection)

    def _catch_up(self, connection: Connection) -> None:
        """Send a connection what it has not read, and take it into its group when
        there is nothing left."""
        log, cursor = connection.log, connection.cursor
        key = (log, cursor.channels)
        while True:
            if group := self._groups.get(key):
                # Now the group has read everything; when after that there is nothing
                # for the newcomer, both have read the same.
                self._deliver(group)
            batch = log.read(cursor, BATCH_BYTES)
            data = frames(log, cursor, batch)
            if not data:
                break
            connection.is_ended = batch.ended
            if not self._send_own(connection, data):
                return
        self._join_group(connection, key)

    def _send_own(self, connection: Connection, data: bytes) -> bool:
        """Send something to a connection outside of groups.

        :returns: whether it can be sent more.
        """
        try:
            is_sent = connection.write(self._poller, data)
        except OSError:
            self._remove(connection, properly=False)
            return False
        if not is_sent:
            self._poller.watch_writable(connection.descriptor, True)
        elif connection.is_ended:
            self._end(connection)
        return is_sent and not connection.is_ended

    def _serve(self, connection: Connection, what: int) -> None:
        """See to what the system says of a connection."""
        if what & ~WRITABLE and not connection.read():
            self._end(connection)
        elif what & WRITABLE and connection.rest:
            if self._send_own(connection, connection.rest):
                self._poller.watch_writable(connection.descriptor, False)
                self._catch_up(connection)

    # Groups and ends

    def _join_group(self, connection: Connection, key: Key) -> None:
        group = self._groups.get(key)
        if group is None:
            group = Group(self, connection)
            self._groups[key] = group
            group.log.watch(group.cursor.channels, group.tell)
            group.tell()  # Of what came between reading and watching.
        group.members.add(connection)
        connection.group = group
        connection.cursor = group.cursor

    def _leave_group(self, connection: Connection) -> None:
        group, connection.group = connection.group, None
        if group is None:
            return
        group.members.discard(connection)
        if not group.members:
            group.log.unwatch(group.cursor.channels, group.tell)
            self._groups.pop((group.log, group.cursor.channels), None)

    def _end(self, connection: Connection) -> None:
        self._remove(connection, properly=True)

    def _remove(self, connection: Connection, *, properly: bool) -> None:
        """The one door out."""
        self._leave_group(connection)
        del self._connections[connection.descriptor]
        self._poller.remove(connection.descriptor)
        connection.close(self._poller, properly=properly)


def _gunicorn_worker() -> object:
    """gunicorn's worker, whose ``alive`` turns False when it begins to stop, whatever
    makes it: a signal, max_requests, its parent's end. It is the owner of the handler
    of its signals; where there is none, something without ``alive``."""
    return getattr(signal.getsignal(signal.SIGTERM), "__self__", None)


# A process must have one of it. Two threads that both find none agree on one, as
# setdefault is atomic.
_hubs: dict[int, Hub] = {}


def current_hub() -> Hub:
    """This process's hub."""
    pid = os.getpid()
    try:
        return _hubs[pid]
    except KeyError:
        hub = _hubs.setdefault(pid, Hub())
        if len(_hubs) == 1:
            atexit.register(_stop_at_exit)
            os.register_at_fork(after_in_child=_abandon_in_child)
        return hub


def _stop_at_exit() -> None:
    """For servers that are no gunicorn, and for what gunicorn's have left."""
    if hub := _hubs.get(os.getpid()):
        hub.stop(timeout=EXIT_GRACE)


def _abandon_in_child() -> None:
    for hub in _hubs.values():
        hub.abandon()
    _hubs.clear()

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
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import Reentered
from ..event import HEARTBEAT
from ..history.log import Log
from ..servers import gunicorn
from ..servers.programs import programs
from ..settings import Settings
from ..system.backoff import Backoff
from ..system.locks import Guard
from ..system.open_files import room_for_streams
from ..system.outgoing import bytes_waiting
from ..system.poller import WRITABLE, close_descriptor, new_poller
from .connection import Connection, Group, framed
from .counts import OpenStreams, Paths, Stats
from .frames import BATCH_BYTES, POSITION_INTERVAL, frames, position_event
from .readers import Audience, Iterated, Readers, Timed
from .stall import Progress, cut

#: Seconds between two looks at whether the server is about to stop.
TICK = 0.25

#: Looks at the streams per heartbeat, and the longest time between two, in seconds.
LOOKS_PER_HEARTBEAT = 16
LONGEST_LOOK = 1.0

#: Looks in which the hub has asked the system once of each connection whether something
#: waits for its client: half a heartbeat. To ask at each look would cost as much as all
#: else that an idle connection costs.
LOOKS_PER_ROUND = LOOKS_PER_HEARTBEAT // 2

#: The share of a heartbeat's time after which it is due: what was sent is seen at the
#: hub's next look, and the one after the heartbeat's time would be too late.
DUE_SHARE = 1 - 2 / LOOKS_PER_HEARTBEAT

#: Connections written to before others may get their turn.
WRITES_PER_BREATH = 4

#: Iterated streams woken before they get their turn. Few enough for what that allocates
#: to be gone again before Python's garbage collector counts it.
WAKES_PER_TURN = 64

#: Seconds that a process which exits waits for its streams' proper ends.
EXIT_GRACE = 2.0

#: Seconds that the readers of a run wait, when the server stops, for what it says last:
#: its broker may be away.
LAST_WORDS = 1.0

#: Seconds between a failure of the loop and its next start: the first and the longest.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0

#: Failures of the loop, one soon after the other, after which its clients are sent off:
#: they are open, and nobody serves them.
FAILURES_BORNE = 5

#: The share of a heartbeat's time after which the first of a group get theirs.
LEAST_SPREAD = 0.5

#: Seconds between two questions for how many streams there is room. The answer hardly
#: ever changes, and twice per stream it would be a tenth of what a stream costs.
ROOM_KNOWN = 1.0

#: Spreads consecutive numbers evenly.
GOLDEN_RATIO = 0.618034

logger = logging.getLogger("flask_sse_lite")

Key = tuple[Log, tuple[str, ...]]


class _Ending:
    """Streams that are to end while the hub goes on.

    :param is_of: whether a stream is one of them.
    :param patience: seconds that the requests among them can still take.
    """

    def __init__(
        self, is_of: Callable[[Timed | Connection], bool], patience: float = 0
    ) -> None:
        self.is_of = is_of
        self.patience = patience
        self.is_done = threading.Event()


class Hub:
    """The open streams of a process. The public methods may be called from any
    thread."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.paths = Paths()
        self._is_abandoned = False
        self._lock = Guard()
        self.is_running = False
        self._has_stopped = threading.Event()
        self._iterated: set[Iterated] = set()
        self._timed: set[Timed] = set()
        self._listeners: Counter[tuple[Log, str]] = Counter()
        self._audiences: dict[Key, Audience] = {}
        self._leavers: deque[Iterated] = deque()
        self._arriving: dict[object, Settings] = {}
        #: Those of them that are to end as soon as they are there.
        self._doomed: set[object] = set()
        self._newcomers: deque[Connection] = deque()
        self._news: deque[Readers] = deque()
        self._endings: deque[_Ending] = deque()
        self._poller = new_poller()
        self._is_awake = False
        # The loop's own.
        self._groups: dict[Key, Group] = {}
        self._connections: dict[int, Connection] = {}
        self._look = LONGEST_LOOK
        self._looked_at = 0.0
        self._stops_at = 0.0
        self._awaited: set[tuple[Log, str]] = set()
        # Connections that this round has not looked at, how many of them each look
        # takes, and those for whose clients something waits.
        self._unseen: list[Connection] = []
        self._share = 1
        self._suspects: dict[int, Connection] = {}
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        # Anybody's: what comes of a race is the same.
        self._room = 0
        self._room_known_until = 0.0

    def __len__(self) -> int:
        served = len(self._iterated) + len(self._connections)
        return served + len(self._newcomers) + len(self._arriving)

    def limit(self, settings: Settings) -> int:
        """How many streams there may be: as many as is set, or as the process has
        descriptors for."""
        if settings.max_connections:
            return settings.max_connections
        now = time.monotonic()
        if now >= self._room_known_until:
            self._room = room_for_streams(gunicorn.connections())
            self._room_known_until = now + ROOM_KNOWN
        return self._room

    def listeners(self, log: Log, channel: str) -> int:
        """How many streams of a channel there are."""
        return self._listeners[log, channel]

    def counts(self, log: Log) -> dict[str, int]:
        """How many streams there are of each of a log's channels that has any."""
        # Not under the lock: whoever asks may have interrupted its holder. To copy a
        # dictionary is one step.
        return {
            channel: count
            for (its_log, channel), count in dict(self._listeners).items()
            if its_log is log and count
        }

    # For others to call

    def is_full(self, settings: Settings) -> bool:
        """Whether there is no place for another stream."""
        with self._lock:
            return len(self) >= self.limit(settings)

    def arrive(self, stream: object, settings: Settings) -> bool:
        """Keep a place for a stream that begins, until it is added, adopted or
        dismissed. However many arrive at once, those past the limit are told so.

        :returns: whether there was one.
        """
        with self._lock:
            if len(self) >= self.limit(settings):
                return False
            self._arriving[stream] = settings
            return True

    def dismiss(self, stream: object) -> None:
        """A stream that arrived will not come. It never waits, as ``discard``."""
        self._arriving.pop(stream, None)
        self._doomed.discard(stream)

    def keep_time(self, whom: Timed) -> None:
        """Tell somebody of the time, until it is forgotten."""
        with self._lock:
            self._timed.add(whom)
            self._look = min(self._look, whom.heartbeat / LOOKS_PER_HEARTBEAT)
            self._start()

    def forget(self, whom: Timed) -> None:
        """Undo ``keep_time``. It never waits, as ``discard``."""
        self._timed.discard(whom)

    def add(self, stream: Iterated) -> None:
        """Tell a stream of news and of the time, until it is discarded."""
        key = (stream.log, stream.channels)
        with self._lock:
            is_doomed = self._take_in_place(stream)
            self._iterated.add(stream)
            self._count(stream.log, stream.channels, 1)
            if is_doomed:
                stream.stop(0)
            elif stream.program and stream.program.is_stopped:
                stream.stop()  # Nobody else tells it.
            audience = self._audiences.get(key)
            if audience is None:
                audience = self._audiences[key] = Audience(stream, self.tell)
                stream.log.watch(stream.channels, audience.tell)
            audience.members.add(stream)
            self._look = min(self._look, stream.heartbeat / LOOKS_PER_HEARTBEAT)
            self._start()

    def discard(self, stream: Iterated) -> None:
        """Undo ``add``. It never waits: a stream may be collected as garbage by a
        thread that holds the lock."""
        self._leavers.append(stream)
        if self._lock.acquire(timeout=0):
            try:
                self._let_go()
            finally:
                self._lock.release()

    def _let_go(self) -> None:
        """Of streams that were discarded. The lock is held."""
        while self._leavers:
            stream = self._leavers.popleft()
            if stream not in self._iterated:
                continue
            self._iterated.discard(stream)
            self._count(stream.log, stream.channels, -1)
            audience = self._audiences[stream.log, stream.channels]
            audience.members.discard(stream)
            if not audience.members:
                del self._audiences[stream.log, stream.channels]
                stream.log.unwatch(stream.channels, audience.tell)

    def _count(self, log: Log, channels: Iterable[str], change: int) -> None:
        """Of the listeners. The lock is held."""
        for channel in channels:
            self._listeners[log, channel] += change
            if not self._listeners[log, channel]:
                del self._listeners[log, channel]

    def adopt(self, connection: Connection, stream: object) -> None:
        """Serve a stream's connection from here on, from its cursor."""
        pace = min(connection.settings.heartbeat, connection.settings.stall)
        log, cursor = connection.log, connection.cursor
        connection.tell = tell = lambda: self._wake()
        log.watch(cursor.channels, tell)
        with self._lock:
            is_doomed = self._take_in_place(stream)
            try:
                self._start()
            except BaseException:
                log.unwatch(cursor.channels, tell)
                close_descriptor(connection.descriptor)
                raise
            self._has_stopped.clear()
            self._newcomers.append(connection)
            self._count(log, cursor.channels, 1)
            self._look = min(self._look, pace / LOOKS_PER_HEARTBEAT)
            if is_doomed:
                self._endings.append(_Ending(lambda whom: whom is connection))
        # Where there is nothing to catch up with, it can wait until there is, or until
        # the loop turns for others: to wake it costs as much as all else here.
        if is_doomed or cursor.position != log.sequence:
            self._wake()

    def _take_in_place(self, stream: object) -> bool:
        """A stream that arrived is there. The lock is held.

        :returns: whether it is to end at once.
        """
        self._arriving.pop(stream, None)
        is_doomed = stream in self._doomed
        self._doomed.discard(stream)
        return is_doomed

    def tell(self, readers: Readers) -> None:
        """There is something new for these."""
        self._news.append(readers)
        self._wake()

    def stats(self) -> Stats:
        """How many streams are open, and how streams were delivered since the process
        began."""
        try:
            with self._lock:
                are_open = self._open_streams()
        except Reentered:
            are_open = self._open_streams()  # One may be counted twice now, or not yet.
        return self.paths.stats(are_open)

    def _open_streams(self) -> OpenStreams:
        handed_off = len(self._connections) + len(self._newcomers)
        return {"handed off": handed_off, "iterated": len(self._iterated)}

    def stop(self, timeout: float) -> None:
        """End all streams properly, so that their clients come back elsewhere, and
        refuse new ones.

        :param timeout: seconds to wait for that at most.
        """
        self.is_stopping = True
        if self.is_running and not self._is_abandoned:
            self._wake()
            self._has_stopped.wait(timeout)

    def end_streams(self, settings: Settings, timeout: float) -> None:
        """End all streams of an application properly, and those that are just about to
        begin. Those that begin from now on are served.

        :param settings: the application's.
        :param timeout: seconds to wait for that at most.
        """
        ending = _Ending(lambda whom: whom.settings is settings)
        with self._lock:
            arriving = list(self._arriving.items())
            self._doomed |= {stream for stream, its in arriving if its is settings}
            if not self.is_running:
                return
            self._endings.append(ending)
        self._wake()
        ending.is_done.wait(timeout)

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's."""
        for descriptor in list(self._connections):
            close_descriptor(descriptor)
        for connection in self._newcomers:
            close_descriptor(connection.descriptor)
        self._is_abandoned = True
        self._poller.close()

    def _wake(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._poller.wake()

    def _start(self) -> None:
        """Begin the loop, unless it runs. The lock is held."""
        if not self.is_running:
            self._poller.start(self._run, self._after_failure)
            self.is_running = True

    # The loop

    def _run(self) -> None:
        worker = gunicorn.current_worker()
        if self._backoff.failures:
            self._resume()
        while self._turn(worker):
            pass
        with self._lock:
            if self.is_stopping and not self.is_running:
                self._has_stopped.set()

    def _after_failure(self, error: BaseException) -> float | None:
        """The loop has failed, whatever it was that it met.

        :returns: seconds after which it is to run again; None where nobody is left.
        """
        if self._is_abandoned:
            return None
        pause = self._backoff.next()
        try:
            logger.error("The hub failed; it goes on in %s s", pause, exc_info=error)
            if self._backoff.failures > FAILURES_BORNE:
                self._send_all_off()
            with self._lock:
                self._let_go()
                if not self._has_anyone():
                    self.is_running = False
                    return None
        except Exception:
            logger.exception("The hub has failed twice at once")
        return pause

    def _resume(self) -> None:
        """Go on after a failure: whatever the loop was about to do, it does now."""
        with self._lock:
            audiences = list(self._audiences.values())
        for readers in (*audiences, *self._groups.values()):
            readers.has_news = False
            readers.tell()
        self._look_for_strays()

    def _look_for_strays(self) -> None:
        """See to connections that a failure has left between two places."""
        groups = self._groups.values()
        settled = {id(c) for group in groups for c in group.waiting}
        settled.update(id(c) for group in groups for c in group.connections())
        for connection in list(self._connections.values()):
            if id(connection) in settled:
                continue
            try:
                if connection.frame:
                    self._poller.watch_writable(connection.descriptor, True)
                    continue
            except OSError:
                pass  # The poller never had it.
            self._remove(connection, properly=False)

    def _send_all_off(self) -> None:
        """The loop cannot serve them: let all clients come back, here or elsewhere."""
        with self._lock:
            iterated = list(self._iterated)
            for connection in self._newcomers:
                self._connections[connection.descriptor] = connection
            self._newcomers.clear()
        for stream in iterated:
            stream.stop()
        for connection in list(self._connections.values()):
            self._remove(connection, properly=False)

    def _turn(self, worker: object) -> bool:
        """Wait, and then do all there is to do.

        :returns: whether there are streams left.
        """
        events = self._poller.wait(min(TICK, self._look))
        # Who has news from here on wakes again; who had before is served below.
        self._is_awake = False
        if self.is_stopping or gunicorn.is_stopping(worker):
            self._stop()
        self._end_the_dismissed()
        self._welcome_all()
        for descriptor, what in events:
            if connection := self._connections.get(descriptor):
                connection.ready = what
                self._guard(self._serve, connection)
                self._poller.breathe()
        # And no more than these: where events come faster than they can be sent, there
        # is always more, and nobody else would ever get their turn.
        for _ in range(len(self._news)):
            readers = self._news.popleft()
            if isinstance(readers, Group):
                self._guard(self._deliver, readers)
                if readers.waiting:
                    self._take_in(readers)
            else:
                self._guard(self._call, readers)
            self._poller.breathe()
        now = time.monotonic()
        if now - self._looked_at < self._look:
            return True
        self._looked_at = now
        return self._look_around(now)

    def _guard(self, serve: Callable[[Any], object], whom: Any) -> None:
        """Serve somebody; what goes wrong there (no memory, a descriptor that a
        library closed) may cost them their stream, and nobody else."""
        try:
            serve(whom)
        except BaseException as error:
            victims = whom.connections() if isinstance(whom, Group) else [whom]
            for victim in victims:
                if isinstance(victim, Connection):
                    self._remove(victim, properly=False)
            self._look_for_strays()
            if isinstance(whom, Audience) or not isinstance(error, Exception):
                raise  # The loop starts again, and tells the audience anew.
            logger.exception("The hub could not go on with %r", whom)

    def _stop(self) -> None:
        self.is_stopping = True
        with self._lock:
            timed = [*self._timed, *self._iterated]
        for whom in timed:
            self._have_stop(whom)
        awaited = self._still_awaited()
        self._welcome_all()
        for group in list(self._groups.values()):
            self._guard(self._deliver_all, group)
            self._take_in(group)
        for connection in list(self._connections.values()):
            channels = connection.cursor.channels
            if not any((connection.log, channel) in awaited for channel in channels):
                self._end(connection)
        with self._lock:
            if not self._newcomers and not self._connections:
                self._has_stopped.set()

    def _end_the_dismissed(self) -> None:
        """End the streams of servers that were stopped while this process goes on, and
        of applications that have asked for it."""
        for program in programs.take_stopped():
            self._endings.append(
                _Ending(
                    lambda whom, program=program: whom.program is program,  # type: ignore[misc]
                    program.grace,
                )
            )
        while self._endings:
            # It is taken out when it is done: a loop that fails comes back to it.
            ending = self._endings[0]
            self._end_all(ending)
            self._endings.popleft()
            ending.is_done.set()

    def _end_all(self, ending: _Ending) -> None:
        """End some streams properly, with all that was published before."""
        with self._lock:
            timed = [*self._timed, *self._iterated]
        for whom in timed:
            if ending.is_of(whom):
                self._have_stop(whom, ending.patience)
        self._welcome_all()
        for group in list(self._groups.values()):
            if any(map(ending.is_of, group.connections())):
                self._guard(self._deliver_all, group)
                self._take_in(group)
        for connection in list(self._connections.values()):
            if ending.is_of(connection):
                self._end(connection)

    def _have_stop(self, whom: Timed, patience: float | None = None) -> None:
        try:
            if patience is None and (last_words := whom.last_words):
                self._awaited.add(last_words)
            whom.stop(patience)
        except Exception:
            logger.exception("The hub could not stop %r", whom)

    def _still_awaited(self) -> set[tuple[Log, str]]:
        """The channels of runs that have not had their last words."""
        now = time.monotonic()
        self._stops_at = self._stops_at or now + LAST_WORDS
        if now >= self._stops_at:
            return set()
        return {(log, name) for log, name in self._awaited if log.is_running(name)}

    def _look_around(self, now: float) -> bool:
        """Give signs of life to the silent, end the old.

        :returns: False when there is nobody left, and the loop ends.
        """
        with self._lock:
            self._let_go()
            timed = [*self._timed, *self._iterated]
            if not self._has_anyone():
                self.is_running = False
                self._look = LONGEST_LOOK
                self._unseen.clear()
                return False
        for whom in timed:
            try:
                whom.tick(now)
            except Exception:
                logger.exception("The hub could not tell %r the time", whom)
        for group in list(self._groups.values()):
            self._guard(self._look_at, group)
            self._poller.breathe()
        for connection in list(self._connections.values()):
            if connection.expires and now >= connection.expires:
                self._end(connection)
        self._look_for_stalls(now)
        return True

    def _has_anyone(self) -> bool:
        """Whether there is anyone to serve. The lock is held."""
        return bool(
            self._timed
            or self._iterated
            or self._connections
            or self._newcomers
            or self._endings
        )

    def _look_for_stalls(self, now: float) -> None:
        """Cut clients that take nothing. Those who live come back, and are told what
        they have missed."""
        if not self._unseen:
            self._unseen = list(self._connections.values())
            self._share = -(-len(self._unseen) // LOOKS_PER_ROUND)
        seen = self._unseen[-self._share :]
        del self._unseen[-self._share :]
        for connection in seen:
            self._guard(self._suspect, connection)
        for connection in list(self._suspects.values()):
            self._guard(self._look_at_suspect, connection)

    def _suspect(self, connection: Connection) -> None:
        """See whether something waits for a client."""
        descriptor = connection.descriptor
        if (
            self._connections.get(descriptor) is connection
            and not connection.progress
            and bytes_waiting(descriptor)
        ):
            stall = connection.settings.stall
            connection.progress = Progress(descriptor, stall, time.monotonic())
            self._suspects[descriptor] = connection

    def _look_at_suspect(self, connection: Connection) -> None:
        descriptor, progress = connection.descriptor, connection.progress
        if progress and progress.is_stuck(time.monotonic()):
            logger.debug("A client that takes nothing is cut")
            cut(descriptor)
            self._remove(connection, properly=False)
        elif not progress or progress.is_done:
            connection.progress = None
            del self._suspects[descriptor]

    def _look_at(self, group: Group) -> None:
        now = time.monotonic()
        heartbeat = group.settings.heartbeat
        if now - group.sent_at < heartbeat * LEAST_SPREAD:
            return  # Ten thousand groups that had events cost nothing here.
        silent = [
            connection
            for connection in group.connections()
            if now - max(group.sent_at, connection.beat_at)
            # Those that got the last event together are not to beat together.
            >= heartbeat * (LEAST_SPREAD + connection.descriptor * GOLDEN_RATIO % 0.5)
        ]
        if silent and group.cursor.position != group.log.sequence:
            self._deliver(group)  # Others' events moved the log on: see how far.
        position = group.cursor.id
        for connection in silent:
            if connection.group is not group:
                continue  # It has left meanwhile.
            connection.beat_at = now
            data = HEARTBEAT
            named_for = now - max(group.sent_at, connection.named_at)
            is_known = position in (group.named, connection.named)
            if not is_known and named_for >= POSITION_INTERVAL:
                connection.named, connection.named_at = position, now
                data = position_event(group.cursor)
            self._write(group, connection.chunked, [connection.descriptor], data)

    # Delivery

    def _call(self, audience: Audience) -> None:
        """Wake all of an audience."""
        audience.has_news = False
        with self._lock:
            members = list(audience.members)
        for count, stream in enumerate(members, 1):
            stream.wake()
            if count % WAKES_PER_TURN == 0:
                self._poller.give_way()

    def _deliver_all(self, group: Group) -> None:
        while self._deliver(group):
            pass

    def _deliver(self, group: Group) -> bool:
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
            self._write(group, chunked, list(members), data, is_end=batch.ended)
        if batch.ended:
            for connection in group.connections():
                self._end(connection)
        elif batch.more:
            group.tell()
        return batch.more

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
        members = group.members[chunked]
        frame = framed(data, chunked=chunked)
        size = len(frame)
        for count, descriptor in enumerate(descriptors):
            if count % WRITES_PER_BREATH == 0:
                # With every piece of the GIL that is given away, who publishes more
                # meanwhile would get further ahead of its readers.
                self._poller.breathe(keeps_gil=group.has_news)
                send = self._poller.send
            # Connection.send, without the call: this is what all time goes into.
            try:
                sent = send(descriptor, frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._remove(members[descriptor], properly=False)
                continue
            if sent != size:
                connection = members[descriptor]
                connection.keep(frame, sent)
                connection.is_ended = is_end
                self._fall_behind(connection, group)

    def _fall_behind(self, connection: Connection, group: Group) -> None:
        """Out of its group, with a cursor of its own, until it has caught up."""
        connection.cursor = group.cursor.copy()
        self._leave_group(connection)
        self._poller.watch_writable(connection.descriptor, True)

    def _welcome_all(self) -> None:
        """All that are here now: more may come all the time."""
        for _ in range(len(self._newcomers)):
            self._guard(self._welcome, self._newcomers[0])
            self._poller.breathe()

    def _welcome(self, connection: Connection) -> None:
        """Begin to serve the connection that is next."""
        with self._lock:
            # At no time does it count as none, or as two.
            self._newcomers.popleft()
            self._connections[connection.descriptor] = connection
        if connection.tell:
            connection.log.unwatch(connection.cursor.channels, connection.tell)
            connection.tell = None
        self._poller.add(connection.descriptor)
        connection.beat_at = connection.named_at = now = time.monotonic()
        if connection.settings.max_age is not None:
            connection.expires = now + connection.settings.max_age
        if connection.program and connection.program.is_stopped:
            connection.expires = now  # Nobody else tells it; this ends it soon.
        self._catch_up(connection)

    def _catch_up(self, connection: Connection) -> None:
        """Send a connection what its group has read and it has not, and take it into
        the group. (Nobody is sent what comes meanwhile: there may be more behind it,
        again and again.)"""
        log, cursor = connection.log, connection.cursor
        key = (log, cursor.channels)
        newest = log.sequence
        while True:
            group = self._groups.get(key)
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
            if not self._send_own(connection, frame):
                return
        self._join_group(connection, key)

    def _send_own(self, connection: Connection, frame: bytes) -> bool:
        """Send something to a connection outside of groups, or (nothing) go on.

        :returns: whether it can be sent more.
        """
        try:
            is_sent = (
                connection.send(self._poller, frame)
                if frame
                else connection.flush(self._poller)
            )
        except OSError:
            self._remove(connection, properly=False)
            return False
        if not is_sent:
            self._poller.watch_writable(connection.descriptor, True)
        elif connection.is_ended:
            self._end(connection)
        return is_sent and not connection.is_ended

    def _serve(self, connection: Connection) -> None:
        """See to what the system says of a connection."""
        what = connection.ready
        if what & ~WRITABLE and not connection.read():
            self._end(connection)
        elif what & WRITABLE and connection.frame:
            if self._send_own(connection, b""):
                self._poller.watch_writable(connection.descriptor, False)
                self._catch_up(connection)

    # Groups and ends

    def _take_in(self, group: Group) -> None:
        """See to those who wait for the group, which has read on."""
        waiting, group.waiting = group.waiting, []
        for connection in waiting:
            if self._connections.get(connection.descriptor) is connection:
                self._guard(self._catch_up, connection)

    def _join_group(self, connection: Connection, key: Key) -> None:
        group = self._groups.get(key)
        if group is None:
            group = Group(connection, self.tell)
            group.log.watch(group.channels, group.tell)
            self._groups[key] = group
            group.tell()  # Of what came between reading and watching.
        group.members[connection.chunked][connection.descriptor] = connection
        connection.group = group
        connection.cursor = group.cursor

    def _leave_group(self, connection: Connection) -> None:
        group, connection.group = connection.group, None
        if group is None:
            return
        group.members[connection.chunked].pop(connection.descriptor, None)
        if not any(group.members.values()):
            self._groups.pop((group.log, group.channels), None)
            group.log.unwatch(group.channels, group.tell)

    def _end(self, connection: Connection) -> None:
        self._remove(connection, properly=True)

    def _remove(self, connection: Connection, *, properly: bool) -> None:
        """The one door out. Whatever fails on the way, the connection is closed."""
        with self._lock:
            # Its descriptor may be another's by now.
            is_served = self._connections.get(connection.descriptor) is connection
            if is_served:
                del self._connections[connection.descriptor]
                self._suspects.pop(connection.descriptor, None)
        try:
            self._leave_group(connection)
            if is_served:
                with self._lock:
                    self._count(connection.log, connection.cursor.channels, -1)
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


# A process must have one of it. Two threads that both find none agree on one, as
# setdefault is atomic.
_hubs: dict[int, Hub] = {}

# What was registered with the interpreter. Forked children inherit that.
_hooks: list[Callable[[], None]] = []


def current_hub() -> Hub:
    """This process's hub."""
    pid = os.getpid()
    try:
        return _hubs[pid]
    except KeyError:
        hub = Hub()
        if _hubs.setdefault(pid, hub) is not hub:
            hub.abandon()
            return _hubs[pid]
        if not _hooks:
            _hooks.append(atexit.register(_stop_at_exit))
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_abandon_in_child)
        return hub


def _stop_at_exit() -> None:
    """For servers that are no gunicorn, and for what gunicorn's have left."""
    hub = _hubs.get(os.getpid())
    # One without streams is falsy, and may still be about to end the last.
    if hub is not None:
        hub.stop(timeout=EXIT_GRACE)


def _abandon_in_child() -> None:
    for hub in _hubs.values():
        hub.abandon()
    _hubs.clear()

"""The hub: the one loop per process that serves every open stream.

Here lives the loop: in which order streams are served, what a failure costs, and how a
frame is sent to a group. Only the loop touches a connection that was taken over
(fanout.py). A stream that its server iterates is only woken by the hub, and told the
time (audiences.py). What is done as time passes lives in looks.py, how streams end in
endings.py, and how many there can be in places.py.

The loop is one daemon thread under threads, and one greenlet under a monkey-patched
gevent. It starts with the first stream and ends with the last. What a comment calls the
loop's own, no other thread touches; it needs no lock.

``Hub`` has more than twenty methods, and so this module has more than 400 lines: half
of the methods are the doors for other threads, and each of those only holds the lock
and wakes the loop.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ..errors import Reentered
from ..history.log import Log
from ..log_messages import HUB_FAILED, HUB_FAILED_TWICE
from ..servers import gunicorn
from ..settings import Settings
from ..signals.courier import settle_all
from ..signals.story import expect
from ..system.backoff import Backoff
from ..system.chance import CHANCE
from ..system.gevent import can_wait
from ..system.locks import Guard
from ..system.poller import close_descriptor, new_poller
from .audiences import Audiences
from .client import NOBODY, Client
from .connection import Connection, Group, framed
from .counts import OpenStreams, Paths, Stats
from .endings import Ending, Endings
from .fanout import Fanout
from .inspected import OpenStream, is_named, open_streams
from .listeners import Listeners
from .looks import LONGEST_LOOK, LOOKS_PER_HEARTBEAT, Looks
from .places import Place, Places
from .readers import Iterated, Readers, Timed
from .revoking import Revoking

#: Seconds between two looks at whether the server is about to stop.
TICK = 0.5

#: Connections that the loop writes to before other threads or greenlets get a turn.
WRITES_PER_BREATH = 4

#: Seconds that an exiting process waits for its streams to end properly.
EXIT_GRACE = 2.0

#: Seconds between a failure of the loop and its next start: the first pause, and the
#: longest.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0

#: Failures that the loop can have in quick succession. With one more it ends all
#: streams: they are open and nobody serves them, so their clients must come back.
FAILURES_BORNE = 5


class Hub:
    """The open streams of a process. Any thread can call the public methods."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.is_running = False
        self.paths = Paths()
        self._is_abandoned = False
        self._is_awake = False
        self._lock = Guard()
        self._poller = poller = new_poller()
        self._listeners = Listeners()
        self._places = Places()
        self._news: deque[Readers] = deque()
        self._audiences = Audiences(self._lock, poller, self._listeners, self.tell)
        self._fanout = Fanout(
            self, self._lock, poller, self._listeners, self._places, self.tell
        )
        self._endings = Endings(self, self._lock, self._audiences, self._fanout)
        self._revoking = Revoking(self._lock, self._listeners, self._fanout, self._wake)
        self._admits = self._revoking.admits
        self._end_revoked_of = self._revoking.end_revoked_of
        #: The loop's thread or greenlet.
        self._thread: int | None = None
        # The loop's own.
        self._looks = Looks(self._fanout, poller)
        self._look = LONGEST_LOOK
        self._looked_at = 0.0
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)

    def __len__(self) -> int:
        return len(self._places)

    def listeners(self, log: Log, channel: str) -> int:
        """How many streams a channel has."""
        return self._listeners.count(log, channel)

    def counts(self, log: Log) -> dict[str, int]:
        """How many streams each channel of a log has, of those that have any."""
        return self._listeners.by_channel(log)

    def identities(self, log: Log) -> dict[str, dict[str, int]]:
        """Whose streams each channel of a log has, with the number of each
        identity."""
        return self._listeners.by_identity(log)

    def stats(self) -> Stats:
        """How many streams are open, and how streams were delivered since the process
        began."""
        try:
            with self._lock:
                are_open = self._open_streams()
        except Reentered:
            # The caller interrupts a holder of the lock, so that one stream can be
            # missing from the count, or stand in it twice.
            are_open = self._open_streams()
        return self.paths.stats(are_open)

    def behind(self, log: Log, most: int) -> list[int]:
        """How many events streams of a log have not been given yet: of all streams, or
        of so many that are drawn by lot."""
        with self._lock:
            connections = list(self._fanout.connections.values())
            iterated = list(self._audiences.iterated)
        cursors = [one.cursor for one in connections if one.log is log]
        cursors += [stream.cursor for stream in iterated if stream.log is log]
        if len(cursors) > most:
            cursors = CHANCE.sample(cursors, most)
        return [log.behind(cursor) for cursor in cursors]

    def _open_streams(self) -> OpenStreams:
        iterated = len(self._audiences.iterated)
        return {"handed off": len(self._fanout), "iterated": iterated}

    def open_streams(self, log: Log, most: int) -> list[OpenStream]:
        """What an operator is shown of a log's streams: see ``inspected.py``."""
        return open_streams(log, most, self._lock, self._audiences, self._fanout)

    # Streams come and leave

    def is_full(self, settings: Settings, client: Client = NOBODY) -> bool:
        """Whether an application can begin no other stream for a client."""
        if settings.max_per_client is None:
            return self._places.is_full(settings)  # That looks at no client's places.
        with self._lock:
            return self._places.is_full(settings, client)

    def arrive(self, settings: Settings, client: Client = NOBODY) -> Place | None:
        """Take a place for a stream that begins. However many streams arrive at once,
        those past the limit get none. Whoever takes a place must release it. Once the
        hub has adopted a connection with the place, the hub does that."""
        with self._lock:
            return self._places.take(settings, client)

    def release(self, place: Place) -> None:
        """Give a place back. A second call does nothing. It never waits, as
        ``discard``."""
        self._places.release(place)

    def keep_time(self, whom: Timed) -> None:
        """Tell somebody the time, until ``forget`` is called."""
        with self._lock:
            self._audiences.timed.add(whom)
            self._keep_pace_with(whom.heartbeat)
            self._start()

    def forget(self, whom: Timed) -> None:
        """Undo ``keep_time``. It never waits, as ``discard``."""
        self._audiences.timed.discard(whom)

    def add(self, stream: Iterated, place: Place) -> None:
        """Tell a stream of news and the time, until ``discard`` is called."""
        with self._lock:
            is_doomed = self._places.serve(place)
            self._audiences.join(stream)
            self._revoking.watch(stream.log)
            if is_doomed:
                expect(stream.story, "end-streams")
                stream.stop(0)
            elif stream.program and stream.program.is_stopped:
                expect(stream.story, "shutdown")
                stream.stop()  # The server's other streams were told before.
            self._keep_pace_with(stream.heartbeat)
            self._start()

    def discard(self, stream: Iterated) -> None:
        """Undo ``add``. It never waits: a thread that holds the lock can collect a
        stream as garbage, and that calls this."""
        self._audiences.leave(stream)

    def adopt(self, connection: Connection, place: Place) -> None:
        """Serve a stream's connection from here on, from where its cursor stands. The
        hub releases the place in the end, except where this raises."""
        pace = min(connection.settings.heartbeat, connection.settings.stall)
        log, cursor = connection.log, connection.cursor
        connection.tell = tell = lambda: self._wake()
        log.watch(cursor.channels, tell)
        with self._lock:
            is_doomed = self._places.serve(place)
            try:
                self._start()
                self._revoking.watch(log)
            except BaseException:
                log.unwatch(cursor.channels, tell)
                close_descriptor(connection.descriptor)
                raise
            self._endings.has_stopped.clear()
            connection.place = place
            self._fanout.newcomers.append(connection)
            self._listeners.add(connection)
            self._keep_pace_with(pace)
            if is_doomed:
                self._endings.ask(Ending(lambda whom: whom is connection))
        # A connection that has nothing to catch up with can wait for news, or for the
        # loop's next turn: to wake the loop costs as much as all else here.
        if is_doomed or cursor.position != log.sequence:
            self._wake()

    # Others call the loop

    def tell(self, readers: Readers) -> None:
        """Some readers have news. The log's watchers call this."""
        self._news.append(readers)
        self._wake()

    def stop(self, timeout: float) -> None:
        """End all streams properly, so that their clients come back elsewhere. From
        now on, views begin no stream.

        :param timeout: seconds to wait at most for the streams to end.
        """
        self.is_stopping = True
        if self.is_running and not self._is_abandoned:
            self._wake()
            self._endings.has_stopped.wait(timeout)

    def end_streams(self, settings: Settings, timeout: float) -> None:
        """End all streams of an application properly, also those that are about to
        begin. Streams that begin from now on are served.

        :param settings: the application's.
        :param timeout: seconds to wait at most for the streams to end. Code that has
            interrupted the loop does not wait.
        """
        ending = Ending(lambda whom: whom.settings is settings)
        with self._lock:
            self._places.doom(settings)
            if not self.is_running:
                return
            self._endings.ask(ending)
        self._wake()
        # The loop would wait for itself where its own thread calls this, in a
        # ``__del__``. gevent's hub greenlet, in which handlers of signals run, cannot
        # wait at all.
        if can_wait() and threading.get_ident() != self._thread:
            ending.is_done.wait(timeout)

    def end_one(self, log: Log, name: str) -> None:
        """End a stream of a log properly, so that its client comes back and its view
        decides again. Nothing happens where the stream is gone.

        :param name: see ``OpenStream``.
        """
        with self._lock:
            if not self.is_running:
                return
            is_meant = partial(is_named, log, name)
            self._endings.ask(Ending(is_meant, why="disconnect"))
        self._wake()

    def abandon(self) -> None:
        """Let go of what belongs to the parent of a forked process. The child calls
        this."""
        self._fanout.abandon()
        self._is_abandoned = True
        self._poller.close()

    def _wake(self) -> None:
        if not self._is_awake:
            self._is_awake = True
            self._poller.wake()

    def _keep_pace_with(self, heartbeat: float) -> None:
        """Look as often as a heartbeat needs. The caller holds the lock."""
        look = heartbeat / LOOKS_PER_HEARTBEAT
        if look < self._look:
            self._look = look
            self._wake()  # The loop can be waiting for longer.

    def _start(self) -> None:
        """Begin the loop, unless it runs. The caller holds the lock."""
        if not self.is_running:
            self._thread = None
            self._poller.start(self._run, self._after_failure)
            self.is_running = True

    # The loop

    def _run(self) -> None:
        self._thread = threading.get_ident()
        worker = gunicorn.current_worker()
        if self._backoff.failures:
            self._resume()
        while self._turn(worker):
            pass
        with self._lock:
            if self.is_stopping and not self.is_running:
                self._endings.has_stopped.set()

    def _after_failure(self, error: BaseException) -> float | None:
        """The loop has failed, with whatever exception.

        :returns: seconds after which the loop must run again; None where the hub has
            nobody left.
        """
        if self._is_abandoned:
            return None
        pause = self._backoff.next()
        try:
            HUB_FAILED.log(pause, error=error, pause=pause)
            if self._backoff.failures > FAILURES_BORNE:
                self._send_all_off()
            with self._lock:
                self._audiences.let_go()
                if not self._has_anyone():
                    self.is_running = False
                    return None
        except BaseException:
            # A handler of the log can wait, and be killed meanwhile, as the loop can.
            with suppress(BaseException):
                HUB_FAILED_TWICE.log(error=True)
        return pause

    def _resume(self) -> None:
        """Go on after a failure: the loop now does what it was about to do."""
        with self._lock:
            audiences = self._audiences.all()
        for readers in (*audiences, *self._fanout.groups.values()):
            readers.has_news = False
            readers.tell()
        self._fanout.look_for_strays()

    def _send_all_off(self) -> None:
        """The loop cannot serve its clients: let all of them come back, to this process
        or another."""
        with self._lock:
            iterated = list(self._audiences.iterated)
        for stream in iterated:
            expect(stream.story, "failed")
            stream.stop()
        self._fanout.send_all_off()

    def _turn(self, worker: object) -> bool:
        """Wait, and then do all there is to do.

        :returns: whether the loop must go on.
        """
        fanout = self._fanout
        until_look = self._looked_at + self._look - time.monotonic()
        events = self._poller.wait(min(TICK, max(until_look, 0.0)))
        # Readers that get news from here on wake the loop again. Those that got news
        # before are served below.
        self._is_awake = False
        if self.is_stopping or gunicorn.is_stopping(worker):
            self.is_stopping = True
            self._endings.stop()
        self._endings.end_the_dismissed()
        self._revoking.end_revoked()
        self._welcome_all()
        for descriptor, what in events:
            if connection := fanout.connections.get(descriptor):
                connection.ready = what
                fanout.guard(fanout.serve, connection)
                self._poller.breathe()
        # The loop serves no more readers than have news now: where events come faster
        # than they can be sent, there are always more, and nobody else would ever get
        # their turn.
        for _ in range(len(self._news)):
            readers = self._news.popleft()
            if isinstance(readers, Group):
                fanout.guard(fanout.deliver, readers)
                if readers.waiting:
                    fanout.take_in(readers)
            else:
                fanout.guard(self._audiences.call, readers)
            self._poller.breathe()
        now = time.monotonic()
        if now - self._looked_at < self._look:
            return True
        self._looked_at = now
        goes_on = self._look_around(now)
        took = time.monotonic() - now
        if took > self._look:
            # The looks cannot be as frequent, and leave time for all else.
            self._looked_at += took
        return goes_on

    def _look_around(self, now: float) -> bool:
        """Do what is due by the clock.

        :returns: False when nobody is left, so that the loop ends.
        """
        with self._lock:
            self._audiences.let_go()
            timed = self._audiences.everybody()
            self._revoking.forget_others(self._listeners.logs())
            if not self._has_anyone():
                self.is_running = False
                self._look = LONGEST_LOOK
                self._looks.forget()
                return False
        self._looks.look_around(now, self._look, timed)
        return True

    def _has_anyone(self) -> bool:
        """Whether there is anyone to serve. The caller holds the lock."""
        return bool(len(self._audiences) or len(self._fanout) or len(self._endings))

    def _welcome_all(self) -> None:
        """Begin to serve the connections that are here now. (More can come all the
        time, and wait for the next turn.)"""
        fanout = self._fanout
        for _ in range(len(fanout.newcomers)):
            fanout.guard(fanout.welcome, fanout.newcomers[0])
            self._poller.breathe()

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
                # While a publisher goes on publishing to this group, the loop keeps the
                # GIL: with every time that it gave the GIL away, the publisher would
                # get further ahead of its readers.
                self._poller.breathe(keeps_gil=group.has_news)
                send = self._poller.send
            # This is Connection.send without the call: all time is spent here.
            try:
                sent = send(descriptor, frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._fanout.remove(members[descriptor], properly=False, why="left")
                continue
            if sent != size:
                connection = members[descriptor]
                connection.keep(frame, sent)
                connection.is_ended = is_end
                self._fanout.fall_behind(connection, group)


# A process must have one hub. Two threads that both find none agree on one, because
# setdefault is atomic.
_hubs: dict[int, Hub] = {}

# What was registered with the interpreter. Forked children inherit both this list and
# what was registered.
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
    """End the streams of servers whose stop nobody can see, and those that are left
    under gunicorn."""
    hub = _hubs.get(os.getpid())
    # Compare with None: an empty hub is falsy, and can still be closing its last
    # stream.
    if hub is not None:
        hub.stop(timeout=EXIT_GRACE)
        settle_all()


def _abandon_in_child() -> None:
    for hub in _hubs.values():
        hub.abandon()
    _hubs.clear()

"""How the hub waits and sends, on threads and on gevent.

Here lives what differs between the two, and nothing of streams: a real epoll that is
woken through a descriptor, and a send that costs as little as the system has it. Only
the hub uses this.
"""

# An application that checks its types need not have those of gevent.
# mypy: disable-error-code="import-untyped,import-not-found"

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from ..errors import UnsupportedServer
from .locks import Alarm

#: Where this is False, no connection can be taken over. (Not by select.epoll: gevent
#: hides that.)
IS_SUPPORTED = sys.platform == "linux"

#: Seconds of work after which the others of a gevent process get their turn.
TURN = 0.002

#: What is read at once of what a client says behind its stream's end, and how often: a
#: client that says more is reset.
READ_SIZE = 64 * 1024
MOST_READS = 16

#: Seconds for which sends keep the GIL when another thread was seen to compute.
KEEPS_GIL = 1.0

#: The other side has closed the connection, or its sending half.
GONE = getattr(select, "POLLRDHUP", 0x2000) | 0x018  # POLLERR | POLLHUP

READABLE = getattr(select, "EPOLLIN", 0x001) | getattr(select, "EPOLLRDHUP", 0x2000)
WRITABLE = getattr(select, "EPOLLOUT", 0x004)


class Poller:
    """One epoll for native threads.

    ``wake`` may be called from any thread; all else is the hub's loop's own.
    """

    def __init__(self) -> None:
        self._epoll = _original("select", "epoll")()
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._waker, READABLE)
        self._is_closed = False
        self._library = _library()
        self._send_keeping_gil = _send_keeping_gil(self._library)
        self._breathed_at = self._keeps_until = 0.0
        #: Sends what fits, and says how much that was. After a wait or a breath it may
        #: be another one.
        self.send = self._send = self._cheapest_send()

    def _cheapest_send(self) -> Callable[[int, bytes], int]:
        """``os.write``, unless the process would be told by SIGPIPE of each client that
        has gone: uWSGI has a handler for that, and by default a process dies of it."""
        hears = signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
        return self._send_keeping_gil if hears or "uwsgi" in sys.modules else os.write

    def add(self, descriptor: int) -> None:
        self._epoll.register(descriptor, READABLE)

    def watch_writable(self, descriptor: int, wanted: bool) -> None:
        self._epoll.modify(descriptor, READABLE | WRITABLE if wanted else READABLE)

    def remove(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)

    def finish(self, descriptor: int, last: bytes = b"") -> None:
        """Say that nothing more comes, and close a connection.

        :param last: to be sent before, if that can be done at once.
        """
        if last:
            # Together with the end of file: a proxy that sees the last chunk first may
            # send its next request into a connection that is about to close.
            flags = socket.MSG_MORE | socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
            self._library.send(descriptor, last, len(last), flags)
        # Not close alone: a forked child may hold the connection too.
        self._library.shutdown(descriptor, socket.SHUT_WR)
        _discard_input(descriptor)
        close_descriptor(descriptor)

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        """Wait for news, at most so many seconds.

        :returns: descriptors with what they are ready for. A wake is not among them.
        """
        events = self._epoll.poll(timeout)
        self._breathed_at = time.monotonic()
        if self._breathed_at > self._keeps_until:
            self.send = self._send
        return self._without_wakes(events)

    def wake(self) -> None:
        os.eventfd_write(self._waker, 1)

    def start(
        self,
        loop: Callable[[], None],
        after_failure: Callable[[BaseException], float | None],
    ) -> None:
        """Run the hub's loop beside all else.

        :param after_failure: called with what the loop has raised, whatever it is. It
            returns the seconds after which the loop runs again; None for never.
        """

        def run() -> None:
            while True:
                try:
                    return loop()
                except BaseException as error:
                    pause = after_failure(error)
                if pause is None:
                    return
                time.sleep(pause)

        threading.Thread(target=run, name="flask_sse_lite.hub", daemon=True).start()

    def give_way(self) -> None:
        """Let those run who were woken. Native threads just do."""

    def breathe(self, *, keeps_gil: bool = False) -> None:
        """Let all others run, now and then, in the middle of long work. Native threads
        just do; where one of them computes, it is not to be asked for each send.

        :param keeps_gil: whether sends are to keep the GIL in any case.
        """
        now = time.monotonic()
        if keeps_gil or now - self._breathed_at > sys.getswitchinterval() / 2:
            self.send = self._send_keeping_gil
            self._keeps_until = now + KEEPS_GIL
        self._breathed_at = now

    def close(self) -> None:
        """Free the descriptors. In a forked child, that leaves the parent's alone."""
        self._is_closed = True
        self._epoll.close()
        close_descriptor(self._waker)

    def _without_wakes(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        others = [event for event in events if event[0] != self._waker]
        if len(others) < len(events):
            os.eventfd_read(self._waker)
        return others


class GeventPoller(Poller):
    """The same epoll, in a greenlet: one watcher on its descriptor stands for all that
    are registered in it."""

    def __init__(self) -> None:
        super().__init__()
        import gevent

        self._gevent = gevent
        self._hub = gevent.get_hub()
        self._watcher = self._hub.loop.io(self._epoll.fileno(), 1)
        self._turn_ends = 0.0

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        events = self._epoll.poll(0)
        if not events:
            with self._gevent.Timeout(timeout, False):
                self._hub.wait(self._watcher)
            self._awake_again()
            events = self._epoll.poll(0)
        return self._without_wakes(events)

    def start(
        self,
        loop: Callable[[], None],
        after_failure: Callable[[BaseException], float | None],
    ) -> None:
        def run() -> None:
            try:
                loop()
            except BaseException as error:
                # Another greenlet goes on: who killed this one waits for its end.
                pause = None if self._is_closed else after_failure(error)
                if pause is not None:
                    self._gevent.spawn_later(pause, run)
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise  # A signal's handler meant the process, which gevent ends.

        self._gevent.spawn(run)

    def give_way(self) -> None:
        self._gevent.sleep(0)
        self._awake_again()

    def breathe(self, *, keeps_gil: bool = False) -> None:
        if time.monotonic() > self._turn_ends:
            # One round of gevent's loop: greenlets that are ready run, and descriptors
            # are looked at. (A sleep of 0 would not look at them, and any longer one
            # takes a millisecond: libev rounds it up.)
            with self._hub.loop.timer(0) as timer:
                self._hub.wait(timer)
            self._awake_again()

    def _awake_again(self) -> None:
        if self._is_closed:
            # This is a forked child's copy of the greenlet, with its parent's streams.
            raise self._gevent.GreenletExit
        self._turn_ends = time.monotonic() + TURN

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        super().close()


class Sleeper(Poller):
    """For systems where no connection can be taken over: all there is to do is to wait
    and to wake."""

    def __init__(self) -> None:
        self._news = Alarm()

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        self._news.wait(timeout)
        return []

    def wake(self) -> None:
        self._news.set()

    def give_way(self) -> None:
        time.sleep(0)

    def breathe(self, *, keeps_gil: bool = False) -> None:
        """There is no long work."""

    def close(self) -> None:
        """There is nothing to free."""


def new_poller() -> Poller:
    """The one that fits: under a monkey-patched gevent, threads are greenlets.

    :raises UnsupportedServer: under a monkey-patched eventlet, which takes the system's
        epoll away.
    """
    if _is_patched_by_eventlet():
        raise UnsupportedServer(
            "Event streams are not served under eventlet, which has patched this "
            "process: run the server with gevent (gunicorn -k gevent) or with threads "
            "(gunicorn -k gthread) instead"
        )
    if not IS_SUPPORTED:
        return Sleeper()
    return GeventPoller() if is_patched_by_gevent() else Poller()


def is_patched_by_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _is_patched_by_eventlet() -> bool:
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and bool(patcher.is_monkey_patched("select"))


def forget_in_gevent(descriptor: int) -> None:
    """Take a descriptor out of gevent's own epoll set, before it comes to mean another
    file. libev keeps a registration once it had to wait for it; as our duplicate keeps
    the file open, the kernel keeps it too, and each of its events would then make
    libev build its whole set anew."""
    if not is_patched_by_gevent():
        return
    import gevent

    epoll = _original("select", "epoll")
    loop_epoll = epoll.fromfd(os.dup(gevent.get_hub().loop.fileno()))
    try:
        loop_epoll.unregister(descriptor)
    except OSError:
        pass  # It never waited.
    finally:
        loop_epoll.close()


def close_descriptor(descriptor: int) -> None:
    """Close it now. gevent's ``os.close`` does so at its loop's next turn, and an idle
    loop may have none."""
    _original("os", "close")(descriptor)


def _discard_input(descriptor: int) -> None:
    """Read what the client has said and nobody has read. Linux answers the close of a
    connection with unread input by a reset, and whoever gets that, a proxy say, can
    throw away what was sent last."""
    with suppress(OSError):
        for _ in range(MOST_READS):
            if not os.read(descriptor, READ_SIZE):
                return


def is_gone(connection: int | socket.socket) -> bool:
    """Whether the client has left."""
    return bool(_look_at(connection) & GONE)


def is_writable(connection: int | socket.socket) -> bool:
    """Whether a few bytes could be sent without waiting."""
    return bool(_look_at(connection) & WRITABLE)


def _look_at(connection: int | socket.socket) -> int:
    poll = _original("select", "poll")()
    poll.register(connection, GONE | WRITABLE)
    events = poll.poll(0)
    return int(events[0][1]) if events else 0


class Interrupt:
    """Where it can be done, ends what the thread that made it waits for: a greenlet can
    be thrown something, a native thread cannot."""

    def __init__(self) -> None:
        self._greenlet: Any = None
        if is_patched_by_gevent():
            import gevent

            self._greenlet = gevent.getcurrent()
            self._loop = gevent.get_hub().loop

    def __call__(self, is_waiting: Callable[[], bool]) -> None:
        """Have ``GeneratorExit`` raised there, if it still waits when it comes to
        that."""

        def interrupt() -> None:
            if is_waiting():
                self._greenlet.throw(GeneratorExit)

        if self._greenlet is not None:
            self._loop.run_callback(interrupt)


def is_plain(sock: object) -> bool:
    """Whether a socket has nothing between it and the wire."""
    kind = type(sock)
    if kind is socket.socket or kind is _original("socket", "socket"):
        return True
    return kind is getattr(sys.modules.get("gevent.socket"), "socket", None)


def plain_socket(descriptor: int) -> socket.socket:
    """A native socket of a descriptor, which it closes unless it is detached."""
    made: socket.socket = _original("socket", "socket")(fileno=descriptor)
    return made


def _original(module: str, name: str) -> Any:
    """What gevent put something of its own in the place of."""
    if is_patched_by_gevent():
        return _patched(module, name)
    return getattr(sys.modules[module], name)


@lru_cache
def _patched(module: str, name: str) -> Any:
    return sys.modules["gevent.monkey"].get_original(module, name)


def _library() -> ctypes.PyDLL:
    """The system's own functions, called with the GIL kept."""
    library = ctypes.PyDLL(None, use_errno=True)
    number = ctypes.c_int
    library.send.argtypes = (number, ctypes.c_char_p, ctypes.c_size_t, number)
    library.send.restype = ctypes.c_ssize_t
    library.shutdown.argtypes = (number, number)
    return library


def _send_keeping_gil(library: ctypes.PyDLL) -> Callable[[int, bytes], int]:
    """A send that keeps the GIL. ``os.write`` gives it away for every call, and beside
    a thread that computes gets it back 5 ms later: to 500 clients that takes 2.4 s,
    and this some 10 ms. (Where nobody computes, ``os.write`` is a quarter faster.)"""
    c_send = library.send
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
    get_errno = ctypes.get_errno

    def send(descriptor: int, data: bytes) -> int:
        sent: int = c_send(descriptor, data, len(data), flags)
        if sent < 0:
            number = get_errno()
            raise OSError(number, os.strerror(number))
        return sent

    return send

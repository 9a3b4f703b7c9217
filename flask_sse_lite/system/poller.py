"""How the hub waits and sends, on threads and on gevent.

Here live a real epoll, which is woken through a descriptor, the cheapest send that the
system has, and the native functions that gevent replaces. No stream is known here.
"""

# An application can check its types without having gevent's types installed.
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
from typing import Any, NoReturn

from ..errors import UnsupportedServer
from .gevent import is_patched_by_gevent, native
from .locks import Alarm

#: Whether connections can be taken over. (gevent hides select.epoll: ask the platform.)
IS_SUPPORTED = sys.platform == "linux"

#: Seconds that the hub works under gevent before the other greenlets get their turn.
TURN = 0.002

#: Bytes of one read, and reads at most, of what a client has sent when its stream ends.
#: A client that has sent more is reset.
READ_SIZE = 64 * 1024
MOST_READS = 16

#: Seconds for which sends keep the GIL after another thread was seen to compute.
KEEPS_GIL = 1.0

#: The other side has closed the connection, or its sending half.
GONE = getattr(select, "POLLRDHUP", 0x2000) | 0x018  # POLLERR | POLLHUP

#: Sends the last bytes together with the end of file: a proxy that sees the last chunk
#: first can send a next request into the closing connection.
_WITH_THE_END = (
    getattr(socket, "MSG_MORE", 0)
    | getattr(socket, "MSG_DONTWAIT", 0)
    | getattr(socket, "MSG_NOSIGNAL", 0)
)

#: Takes a descriptor out of an epoll (linux/eventpoll.h).
_EPOLL_CTL_DEL = 2

READABLE = getattr(select, "EPOLLIN", 0x001) | getattr(select, "EPOLLRDHUP", 0x2000)
WRITABLE = getattr(select, "EPOLLOUT", 0x004)


class Poller:
    """One epoll, on native threads.

    Any thread can call ``wake``. Only the hub's loop must call the rest.
    """

    def __init__(self) -> None:
        self._epoll = native("select", "epoll")()
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._waker, READABLE)
        self._is_closed = False
        self._library = _library()
        self._thrown_away = ctypes.create_string_buffer(READ_SIZE)
        self._send_keeping_gil = _send_keeping_gil(self._library)
        self._breathed_at = self._keeps_until = 0.0
        #: Sends what the socket takes at once, and returns how many bytes that was.
        #: ``wait`` and ``breathe`` can replace it: look it up again after either.
        self.send = self._send = self._cheapest_send()

    def _cheapest_send(self) -> Callable[[int, bytes], int]:
        """``os.write``, unless the process hears SIGPIPE when a client has gone: by
        default a process dies of that signal, and uWSGI has a handler for it."""
        hears = signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
        return self._send_keeping_gil if hears or "uwsgi" in sys.modules else os.write

    def add(self, descriptor: int) -> None:
        self._epoll.register(descriptor, READABLE)

    def watch_writable(self, descriptor: int, wanted: bool) -> None:
        self._epoll.modify(descriptor, READABLE | WRITABLE if wanted else READABLE)

    def finish(self, descriptor: int, last: bytes = b"") -> None:
        """Wait for a connection no more, and close it, after some last bytes if it
        takes them at once. None of the steps gives the GIL away: thousands of
        connections can end at once, and a thread that computes would keep the GIL for
        5 ms each time.

        :raises OSError: where somebody else has closed it.
        """
        library = self._library
        # A forked child can hold the connection too: close alone would neither end it
        # nor take it out of the epoll.
        library.epoll_ctl(self._epoll.fileno(), _EPOLL_CTL_DEL, descriptor, None)
        if last:
            library.send(descriptor, last, len(last), _WITH_THE_END)
        library.shutdown(descriptor, socket.SHUT_WR)
        self._discard_input(descriptor)
        if library.close(descriptor) < 0:
            _raise_errno()

    def _discard_input(self, descriptor: int) -> None:
        """Read what the client has sent and nobody has read. When a connection with
        unread input is closed, Linux sends a reset, and a client or proxy that gets a
        reset can throw away the last bytes that we sent."""
        recv, thrown_away = self._library.recv, self._thrown_away
        for _ in range(MOST_READS):
            if recv(descriptor, thrown_away, READ_SIZE, socket.MSG_DONTWAIT) <= 0:
                return

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        """Wait for ready descriptors or a ``wake``, ``timeout`` seconds at most.

        :returns: descriptors with what they are ready for. ``wake`` adds none.
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
        """Run the hub's loop in a thread of its own; under gevent, in a greenlet.

        :param after_failure: called with any exception of the loop. It returns the
            seconds after which the loop runs again; None for never.
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
        """Let the greenlets run that were woken. Native threads run without this."""

    def breathe(self, *, keeps_gil: bool = False) -> None:
        """Called between pieces of long work. Under gevent, other greenlets run. Native
        threads run anyway: if one computes, sends keep the GIL for ``KEEPS_GIL``
        seconds.

        :param keeps_gil: whether sends must keep the GIL in any case.
        """
        now = time.monotonic()
        if keeps_gil or now - self._breathed_at > sys.getswitchinterval() / 2:
            self.send = self._send_keeping_gil
            self._keeps_until = now + KEEPS_GIL
        self._breathed_at = now

    def close(self) -> None:
        """Close the descriptors. A forked child can do so: its parent's stay open."""
        self._is_closed = True
        self._epoll.close()
        close_descriptor(self._waker)

    def _without_wakes(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        others = [event for event in events if event[0] != self._waker]
        if len(others) < len(events):
            os.eventfd_read(self._waker)
        return others


class GeventPoller(Poller):
    """The same epoll, in a greenlet. gevent watches the epoll's own descriptor: one
    watcher serves for every connection in it.

    The watcher is started while ``wait`` and ``breathe`` wait. After a round of its
    loop without it, libev adds our epoll to its own again, although it is still there.
    Linux then looks at every connection in ours, in search of a circle
    (``ep_loop_check_proc``). With 5,000 connections that takes 0.2 to 0.3 ms.
    """

    def __init__(self) -> None:
        super().__init__()
        import gevent
        from gevent.hub import Waiter

        self._gevent = gevent
        self._new_waiter = Waiter
        self._hub = gevent.get_hub()
        # libuv takes a descriptor out at each stop, and so adds it at each start.
        self._is_libuv = "libuv" in type(self._hub.loop).__module__
        self._watcher = self._hub.loop.io(self._epoll.fileno(), 1)
        self._turn_ends = 0.0

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        events = self._epoll.poll(0)
        if not events:
            # gevent's Timeout would cost an exception in each wait without news.
            waiter = self._new_waiter(self._hub)
            try:
                # A signal handler can raise as soon as this has started.
                self._watcher.start(waiter.switch, None)
                with self._hub.loop.timer(timeout) as timer:
                    timer.start(waiter.switch, None, update=True)
                    waiter.get()
            finally:
                self._watcher.stop()
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
                # A new greenlet goes on: code that kills this one waits for its end.
                pause = None if self._is_closed else after_failure(error)
                if pause is not None:
                    self._gevent.spawn_later(pause, run)
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise  # A signal's handler wants the process to end.

        self._gevent.spawn(run)

    def give_way(self) -> None:
        self._gevent.sleep(0)
        self._awake_again()

    def breathe(self, *, keeps_gil: bool = False) -> None:
        if time.monotonic() > self._turn_ends:
            # One round of gevent's loop runs ready greenlets and polls descriptors. (A
            # sleep of 0 does not poll; libev rounds a longer one up to a millisecond.)
            try:
                if not self._is_libuv:
                    self._watcher.start(_do_nothing)
                with self._hub.loop.timer(0) as timer:
                    self._hub.wait(timer)
            finally:
                self._watcher.stop()
            self._awake_again()

    def _awake_again(self) -> None:
        if self._is_closed:
            # A forked child has a copy of this greenlet. The streams are its parent's.
            raise self._gevent.GreenletExit
        self._turn_ends = time.monotonic() + TURN

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        super().close()


def _do_nothing() -> None:
    """The callback of a watcher that is started only so that libev keeps our epoll."""


class Sleeper(Poller):
    """For systems where no connection can be taken over. It only waits and wakes."""

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
        """Nothing: without connections, the hub has no long work."""

    def close(self) -> None:
        """Nothing: there is no descriptor."""


def new_poller() -> Poller:
    """The poller that fits this process.

    :raises UnsupportedServer: under a monkey-patched eventlet, which hides epoll.
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


def _is_patched_by_eventlet() -> bool:
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and bool(patcher.is_monkey_patched("select"))


def forget_in_gevent(descriptor: int) -> None:
    """Take a descriptor out of gevent's own epoll set, before it becomes another file.
    libev keeps what it has waited for registered. Our duplicate keeps the connection
    open, so the kernel would keep the registration too, and each of the connection's
    events would make libev build its whole set anew."""
    if not is_patched_by_gevent():
        return
    import gevent

    epoll = native("select", "epoll")
    loop_epoll = epoll.fromfd(os.dup(gevent.get_hub().loop.fileno()))
    try:
        loop_epoll.unregister(descriptor)
    except OSError:
        pass  # gevent has never waited for it.
    finally:
        loop_epoll.close()


def close_descriptor(descriptor: int) -> None:
    """Close a descriptor now. gevent's ``os.close`` closes it at the next turn of its
    loop, which an idle process can wait for without end."""
    native("os", "close")(descriptor)


def is_gone(connection: int | socket.socket) -> bool:
    """Whether the client has left."""
    return bool(_look_at(connection) & GONE)


def is_writable(connection: int | socket.socket) -> bool:
    """Whether a few bytes could be sent without waiting."""
    return bool(_look_at(connection) & WRITABLE)


def _look_at(connection: int | socket.socket) -> int:
    poll = native("select", "poll")()
    poll.register(connection, GONE | WRITABLE)
    events = poll.poll(0)
    return int(events[0][1]) if events else 0


class Interrupt:
    """Ends the wait of the greenlet that made it. A native thread's wait cannot be
    ended: there, a call does nothing."""

    def __init__(self) -> None:
        self._greenlet: Any = None
        if is_patched_by_gevent():
            import gevent

            self._greenlet = gevent.getcurrent()
            self._loop = gevent.get_hub().loop

    def __call__(self, is_waiting: Callable[[], bool]) -> None:
        """Raise ``GeneratorExit`` there at gevent's next turn, if it then waits."""

        def interrupt() -> None:
            if is_waiting():
                self._greenlet.throw(GeneratorExit)

        if self._greenlet is not None:
            self._loop.run_callback(interrupt)


def is_plain(sock: object) -> bool:
    """Whether a socket sends its bytes as they are, without TLS or other layers."""
    kind = type(sock)
    if kind is socket.socket or kind is native("socket", "socket"):
        return True
    return kind is getattr(sys.modules.get("gevent.socket"), "socket", None)


def plain_socket(descriptor: int) -> socket.socket:
    """A native socket of a descriptor. It closes that, unless ``detach`` is called."""
    made: socket.socket = native("socket", "socket")(fileno=descriptor)
    return made


def _library() -> ctypes.PyDLL:
    """The C library. A call to it keeps the GIL."""
    library = ctypes.PyDLL(None, use_errno=True)
    number = ctypes.c_int
    library.send.argtypes = (number, ctypes.c_char_p, ctypes.c_size_t, number)
    library.send.restype = ctypes.c_ssize_t
    library.recv.argtypes = (number, ctypes.c_char_p, ctypes.c_size_t, number)
    library.recv.restype = ctypes.c_ssize_t
    library.shutdown.argtypes = (number, number)
    library.close.argtypes = (number,)
    library.epoll_ctl.argtypes = (number, number, number, ctypes.c_void_p)
    return library


def _raise_errno() -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def _send_keeping_gil(library: ctypes.PyDLL) -> Callable[[int, bytes], int]:
    """A send that keeps the GIL. ``os.write`` gives the GIL away in every call, and a
    thread that computes gives it back 5 ms later: sending to 500 clients then takes
    2.4 s, and some 10 ms with this. (Otherwise ``os.write`` is a quarter faster.)"""
    c_send = library.send
    flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

    def send(descriptor: int, data: bytes) -> int:
        sent: int = c_send(descriptor, data, len(data), flags)
        if sent < 0:
            _raise_errno()
        return sent

    return send

"""How the hub waits and sends: on threads in this process, on gevent in others."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from flask_sse_lite.errors import UnsupportedServer
from flask_sse_lite.system import poller as module
from flask_sse_lite.system.poller import (
    GONE,
    MOST_READS,
    READ_SIZE,
    WRITABLE,
    Interrupt,
    Poller,
    Sleeper,
    close_descriptor,
    forget_in_gevent,
    is_gone,
    is_plain,
    is_writable,
    new_poller,
    plain_socket,
)

from .patience import patient
from .stand_ins import connection, fill, run_on_gevent

SOON = patient(10.0)


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = new_poller()
    assert type(made) is Poller
    yield made
    made.close()


class TestWaiting:
    def test_what_a_client_says_is_news_of_its_descriptor(self, poller: Poller) -> None:
        with connection() as (server, client):
            poller.add(server.fileno())
            assert poller.wait(0) == []
            client.sendall(b"a")
            ((descriptor, events),) = poller.wait(SOON)
            assert descriptor == server.fileno()
            assert events & select.EPOLLIN
            assert not events & WRITABLE

    def test_a_client_that_leaves_is_news(self, poller: Poller) -> None:
        with connection() as (server, client):
            poller.add(server.fileno())
            client.close()
            ((_, events),) = poller.wait(SOON)
            assert events & GONE

    def test_room_to_write_is_news_only_where_it_is_wanted(
        self, poller: Poller
    ) -> None:
        with connection() as (server, _):
            poller.add(server.fileno())
            poller.watch_writable(server.fileno(), True)
            assert poller.wait(SOON) == [(server.fileno(), WRITABLE)]
            poller.watch_writable(server.fileno(), False)
            assert poller.wait(0) == []

    def test_a_wake_ends_one_wait_and_is_no_news(self, poller: Poller) -> None:
        poller.wake()
        poller.wake()
        assert poller.wait(SOON) == []
        assert select.select([poller._waker], [], [], 0)[0] == []

    def test_a_wake_beside_other_news_leaves_them(self, poller: Poller) -> None:
        with connection() as (server, client):
            poller.add(server.fileno())
            client.sendall(b"a")
            assert select.select([server], [], [], SOON)[0]
            poller.wake()
            assert [descriptor for descriptor, _ in poller.wait(SOON)] == [
                server.fileno()
            ]

    def test_closing_frees_what_it_had(self) -> None:
        made = Poller()
        waker = made._waker
        made.close()
        assert made._epoll.closed
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(waker)


class TestSending:
    @pytest.mark.parametrize("keeps_gil", [False, True])
    def test_it_says_how_much_went(self, poller: Poller, keeps_gil: bool) -> None:
        if keeps_gil:
            poller.breathe(keeps_gil=True)
            assert poller.send is not os.write
        with connection() as (server, client):
            assert poller.send(server.fileno(), b"a\0b") == 3
            assert client.recv(9) == b"a\0b"

    @pytest.mark.parametrize("keeps_gil", [False, True])
    def test_what_does_not_fit_is_no_wait(
        self, poller: Poller, keeps_gil: bool
    ) -> None:
        if keeps_gil:
            poller.breathe(keeps_gil=True)
        with connection() as (server, _):
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                fill(lambda data: poller.send(server.fileno(), data))

    def test_a_client_that_is_gone_is_an_error_and_no_signal(
        self, poller: Poller
    ) -> None:
        poller.breathe(keeps_gil=True)
        heard: list[int] = []
        before = signal.signal(signal.SIGPIPE, lambda number, _: heard.append(number))
        try:
            with connection() as (server, _):
                server.shutdown(socket.SHUT_WR)
                with pytest.raises(BrokenPipeError) as caught:
                    poller.send(server.fileno(), b"a")
                assert caught.value.errno == errno.EPIPE
                assert heard == []
        finally:
            signal.signal(signal.SIGPIPE, before)

    def test_where_a_signal_would_tell_of_the_client_it_is_not_sent_by_write(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def send_of_a_new_one() -> object:
            made = Poller()
            made.close()
            return made.send

        assert send_of_a_new_one() is os.write  # Python ignores that signal.
        monkeypatch.setitem(sys.modules, "uwsgi", types.ModuleType("uwsgi"))
        assert send_of_a_new_one() is not os.write
        monkeypatch.undo()
        monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)
        assert send_of_a_new_one() is not os.write

    def test_beside_a_thread_that_computes_the_gil_is_kept_for_a_while(
        self, poller: Poller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [1000.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        poller.wait(0)
        poller.breathe()
        assert poller.send is os.write
        now[0] += sys.getswitchinterval()
        poller.breathe()
        assert poller.send is not os.write
        poller.wait(0)
        assert poller.send is not os.write
        now[0] += module.KEEPS_GIL + 0.1
        poller.wait(0)
        assert poller.send is os.write
        poller.give_way()


class TestFinishing:
    def test_the_last_bytes_and_the_end_are_sent(self, poller: Poller) -> None:
        with connection() as (server, client):
            server.setblocking(False)
            poller.finish(server.detach(), b"last")
            assert client.recv(9) == b"last"
            assert client.recv(9) == b""

    def test_what_the_client_has_said_does_not_reset_it(self, poller: Poller) -> None:
        with connection() as (server, client):
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert select.select([server], [], [], SOON)[0]
            server.setblocking(False)
            poller.finish(server.detach())
            assert client.recv(9) == b""
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0

    def test_a_forked_child_that_holds_the_connection_keeps_it_no_longer(
        self, poller: Poller
    ) -> None:
        with connection() as (server, client), server.dup():
            server.setblocking(False)
            poller.finish(server.detach(), b"last")
            assert client.recv(9) == b"last"
            assert client.recv(9) == b""

    def test_a_client_that_has_left_is_no_error(self, poller: Poller) -> None:
        with connection() as (server, client):
            client.close()
            assert select.select([server], [], [], SOON)[0]
            server.setblocking(False)
            poller.finish(server.detach(), b"last")

    def test_a_client_that_says_much_is_read_only_so_often(
        self, poller: Poller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reads = []

        def recv(descriptor: int, buffer: object, size: int, flags: int) -> int:
            reads.append(size)
            return size

        monkeypatch.setattr(poller, "_library", types.SimpleNamespace(recv=recv))
        poller._discard_input(0)
        assert reads == [READ_SIZE] * MOST_READS

    def test_it_is_waited_for_no_more_though_a_forked_child_holds_it(
        self, poller: Poller
    ) -> None:
        with connection() as (server, client), server.dup():
            server.setblocking(False)
            poller.add(server.fileno())
            poller.finish(server.detach())
            client.close()
            assert poller.wait(0) == []

    def test_one_that_somebody_else_has_closed_is_an_error(
        self, poller: Poller
    ) -> None:
        with connection() as (server, _):
            descriptor = server.fileno()
        with pytest.raises(OSError, match="Bad file descriptor"):
            poller.finish(descriptor)

    def test_a_thread_that_computes_does_not_get_the_gil_at_each_of_them(
        self, poller: Poller
    ) -> None:
        turns, is_over, before = [0], False, sys.getswitchinterval()

        def compute() -> None:
            while not is_over:
                turns[0] += 1
                time.sleep(0)  # Others can have the GIL, and this wants it again.

        with ExitStack() as stack:
            servers = [stack.enter_context(connection())[0] for _ in range(100)]
            for server in servers:
                server.setblocking(False)
                poller.add(server.fileno())
            # Nobody has to give the GIL away within so many seconds.
            sys.setswitchinterval(SOON)
            computing = threading.Thread(target=compute)
            computing.start()
            try:
                descriptors = [server.detach() for server in servers]
                turn = turns[0]
                for descriptor in descriptors:
                    poller.finish(descriptor, b"last")
                # Some Pythons have no GIL, or run without.
                has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
                assert turns[0] == turn or not has_gil
            finally:
                is_over = True
                sys.setswitchinterval(before)
                computing.join()


class TestStarting:
    def test_a_loop_that_fails_runs_again_until_it_is_told_not_to(
        self, poller: Poller
    ) -> None:
        pauses: list[float | None] = [0.0, None]
        runs, failures = [], []
        is_over = threading.Event()

        def loop() -> None:
            runs.append(threading.current_thread().name)
            raise ValueError(len(runs))

        def after_failure(error: BaseException) -> float | None:
            failures.append(str(error))
            pause = pauses.pop(0)
            if pause is None:
                is_over.set()
            return pause

        poller.start(loop, after_failure)
        assert is_over.wait(SOON)
        assert runs == ["flask_sse_lite.hub"] * 2
        assert failures == ["1", "2"]

    def test_a_loop_that_ends_is_over(self, poller: Poller) -> None:
        runs = []
        is_over = threading.Event()

        def loop() -> None:
            runs.append(True)
            is_over.set()

        before = set(threading.enumerate())
        poller.start(loop, lambda error: 0.0)
        assert is_over.wait(SOON)
        for thread in set(threading.enumerate()) - before:
            thread.join(SOON)
        assert runs == [True]


class TestChoice:
    def test_where_nothing_can_be_taken_over_it_only_waits_and_wakes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "IS_SUPPORTED", False)
        sleeper = new_poller()
        assert type(sleeper) is Sleeper
        sleeper.wake()
        assert sleeper.wait(SOON) == []
        assert sleeper.wait(0) == []
        sleeper.give_way()
        sleeper.breathe()
        sleeper.close()

    @pytest.mark.parametrize("is_patched", [True, False])
    def test_under_eventlet_it_says_what_to_run_instead(
        self, monkeypatch: pytest.MonkeyPatch, is_patched: bool
    ) -> None:
        patcher = types.ModuleType("eventlet.patcher")
        vars(patcher)["is_monkey_patched"] = lambda name: is_patched
        monkeypatch.setitem(sys.modules, "eventlet.patcher", patcher)
        if is_patched:
            with pytest.raises(UnsupportedServer, match="gevent"):
                new_poller()
        else:
            new_poller().close()


class TestLooking:
    def test_a_client_is_there_until_it_leaves(self) -> None:
        with connection() as (server, client):
            assert not is_gone(server)
            assert not is_gone(server.fileno())
            assert is_writable(server)
            client.close()
            assert select.select([server], [], [], SOON)[0]
            assert is_gone(server)
            assert is_gone(server.fileno())

    def test_a_client_that_does_not_read_cannot_be_written_to(self) -> None:
        with connection() as (server, _):
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                fill(server.send)
            assert not is_writable(server)
            assert not is_gone(server)

    def test_a_plain_socket_is_none_of_a_derived_class(self) -> None:
        class Wrapped(socket.socket):
            pass

        with socket.socket() as plain, Wrapped() as wrapped:
            assert is_plain(plain)
            assert not is_plain(wrapped)
        assert not is_plain(None)

    def test_a_socket_of_a_descriptor_closes_it_unless_it_is_detached(self) -> None:
        with connection() as (server, _):
            descriptor = os.dup(server.fileno())
            assert plain_socket(descriptor).detach() == descriptor
            plain_socket(descriptor).close()
            with pytest.raises(OSError, match="Bad file descriptor"):
                close_descriptor(descriptor)

    def test_without_gevent_nothing_is_forgotten_or_interrupted(self) -> None:
        with connection() as (server, client):
            forget_in_gevent(server.fileno())
            client.sendall(b"a")
            assert server.recv(1) == b"a"
        asked: list[bool] = []

        def is_waiting() -> bool:
            asked.append(True)
            return True

        Interrupt()(is_waiting)
        assert asked == []


GEVENT = """
import os, socket, sys, time
import gevent
from flask_sse_lite.system import poller as module
from flask_sse_lite.system.poller import *

listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
poller = new_poller()
assert type(poller) is GeventPoller
"""


class TestGevent:
    def test_a_wait_lets_other_greenlets_run_and_ends_with_news(self) -> None:
        run_on_gevent(
            f"""{GEVENT}
poller.add(server.fileno())
gevent.spawn(client.sendall, b"a")
((descriptor, events),) = poller.wait(10)
assert descriptor == server.fileno() and events & READABLE
assert server.recv(1) == b"a"
gevent.spawn(poller.wake)
began = time.monotonic()
assert poller.wait(30) == []
assert time.monotonic() - began < 20
assert poller.wait(0.001) == []
poller.close()
"""
        )

    def test_others_get_their_turn_in_long_work(self) -> None:
        run_on_gevent(
            f"""{GEVENT}
turns = []
gevent.spawn(turns.append, 1)
poller._turn_ends = time.monotonic() + 1000
poller.breathe()
assert turns == []
poller._turn_ends = 0
poller.breathe()
assert turns == [1]
assert poller._turn_ends > time.monotonic()
gevent.spawn(turns.append, 2)
poller.give_way()
assert turns == [1, 2]
poller.close()
try:
    poller._awake_again()
except gevent.GreenletExit:
    pass
else:
    raise AssertionError("a closed one goes on")
"""
        )

    def test_a_wait_is_as_long_as_it_can_be_whatever_was_done_before(self) -> None:
        run_on_gevent(
            f"""{GEVENT}
began = time.monotonic()
while time.monotonic() < began + 0.1:
    pass
began = time.monotonic()
assert poller.wait(0.1) == []
assert time.monotonic() > began + 0.09
poller.close()
"""
        )

    def test_who_waits_can_be_killed_and_the_next_one_is_told(self) -> None:
        run_on_gevent(
            f"""{GEVENT}
waiting = gevent.spawn(poller.wait, 30)
gevent.sleep(0)
waiting.kill()
assert not poller._watcher.active
poller.add(server.fileno())
gevent.spawn(client.sendall, b"a")
((descriptor, _),) = poller.wait(30)
assert descriptor == server.fileno()
poller.close()
"""
        )

    def test_a_signal_handler_that_raises_leaves_no_watcher_started(self) -> None:
        run_on_gevent(
            f"""{GEVENT}
watcher = poller._watcher

class Interrupted:
    stop = watcher.stop

    def start(self, *arguments):
        watcher.start(*arguments)
        raise KeyboardInterrupt

poller._watcher = Interrupted()
poller._turn_ends = 0
for step in (lambda: poller.wait(30), poller.breathe):
    try:
        step()
    except KeyboardInterrupt:
        assert not watcher.active
    else:
        raise AssertionError("it was not started")
watcher.close()
"""
        )

    def test_gevent_watches_the_epoll_in_each_round_that_the_hub_waits_for(
        self,
    ) -> None:
        run_on_gevent(
            f"""{GEVENT}
seen = []

def look():
    seen.append(poller._watcher.active)

poller.add(server.fileno())
for _ in range(3):
    gevent.spawn(look)
    assert poller.wait(0.001) == []
    gevent.spawn(look)
    poller._turn_ends = 0
    poller.breathe()
    assert seen == [True, True] and not poller._watcher.active
    seen.clear()
    client.sendall(b"a")
    for _ in range(3):
        poller._turn_ends = 0
        poller.breathe()  # There are news all the time, and nobody asks for them.
    ((descriptor, _),) = poller.wait(30)
    assert descriptor == server.fileno()
    assert server.recv(1) == b"a"

def breathe():
    poller._turn_ends = 0
    poller.breathe()

breathing = gevent.spawn(breathe)
gevent.sleep(0)
assert poller._watcher.active
breathing.kill()
assert not poller._watcher.active
poller.close()
"""
        )

    def test_a_loop_that_fails_runs_again_in_another_greenlet(self) -> None:
        run_on_gevent(
            f"""{GEVENT}
from gevent.event import Event
ran, is_over = [], Event()

def loop():
    ran.append(gevent.getcurrent())
    if len(ran) == 1:
        raise gevent.GreenletExit
    is_over.set()

def after_failure(error):
    assert isinstance(error, gevent.GreenletExit)
    return 0

poller.start(loop, after_failure)
assert is_over.wait(10)
assert len(ran) == 2 and ran[0] is not ran[1]
poller.close()
"""
        )

    def test_an_exit_that_a_signal_meant_reaches_gevent(self) -> None:
        run_on_gevent(
            f"""{GEVENT}
def loop():
    raise SystemExit(0)

poller.start(loop, lambda error: None)
gevent.sleep(30)
raise AssertionError("the process goes on")
"""
        )

    def test_gevent_forgets_a_descriptor_that_it_has_waited_for(self) -> None:
        run_on_gevent(
            f"""{GEVENT}
reader = gevent.spawn(server.recv, 1)
gevent.sleep(0)
client.sendall(b"a")
assert reader.get(timeout=10) == b"a"

def registered():
    loop = gevent.get_hub().loop.fileno()
    with open(f"/proc/self/fdinfo/{{loop}}") as file:
        lines = [line.split() for line in file if line.startswith("tfd:")]
    return server.fileno() in [int(line[1]) for line in lines]

assert registered()
forget_in_gevent(server.fileno())
assert not registered()
forget_in_gevent(server.fileno())
"""
        )

    def test_what_waits_is_interrupted_if_it_still_waits(self) -> None:
        run_on_gevent(
            f"""{GEVENT}
told = []

def work(is_waiting):
    interrupt = Interrupt()
    interrupt(lambda: is_waiting)
    try:
        gevent.sleep(0.02)
        told.append("slept")
    except GeneratorExit:
        told.append("interrupted")

gevent.joinall([gevent.spawn(work, True)])
gevent.joinall([gevent.spawn(work, False)])
assert told == ["interrupted", "slept"], told
"""
        )

    def test_its_sockets_are_plain_and_the_native_ones_too(self) -> None:
        run_on_gevent(
            f"""{GEVENT}
native = plain_socket(os.dup(server.fileno()))
assert type(native) is not type(server)
assert is_plain(native) and is_plain(server)
client.close()
assert server.recv(1) == b""  # The end has arrived.
assert is_gone(server) and is_gone(native)
os.set_blocking(native.fileno(), False)
poller.finish(native.detach())
"""
        )

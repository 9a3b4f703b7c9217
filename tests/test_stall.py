"""Whether a client takes what it is sent, and how it is cut, on connections of this
process."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from flask_sse_lite.hub import stall
from flask_sse_lite.hub.stall import (
    SEND_BUFFER,
    Progress,
    bound,
    cut,
    on_the_wire,
    release,
)

from .patience import patient
from .servers import until
from .stand_ins import connection, fill, is_bounded

SOON = patient(10.0)

#: Seconds after which a client is stuck. The tests say what time it is.
LIMIT = 5.0


@pytest.fixture(params=["tcp", "unix"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, ...]]:
    """The server's end of a connection, and its client's end."""
    if request.param == "tcp":
        with connection() as pair:
            yield pair
    else:
        server, client = socket.socketpair()
        client.settimeout(SOON)
        with server, client:
            yield server, client


Ends = tuple[socket.socket, socket.socket]


def fill_up(server: socket.socket) -> None:
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        fill(server.send)


class TestBound:
    @pytest.mark.parametrize("by_descriptor", [False, True])
    def test_what_the_system_holds_is_bounded_until_that_is_undone(
        self, ends: Ends, by_descriptor: bool
    ) -> None:
        server, _ = ends
        sock = server.fileno() if by_descriptor else server
        bound(sock)
        # The system doubles the number.
        size = server.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert size == 2 * SEND_BUFFER
        assert is_bounded(server)
        release(sock)
        assert not is_bounded(server)

    def test_a_closed_socket_is_no_error(self) -> None:
        sock = socket.socket()
        sock.close()
        bound(sock)
        release(sock)
        cut(sock)


class TestCut:
    @pytest.mark.parametrize("by_descriptor", [False, True])
    def test_who_waits_for_the_client_goes_on_at_once(
        self, ends: Ends, by_descriptor: bool
    ) -> None:
        server, _ = ends
        fill_up(server)
        server.setblocking(True)
        failures: list[Exception] = []

        def send() -> None:
            # The client's system can take a little more, and still a little.
            try:
                fill(server.sendall)
            except OSError as error:
                failures.append(error)

        waiting = threading.Thread(target=send)
        waiting.start()
        cut(server.fileno() if by_descriptor else server)
        waiting.join(SOON)
        (failure,) = failures
        assert isinstance(failure, BrokenPipeError)
        os.fstat(server.fileno())  # It is the server's to close.

    def test_what_the_client_has_not_taken_is_dropped(self) -> None:
        with connection() as (server, client):
            fill_up(server)
            cut(server)
            server.close()
            with pytest.raises(ConnectionResetError):
                list(iter(lambda: client.recv(1 << 20), b""))


class Looks:
    """Looks at how a client gets on, each as long after the one before as the limit."""

    def __init__(self, sock: socket.socket | int) -> None:
        self.progress = Progress(sock, LIMIT, 0.0)
        self.now = 0.0

    def is_stuck(self) -> bool:
        self.now += LIMIT
        return self.progress.is_stuck(self.now)


class TestProgress:
    def test_where_nothing_waits_for_the_client_it_is_never_stuck(
        self, ends: Ends
    ) -> None:
        looks = Looks(ends[0])
        assert looks.progress.is_done
        assert looks.is_stuck() is False
        assert not looks.is_stuck()
        assert looks.progress.is_done

    @pytest.mark.parametrize("by_descriptor", [False, True])
    def test_who_takes_nothing_for_the_time_of_the_limit_is_stuck(
        self, ends: Ends, by_descriptor: bool
    ) -> None:
        server, _ = ends
        fill_up(server)
        until(Looks(server).is_stuck, SOON)  # The client's system takes no more.
        progress = Progress(server.fileno() if by_descriptor else server, LIMIT, 0.0)
        assert not progress.is_stuck(0.0)
        assert not progress.is_done
        assert not progress.is_stuck(LIMIT - 0.1)
        assert progress.is_stuck(LIMIT)

    @pytest.mark.parametrize(("silence", "counts_from"), [(2.0, 98.0), (9.0, 95.0)])
    def test_the_time_before_the_first_look_counts_as_far_as_the_system_tells_it(
        self,
        ends: Ends,
        monkeypatch: pytest.MonkeyPatch,
        silence: float,
        counts_from: float,
    ) -> None:
        server, _ = ends
        fill_up(server)
        until(Looks(server).is_stuck, SOON)  # The client's system takes no more.
        is_told = server.family != socket.AF_UNIX
        monkeypatch.setattr(
            stall,
            "seconds_since_acknowledged",
            lambda sock: silence if is_told else None,
        )
        progress = Progress(server, LIMIT, 100.0)
        progress.count_from(95.0, 100.0)
        began = counts_from if is_told else 100.0
        assert not progress.is_stuck(began + LIMIT - 0.1)
        assert progress.is_stuck(began + LIMIT)

    def test_who_reads_a_little_at_a_time_is_not_stuck(self, ends: Ends) -> None:
        server, client = ends
        fill_up(server)
        looks = Looks(server)
        until(looks.is_stuck, SOON)

        def takes_a_little() -> bool:
            assert client.recv(65536)
            return not looks.is_stuck()

        for _ in range(3):
            until(takes_a_little, SOON)

    def test_who_takes_as_much_as_it_is_sent_is_not_stuck(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken = iter([5, 9, 9])
        monkeypatch.setattr(stall, "bytes_waiting", lambda descriptor: 100)
        monkeypatch.setattr(stall, "bytes_acknowledged", lambda sock: next(taken))
        looks = Looks(0)
        assert [looks.is_stuck() for _ in range(3)] == [False, False, True]

    def test_who_has_read_all_is_done(self, ends: Ends) -> None:
        server, client = ends
        fill_up(server)
        looks = Looks(server)
        looks.is_stuck()
        assert not looks.progress.is_done
        client.setblocking(False)

        def is_done() -> bool:
            with suppress(BlockingIOError):
                client.recv(1 << 20)
            assert not looks.is_stuck() or not looks.progress.is_done
            return looks.progress.is_done

        until(is_done, SOON)

    def test_a_socket_that_was_closed_is_not_stuck(self, ends: Ends) -> None:
        server, _ = ends
        fill_up(server)
        looks = Looks(server)
        until(looks.is_stuck, SOON)
        server.close()
        assert looks.is_stuck() is False
        assert looks.progress.is_done

    def test_it_cuts_the_connection_that_it_looks_at(self, ends: Ends) -> None:
        server, client = ends
        Progress(server, LIMIT, 0.0).cut()
        assert client.recv(1) == b""


class TestOnTheWire:
    def test_the_system_says_what_waits_and_what_was_taken(self, ends: Ends) -> None:
        server, client = ends
        assert on_the_wire(server)[0] == 0
        server.send(b"x" * 1000)
        if server.family == socket.AF_UNIX:
            waiting, taken = on_the_wire(server)
            assert waiting >= 1000  # It counts its own bookkeeping, too.
            assert taken is None
        assert len(client.recv(1000, socket.MSG_WAITALL)) == 1000
        until(lambda: on_the_wire(server)[0] == 0, SOON)
        if server.family == socket.AF_INET:
            until(lambda: (on_the_wire(server)[1] or 0) >= 1000, SOON)
        progress = Progress(server, LIMIT, 0.0)
        for sock in (server, server.fileno(), progress):
            told = sock.on_the_wire() if sock is progress else on_the_wire(sock)
            assert told == on_the_wire(server)

    def test_of_a_closed_socket_nothing_is_known(self, ends: Ends) -> None:
        server, _ = ends
        server.send(b"x")
        server.close()
        assert on_the_wire(server) == (0, None)

    def test_the_first_of_all_descriptors_is_one_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stall, "bytes_waiting", lambda descriptor: descriptor + 5)
        monkeypatch.setattr(stall, "bytes_acknowledged", lambda sock: 7)
        assert on_the_wire(0) == (5, 7)

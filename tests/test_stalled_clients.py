"""Clients that take nothing, on every server and for every way of delivery: their
network is gone, or they do not read. Both are let go; a client that reads slowly is
not."""

from __future__ import annotations

import ctypes
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from .certificates import issued
from .servers import HANDED_OFF, HOST, PATIENCE, Kind, Server, serve, until

GENERATORS = "tests.applications.generators:app"

#: Seconds between heartbeats.
HEARTBEAT = 1.0

#: Seconds after which a client that takes nothing must be gone: four heartbeats, and
#: more than that again for a busy machine.
ALLOWED = 10.0

#: Bytes of a stream that the system may hold for a client that reads nothing.
HELD = 256 * 1024

#: Bytes that a client's system takes in while the client reads nothing; hardly any.
LITTLE = 2048

#: Servers that need a thread or greenlet for each stream, as nothing is handed off.
ITERATED = [
    *("gunicorn sync", "gunicorn gthread", "gunicorn gevent", "gunicorn gevent_pywsgi"),
    *("gevent.pywsgi", "cheroot", "werkzeug", "uWSGI"),
]

#: gunicorns that speak TLS themselves. Nothing of theirs is handed off.
UNDER_TLS = [
    Kind(server, hands_off=False, tls="--certfile {certificate} --keyfile {key}")
    for server in ("gunicorn sync", "gunicorn gthread", "gunicorn gevent")
]

#: Every server that shows its sockets. (uWSGI's router can stand between uWSGI and its
#: clients. It closes a stream that takes nothing after its own --http-timeout.)
KINDS = [
    *(kind for kind in HANDED_OFF if kind.server != "uWSGI behind its router"),
    *(
        # By default uWSGI cuts a client that leaves its buffer two thirds full for 4 s.
        Kind(
            server,
            hands_off=False,
            options="--socket-timeout 60" if server == "uWSGI" else "",
        )
        for server in ITERATED
    ),
    *UNDER_TLS,
]

#: Linux's ``SO_ATTACH_FILTER``, and a filter that lets nothing in: ``ret #0``.
_ATTACH_FILTER = 26
_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)

_names = count()


class TLS:
    """What a client puts between itself and its socket. The socket is none of TLS, so
    that a client can read the bytes of a record one by one."""

    def __init__(self, connection: socket.socket, trust: ssl.SSLContext) -> None:
        self._socket = connection
        self._come, self._go = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ends = trust.wrap_bio(self._come, self._go, server_hostname=HOST)
        self._do(self._ends.do_handshake)

    def sendall(self, data: bytes) -> None:
        self._do(lambda: self._ends.write(data))

    def recv(self, size: int) -> bytes:
        piece: bytes = self._do(lambda: self._ends.read(size))
        return piece

    def _do(self, what: Callable[[], Any]) -> Any:
        """Have TLS do something, with all that it must send and get for that."""
        while True:
            try:
                return what()
            except ssl.SSLWantReadError:
                pass
            finally:
                self._socket.sendall(self._go.read())
            self._come.write(self._socket.recv(LITTLE))


class Client:
    """A client that reads only when it is told to. Its system holds little for it."""

    def __init__(self, server: Server, target: str, buffer: int = LITTLE) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.connect((HOST, server.port))
        self._wire = TLS(self.socket, server.tls) if server.tls else self.socket
        self._wire.sendall(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        # Clients of different servers can have the same port.
        self._ports = server.port, self.socket.getsockname()[1]

    def read_until(self, mark: bytes) -> None:
        received = b""
        while mark not in received:
            piece = self._wire.recv(LITTLE)
            assert piece, received
            received += piece

    def vanish(self) -> None:
        """Have no packet reach its system from here on, so that none is answered."""
        program = ctypes.create_string_buffer(_NOTHING)
        fprog = struct.pack("HxxxxxxP", 1, ctypes.addressof(program))
        self.socket.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, fprog)

    def held(self) -> int | None:
        """Bytes that the server's system holds for the client; None when the server has
        let it go."""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, state, queues, *_ = line.split()
            ports = tuple(int(end.split(":")[1], 16) for end in (local, remote))
            if ports == self._ports and state == "01":
                return int(queues.split(":")[0], 16)
        return None


@contextmanager
def connected(server: Server, target: str, buffer: int = LITTLE) -> Iterator[Client]:
    client = Client(server, target, buffer)
    with client.socket:
        yield client


def streaming(channel: str) -> str:
    return f"/stream?{urlencode({'channel': channel})}"


def generating(way: str, name: str, steps: str, **more: str) -> str:
    return f"{way}?{urlencode({'name': name, 'steps': steps, **more})}"


def await_gone(client: Client) -> None:
    until(lambda: client.held() is None, ALLOWED)


def is_busy_with_its_stream(kind: Kind) -> bool:
    """Whether the only worker answers no other request before the stream has ended."""
    return kind.server == "gunicorn sync" and not kind.hands_off


def await_uncounted(kind: Kind, server: Server, channel: str) -> None:
    """Wait until neither ``stats`` nor ``subscribers`` counts a stream."""
    if is_busy_with_its_stream(kind):
        assert server.request("GET", "/ping").body == b"pong"
    until(lambda: sum(server.paths()["open"].values()) == 0, ALLOWED)
    assert server.request("GET", f"/subscribers?channel={channel}").body == b"0"


@pytest.fixture(scope="module", params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture(scope="module")
def shared_server(
    kind: Kind, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    more: dict[str, Any] = {}
    if kind.tls:
        made = issued(tmp_path_factory.mktemp("certificate"))
        more = {"options": kind.tls.format(**made._asdict()), "tls": made.trust}
    with kind.serve(
        heartbeat=HEARTBEAT, app=GENERATORS, SSE_REPLAY=256, **more
    ) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    with shared_server.watched():
        yield shared_server


@pytest.fixture
def channel() -> str:
    """A channel, or a generator's name, that no other test uses."""
    return f"stall{next(_names)}"


name = channel


# Streams of channels


def test_who_has_vanished_is_let_go_and_counted_no_more(
    kind: Kind, server: Server, channel: str
) -> None:
    with connected(server, streaming(channel)) as client:
        client.read_until(b"stream-open")
        client.vanish()
        await_gone(client)
        await_uncounted(kind, server, channel)


@contextmanager
def reading(
    kind: Kind, server: Server, channel: str, size: int, number: int
) -> Iterator[Client]:
    """A client that is sent so many events of a size, and reads none of them."""
    events = [{"data": "x" * size, "channel": channel}] * number
    with ExitStack() as stack:
        if is_busy_with_its_stream(kind):
            server.publish(*events)  # It gets them as its history.
        client = stack.enter_context(connected(server, streaming(channel)))
        client.read_until(b"stream-open")
        if not is_busy_with_its_stream(kind):
            server.publish(*events)
        yield client


@pytest.mark.parametrize(("size", "number"), [(100_000, 20), (100, 200)])
def test_who_never_reads_costs_little_and_is_let_go(
    kind: Kind, server: Server, channel: str, size: int, number: int
) -> None:
    with reading(kind, server, channel, size, number) as client:
        deadline = time.monotonic() + ALLOWED
        while (held := client.held()) is not None:
            assert held < HELD
            assert time.monotonic() < deadline
            time.sleep(0.02)
        await_uncounted(kind, server, channel)


def test_who_reads_slowly_stays(kind: Kind, server: Server) -> None:
    def has_read_slowly() -> bool:
        channel = f"stall{next(_names)}"
        began = time.monotonic()
        with reading(kind, server, channel, 50_000, 4) as client:
            is_proof = reads_slowly_and_stays(kind, server, client, began)
        await_uncounted(kind, server, channel)
        return is_proof

    until(has_read_slowly)


def reads_slowly_and_stays(
    kind: Kind, server: Server, client: Client, read_at: float
) -> bool:
    """Have a client read slowly, and check that it stays.

    :param read_at: since when it has read nothing.
    :returns: False where the machine kept it from reading for longer than a heartbeat.
        That proves nothing: who takes nothing for a little over two is cut.
    """

    def was_kept() -> bool:
        return time.monotonic() - read_at > HEARTBEAT

    began = time.monotonic()
    while (now := time.monotonic()) - began < 5 * HEARTBEAT:
        try:
            piece = client.socket.recv(1000)
        except ConnectionResetError:
            piece = b""
        if was_kept():
            return False
        assert piece
        read_at = now
        time.sleep(HEARTBEAT / 5)
    is_held = client.held()
    is_open = is_busy_with_its_stream(kind) or sum(server.paths()["open"].values()) == 1
    if was_kept():
        return False
    assert is_held
    assert is_open
    return True


# Generators, whose items go past the server or through it


@pytest.mark.parametrize("steps", ["first,wait,tick", "first,tick", "first,crowd"])
def test_the_generator_of_who_has_vanished_is_closed(
    server: Server, name: str, steps: str
) -> None:
    with connected(server, generating("/ask", name, steps)) as client:
        client.read_until(b"first")
        client.vanish()
        await_gone(client)
        server.home(f"{name}.open").touch()
        until(lambda: "closed" in server.home(name).read_text())


@pytest.mark.parametrize("steps", ["first,tick", "first,crowd"])
def test_the_generator_of_who_never_reads_is_closed(
    server: Server, name: str, steps: str
) -> None:
    with connected(server, generating("/ask", name, steps)) as client:
        client.read_until(b"first")
        until(lambda: "closed" in server.home(name).read_text())
        await_gone(client)


# Runs


@pytest.mark.parametrize("reads", [True, False])
def test_a_run_ends_when_its_last_reader_has_vanished_or_never_reads(
    kind: Kind, server: Server, name: str, reads: bool
) -> None:
    steps = "first,tick" if reads else "first,crowd"
    target = generating("/run", name, steps, channel=name, linger="0.5")
    with connected(server, target) as client:
        client.read_until(b"first")
        if reads:
            client.vanish()
        await_gone(client)
        until(lambda: "closed" in server.home(name).read_text())
        await_uncounted(kind, server, name)


# How long


@pytest.mark.parametrize("server_kind", ["gunicorn gthread", "gunicorn gevent"])
@pytest.mark.parametrize("handoff", ["auto", False])
def test_how_long_can_be_set(server_kind: str, handoff: object) -> None:
    with serve(
        server_kind,
        # The hub looks at an iterated stream sixteen times in a heartbeat.
        SSE_HEARTBEAT=ALLOWED,
        SSE_MAX_STALL=HEARTBEAT,
        SSE_HANDOFF=handoff,
    ) as server:
        for vanishes in (True, False):
            with connected(server, streaming("room")) as client:
                client.read_until(b"stream-open")
                if vanishes:
                    client.vanish()
                server.publish({"data": "x" * 1_000_000, "channel": "room"})
                await_gone(client)

"""A crowd of clients in a process of its own: each is a connection of its own, and
reads a stream of the showcase as any client does.

``python crowd_clients.py HOST PORT PATH COUNT SECONDS`` writes a line of JSON whenever
something came: how many streams are open, and the numbers of the clients whose stream
was opened or lost, and of those that an event has reached, in that order. It ends after
so many seconds, when nobody reads its lines, and at once (status 3) while there is
another crowd at this server.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time
from contextlib import suppress

if sys.platform != "win32":
    import resource

#: The exit status while another crowd is there.
BUSY = 3

#: Clients that wait for an answer at the same time: fewer than a server's backlog.
IN_FLIGHT = 50

#: Seconds that arrivals are gathered for one line.
GATHERED = 0.05

#: Seconds after which a line is written though nothing came. The reader sees by it that
#: the crowd is there, and the crowd sees by it that nobody reads.
SILENCE = 0.5

_READ_SIZE = 1 << 16


class Client:
    """One stream, and where its reader is in it."""

    def __init__(self, number: int, address: tuple[str, int], path: str) -> None:
        self.number = number
        self.is_open = False
        self._rest = b""
        self.socket = socket.create_connection(address, timeout=10)
        request = f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n\r\n"
        self.socket.sendall(request.encode())
        self.socket.setblocking(False)

    def read(self) -> int | None:
        """How many events have come; None when the stream has ended or was refused."""
        try:
            data = self.socket.recv(_READ_SIZE)
        except BlockingIOError:
            return 0
        except OSError:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not self.is_open and b"HTTP/1.1 200" in data:
            self.is_open = True
        if not data or not self.is_open:
            return None
        # The extension's own events are named stream-…; they are no news.
        types = [line[6:].strip() for line in lines if line.startswith(b"event:")]
        return sum(not each.startswith(b"stream-") for each in types)


class Crowd:
    """All clients, in one thread."""

    def __init__(self, address: tuple[str, int], path: str, count: int) -> None:
        self._address, self._path, self._count = address, path, count
        self._selector = selectors.DefaultSelector()
        self._asked = 0  # clients that were made
        self._waiting: set[Client] = set()  # for their answer
        self._open = 0
        self._opened: list[int] = []
        self._lost: list[int] = []
        self._refused = 0
        self._lit: list[int] = []

    def live(self, seconds: float) -> None:
        """Read for so long, and write what came."""
        now = written = time.monotonic()
        deadline = now + seconds
        while now < deadline:
            self._invite()
            self._read(min(GATHERED, deadline - now))
            now = time.monotonic()
            news = self._lit or self._opened or self._lost
            if now - written >= (GATHERED if news else SILENCE):
                self._write()
                written = now

    def _invite(self) -> None:
        while self._asked < self._count and len(self._waiting) < IN_FLIGHT:
            client = Client(self._asked, self._address, self._path)
            self._asked += 1
            self._waiting.add(client)
            self._selector.register(client.socket, selectors.EVENT_READ, client)

    def _read(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            client: Client = key.data
            was_open = client.is_open
            came = client.read()
            self._waiting.discard(client)
            if client.is_open and not was_open:
                self._open += 1
                self._opened.append(client.number)
            if came is None:
                self._lose(client)
            else:
                self._lit += [client.number] * came

    def _lose(self, client: Client) -> None:
        self._refused += not client.is_open
        self._lost.append(client.number)
        self._open -= client.is_open
        self._selector.unregister(client.socket)
        client.socket.close()

    def _write(self) -> None:
        counts = {"open": self._open, "refused": self._refused}
        line = {**counts, "opened": self._opened, "lost": self._lost}
        print(json.dumps(line | {"lit": self._lit}), flush=True)
        self._opened, self._lost, self._lit = [], [], []


def _have_descriptors() -> None:
    """Let this process open as many files as the system allows."""
    if sys.platform != "win32":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError, OSError):  # macOS names a limit that it refuses.
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(host: str, port: str, path: str, count: str, seconds: str) -> int:
    # The server's port is one of TCP. The same of UDP is free, and can be held once.
    with socket.socket(type=socket.SOCK_DGRAM) as lock:
        try:
            lock.bind((host, int(port)))
        except OSError:
            return BUSY
        _have_descriptors()
        with suppress(BrokenPipeError):
            Crowd((host, int(port)), path, int(count)).live(float(seconds))
            return 0
        # Python would try once more to write what nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

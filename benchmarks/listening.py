"""A subscriber for what load.c cannot do: it listens to one process while another
publishes.

What never lives here: who publishes, and what is asked.
"""

from __future__ import annotations

import re
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from processes import BenchmarkError

STREAM_REQUEST = b"GET /stream?channel=sse HTTP/1.1\r\nHost: localhost\r\n\r\n"
OPENED = b"event: stream-open\n"
EVENT = re.compile(rb"data: ([0-9]+) ([0-9]+) x*\n")
EVENT_END = b"x\n"
STALL_SECONDS = 15  # without a byte, after which something counts as lost
RECEIVE = 1 << 18


class Listener:
    """A client that has had the first block of its stream. Its socket blocks."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), STALL_SECONDS)
        self.socket.sendall(STREAM_REQUEST)
        self.received = bytearray()
        self.events = 0
        while OPENED not in self.received:
            self.take()

    def take(self) -> None:
        """Take what has come, or wait for it."""
        piece = self.socket.recv(RECEIVE)
        if not piece:
            raise BenchmarkError(f"a stream ended after {self.events} events")
        # The end of an event can lie in two pieces.
        before = self.received[-1:]
        self.received += piece
        self.events += (before + piece).count(EVENT_END)

    def numbers(self) -> list[int]:
        """The numbers of all events, as they came."""
        return [int(found[1]) for found in EVENT.finditer(self.received)]

    def close(self) -> None:
        self.socket.close()


def latencies(listener: Listener, events: int) -> list[float]:
    """Take events one by one.

    :returns: ms from the publishing of each event to its arrival.
    """
    took = []
    seen = listener.events
    for _ in range(events):
        start = len(listener.received)
        while listener.events == seen:
            listener.take()
        now = time.monotonic_ns()
        found = EVENT.findall(listener.received, start)
        took += [(now - int(stamp)) / 1e6 for _, stamp in found]
        seen = listener.events
        if len(took) >= events:
            break
    return took


def take_all(listeners: Sequence[Listener], events: int) -> None:
    """Take what comes to several listeners, until each has so many events."""
    with selectors.DefaultSelector() as selector:
        for listener in listeners:
            selector.register(listener.socket, selectors.EVENT_READ, listener)
        while selector.get_map():
            ready = selector.select(STALL_SECONDS)
            if not ready:
                had = ", ".join(f"{one.events:,}" for one in listeners)
                raise BenchmarkError(f"nothing more comes; of {events:,} came {had}")
            for key, _ in ready:
                key.data.take()
                if key.data.events >= events:
                    selector.unregister(key.fileobj)


@contextmanager
def drained(listeners: Sequence[Listener]) -> Iterator[None]:
    """Read and drop what comes to several listeners, in a thread."""
    over = threading.Event()

    def drain() -> None:
        with selectors.DefaultSelector() as selector:
            for listener in listeners:
                selector.register(listener.socket, selectors.EVENT_READ)
            while not over.is_set():
                for key, _ in selector.select(0.1):
                    assert isinstance(key.fileobj, socket.socket)
                    if not key.fileobj.recv(RECEIVE):
                        selector.unregister(key.fileobj)

    drainer = threading.Thread(target=drain)
    drainer.start()
    try:
        yield
    finally:
        over.set()
        drainer.join()

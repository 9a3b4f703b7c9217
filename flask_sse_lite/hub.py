"""The hub: the one loop per process that keeps streams alive.

Here lives what happens to open streams as time passes, and nothing that happens to
them as events come: it looks at each a few times a second, so that heartbeats and ages
cost no timer per stream. One daemon thread under threads; under a monkey-patched
gevent, where threads are greenlets, one greenlet. It starts with the first stream,
and ends with the last.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol

#: Seconds between two looks at the streams. 5,000 of them cost about a millisecond.
TICK = 0.25

#: Looks per heartbeat at least, where heartbeats are short.
TICKS_PER_HEARTBEAT = 8


class Alive(Protocol):
    """An open stream, as the hub sees it."""

    @property
    def heartbeat(self) -> float:
        """Seconds of silence before a sign of life is sent."""

    def tick(self, now: float) -> None:
        """Look at the clock (``time.monotonic()``). May not wait, nor raise."""


class Hub:
    """The open streams of a process. Thread-safe."""

    def __init__(self) -> None:
        self._streams: set[Alive] = set()
        self._lock = threading.Lock()
        self._is_running = False
        self._tick = TICK

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: Alive) -> None:
        with self._lock:
            self._streams.add(stream)
            self._tick = min(self._tick, stream.heartbeat / TICKS_PER_HEARTBEAT)
            if not self._is_running:
                self._is_running = True
                threading.Thread(
                    target=self._run, name="flask_sse_lite.hub", daemon=True
                ).start()

    def discard(self, stream: Alive) -> None:
        with self._lock:
            self._streams.discard(stream)

    def _run(self) -> None:
        pid = os.getpid()
        while True:
            time.sleep(self._tick)
            if os.getpid() != pid:  # A fork under gevent copies its greenlets too.
                return
            with self._lock:
                streams = list(self._streams)
                if not streams:
                    self._is_running = False
                    self._tick = TICK
                    return
            now = time.monotonic()
            for stream in streams:
                stream.tick(now)


# A process must have one of it. By process id, because a forked child has its parent's
# memory but none of its threads; two threads that both find none agree on one, as
# setdefault is atomic.
_hubs: dict[int, Hub] = {}


def current_hub() -> Hub:
    """This process's hub."""
    pid = os.getpid()
    try:
        return _hubs[pid]
    except KeyError:
        return _hubs.setdefault(pid, Hub())

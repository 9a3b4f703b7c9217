"""The extension on a store that processes share: what the parts of brokers.py have one
of these processes do.

The process itself measures its CPU, and for how long it was held. What never lives
here: anything that changes what the extension does.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from statistics import median
from typing import Any

from flask import request
from ours import app
from stamped import stamped
from werkzeug.wrappers import Response

from flask_sse_lite import sse

TICK = 0.001  # seconds that the ticking greenlet sleeps


def _range() -> range:
    first, count = int(request.args["first"]), int(request.args["count"])
    return range(first, first + count)


@app.post("/costs")
def costs() -> dict[str, float]:
    """Publish, and return what a publish costs: µs of CPU, and of time."""
    took = []
    before = time.process_time()
    for seq in _range():
        start = time.perf_counter_ns()
        sse.publish(stamped(seq))
        took.append(time.perf_counter_ns() - start)
    used = time.process_time() - before
    return {"cpu_us": used / len(took) * 1e6, "p50_us": median(took) / 1e3}


@app.post("/drip")
def drip() -> dict[str, int]:
    """Publish events one by one, with pauses of random length up to `pause`."""
    pause = float(request.args["pause"])
    for seq in _range():
        time.sleep(random.uniform(0, pause))
        sse.publish(stamped(seq))
    return {"published": len(_range())}


@app.post("/together")
def together() -> dict[str, int]:
    """Publish each event from a thread, or a greenlet, of its own."""
    threads = [
        threading.Thread(target=_publish_outside_the_request, args=(seq,))
        for seq in _range()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"published": len(threads)}


def _publish_outside_the_request(seq: int) -> None:
    with app.app_context():
        sse.publish(stamped(seq))


@app.get("/rooms")
def rooms() -> Response:
    """Stream a channel to a client. The client's number says which channel."""
    number, count = int(request.args["number"]), int(request.args["count"])
    return sse.stream(f"room.{number % count}")


class Ticker:
    """A greenlet, or thread, that only sleeps, and measures how late it wakes.

    ``longest`` is the longest delay in seconds, ``waited`` the part of it in which the
    thread waited for a core.
    """

    def __init__(self) -> None:
        self.longest = self.waited = 0.0
        self._over = False
        path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        self._schedule = os.open(path, os.O_RDONLY)
        self._thread = threading.Thread(target=self._tick)

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        os.close(self._schedule)

    def _tick(self) -> None:
        last, waited = time.monotonic(), self._waited()
        while not self._over:
            time.sleep(TICK)
            now, has_waited = time.monotonic(), self._waited()
            if now - last - TICK > self.longest:
                self.longest = now - last - TICK
                self.waited = has_waited - waited
            last, waited = now, has_waited

    def _waited(self) -> float:
        """Seconds in which the thread could have run but had no core: see proc(5)."""
        _, nanoseconds, _ = os.pread(self._schedule, 100, 0).split()
        return int(nanoseconds) / 1e9


@app.post("/stall")
def stall() -> dict[str, float]:
    """Publish events one by one, and return for how many ms nobody else got a turn."""
    with Ticker() as ticker:
        drip()
    return {"longest_ms": ticker.longest * 1e3, "waited_ms": ticker.waited * 1e3}


class CountingConnection(sqlite3.Connection):
    """A connection that counts its visits: it appends a byte to a shared file for each
    transaction, and for each statement outside of one."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.set_trace_callback(self._note)

    def _note(self, statement: str) -> None:
        if not self.in_transaction:
            os.write(_visits, b".")


if "FLASK_VISITS_FILE" in os.environ:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    _visits = os.open(os.environ["FLASK_VISITS_FILE"], flags, 0o600)
    _connect = sqlite3.connect

    def _counting_connect(*args: Any, **options: Any) -> sqlite3.Connection:
        return _connect(*args, factory=CountingConnection, **options)

    sqlite3.connect = _counting_connect  # type: ignore[assignment]

"""The figures of this machine, published once a second on the channel "figures".

:func:`start` may be called as often as you like, from any thread. It is called when
somebody subscribes and not at import, because a thread that is started at import
does not survive a fork (``gunicorn --preload``), and runs where nobody listens.

Each of several workers publishes figures of its own. They name their worker, and the
page draws one worker's at a time.
"""

from __future__ import annotations

import os
import time
from threading import Thread

import psutil
from flask import Flask

from flask_sse_lite import sse

PERIOD = 1.0  # seconds

_samplers: dict[int, Thread] = {}  # by process id: a forked child starts its own


def start(app: Flask) -> None:
    """Have this process publish its figures, from now on and only once."""
    sampler = Thread(target=_run, args=(app,), name="figures", daemon=True)
    if _samplers.setdefault(os.getpid(), sampler) is sampler:  # atomic: one wins
        sampler.start()


def _run(app: Flask) -> None:
    sampler = Sampler()
    due = time.monotonic()
    while True:
        now = time.monotonic()
        due = max(due + PERIOD, now)  # after a suspension: on from now, no burst
        time.sleep(due - now)
        try:
            with app.app_context():
                sse.publish(sampler.sample(), type="figures", channel="figures")
        except Exception:  # the broker may be away: the next second tries again
            app.logger.exception("The figures of this second were not published.")


class Sampler:
    """Reads the machine's counters and remembers them, since rates need two."""

    def __init__(self) -> None:
        psutil.cpu_percent(percpu=True)  # the first reading is the base of the next
        self._traffic = psutil.net_io_counters()
        self._read_at = time.monotonic()

    def sample(self) -> dict[str, object]:
        """Percent by core, bytes of memory, and bytes a second of the network."""
        memory = psutil.virtual_memory()
        before, now = self._traffic, psutil.net_io_counters()
        elapsed = time.monotonic() - self._read_at
        self._traffic, self._read_at = now, self._read_at + elapsed
        return {
            "cpu": psutil.cpu_percent(percpu=True),
            "memory": {"used": memory.total - memory.available, "total": memory.total},
            "network": {
                "received": round((now.bytes_recv - before.bytes_recv) / elapsed),
                "sent": round((now.bytes_sent - before.bytes_sent) / elapsed),
            },
            "time": time.time(),
            "worker": os.getpid(),
        }

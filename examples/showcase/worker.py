"""What one worker of the server costs, published once a second on a channel of its own.

A page listens to the channel of the worker that serves it. So the page knows which
worker that is, and what the streams cost there. :func:`start` can be called often, from
any thread.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from threading import Thread

import psutil
from flask import Flask

from flask_sse_lite import sse

PERIOD = 1.0  # seconds


def channel() -> str:
    """The channel of this process."""
    return f"worker.{os.getpid()}"


def start(app: Flask) -> None:
    """Have this process publish what it costs to an application, from now on and only
    once."""
    reporter = Thread(target=_run, args=(app,), name="worker", daemon=True)
    # By process id: a forked child starts its own.
    reporters: dict[int, Thread] = app.extensions.setdefault("showcase.worker", {})
    if reporters.setdefault(os.getpid(), reporter) is reporter:  # Atomic: one wins.
        reporter.start()


def is_ours(pid: int) -> bool:
    """Whether a process is a worker of this server: a child of the same parent, by the
    same command. (A parent that is a shell has other children.)"""
    try:
        other, own = psutil.Process(pid), psutil.Process()
        return other.ppid() == own.ppid() and other.cmdline() == own.cmdline()
    except psutil.Error:
        return False


def _run(app: Flask) -> None:
    process = psutil.Process()
    process.cpu_percent()  # the first reading is the base of the next
    while True:
        try:
            with app.app_context():
                sse.publish(_cost(process), type="worker", channel=channel())
        except Exception:  # The broker can be away: the next second tries again.
            app.logger.exception("The worker's cost was not published this second.")
        time.sleep(PERIOD)


def _cost(process: psutil.Process) -> dict[str, object]:
    return {
        "worker": process.pid,
        "streams": _open_streams(),
        "threads": process.num_threads(),
        "greenlets": _greenlets(),
        "memory": process.memory_info().rss,
        "cpu": process.cpu_percent(),
        "time": time.time(),
    }


def _open_streams() -> int:
    streams = sse.stats()["open"]
    return streams["handed off"] + streams["iterated"]


def _greenlets() -> int:
    """The greenlets of this process; 0 where gevent is not in use."""
    gevent = sys.modules.get("gevent")
    if gevent is None:
        return 0
    return sum(
        isinstance(each, gevent.Greenlet) and not each.dead for each in gc.get_objects()
    )

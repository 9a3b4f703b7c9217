"""The figures of this machine, published once a second on the channel "figures".

:func:`start` can be called often, from any thread. It is called when somebody
subscribes and not at import, because a thread that is started at import does not
survive a fork (``gunicorn --preload``), and runs where nobody listens.

Of several workers one publishes, and the others keep silent as long as they hear it.
The worker whose figures are the newest goes on. All workers see the same order, so they
agree on which one that is.
"""

from __future__ import annotations

import os
import random
import time
from threading import Thread

import psutil
from flask import Flask

from flask_sse_lite import Event, sse

PERIOD = 1.0  # seconds


def start(app: Flask) -> None:
    """Have this process publish its figures to an application, from now on and only
    once."""
    sampler = Thread(target=_run, args=(app,), name="figures", daemon=True)
    # By process id: a forked child starts its own.
    samplers: dict[int, Thread] = app.extensions.setdefault("showcase.figures", {})
    if samplers.setdefault(os.getpid(), sampler) is sampler:  # Atomic: one wins.
        sampler.start()


def _run(app: Flask) -> None:
    while True:
        try:
            with app.app_context():
                _publish_in_silence(Sampler())
        except Exception:  # The broker can be away: the next second tries again.
            app.logger.exception("The figures of this second were not published.")
            time.sleep(PERIOD)


def _publish_in_silence(sampler: Sampler) -> None:
    """Publish whenever nobody has published for a while. The worker that published last
    waits less long than the others."""
    since: str | None = sse.position()
    is_ours = True
    while True:
        silence = PERIOD if is_ours else PERIOD * random.uniform(2, 3)
        for event in sse.messages("figures", since=since, timeout=silence):
            since = event.id
            if is_ours is not (event.type == "figures" and _is_ours(event)):
                is_ours = not is_ours
                break
        else:
            is_ours = False  # until it is heard
            sse.publish(sampler.sample(), type="figures", channel="figures")


def _is_ours(event: Event) -> bool:
    return bool(event.json["worker"] == os.getpid())


class Sampler:
    """Reads the machine's counters and remembers them, since rates need two."""

    def __init__(self) -> None:
        psutil.cpu_percent(percpu=True)  # the first reading is the base of the next
        self._traffic = psutil.net_io_counters()
        self._read_at = time.monotonic()

    def sample(self) -> dict[str, object]:
        """Percent by core, bytes of memory, bytes a second of the network, and who is
        here."""
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
            # Who listens to the chat, over all workers: names, and how many tabs each.
            "here": sse.present("chat"),
            "time": time.time(),
            "worker": os.getpid(),
        }

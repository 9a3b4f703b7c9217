"""Samples: what workers hold, seen from outside and as they tell it themselves.

What the numbers mean is decided in ``verdicts``.
"""

from __future__ import annotations

import http.client
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import redis

from tests.servers import until

from .record import Inside, Record, Rest, Sample
from .service import SLOWEST_START, Service

#: Requests within which each worker must have answered one.
_ASKED = 400

_ROLLUP = re.compile(r"^(Rss|Pss):\s+(\d+) kB", re.MULTILINE)


def sample(service: Service, record: Record) -> None:
    """Add a sample of each worker, of one worker's own account, and of Redis."""
    at = time.monotonic() - record.began
    for process in service.server.workers():
        try:
            record.samples.append(_outside(at, process))
        except OSError:
            pass  # It has ended meanwhile.
    try:
        told = service.server.stats()
        record.inside.append(
            Inside(at, told["process"], told["streams"], told["greenlets"])
        )
    except (OSError, http.client.HTTPException):
        pass  # The worker was killed meanwhile.
    try:
        used = service.redis.ask("INFO", "memory")["used_memory"]
        record.store.append((at, int(used)))
    except (redis.RedisError, OSError):
        pass  # Redis is being restarted.


def _outside(at: float, process: int) -> Sample:
    folder = Path(f"/proc/{process}")
    found = dict(_ROLLUP.findall((folder / "smaps_rollup").read_text("ascii")))
    return Sample(
        at,
        process,
        int(found["Rss"]) * 1024,
        int(found["Pss"]) * 1024,
        len(os.listdir(folder / "fd")),
        len(os.listdir(folder / "task")),
    )


def _told_by_all(service: Service) -> Iterator[dict[str, int]]:
    """What each worker tells of itself. Which worker answers is left to chance."""
    found: dict[int, dict[str, int]] = {}

    def is_complete() -> bool:
        told = service.server.stats()
        found[told["process"]] = told
        return {*service.server.workers()} <= {*found}

    until(is_complete, SLOWEST_START)
    for process in service.server.workers():
        yield found[process]


def rest(service: Service) -> Rest:
    """The most of what any worker holds."""
    told = [*_told_by_all(service)]
    names = ("streams", "descriptors", "threads", "greenlets")
    return Rest(*(max(one[name] for one in told) for name in names))


def rest_at_last(service: Service) -> Rest:
    """The same, when all clients have left: as soon as nobody serves a stream."""

    found = rest(service)

    def is_quiet() -> bool:
        nonlocal found
        found = rest(service)
        return not found.streams

    with suppress(AssertionError):  # The verdicts say what is left.
        until(is_quiet, SLOWEST_START)
    return found

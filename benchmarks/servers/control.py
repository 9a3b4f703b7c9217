"""The control interface of every server measured: publish a batch, read the stats.

It is the same for all, so that what it costs is too. What never lives here: anything
that knows how events reach the subscribers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from flask import Blueprint, request

DATA_BYTES = 64  # of every event; load.c takes no other for one of the round's


def stamped(seq: int) -> str:
    """Return an event's data: its number, the time it is published, padding."""
    return f"{seq} {time.monotonic_ns()} ".ljust(DATA_BYTES, "x")


def resident_kilobytes() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Rss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1])


def control(publish: Callable[[str], object]) -> Blueprint:
    """Return the routes that call `publish` with each event's data."""
    blueprint = Blueprint("control", __name__)

    @blueprint.post("/publish")
    def publish_batch() -> dict[str, int]:
        first, count = int(request.args["first"]), int(request.args["count"])
        for seq in range(first, first + count):
            publish(stamped(seq))
        return {"published": count}

    @blueprint.get("/stats")
    def stats() -> dict[str, float]:
        return {
            "cpu_seconds": time.process_time(),
            "rss_kilobytes": resident_kilobytes(),
        }

    return blueprint

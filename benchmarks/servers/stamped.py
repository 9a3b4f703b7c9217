"""The data of the events measured, as load.c and baseline.c know it too."""

from __future__ import annotations

import time

DATA_BYTES = 64  # of every event; load.c takes no other for one of the round's


def stamped(seq: int) -> str:
    """Return an event's data: its number, the time it is published, padding."""
    return f"{seq} {time.monotonic_ns()} ".ljust(DATA_BYTES, "x")


def token(number: int) -> str:
    """A token, with its number and the time of its making."""
    return f"{number} {time.monotonic_ns()}"

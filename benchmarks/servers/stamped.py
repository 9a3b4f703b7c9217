"""The data of the events measured. load.c and baseline.c have the same shape."""

from __future__ import annotations

import time

DATA_BYTES = 64  # of every event; load.c ignores data of another length


def stamped(seq: int) -> str:
    """Return an event's data: its number, the time of its publishing, padding."""
    return f"{seq} {time.monotonic_ns()} ".ljust(DATA_BYTES, "x")


def token(number: int) -> str:
    """A token, with its number and the time of its making."""
    return f"{number} {time.monotonic_ns()}"

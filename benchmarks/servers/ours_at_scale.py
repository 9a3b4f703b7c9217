"""The extension with a channel for each client, and with a thread that computes.

The number of a scattered event names its subscriber, so that load.c can check that it
came to that one.
"""

from __future__ import annotations

import threading
from random import randrange

from flask import request
from ours import app
from stamped import stamped

from flask_sse_lite import sse


@app.post("/scatter")
def scatter() -> dict[str, int]:
    """Publish to channels at random, all in one request, so that the cost of HTTP does
    not count."""
    first, count = int(request.args["first"]), int(request.args["count"])
    channels = int(request.args["channels"])
    for turn in range(first, first + count):
        channel = randrange(channels)
        sse.publish(stamped(turn * channels + channel), channel=str(channel))
    return {"published": count}


@app.post("/compute")
def compute() -> dict[str, int]:
    """Start a thread that never waits."""
    threading.Thread(target=_compute, daemon=True).start()
    return {"threads": threading.active_count()}


def _compute() -> None:
    number = 0
    while True:
        number = (number * 31 + 7) % 1_000_003

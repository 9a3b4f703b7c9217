"""The control interface of every Flask server measured: publish a batch.

It is the same for all, so that what it costs is too. What never lives here: anything
that knows how events reach the subscribers.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, request
from stamped import stamped


def control(publish: Callable[[str], object]) -> Blueprint:
    """Return the route that calls `publish` with each event's data."""
    blueprint = Blueprint("control", __name__)

    @blueprint.post("/publish")
    def publish_batch() -> dict[str, int]:
        first, count = int(request.args["first"]), int(request.args["count"])
        for seq in range(first, first + count):
            publish(stamped(seq))
        return {"published": count}

    return blueprint

"""The control interface of every Flask server measured: publish a batch, answer an
ordinary request, count greenlets.

It is the same for all, so that it costs all the same. What never lives here: anything
that knows how events reach the subscribers.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from random import randrange

from flask import Blueprint, Response, request
from stamped import stamped


def control(publish: Callable[[str], object]) -> Blueprint:
    """Return the routes. /publish calls `publish` with each event's data."""
    blueprint = Blueprint("control", __name__)

    @blueprint.post("/publish")
    def publish_batch() -> dict[str, int]:
        first, count = int(request.args["first"]), int(request.args["count"])
        for seq in range(first, first + count):
            publish(stamped(seq))
        return {"published": count}

    @blueprint.get("/plain")
    def plain() -> Response:
        """Return a small text. load.c takes its blank line for the end of a block."""
        return Response("fine\n\n", mimetype="text/plain")

    @blueprint.get("/greenlets")
    def greenlets() -> dict[str, int]:
        return {"greenlets": count_greenlets()}

    return blueprint


def scattering(publish: Callable[..., object]) -> Blueprint:
    """Return the route /scatter: `publish` is called with the data of events, each for
    the channel of one subscriber."""
    blueprint = Blueprint("scattering", __name__)

    @blueprint.post("/scatter")
    def scatter() -> dict[str, int]:
        """Publish to channels at random, all in one request, so that the cost of HTTP
        does not count."""
        first, count = int(request.args["first"]), int(request.args["count"])
        channels = int(request.args["channels"])
        for turn in range(first, first + count):
            channel = randrange(channels)
            publish(stamped(turn * channels + channel), channel=str(channel))
        return {"published": count}

    return blueprint


def count_greenlets() -> int:
    """Return how many greenlets there are that have not ended."""
    if (module := sys.modules.get("greenlet")) is None:
        return 0
    found = (one for one in gc.get_objects() if isinstance(one, module.greenlet))
    return sum(not one.dead for one in found)

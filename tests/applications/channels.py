"""Channels, what can be done with them, and what they cost: an application for tests
that reach it by a socket. It is configured by ``FLASK_…`` in the environment."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import sys

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse
from flask_sse_lite.hub import current_hub

logging.basicConfig(format="[%(process)d] %(levelname)s %(name)s: %(message)s")
logging.getLogger("flask_sse_lite.access").setLevel(logging.INFO)

app = Flask(__name__)
app.config.from_prefixed_env()
app.register_blueprint(sse)

if app.config.get("PUBLISH_AT_IMPORT"):
    with app.app_context():
        sse.publish("before any request")


@sse.authorizer
def may_listen(channel: str) -> bool:
    return not channel.startswith("secret")


@app.after_request
def sign(response: Response) -> Response:
    """A header that an application adds to all its answers, and the process's id."""
    response.headers["X-Signed-By"] = "the application"
    response.headers["X-Process"] = str(os.getpid())
    return response


@app.post("/publish")
def publish() -> ResponseReturnValue:
    """Publish a list of events, each the arguments of ``sse.publish``."""
    return [sse.publish(**event).id for event in request.get_json()]


@app.post("/publish-and-stop")
def publish_and_stop() -> ResponseReturnValue:
    """Publish, and have this worker stop before anyone can be told of the event."""
    sse.publish(**request.get_json())
    os.kill(os.getpid(), signal.SIGTERM)
    return "", 204


@app.post("/close")
def close() -> ResponseReturnValue:
    sse.close(request.args["channel"])
    return "", 204


@app.get("/ping")
def ping() -> ResponseReturnValue:
    """An ordinary request."""
    return "pong"


@app.get("/page")
def page() -> ResponseReturnValue:
    """A page for a browser that listens to streams of the same origin."""
    return "<!doctype html><title>A page</title><link rel=icon href=data:>"


@app.get("/paths")
def paths() -> ResponseReturnValue:
    """How this process's streams are delivered, and why."""
    return sse.stats()


@app.get("/stats")
def stats() -> ResponseReturnValue:
    """What the answering process has in use."""
    return {
        "process": os.getpid(),
        "streams": len(current_hub()),
        "handed_off": sum(sse.stats()["handed off"].values()),
        "iterated": sum(sse.stats()["iterated"].values()),
        "threads": len(os.listdir("/proc/self/task")),
        "greenlets": greenlets(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def greenlets() -> int:
    """How many greenlets run: 0 where gevent is not in use (and perhaps not
    installed)."""
    gevent = sys.modules.get("gevent")
    if gevent is None:
        return 0
    return sum(
        isinstance(thing, gevent.Greenlet) and not thing.dead
        for thing in gc.get_objects()
    )

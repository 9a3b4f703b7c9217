"""Channels, and publishes that can fail for want of memory or of disk. It is configured
as channels.py is."""

from __future__ import annotations

from flask import request
from flask.typing import ResponseReturnValue

from flask_sse_lite import BrokerUnavailable, sse

from .channels import app


@app.errorhandler(MemoryError)
def tell_of_memory(error: MemoryError) -> ResponseReturnValue:
    return "There is no memory for this.", 500


@app.errorhandler(BrokerUnavailable)
def tell_of_broker(error: BrokerUnavailable) -> ResponseReturnValue:
    return str(error), 503


@app.post("/large")
def large() -> ResponseReturnValue:
    """Publish an event of so many characters."""
    sse.publish("x" * request.args.get("size", type=int, default=0), channel="room")
    return "", 204


@app.get("/subscribers")
def subscribers() -> ResponseReturnValue:
    return str(sse.subscribers(request.args["channel"]))

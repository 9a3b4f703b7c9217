"""The channels, for the soak of a whole service. What is published is refused by 503
where the store is away, so that its publisher knows that it must say it again."""

from __future__ import annotations

from flask import request
from flask.typing import ResponseReturnValue

from flask_sse_lite import BrokerUnavailable, sse

from .channels import app

__all__ = ["app"]


@app.post("/say")
def say() -> ResponseReturnValue:
    """Publish the request's body.

    :returns: the event's id.
    """
    try:
        event = sse.publish(request.get_data(as_text=True), channel=request.args["to"])
    except BrokerUnavailable as error:
        return str(error), 503
    return event.id or ""

"""A model's tokens as a response, and as a run that outlives its connection."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Flask, request
from stamped import token
from werkzeug.wrappers import Response

from flask_sse_lite import EventStream, sse

app = Flask(__name__)
app.register_blueprint(sse)


def answer() -> Iterator[str]:
    count, pause = int(request.args["count"]), float(request.args["pause"])
    return tokens(count, pause)


def tokens(count: int, pause: float) -> Iterator[str]:
    for number in range(count):
        time.sleep(pause)
        yield token(number)


@app.get("/tokens")
def stream() -> Response:
    return EventStream(answer())


@app.get("/run")
def run() -> Response:
    return sse.run(answer())

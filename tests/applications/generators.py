"""Generators as streams: an application for tests that reach it by a socket. Its
configuration is the environment's ``FLASK_…``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

from flask import Flask, request
from flask.typing import ResponseReturnValue

from flask_sse_lite import EventStream, sse

logging.basicConfig(format="[%(process)d] %(levelname)s %(name)s: %(message)s")

app = Flask(__name__)
app.config.from_prefixed_env()
app.register_blueprint(sse)

#: What happened to the generators, in order.
happened: list[str] = []

#: What a generator waits for.
gates: dict[str, threading.Event] = {}


class Teapot(Exception):
    """An error that the application has an answer to."""


@app.errorhandler(Teapot)
def teapot(error: Teapot) -> ResponseReturnValue:
    return {"error": str(error)}, 418


@app.teardown_request
def note_teardown(error: BaseException | None) -> None:
    if request.path == "/ask":
        happened.append("teardown")


def gate(name: str) -> threading.Event:
    return gates.setdefault(name, threading.Event())


def answer(steps: str) -> Iterator[Any]:
    """Do what it says, step by step: wait for a gate, raise, yield."""
    happened.append("begin")
    try:
        for step in steps.split(","):
            verb, _, what = step.partition(":")
            if verb == "wait":
                assert gate(what).wait(60)
            elif verb == "raise":
                raise Teapot(what)
            elif verb == "many":
                for n in range(int(what)):
                    yield str(n)
            else:
                yield step
    finally:
        happened.append("closed")


@app.route("/ask", methods=["GET", "POST"])
def ask() -> ResponseReturnValue:
    return EventStream(answer(request.values["steps"]))


@app.route("/run", methods=["GET", "POST"])
def run() -> ResponseReturnValue:
    return sse.run(
        answer(request.values["steps"]),
        channel=request.values.get("channel"),
        linger=float(request.values.get("linger", "30")),
    )


@app.post("/close")
def close() -> ResponseReturnValue:
    sse.close(request.args["channel"])
    return "", 204


@app.post("/open")
def open_gate() -> ResponseReturnValue:
    gate(request.args["gate"]).set()
    return "", 204


@app.get("/happened")
def what_happened() -> ResponseReturnValue:
    return happened


@app.get("/")
def index() -> ResponseReturnValue:
    return str(time.time())

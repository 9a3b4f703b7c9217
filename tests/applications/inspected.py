"""Channels, runs and clients with identities, for an inspector: who says that it is Ann
can inspect. ``GET /run`` begins a run, which says a word each time that somebody posts
to ``/words``."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from flask import request
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse

from .channels import app

words = threading.Semaphore(0)


@sse.identity
def who() -> str | None:
    return request.headers.get("X-User") or request.args.get("user")


if app.config.get("GUARDED", True):

    @sse.inspector_guard
    def can_inspect() -> bool:
        return request.cookies.get("user") == "ann"


@app.get("/run")
def run() -> ResponseReturnValue:
    def say() -> Iterator[str]:
        while True:
            yield "a word"
            words.acquire()

    return sse.run(say(), linger=60)


@app.post("/words")
def word() -> ResponseReturnValue:
    words.release()
    return "", 204

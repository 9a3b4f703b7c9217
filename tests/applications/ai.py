"""The example ``openai_compatible``, with a record of what its generators do. It must
be served from the folder ``examples``."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from flask import request
from flask.typing import ResponseReturnValue
from openai_compatible import create_app, exchange, model

#: Tokens per second of the model named "slow".
SLOW = 2.5

#: Seconds of silence of the model named "thoughtful", before its answer and within it.
#: On a busy machine, too, heartbeats must come meanwhile.
THOUGHT = 2.0

app = create_app()

#: What happened, in order: generators that began and that were closed, errors that were
#: logged with their exception, and the key of each request.
happened: list[str] = []


class Note(logging.Handler):
    """Notes an expected error instead of logging it: a server's log must contain no
    traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        happened.append(f"logged {type(error).__name__}")


app.logger.handlers = [Note()]
app.logger.propagate = False


def watched(question: model.Question) -> Iterator[model.Piece]:
    happened.append("begin")
    try:
        pace = SLOW if question.model == "slow" else 1000
        for number, piece in enumerate(model.answer(question, pace)):
            if question.model == "thoughtful" and number in (0, 5):
                time.sleep(THOUGHT)
            yield piece
    finally:
        happened.append("closed")


exchange.pieces = watched


@app.before_request
def note_key() -> None:
    if request.method == "POST":
        key = request.headers.get("Authorization") or request.headers.get("x-api-key")
        happened.append(f"key {key}")


@app.get("/happened")
def what_happened() -> ResponseReturnValue:
    """What happened since this was last asked."""
    told, happened[:] = happened[:], []
    return told


@app.get("/")
def index() -> ResponseReturnValue:
    return ""

"""The application of channels.py, with what takes its time while a server stops. It
waits for a word of its test: a file in the configuration's ``FOLDER``."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from flask import request
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Response

from flask_sse_lite import sse

from .channels import app

#: Seconds after which nobody waits any longer. The test has failed by then.
TOO_LONG = 60.0


def wait_for_word() -> None:
    """Say that we wait, and wait."""
    folder = Path(app.config["FOLDER"])
    folder.joinpath("waiting").touch()
    deadline = time.monotonic() + TOO_LONG
    while not folder.joinpath("go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@app.get("/slow")
def slow() -> ResponseReturnValue:
    """An ordinary request."""
    wait_for_word()
    return "done"


@app.get("/late")
def late() -> Response:
    """A stream that is let in at once, and begins later."""
    response = sse.stream(request.args["channel"])
    wait_for_word()
    return response


@app.get("/iterated")
def iterated() -> Response:
    """A stream that stays with the server, as its body might be encoded."""
    response = sse.stream(request.args["channel"])
    response.headers["Content-Encoding"] = "identity"
    return response


@app.post("/publish-beyond-the-stop")
def publish_beyond_the_stop() -> ResponseReturnValue:
    """Publish numbers from a thread, which tells this worker to stop when it has
    published one of them, and goes on."""
    last, count = request.get_json()
    thread = threading.Thread(target=_publish, args=(last, count), daemon=True)
    thread.start()
    return "", 204


def _publish(last: int, count: int) -> None:
    with app.app_context():
        for number in range(count):
            sse.publish(number, channel="room")
            if number == last:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.001)

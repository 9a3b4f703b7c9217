"""The application of channels.py, with views that take long while a server stops. They
wait for a word of their test: a file in the configuration's ``FOLDER``."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

from flask import request
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Response

from flask_sse_lite import sse

from .channels import app

#: Seconds after which a view waits no longer. The test has failed by then.
TOO_LONG = 60.0


def wait_for_word() -> None:
    """Tell the test that this thread waits, and wait."""
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


def announce() -> None:
    """Tell the test that this thread is held from here on."""
    Path(app.config["FOLDER"], "waiting").touch()


def hold_by_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    announce()
    lock.acquire(timeout=TOO_LONG)


def hold_by_library() -> None:
    """Hold the thread by a library that computes, and handles no signals meanwhile."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    database = sqlite3.connect(":memory:")
    threading.Timer(TOO_LONG, database.interrupt).start()
    announce()
    database.execute(f"{endless} SELECT count(*) FROM n").fetchone()


def hold_by_messages() -> None:
    announce()
    next(sse.messages("a silent channel", timeout=TOO_LONG), None)


def hold_by_process() -> None:
    announce()
    subprocess.run(["sleep", str(TOO_LONG)], check=False)


HOLDS = {
    hold.__name__: hold
    for hold in (hold_by_lock, hold_by_library, hold_by_messages, hold_by_process)
}


@app.get("/hold/<how>")
def hold(how: str) -> ResponseReturnValue:
    """A request that holds its thread for long, so that Python handles no signal
    there."""
    HOLDS[how]()
    return "done"


@app.post("/upload")
def upload() -> ResponseReturnValue:
    """A request that waits for all of its body, which can end too soon."""
    try:
        return str(len(request.get_data()))
    except OSError:
        return "", 400


@app.get("/endless")
def endless() -> ResponseReturnValue:
    """An answer that is larger than a client's buffers."""
    return Response(b"x" * 65536 for _ in range(10_000))


@app.get("/late")
def late() -> Response:
    """A stream that is admitted at once, and begins later."""
    response = sse.stream(request.args["channel"])
    wait_for_word()
    return response


@app.get("/iterated")
def iterated() -> Response:
    """A stream that the server iterates, as a ``Content-Encoding`` might change its
    body."""
    response = sse.stream(request.args["channel"])
    response.headers["Content-Encoding"] = "identity"
    return response


@app.post("/publish-beyond-the-stop")
def publish_beyond_the_stop() -> ResponseReturnValue:
    """Publish numbers from a thread. When it has published a given one, it tells this
    worker to stop, and goes on."""
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

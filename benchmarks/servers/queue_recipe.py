"""The recipe that people write by hand: per subscriber, a queue and a generator that
waits."""

from __future__ import annotations

import queue
from collections.abc import Iterator

from control import control
from flask import Flask, Response

app = Flask(__name__)
listeners: list[queue.Queue[str]] = []


def publish(data: str) -> None:
    message = f"data: {data}\n\n"
    for listener in listeners:
        listener.put(message)


@app.get("/stream")
def stream() -> Response:
    messages: queue.Queue[str] = queue.Queue()
    listeners.append(messages)

    def follow() -> Iterator[str]:
        try:
            yield ": hello\n\n"
            while True:
                yield messages.get()
        finally:
            listeners.remove(messages)

    return Response(follow(), mimetype="text/event-stream")


app.register_blueprint(control(publish))

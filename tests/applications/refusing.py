"""The channels behind answers that a test chooses: what a page meets beside streams.

``POST /next`` takes a list of [status, headers, body]; the requests for ``/moody`` get
these, one after the other, and then the stream. ``GET /asked`` says what they sent.
"""

from __future__ import annotations

from typing import Any

from flask import Response, request
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse

from .channels import app

answers: list[Any] = []
asked: list[dict[str, str]] = []


@app.post("/next")
def prepare() -> ResponseReturnValue:
    answers[:] = request.get_json()
    asked.clear()
    return "", 204


@app.get("/asked")
def tell() -> ResponseReturnValue:
    return asked


@app.route("/moody", methods=["GET", "POST"])
def moody() -> ResponseReturnValue:
    asked.append(
        {
            "method": request.method,
            "token": request.headers.get("Authorization", ""),
            "since": request.headers.get("Last-Event-ID", ""),
            "body": request.get_data(as_text=True),
        }
    )
    if answers:
        status, headers, body = answers.pop(0)
        return Response(body, status, headers)
    if request.method == "POST":
        return sse.run(map(str, range(3)))
    return sse.stream(*(request.args.getlist("channel") or ["sse"]))

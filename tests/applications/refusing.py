"""The channels behind answers that a test chooses: what a page meets beside streams.

``POST /next`` takes a list of [status, headers, body]; the requests for ``/moody`` get
these, one after the other, and then the stream. ``GET /asked`` says what they sent. All
that is served can be read by pages of other origins. ``GET /strict`` is a page that
allows nothing but its own origin's.
"""

from __future__ import annotations

from itertools import chain
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
        heard = sse.messages(request.get_data(as_text=True))
        return sse.run(event.data for event in heard)
    replay = request.args.get("replay", type=int)
    return sse.stream(*(request.args.getlist("channel") or ["sse"]), replay=replay)


@app.get("/answer")
def answer() -> ResponseReturnValue:
    """A run for each newcomer, which goes on as a channel does."""
    heard = sse.messages(request.args["to"])
    return sse.run(chain(["first"], (event.data for event in heard)))


@app.after_request
def allow_other_origins(response: Response) -> Response:
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


@app.get("/strict")
def strict() -> ResponseReturnValue:
    policy = "default-src 'self'; connect-src 'self'"
    page = '<!doctype html><title>Strict</title><script type="module" src="/strict.js">'
    return f"{page}</script>", {"Content-Security-Policy": policy}


@app.get("/favicon.ico")
def icon() -> ResponseReturnValue:
    return "", 204


@app.get("/strict.js")
def strict_script() -> ResponseReturnValue:
    script = """
        import { connect } from "/stream/sse.js";
        window.seen = [];
        window.stream = connect("/stream" + location.search);
        stream.onmessage = event => seen.push(event.data);
    """
    return Response(script, mimetype="text/javascript")

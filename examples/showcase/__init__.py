"""One page that shows a stream at work: live figures, a chat, the stream itself.

From the folder ``examples``, with either of::

    gunicorn -k gevent -w 1 -b 127.0.0.1:8000 showcase:app
    python -m flask --app showcase run

Everything that moves on the page comes over one ``EventSource``, from the view
:func:`events` below. The page needs nothing but ``psutil`` beside Flask.

Nothing that matters is kept in this process: the past of the chat is what its
channel retains.
"""

from __future__ import annotations

import time

from flask import Flask, render_template, request
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse

from . import figures

NAME_LENGTH = 40
TEXT_LENGTH = 500


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.from_mapping(
        # What somebody who joins the chat can still read: up to an hour of it.
        SSE_HISTORY_AGE=3600,
        MAX_CONTENT_LENGTH=16 * 1024,
    )
    app.config.from_prefixed_env()  # FLASK_SSE_URL=... sets SSE_URL, and so on
    sse.init_app(app)

    @app.get("/")
    def index() -> str:
        return render_template(
            "index.html",
            now=time.time(),
            name_length=NAME_LENGTH,
            text_length=TEXT_LENGTH,
        )

    @app.get("/events")
    def events() -> ResponseReturnValue:
        figures.start(app)
        # A newcomer gets the last 60 of each channel. Who comes back after a cut
        # says which event was the last, and gets what came after that one.
        return sse.stream("figures", "chat", replay=60)

    @app.post("/chat")
    def chat() -> ResponseReturnValue:
        name = " ".join(request.form.get("name", "").split())
        text = request.form.get("text", "").strip()
        if complaint := objection(name, text):
            return complaint, 400, {"Content-Type": "text/plain; charset=utf-8"}
        message = {"name": name, "text": text, "time": time.time()}
        sse.publish(message, type="chat", channel="chat")
        return "", 204

    return app


def objection(name: str, text: str) -> str | None:
    """What is wrong with a chat message, as a sentence for who wrote it."""
    if not name:
        return "Please fill in a name."
    if len(name) > NAME_LENGTH:
        return f"A name may have {NAME_LENGTH} characters; this one has {len(name)}."
    if not text:
        return "There is nothing in this message yet."
    if len(text) > TEXT_LENGTH:
        return f"A message may have {TEXT_LENGTH} characters; this has {len(text)}."
    return None


app = create_app()

"""One page that shows streams at work: live figures, a chat, answers that are typed
out, and the stream itself.

From the folder ``examples``, with either of::

    gunicorn -k gevent -w 1 -b 127.0.0.1:8000 showcase:app
    python -m flask --app showcase run

or with several workers (the page goes on even if one of them dies)::

    export FLASK_SSE_URL=sqlite:///events.db FLASK_SECRET_KEY=...
    gunicorn -k gevent -w 4 -b 127.0.0.1:8000 showcase:app

The figures and the chat come over one stream, from the view :func:`events` below; each
answer comes over one of its own, from :func:`answer`. The page reads them by the module
``sse.js`` of ``flask_sse_lite``. It needs only
``psutil`` beside Flask.

Nothing that matters is kept in this process: the past of the chat is what its
channel retains.
"""

from __future__ import annotations

import secrets
import time

from flask import (
    Flask,
    abort,
    redirect,
    render_template,
    request,
    send_from_directory,
    url_for,
)
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse, static_folder

from . import answers, figures

NAME_LENGTH = 40
TEXT_LENGTH = 500
QUESTION_LENGTH = 200


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.from_mapping(
        # Somebody who joins the chat can read up to an hour of its past.
        SSE_HISTORY_AGE=3600,
        ANSWER_PACE=0.06,  # seconds from one token to the next
        ANSWER_SENTENCES=12,
        MAX_CONTENT_LENGTH=16 * 1024,
    )
    app.config.from_prefixed_env()  # FLASK_SSE_URL=... sets SSE_URL, and so on
    if app.secret_key is None:
        # The key signs the tickets for answers. A new key makes the old ones void.
        if not app.config.get("SSE_URL", "memory:").startswith("memory:"):
            raise RuntimeError("All workers need one key in common: FLASK_SECRET_KEY")
        app.secret_key = secrets.token_hex()
    sse.init_app(app, url_prefix=None)  # The views below serve all streams.

    @app.get("/")
    def index() -> str:
        return render_template(
            "index.html",
            now=time.time(),
            name_length=NAME_LENGTH,
            text_length=TEXT_LENGTH,
            question_length=QUESTION_LENGTH,
        )

    @app.get("/sse.js")
    def module() -> ResponseReturnValue:
        return send_from_directory(static_folder, "sse.js")

    @app.get("/events")
    def events() -> ResponseReturnValue:
        figures.start(app)
        # A newcomer gets the last 60 events of each channel. A client that comes back
        # after a cut names the last event that it got, and gets what came after it.
        return sse.stream("figures", "chat", replay=60)

    @app.post("/chat")
    def chat() -> ResponseReturnValue:
        name = " ".join(request.form.get("name", "").split())
        text = request.form.get("text", "").strip()
        if complaint := objection(name, text):
            return refusal(complaint)
        message = {"name": name, "text": text, "time": time.time()}
        sse.publish(message, type="chat", channel="chat")
        return "", 204

    @app.post("/answers")
    def ask() -> ResponseReturnValue:
        question = " ".join(request.form.get("question", "").split())
        if not question:
            return refusal("There is nothing in this question yet.")
        if len(question) > QUESTION_LENGTH:
            return refusal(
                f"A question may have {QUESTION_LENGTH} characters; this has "
                f"{len(question)}."
            )
        ticket = answers.begin(question)
        return "", 201, {"Location": url_for("answer", ticket=ticket)}

    @app.get("/answers/<ticket>")
    def answer(ticket: str) -> ResponseReturnValue:
        found = known(ticket)
        if "Last-Event-ID" in request.headers or "last_event_id" in request.args:
            return sse.stream(found.said, found.told)
        return redirect(url_for("answer", ticket=ticket, last_event_id=found.since))

    @app.delete("/answers/<ticket>")
    def stop(ticket: str) -> ResponseReturnValue:
        sse.close(known(ticket).said)
        return "", 204

    return app


def objection(name: str, text: str) -> str | None:
    """What is wrong with a chat message, as a sentence for its author."""
    if not name:
        return "Please fill in a name."
    if len(name) > NAME_LENGTH:
        return f"A name may have {NAME_LENGTH} characters; this one has {len(name)}."
    if not text:
        return "There is nothing in this message yet."
    if len(text) > TEXT_LENGTH:
        return f"A message may have {TEXT_LENGTH} characters; this has {len(text)}."
    return None


def refusal(complaint: str) -> ResponseReturnValue:
    return complaint, 400, {"Content-Type": "text/plain; charset=utf-8"}


def known(ticket: str) -> answers.Answer:
    """The answer that a ticket is for. Any other ticket gets 404."""
    found = answers.find(ticket)
    if found is None:
        abort(404)
    return found


app = create_app()

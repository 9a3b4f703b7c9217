"""One page that shows streams at work: answers that are typed out, a thousand streams
at once, live figures, a chat, the stream itself, and a worker that is killed.

From the folder ``examples``, with either of::

    gunicorn -k gevent -w 1 -b 127.0.0.1:8000 showcase:app
    python -m flask --app showcase run

or with several workers (the page goes on even if one of them dies)::

    export FLASK_SSE_URL=sqlite:////tmp/events.db FLASK_SECRET_KEY=...
    export FLASK_KILL_WORKERS=true  # the page may kill workers: for a demonstration
    gunicorn -k gevent -w 4 -b 127.0.0.1:8000 showcase:app

The figures and the chat come over one stream, from the view :func:`events` below; each
answer comes over one of its own, from :func:`answer`. The page reads them by the module
``sse.js`` of ``flask_sse_lite``. It needs ``psutil`` beside Flask, and shows a QR code
of its address where ``segno`` is installed.

Nothing that matters is kept in this process: the past of the chat is what its
channel retains.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

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

from flask_sse_lite import EventStream, sse, static_folder

from . import answers, crowd, figures, phone, worker

NAME_LENGTH = 40
TEXT_LENGTH = 500
QUESTION_LENGTH = 200

#: The numbers that the page shows while a worker is killed.
TICKS = 30


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.from_mapping(
        # Somebody who joins the chat can read up to an hour of its past.
        SSE_HISTORY_AGE=3600,
        SSE_RETRY=1000,  # milliseconds: the server is near, and who watches is waiting
        ANSWER_PACE=0.06,  # seconds from one token to the next
        ANSWER_SENTENCES=40,  # most of a minute: time to lose it, and to stop it
        ANSWER_CUT=4,  # seconds for which the page loses it
        CROWD=crowd.COUNT,
        KILL_WORKERS=False,  # whether anybody may kill the worker behind the page
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
            cut=app.config["ANSWER_CUT"],
            crowd=app.config["CROWD"],
            ticks=TICKS,
            can_kill=app.config["KILL_WORKERS"],
            phone=phone.address(),
        )

    @app.get("/phone.svg")
    def qr_code() -> ResponseReturnValue:
        drawn = phone.picture(phone.address() or request.host_url)
        return (drawn, {"Content-Type": "image/svg+xml"}) if drawn else abort(404)

    @app.get("/sse.js")
    def module() -> ResponseReturnValue:
        return send_from_directory(static_folder, "sse.js")

    @app.get("/events")
    def events() -> ResponseReturnValue:
        figures.start(app)
        worker.start(app)
        name = " ".join(request.args.get("name", "").split())[:NAME_LENGTH]
        # A newcomer gets the last 60 events of each channel. A client that comes back
        # after a cut names the last event that it got, and gets what came after it.
        channels = "figures", "chat", "ticker", worker.channel()
        return sse.stream(*channels, replay=60, identity=name or None)

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

    @app.post("/crowd")
    def open_streams() -> ResponseReturnValue:
        require_own_page()
        here = request.environ["SERVER_NAME"], request.environ["SERVER_PORT"]
        path = url_for("crowd_member")
        seen = crowd.gather(*here, path, app.config["CROWD"])
        return EventStream(seen, type="crowd")

    @app.get("/crowd/events")
    def crowd_member() -> ResponseReturnValue:
        return sse.stream("figures", "chat", replay=0)

    @app.post("/workers/<int:pid>/kill")
    def kill(pid: int) -> ResponseReturnValue:
        if not app.config["KILL_WORKERS"] or not worker.is_ours(pid):
            abort(404)
        require_own_page()
        script = Path(__file__).with_name("ticker.py")
        words = [sys.executable, script, app.config["SSE_URL"], str(pid), str(TICKS)]
        Thread(target=subprocess.run, args=(words,), daemon=True).start()
        return "", 202

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


def require_own_page() -> None:
    """Refuse what a page of another site has a browser send."""
    try:
        origin = urlsplit(request.headers.get("Origin", "")).netloc
    except ValueError:
        abort(403)
    if origin != request.host:
        abort(403)


def known(ticket: str) -> answers.Answer:
    """The answer that a ticket is for. Any other ticket gets 404."""
    found = answers.find(ticket)
    if found is None:
        abort(404)
    return found


app = create_app()

"""Channels of which some are for one user alone: an application for those who try to
get in. Every event of such a channel has the text ``SECRET``.

``POST /seed`` makes what there is to get, and says what an attacker can know of it.
``POST /speak`` says something in every channel.
"""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Flask, abort, request
from flask.typing import ResponseReturnValue

from flask_sse_lite import SSE

SECRET = "5ecret-7ext"

app = Flask(__name__)
app.config.from_prefixed_env()

sse, nested = SSE(), SSE("nested")

#: Channels for Ann: one that goes on, one that has ended, and one of nobody's.
FOR_ANN = ("secret", "secret.ended", "secret.never")


def user() -> str | None:
    return request.headers.get("X-User")


def may_listen(channel: str) -> bool:
    return channel == "public" or (channel in FOR_ANN and user() == "ann")


def can_inspect() -> bool:
    return user() == "ann"


for each in (sse, nested):
    each.authorizer(may_listen)
    each.identity(user)
    each.inspector_guard(can_inspect)

app.register_blueprint(sse)
outer = Blueprint("outer", __name__, url_prefix="/outer")
outer.register_blueprint(nested, url_prefix="/inner")
app.register_blueprint(outer)


@app.get("/rooms/<room>")
def room(room: str) -> ResponseReturnValue:
    """A view of the application's own."""
    if not may_listen(room):
        abort(403)
    return sse.stream(room)


@app.get("/answer")
def answer() -> ResponseReturnValue:
    """A run, for Ann alone."""
    if user() != "ann":
        abort(403)

    def words() -> Iterator[str]:
        yield f"{SECRET} in a run"

    return sse.run(words(), identity="ann")


@app.post("/seed")
def seed() -> ResponseReturnValue:
    ids = [sse.publish(f"{SECRET} {n}", channel="secret").id for n in range(3)]
    ended = sse.publish(f"{SECRET} at the end", channel="secret.ended").id
    sse.close("secret.ended")
    return {
        "first": ids[0],
        "ended": ended,
        "public": sse.publish("past", channel="public").id,
        "token": sse.sign("public", max_age=3600, identity="mallory"),
    }


@app.post("/speak")
def speak() -> ResponseReturnValue:
    sse.publish(f"{SECRET} now", channel="secret")
    sse.publish("over", channel="public")
    return "", 204

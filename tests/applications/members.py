"""Rooms for members, each with an identity, and a way to throw somebody out.

``POST /ban`` forbids a user to listen, and ends the user's streams; ``POST /expel``
only ends them, and publishes at once; ``POST /leave`` holds the user off as well. What
one worker knows of bans, the others read from a file. A test that writes or removes the
file forbids or allows it too.
"""

from __future__ import annotations

from pathlib import Path

from flask import abort, request
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse

from .channels import app, publish

BANS = Path(app.config["BANS"])


@sse.identity
def who() -> str | None:
    return request.headers.get("X-User")


def check(user: str | None) -> None:
    if user and (BANS / user).exists():
        abort(403)


@app.get("/room/<room>")
def room(room: str) -> ResponseReturnValue:
    check(who())
    return sse.stream(room)


@app.get("/present/<room>")
def present(room: str) -> ResponseReturnValue:
    return sse.present(room)


@app.post("/ban/<user>")
def ban(user: str) -> ResponseReturnValue:
    (BANS / user).touch()
    sse.disconnect(identity=user)
    return "", 204


@app.post("/expel/<user>")
def expel(user: str) -> ResponseReturnValue:
    sse.disconnect(identity=user)
    return publish()


@app.post("/leave/<user>")
def leave(user: str) -> ResponseReturnValue:
    sse.disconnect(identity=user, hold_off=float(request.args["hold_off"]))
    return "", 204


@app.post("/empty/<room>")
def empty(room: str) -> ResponseReturnValue:
    sse.disconnect(channel=room)
    return "", 204

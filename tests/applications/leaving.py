"""A user whose cookie a logout takes away, by a response that takes its time."""

from __future__ import annotations

from flask import abort, session
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse

from .channels import app

#: More bytes than the system keeps between a server and a client that does not read.
LARGE = 32_000_000

PIECE = bytes(64_000)

app.secret_key = "tests"


@sse.identity
def who() -> str | None:
    user: str | None = session.get("user")
    return user


@app.post("/login")
def login() -> ResponseReturnValue:
    session["user"] = "ann"
    return "", 204


@app.get("/own")
def own() -> ResponseReturnValue:
    return sse.stream("own") if who() else abort(401)


@app.post("/logout")
def logout() -> ResponseReturnValue:
    sse.disconnect(identity=session.pop("user"), after_response=True)
    return (PIECE for _ in range(LARGE // len(PIECE))), {"Content-Length": str(LARGE)}

"""The public annotations, as the type checkers of applications see them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import flask
import pytest
from flask import Flask

import flask_sse_lite
from flask_sse_lite import SSE, errors

from .servers import ROOT

#: An application whose author checks types strictly.
PROGRAM = """
import uuid
from collections.abc import Iterator

import flask
import werkzeug
from flask import Flask, Response, redirect, request
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session, scoped_session

from flask_sse_lite import (
    SSE, Authorizer, AuthorizerAnswer, Event, EventStream, Message, OpenStreams,
    Publisher, Reason, SetupError, Stats, sse,
)
from flask_sse_lite.signals import DisconnectReason, RefusalReason, RunEndReason
from flask_sse_lite.sqlalchemy import publish_after_commit
from flask_sse_lite.testing import await_signals, published, read_events

def receive(app: Flask) -> None:
    @sse.connected.connect
    def begin(sender: Flask, channels: tuple[str, ...], **extra: object) -> None:
        pass

    @sse.disconnected.connect_via(app, weak=False)
    def end(sender: Flask, reason: DisconnectReason, **extra: object) -> None:
        is_full: RefusalReason = "full"
        why: RunEndReason = "lost" if reason == "failed" else "completed"

    with sse.published.connected_to(begin, app):
        await_signals(app, timeout=1)

def create_app() -> Flask:
    app = Flask(__name__)
    own = SSE(url_prefix="/events")

    @own.before_request
    def guard() -> ResponseReturnValue | None:
        return None

    @own.after_request
    def mark(response: Response) -> Response:
        return response

    @own.teardown_request
    def note(error: BaseException | None) -> None:
        pass

    @own.authorizer
    def may_listen(channel: str) -> bool | werkzeug.Response | None:
        return redirect("/login")

    is_allowed: bool | werkzeug.Response | None = may_listen("a")
    answer: ResponseReturnValue | None = guard()
    app.register_blueprint(own)
    sse.init_app(app, url_prefix="/stream")
    sse.init_app(app)
    sse.init_app(app, url_prefix=None)
    SSE(app, url_prefix="/again")
    SSE("name", __name__)

    @app.get("/a")
    def stream() -> Response:
        return sse.stream("a", 7, uuid.uuid4(), replay=1)

    @app.get("/b")
    def run() -> flask.Response:
        response = sse.run(words(), channel=7, on_error=str)
        response.headers["X-Mark"] = "1"
        return response

    @app.get("/c")
    def event_stream() -> Response:
        return EventStream(words(), type="word")

    @app.get("/d")
    def either() -> ResponseReturnValue:
        return sse.stream("a") if request.args else ("", 204)

    @app.get("/e")
    async def asynchronous() -> Response:
        return sse.stream("a")

    return app

def simple(channel: str) -> bool:
    return True

def answer(channel: str) -> AuthorizerAnswer:
    return redirect("/login") if channel == "secret" else None

def members_of(team: str) -> Authorizer:
    return lambda channel: channel == f"team.{team}"

sse.authorizer(simple)
sse.authorizer(answer)
sse.authorizer(members_of("red"))
sse.authorizer(lambda channel: None)

def words() -> Iterator[str | Event]:
    yield "a"
    yield Event("b", "word", 7, 5)

def publish() -> None:
    event: Event = sse.publish({"a": 1}, "type", 7, 1000, "channel")
    sse.publish("x", 5, uuid.uuid4(), "1000", 7)
    sse.publish(Message("x", 5, uuid.uuid4(), "1000"), channel=["a", 7])
    id: str | None = event.id
    sse.close(7)
    number: int = sse.subscribers(uuid.uuid4())
    for message in sse.messages("a", since=sse.position(), timeout=1.0):
        text: str = message.data
    with Publisher.from_url("redis://localhost") as publisher:
        publisher.publish("x", channel=7)

def transact(session: Session, db: scoped_session[Session]) -> None:
    publish_after_commit(session, {"a": 1}, "type", "channel")
    publish_after_commit(db, {"a": 1}, channel=["a", 7])

def count() -> ResponseReturnValue:
    stats: Stats = sse.stats()
    open: OpenStreams = stats["open"]
    number: int = open["handed off"] + stats["handed off"]["gunicorn"]
    reasons: dict[Reason, int] = stats["reasons"]
    return stats if reasons["tls"] + stats["iterated"]["some words"] else {}

def check(app: Flask) -> None:
    with published(app) as events:
        events.extend(read_events(app.test_client().get("/a"), count=1))
"""

#: Mistakes, and the code with which the checker must report each.
MISTAKES = {
    "sse.publish('x', channel=None)": "arg-type",
    "sse.publish('x', retry=0.5)": "arg-type",
    "sse.stream(['a'])": "arg-type",
    "sse.authorizer(lambda: True)": "misc",
    "sse.init_app(app=5)": "arg-type",
    "sse.stats()['reason']": "typeddict-item",
    "sse.stats()['reasons']['slow']": "index",
}


def mypy(folder: Path, program: str) -> tuple[int, str]:
    (folder / "program.py").write_text(program, "utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            "cache",
            "program.py",
        ],
        cwd=folder,
        env=os.environ | {"MYPYPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout


def test_an_application_of_strict_types_passes(tmp_path: Path) -> None:
    status, output = mypy(tmp_path, PROGRAM)
    assert status == 0, output
    lines = "".join(f"{mistake}\n" for mistake in MISTAKES)
    status, output = mypy(tmp_path, f"from flask_sse_lite import sse\n{lines}")
    found = [line for line in output.splitlines() if "error:" in line]
    assert status == 1
    assert len(found) == len(MISTAKES), output


def test_all_that_is_public_is_exported_and_sorted() -> None:
    exported = flask_sse_lite.__all__
    names = {
        name
        for name, thing in vars(flask_sse_lite).items()
        if not name.startswith("_") and not isinstance(thing, ModuleType)
    }
    assert names - {"annotations"} == set(exported)
    raised = {error.__name__ for error in vars(errors).values() if _is_error(error)}
    assert raised <= set(exported)


def _is_error(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, errors.SSEError)


@pytest.mark.parametrize("verb", ["stream", "run"])
def test_what_views_return_is_a_response_of_flask(
    app: Flask, sse: SSE, verb: str
) -> None:
    with app.test_request_context():
        if verb == "stream":
            responses = [sse.stream("a")]
        else:
            responses = [sse.run(iter(["a"])), sse.run(iter(["a"]), channel="a")]
        sse.close("closed")
        responses.append(sse.stream("closed"))
    for response in responses:
        assert isinstance(response, flask.Response)
        response.close()

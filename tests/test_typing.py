"""The public annotations, as the type checkers of applications see them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import flask
import pytest
from flask import Flask

import flask_sse_lite
from flask_sse_lite import SSE, errors

from .client_packages import npm_packages
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

#: Mistakes, each of which a checker must report.
MISTAKES = [
    "sse.publish('x', channel=None)",
    "sse.publish('x', retry=0.5)",
    "sse.stream(['a'])",
    "sse.authorizer(lambda: True)",
    "sse.init_app(app=5)",
    "sse.stats()['reason']",
    "sse.stats()['reasons']['slow']",
]


def mypy(folder: Path) -> tuple[int, str]:
    """What mypy says of a folder's program: its exit status, and its output."""
    options = ["--strict", "--cache-dir", "cache"]
    return _run(folder, sys.executable, "-m", "mypy", *options, "program.py")


def pyright(folder: Path) -> tuple[int, str]:
    """The same of pyright, whose default is what editors show."""
    settings = {"include": ["program.py"], "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), "utf-8")
    checker = npm_packages() / "pyright" / "index.js"
    return _run(folder, "node", str(checker), "--pythonpath", sys.executable)


def _run(folder: Path, *command: str) -> tuple[int, str]:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"MYPYPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("check", [mypy, pyright])
def test_an_application_of_strict_types_passes(
    tmp_path: Path, check: Callable[[Path], tuple[int, str]]
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, "utf-8")
    status, output = check(tmp_path)
    assert status == 0, output
    lines = "".join(f"{mistake}\n" for mistake in MISTAKES)
    program.write_text(f"from flask_sse_lite import sse\n{lines}", "utf-8")
    status, output = check(tmp_path)
    assert status == 1
    # Each mistake stands in a line of its own, from the second line on.
    found = re.findall(r"program\.py:(\d+):.*\berror\b", output)
    assert {int(line) for line in found} == {*range(2, len(MISTAKES) + 2)}, output


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

"""A logout whose cookie a stream still has is done once more, behind its response."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, session
from flask.typing import ResponseReturnValue

from flask_sse_lite import SSE, InvalidValue
from flask_sse_lite.testing import read_events

from .applications.leaving import LARGE
from .servers import HANDED_OFF, Client, Kind

#: Those that serve a stream while they send a response. The router of uWSGI takes in a
#: whole response, whoever reads it.
CONCURRENT = [
    kind
    for kind in HANDED_OFF
    if kind.server not in ("gunicorn sync", "uWSGI behind its router")
]

#: What a client's kernel takes in while the client reads nothing.
UNREAD = 65_536


@pytest.fixture
def sse() -> SSE:
    return SSE()


@pytest.fixture
def app(sse: SSE) -> Iterator[Flask]:
    app = Flask("leaving")
    app.config.update(SSE_PUBLIC_CHANNELS=["*"], SECRET_KEY="tests")

    @sse.identity
    def who() -> str | None:
        user: str | None = session.get("user")
        return user

    @app.post("/login")
    def login() -> ResponseReturnValue:
        session["user"] = "ann"
        return "", 204

    @app.post("/logout")
    def logout() -> ResponseReturnValue:
        sse.disconnect(identity=session.pop("user"), after_response=True)
        return "", 204

    sse.init_app(app)
    yield app
    with app.app_context():
        sse.end_streams()


def test_streams_end_at_once_and_those_of_the_old_cookie_behind_the_response(
    app: Flask, sse: SSE
) -> None:
    browser, tab = app.test_client(), app.test_client()
    browser.post("/login")
    old = browser.get_cookie("session")
    assert old
    tab.set_cookie("session", old.value)
    first = tab.get("/stream")
    next(first.iter_encoded())

    answer = browser.post("/logout")
    assert next(first.iter_encoded(), b"") == b""
    # The browser does not have the response yet: its stream comes back, and is let in.
    second = tab.get("/stream")
    next(second.iter_encoded())
    answer.close()
    with app.app_context():
        sse.publish("secret")
    assert next(second.iter_encoded(), b"") == b""


def test_others_go_on(app: Flask, sse: SSE) -> None:
    browser = app.test_client()
    browser.post("/login")
    other = app.test_client().get("/stream")
    next(other.iter_encoded())
    browser.post("/logout").close()
    with app.app_context():
        sse.publish("for all")
    assert [event.data for event in read_events(other, count=1)] == ["for all"]


def test_it_is_for_a_request(app: Flask, sse: SSE) -> None:
    with app.app_context(), pytest.raises(InvalidValue, match="No request"):
        sse.disconnect(identity="ann", after_response=True)


def test_a_broker_that_has_gone_meanwhile_is_told_of_in_the_log(
    app: Flask, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    app.config["SSE_URL"] = f"sqlite:///{tmp_path}/events.db"
    browser = app.test_client()
    browser.post("/login")
    answer = browser.post("/logout")
    assert answer.status_code == 204
    app.extensions["sse"].close()
    with caplog.at_level(logging.ERROR):
        answer.close()
    (record,) = caplog.records
    assert record.getMessage().startswith("SSE-E25: Not disconnected again")


@pytest.mark.parametrize("kind", CONCURRENT, ids=str)
def test_on_a_server_it_is_done_when_the_response_was_sent(kind: Kind) -> None:
    with kind.serve(heartbeat=5, app="tests.applications.leaving:app") as server:
        browser = Client(server.port, UNREAD)
        with browser:
            browser.request("/login", "POST")
            cookie = {"Cookie": browser.headers["set-cookie"].split(";")[0]}
        with Client(server.port, UNREAD) as browser, Client(server.port) as tab:
            browser.request("/logout", "POST", cookie)
            # The response is on its way, and its cookie is not there yet.
            tab.request("/own", headers=cookie)
            server.publish({"data": "still let in", "channel": "own"})
            assert [event.data for event in tab.take(1)] == ["still let in"]
            assert len(browser.read_exactly(LARGE)) == LARGE
            assert tab.take(1) == []
            assert browser.read() == b""
        with Client(server.port) as tab:
            tab.request("/own")
            assert tab.status == 401

"""Together with two extensions that many applications have: Flask-CORS and
Flask-Login."""

from __future__ import annotations

import secrets

import pytest
from flask import Flask, abort, request
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from flask_cors import CORS
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    login_user,
    logout_user,
)
from werkzeug.wrappers import Response

from flask_sse_lite import SSE
from flask_sse_lite.testing import read_events

ORIGIN = "https://elsewhere.example"


def application() -> Flask:
    app = Flask("application")
    app.config.update(
        TESTING=True,
        SECRET_KEY=secrets.token_hex(),
        SSE_HEARTBEAT=0.4,  # The hub ends sooner after the last stream.
    )
    return app


# Flask-CORS


@pytest.mark.parametrize("whole", [True, False], ids=["application", "blueprint"])
def test_cors_lets_another_origin_listen(whole: bool) -> None:
    sse = SSE()
    app = application()
    CORS(app if whole else sse, origins=[ORIGIN], supports_credentials=True)
    app.register_blueprint(sse)
    app.add_url_rule("/page", "page", lambda: "a page")
    client = app.test_client()
    response = client.get("/stream", headers={"Origin": ORIGIN})
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    with app.app_context():
        sse.publish("hello")
    assert [event.data for event in read_events(response, count=1)] == ["hello"]
    page = client.get("/page", headers={"Origin": ORIGIN})
    assert ("Access-Control-Allow-Origin" in page.headers) is whole


@pytest.mark.parametrize("whole", [True, False], ids=["application", "blueprint"])
def test_cors_lets_no_other_origin_listen(whole: bool) -> None:
    sse = SSE()
    app = application()
    CORS(app if whole else sse, origins=[ORIGIN])
    app.register_blueprint(sse)
    client = app.test_client()
    with client.get("/stream", headers={"Origin": "https://evil.example"}) as response:
        assert "Access-Control-Allow-Origin" not in response.headers


def test_cors_shows_another_origin_the_refusal_too() -> None:
    sse = SSE()
    CORS(sse, origins=[ORIGIN])
    app = application()
    app.register_blueprint(sse)
    refused = app.test_client().get(
        "/stream?channel=secret", headers={"Origin": ORIGIN}
    )
    assert refused.status_code == 403
    assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_a_client_that_asks_before_it_resumes_is_answered() -> None:
    sse = SSE()
    CORS(sse, origins=[ORIGIN])
    app = application()
    app.register_blueprint(sse)
    answer = app.test_client().options(
        "/stream",
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "Last-Event-ID",
        },
    )
    assert answer.status_code == 200
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"].lower() == "last-event-id"


# Flask-Login


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


def with_login(app: Flask) -> LoginManager:
    """Let users log in by their names, as an application with a login page does."""
    manager = LoginManager(app)
    manager.login_view = "log_in"
    manager.user_loader(User)

    @app.route("/login", methods=["GET", "POST"])
    def log_in() -> ResponseReturnValue:
        if request.method == "POST":
            login_user(User(request.form["name"]))
            return "", 204
        return "a form"

    @app.post("/logout")
    def log_out() -> ResponseReturnValue:
        logout_user()
        return "", 204

    app.add_url_rule("/page", "page", login_required(lambda: current_user.id))
    return manager


def logged_in(app: Flask, name: str) -> FlaskClient:
    client = app.test_client()
    assert client.post("/login", data={"name": name}).status_code == 204
    return client


def own_view(app: Flask, sse: SSE) -> None:
    """A stream for each user, in a view of the application's own."""
    sse.init_app(app, url_prefix=None)

    def events() -> Response:
        return sse.stream(f"user.{current_user.id}")

    app.add_url_rule("/events", "events", login_required(events))


def test_login_required_guards_a_view_of_ones_own() -> None:
    sse = SSE()
    app = application()
    with_login(app)
    own_view(app, sse)
    response = logged_in(app, "ann").get("/events")
    with app.app_context():
        sse.publish("for bob", channel="user.bob")
        sse.publish("for ann", channel="user.ann")
    assert [event.data for event in read_events(response, count=1)] == ["for ann"]


def test_a_login_page_answers_a_stream_by_a_redirect() -> None:
    """An EventSource follows the redirect, and finds no stream. That is why the README
    says 401."""
    app = application()
    with_login(app)
    own_view(app, SSE())
    response = app.test_client().get("/events")
    assert response.status_code == 302
    assert response.location.startswith("/login")


def test_an_unauthorized_handler_answers_streams_by_401_and_pages_by_the_form() -> None:
    app = application()
    manager = with_login(app)
    own_view(app, SSE())

    def refuse() -> ResponseReturnValue:
        if request.accept_mimetypes.best == "text/event-stream":
            abort(401)
        return app.redirect("/login")

    manager.unauthorized_handler(refuse)
    client = app.test_client()
    stream = client.get("/events", headers={"Accept": "text/event-stream"})
    assert stream.status_code == 401
    page = client.get("/page", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (page.status_code, page.location) == (302, "/login")


def test_before_request_of_the_blueprint_answers_by_401() -> None:
    sse = SSE()

    @sse.before_request
    def guard() -> None:
        if not current_user.is_authenticated:
            abort(401)

    app = application()
    with_login(app)
    app.register_blueprint(sse)
    assert app.test_client().get("/stream").status_code == 401
    with logged_in(app, "ann").get("/stream") as response:
        assert response.status_code == 200


def test_an_authorizer_knows_the_user() -> None:
    sse = SSE()

    @sse.authorizer
    def may_listen(channel: str) -> bool:
        return bool(
            current_user.is_authenticated and channel == f"user.{current_user.id}"
        )

    app = application()
    with_login(app)
    app.register_blueprint(sse)
    client = logged_in(app, "ann")
    with client.get("/stream?channel=user.ann") as response:
        assert response.status_code == 200
    assert client.get("/stream?channel=user.bob").status_code == 403
    assert app.test_client().get("/stream?channel=user.ann").status_code == 403


def test_whoever_has_logged_out_may_not_come_back() -> None:
    sse = SSE()
    app = application()
    with_login(app)
    own_view(app, sse)
    client = logged_in(app, "ann")
    response = client.get("/events")
    with app.app_context():
        seen = sse.publish("hello", channel="user.ann")
    assert [event.id for event in read_events(response, count=1)] == [seen.id]
    client.post("/logout")
    back = client.get("/events", headers={"Last-Event-ID": seen.id or ""})
    assert back.status_code == 302

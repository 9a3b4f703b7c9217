"""Who may listen through the blueprint's view: public channels, authorizers, hooks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, abort, current_app, g, jsonify, redirect, request
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import Forbidden, HTTPException
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response

from flask_sse_lite import SSE, AuthorizerAnswer, InvalidValue, permission
from flask_sse_lite.hub import current_hub
from flask_sse_lite.permission import Permit
from flask_sse_lite.testing import read_events

#: Short, so that the hub ends sooner after the last stream.
HEARTBEAT = 0.4


@pytest.fixture(autouse=True)
def _context(app: Flask) -> Iterator[None]:
    app.config["SSE_HEARTBEAT"] = HEARTBEAT
    with app.app_context():
        yield


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def application(*blueprints: Blueprint) -> Flask:
    app = Flask("application")
    app.config["SSE_HEARTBEAT"] = HEARTBEAT
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    return app


def get(client: FlaskClient, *channels: str) -> TestResponse:
    return client.get("/stream", query_string={"channel": channels})


def is_served(client: FlaskClient, *channels: str) -> bool:
    """Whether these channels are streamed. Any other answer must be a 403."""
    with get(client, *channels) as response:
        if response.status_code == 200:
            assert response.mimetype == "text/event-stream"
            return True
        assert response.status_code == 403
        return False


# Public channels


@pytest.mark.parametrize(
    ("public", "channels", "served"),
    [
        (None, ["sse"], True),
        (None, ["news"], False),
        (None, ["SSE"], False),
        (["news"], ["news"], True),
        (["news"], ["sse"], False),
        (["news"], ["news.local"], False),
        ([], ["sse"], False),
        (("news", "sport"), ["sport"], True),
        (["room.*"], ["room.1"], True),
        (["room.*"], ["room."], True),
        (["room.*"], ["room"], False),
        (["room.*"], ["a room.1"], False),
        (["*"], ["anything"], True),
        (["a*b"], ["a*b"], True),
        (["a*b"], ["axb"], False),
        (["a*b"], ["a*c"], False),
        (["a", "b"], ["a", "b"], True),
        (["a", "b"], ["a", "c"], False),
        (["*"], ["a", "b"], False),
        (["a", "*"], ["a", "b"], False),
        (["room.*"], ["room.1", "room.2"], False),
        (["*"], ["a", "a"], True),
    ],
)
def test_public_channels_without_an_authorizer(
    app: Flask,
    client: FlaskClient,
    public: list[str] | None,
    channels: list[str],
    served: bool,
) -> None:
    app.config["SSE_PUBLIC_CHANNELS"] = public
    assert is_served(client, *channels) is served


@pytest.mark.parametrize("bad", ["news", "*", {"news": True}, [""], [5]], ids=repr)
def test_public_channels_that_are_no_list_of_names_are_an_error(
    app: Flask, client: FlaskClient, bad: Any
) -> None:
    app.config["SSE_PUBLIC_CHANNELS"] = bad
    with pytest.raises(InvalidValue, match="SSE_PUBLIC_CHANNELS is a list"):
        get(client, "news")


@pytest.mark.parametrize("channels", [["$run"], ["sse", "$run"]])
def test_our_own_channels_are_refused_even_where_all_are_public(
    app: Flask, client: FlaskClient, channels: list[str]
) -> None:
    app.config["SSE_PUBLIC_CHANNELS"] = ["*", *channels[:1]]
    assert not is_served(client, *channels)


# The authorizer


def test_true_allows(client: FlaskClient, sse: SSE) -> None:
    @sse.authorizer
    def may_listen(channel: str) -> bool:
        return channel == "secret"

    response = get(client, "secret")
    sse.publish("hello", channel="secret")
    assert [event.data for event in read_events(response, count=1)] == ["hello"]
    assert may_listen("secret")


@pytest.mark.parametrize("answer", [False, None])
def test_false_and_none_refuse(
    client: FlaskClient, sse: SSE, answer: bool | None
) -> None:
    sse.authorizer(lambda channel: answer)
    assert not is_served(client, "secret")
    assert len(current_hub()) == 0


def test_an_authorizer_decides_over_public_channels_too(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.config["SSE_PUBLIC_CHANNELS"] = ["*", "sse"]
    sse.authorizer(lambda channel: False)
    assert not is_served(client, "sse")
    assert not is_served(client)


def test_a_response_is_sent_as_it_is(client: FlaskClient, sse: SSE) -> None:
    sse.authorizer(lambda channel: redirect("/login"))
    response = get(client, "secret")
    assert (response.status_code, response.location) == (302, "/login")


def test_any_werkzeug_response_will_do(client: FlaskClient, sse: SSE) -> None:
    sse.authorizer(lambda channel: Response("who are you?", 401))
    response = get(client, "secret")
    assert (response.status_code, response.text) == (401, "who are you?")


def test_an_authorizer_may_abort(client: FlaskClient, sse: SSE) -> None:
    @sse.authorizer
    def may_listen(channel: str) -> bool:
        abort(401)

    assert get(client, "secret").status_code == 401


@pytest.mark.parametrize(
    "answer", [("login", 401), "yes", "", 1, 0, [], {}, object], ids=repr
)
def test_any_other_answer_is_an_error(
    client: FlaskClient, sse: SSE, answer: Any
) -> None:
    sse.authorizer(lambda channel: answer)
    with pytest.raises(TypeError, match="An authorizer returns True, False, None"):
        get(client, "secret")
    assert len(current_hub()) == 0


def test_each_channel_is_asked_for_in_order(client: FlaskClient, sse: SSE) -> None:
    asked = []

    @sse.authorizer
    def may_listen(channel: str) -> bool:
        asked.append(channel)
        return True

    assert is_served(client, "b", "a", "b")
    assert asked == ["b", "a"]


@pytest.mark.parametrize("channels", [("mine", "theirs"), ("theirs", "mine")])
def test_one_refusal_refuses_all(
    client: FlaskClient, sse: SSE, channels: tuple[str, str]
) -> None:
    sse.authorizer(lambda channel: channel == "mine")
    assert is_served(client, "mine")
    assert not is_served(client, *channels)


def test_our_own_channels_are_refused_before_the_authorizer_is_asked(
    client: FlaskClient, sse: SSE
) -> None:
    asked = []

    @sse.authorizer
    def may_listen(channel: str) -> bool:
        asked.append(channel)
        return True

    assert not is_served(client, "$run")
    assert not is_served(client, "room", "$run")
    assert asked == []


def test_the_authorizer_is_asked_again_by_whoever_comes_back(
    client: FlaskClient, sse: SSE
) -> None:
    before = sse.position()
    sse.publish("for members", channel="secret")
    sse.authorizer(lambda channel: False)
    refused = client.get("/stream?channel=secret", headers={"Last-Event-ID": before})
    assert refused.status_code == 403
    assert client.head("/stream?channel=secret").status_code == 403


def test_an_authorizer_may_be_registered_after_the_first_request(
    client: FlaskClient, sse: SSE
) -> None:
    assert not is_served(client, "secret")
    sse.authorizer(lambda channel: True)
    assert is_served(client, "secret")


def test_the_authorizer_runs_in_the_request(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    @app.before_request
    def log_in() -> None:
        g.user = request.headers.get("X-User")

    @sse.authorizer
    def may_listen(channel: str) -> bool:
        assert current_app.name == app.name
        assert request.endpoint == "sse.stream"
        return bool(channel == f"user.{g.user}")

    with client.get("/stream?channel=user.ann", headers={"X-User": "ann"}) as response:
        assert response.status_code == 200
    refused = client.get("/stream?channel=user.ann", headers={"X-User": "bob"})
    assert refused.status_code == 403


def test_each_instance_has_its_own_authorizer() -> None:
    members, admins = SSE("members", url_prefix="/m"), SSE("admins", url_prefix="/a")
    app = application(members, admins)
    members.authorizer(lambda channel: channel == "room")
    admins.authorizer(lambda channel: False)
    client = app.test_client()
    with client.get("/m?channel=room") as response:
        assert response.status_code == 200
    assert client.get("/a?channel=room").status_code == 403


# What a refusal tells


def test_a_refusal_tells_strangers_nothing(client: FlaskClient, sse: SSE) -> None:
    plain = Forbidden().get_body()
    assert get(client, "secret").text == plain
    assert get(client, "$run").text == plain
    assert get(client, "a", "b").text == plain
    sse.authorizer(lambda channel: False)
    assert get(client, "secret").text == plain


def test_in_debug_mode_a_refusal_explains_itself(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.debug = True
    unlisted = get(client, "secret").text
    assert "secret" in unlisted
    assert "SSE_PUBLIC_CHANNELS" in unlisted
    assert "@sse.authorizer" in unlisted
    assert "several channels in one request" in get(client, "sse", "b").text
    assert "begin with" in get(client, "$run").text
    sse.authorizer(lambda channel: False)
    assert "the authorizer refuses" in get(client, "secret").text


def test_in_debug_mode_a_refusal_shows_no_html_of_the_query(
    app: Flask, client: FlaskClient
) -> None:
    app.debug = True
    assert "<script>" not in get(client, "<script>").text


# Flask's own hooks


def test_a_hook_after_the_registration_is_an_error(sse: SSE) -> None:
    with pytest.raises(AssertionError, match="already been registered"):
        sse.before_request(lambda: None)


def test_before_request_of_the_blueprint_guards_its_view() -> None:
    sse = SSE()

    @sse.before_request
    def guard() -> ResponseReturnValue | None:
        return None if "key" in request.args else ("no key", 401)

    app = application(sse)
    client = app.test_client()
    refused = client.get("/stream")
    assert (refused.status_code, refused.text) == (401, "no key")
    with client.get("/stream?key=1") as response:
        assert response.status_code == 200


def test_after_request_of_the_blueprint_sees_the_stream() -> None:
    sse = SSE()

    @sse.after_request
    def mark(response: Response) -> Response:
        response.headers["X-Mark"] = str(response.status_code)
        return response

    app = application(sse)
    client = app.test_client()
    with client.get("/stream") as response:
        assert response.headers["X-Mark"] == "200"
        assert b"stream-open" in next(response.iter_encoded())
    assert client.get("/stream?channel=secret").headers["X-Mark"] == "403"


def test_the_blueprint_s_error_handler_answers_refusals() -> None:
    sse = SSE()

    @sse.errorhandler(403)
    def refused(error: Exception) -> ResponseReturnValue:
        return jsonify(error="not for you"), 403

    app = application(sse)
    response = app.test_client().get("/stream?channel=secret")
    assert (response.status_code, response.json) == (403, {"error": "not for you"})


def test_the_application_s_error_handler_answers_refusals(sse: SSE) -> None:
    app = application(sse)
    app.config["SSE_MAX_CONNECTIONS"] = 1

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> ResponseReturnValue:
        return jsonify(status=error.code), error.code or 500

    client = app.test_client()
    assert client.get("/stream?channel=secret").json == {"status": 403}
    assert client.get("/stream?channel=").json == {"status": 400}
    with client.get("/stream"):
        assert client.get("/stream").json == {"status": 503}


def test_hooks_of_a_parent_blueprint_guard_a_nested_one(sse: SSE) -> None:
    parent = Blueprint("api", "api", url_prefix="/api")

    @parent.before_request
    def guard() -> None:
        abort(401)

    parent.register_blueprint(sse)
    app = application(parent)
    assert app.test_client().get("/api/stream").status_code == 401


# One room


def test_permits_are_given_in_one_room_only() -> None:
    package = Path(permission.__file__).parent
    users = {
        path.name
        for path in package.rglob("*.py")
        if "Permit(" in path.read_text("utf-8")
    }
    assert users == {"permission.py"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(True, Permit(("a", "b"))), (False, Forbidden), (None, Forbidden)],
)
def test_a_permit_is_for_all_channels_that_were_asked_for(
    app: Flask, answer: AuthorizerAnswer, expected: Any
) -> None:
    def ask() -> Permit | Response:
        return permission.for_query(("a", "b"), lambda channel: answer)

    with app.test_request_context():
        if expected is Forbidden:
            with pytest.raises(Forbidden):
                ask()
        else:
            assert ask() == expected


def test_a_permit_of_a_run_is_for_its_channel_alone() -> None:
    assert permission.for_run("$run.x") == Permit(("$run.x",))

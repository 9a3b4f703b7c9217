"""Tokens: what they let in, what they do not, and that nobody else can make one."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from itsdangerous import URLSafeSerializer
from werkzeug.test import EnvironBuilder, TestResponse

from flask_sse_lite import SSE, InvalidValue, tokens
from flask_sse_lite.hub.access_log import log_request
from flask_sse_lite.testing import read_events

KEY = "a key of the tests"

#: A client's way to bring a token along.
Bring = Callable[[FlaskClient, str], dict[str, Any]]


def by_header(client: FlaskClient, token: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {token}"}}


def by_query(client: FlaskClient, token: str) -> dict[str, Any]:
    return {"query_string": {"token": token}}


def by_cookie(client: FlaskClient, token: str) -> dict[str, Any]:
    client.set_cookie("sse_token", token)
    return {}


WAYS = pytest.mark.parametrize("bring", [by_header, by_query, by_cookie])
CHOSEN = pytest.mark.parametrize("bring", [by_header, by_query])


@pytest.fixture
def app(app: Flask) -> Iterator[Flask]:
    app.config.update(SECRET_KEY=KEY, SSE_TOKEN_IN_QUERY=True, SSE_HEARTBEAT=0.4)
    with app.app_context():
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def ask(client: FlaskClient, bring: Bring, token: str, *channels: str) -> TestResponse:
    """Ask for channels, with a token."""
    options = bring(client, token)
    query = {**options.pop("query_string", {}), "channel": channels}
    return client.get("/stream", query_string=query, **options)


def status(client: FlaskClient, bring: Bring, token: str, *channels: str) -> int:
    with ask(client, bring, token, *channels) as response:
        return response.status_code


# What a token lets in


@WAYS
def test_a_token_lets_in_for_its_channels(
    client: FlaskClient, sse: SSE, bring: Bring
) -> None:
    token = sse.sign("room.7", "room.8")
    assert status(client, bring, token, "room.7") == 200
    assert status(client, bring, token, "room.8", "room.7") == 200
    response = ask(client, bring, token, "room.8")
    sse.publish("hello", channel="room.8")
    assert [event.data for event in read_events(response, count=1)] == ["hello"]


@CHOSEN
def test_who_names_no_channel_gets_those_of_the_token(
    client: FlaskClient, sse: SSE, bring: Bring
) -> None:
    response = ask(client, bring, sse.sign("room.7", "room.8"))
    sse.publish("not the token's", channel="sse")
    sse.publish("hello", channel=["room.7", "room.8"])
    got = [(event.channel, event.data) for event in read_events(response, count=2)]
    assert got == [("room.7", "hello"), ("room.8", "hello")]


def test_a_cookie_chooses_no_channels(client: FlaskClient, sse: SSE) -> None:
    """A page that opens the plain address gets what it has always got."""
    response = ask(client, by_cookie, sse.sign("room.7"))
    sse.publish("for the room", channel="room.7")
    sse.publish("for all")
    assert [event.data for event in read_events(response, count=1)] == ["for all"]


def test_a_useless_cookie_hides_no_good_one(app: Flask, sse: SSE) -> None:
    client = app.test_client(use_cookies=False)
    for texts in (("x", sse.sign("room.7")), (sse.sign("room.7"), "x")):
        cookies = "; ".join(f"sse_token={text}" for text in texts)
        headers = {"Cookie": cookies}
        with client.get("/stream?channel=room.7", headers=headers) as response:
            assert response.status_code == 200


@WAYS
def test_a_token_is_asked_before_the_authorizer(
    client: FlaskClient, sse: SSE, bring: Bring
) -> None:
    asked: list[str] = []
    sse.authorizer(asked.append)
    assert status(client, bring, sse.sign("room.7"), "room.7") == 200
    assert asked == []


@WAYS
def test_a_key_that_was_replaced_is_good_for_what_it_has_signed(
    app: Flask, client: FlaskClient, sse: SSE, bring: Bring
) -> None:
    token = sse.sign("room.7")
    app.config.update(SECRET_KEY="another", SECRET_KEY_FALLBACKS=["first", KEY])
    assert status(client, bring, token, "room.7") == 200
    app.config.update(SECRET_KEY_FALLBACKS=["first"])
    assert status(client, bring, token, "room.7") == 403


# What it does not


def test_fallback_keys_that_anybody_knows_are_none(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.config["SECRET_KEY"], app.config["SECRET_KEY_FALLBACKS"] = KEY, ["", None]
    serializer = URLSafeSerializer(
        "",
        salt="flask_sse_lite",
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )
    forged = tokens.PREFIX + str(serializer.dumps([2**40, "room.7"]))
    assert status(client, by_header, forged, "room.7") == 403
    app.config["SECRET_KEY_FALLBACKS"] = "one text"
    with pytest.raises(InvalidValue, match="a list of keys"):
        sse.sign("room.7")


@WAYS
@pytest.mark.parametrize("channels", [["room.8"], ["room.7", "room.8"], ["sse", "x"]])
def test_it_lets_in_for_no_other_channel(
    client: FlaskClient, sse: SSE, bring: Bring, channels: list[str]
) -> None:
    assert status(client, bring, sse.sign("room.7"), *channels) == 403


@WAYS
def test_it_lets_nobody_in_after_its_time(
    client: FlaskClient, sse: SSE, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = sse.sign("room.7", max_age=60)
    now = time.time()
    for later, expected in [(59, 200), (62, 403), (10**9, 403)]:
        clock = SimpleNamespace(time=lambda later=later: now + later)
        monkeypatch.setattr(tokens, "time", clock)
        assert status(client, bring, token, "room.7") == expected


@WAYS
@pytest.mark.parametrize("place", range(0, 60, 7))
def test_an_altered_token_lets_nobody_in(
    client: FlaskClient, sse: SSE, bring: Bring, place: int
) -> None:
    token = sse.sign("room.7")
    other = "A" if token[place] != "A" else "B"
    altered = token[:place] + other + token[place + 1 :]
    assert status(client, bring, altered, "room.7") == 403


@CHOSEN
def test_a_token_that_the_client_sends_by_itself_must_be_good(
    client: FlaskClient, sse: SSE, bring: Bring
) -> None:
    """Otherwise a client would not learn that its token is of no use."""
    assert status(client, bring, sse.sign("room.7"), "sse") == 403
    assert status(client, bring, tokens.PREFIX + "x", "sse") == 403


@pytest.mark.parametrize("token", ["x", "sse1.x", "", "é"])
def test_a_useless_cookie_leaves_the_decision_to_the_other_rules(
    client: FlaskClient, token: str
) -> None:
    assert status(client, by_cookie, token, "sse") == 200
    assert status(client, by_cookie, token) == 200
    assert status(client, by_cookie, token, "room.7") == 403


def test_a_token_of_another_application_lets_nobody_in(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    token = sse.sign("room.7")
    for config in ({"SSE_TOKEN_SALT": "another"}, {"SECRET_KEY": "another"}):
        other, its_sse = Flask("another"), SSE()
        other.config.update({"SECRET_KEY": KEY, "SSE_HEARTBEAT": 0.4, **config})
        its_sse.init_app(other)
        assert status(other.test_client(), by_header, token, "room.7") == 403
    assert status(client, by_header, token, "room.7") == 200


def test_what_the_application_has_signed_for_something_else_is_no_token(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    for salt in ("cookie-session", "itsdangerous", "reset"):
        foreign = str(URLSafeSerializer(KEY, salt).dumps([2**40, "room.7"]))
        for text in (foreign, tokens.PREFIX + foreign):
            assert status(client, by_query, text, "room.7") == 403


def test_the_query_brings_none_unless_it_is_allowed_to(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.config["SSE_TOKEN_IN_QUERY"] = False
    assert status(client, by_query, sse.sign("room.7"), "room.7") == 403
    assert status(client, by_query, "x", "sse") == 200


def test_another_bearer_is_left_to_the_authorizer(
    client: FlaskClient, sse: SSE
) -> None:
    sse.authorizer(lambda channel: channel == "mine")
    for text in ("eyJhbGciOiJub25lIn0.e30.", "x"):
        assert status(client, by_header, text, "mine") == 200
        assert status(client, by_header, text, "other") == 403


def test_a_run_and_a_view_of_the_application_s_own_ask_for_no_token(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.add_url_rule("/own", view_func=lambda: sse.stream("room.9"))
    options = by_header(client, sse.sign("room.7"))
    with client.get("/own", **options) as response:
        assert response.status_code == 200


def test_a_header_goes_before_the_query_and_a_cookie_behind_both(
    client: FlaskClient, sse: SSE
) -> None:
    by_cookie(client, sse.sign("c"))
    query = {"token": sse.sign("b")}
    headers = {"Authorization": f"Bearer {sse.sign('a')}"}

    def is_served(channel: str, **options: Any) -> bool:
        query = {**options.pop("query", {}), "channel": channel}
        with client.get("/stream", query_string=query, **options) as response:
            return response.status_code == 200

    assert is_served("c")
    assert is_served("b", query=query)
    assert not is_served("c", query=query)
    assert is_served("a", query=query, headers=headers)
    assert not is_served("b", query=query, headers=headers)


# What is told


@pytest.mark.parametrize("debug", [True, False])
def test_a_refusal_says_why_in_debug_mode_alone(
    app: Flask, client: FlaskClient, sse: SSE, debug: bool
) -> None:
    app.debug = debug
    reasons = {
        tokens.PREFIX + "x": "altered",
        "x": "does not begin",
        sse.sign("room.8"): "not for",
    }
    for token, reason in reasons.items():
        with ask(client, by_query, token, "room.7") as response:
            assert response.status_code == 403
            assert (reason in response.get_data(as_text=True)) is debug
            assert token not in response.get_data(as_text=True)


@pytest.mark.parametrize("name", ["token", "tok%65n", "t%6Fken"])
def test_our_logs_hold_no_token(
    client: FlaskClient,
    sse: SSE,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    token = sse.sign("room.7")
    with client.get(f"/stream?{name}={token}&channel=room.7") as response:
        assert response.status_code == 200
    with client.get(f"/stream?{name}={token}x&channel=room.7") as response:
        assert response.status_code == 403
    query = f"channel=room.7&{name}={token}&x&y=%20"
    log_request(EnvironBuilder(path="/stream", query_string=query).get_environ())
    assert token not in caplog.text
    hidden = f"/stream?channel=room.7&{name}=(hidden)&x&y=%20"
    assert hidden in caplog.messages[-1]


# How it is made


def test_a_token_holds_its_channels_and_its_time(app: Flask, sse: SSE) -> None:
    token = sse.sign("room.7", "é")
    text = token.removeprefix(tokens.PREFIX)
    serializer = URLSafeSerializer(KEY)
    _, (expires, identity, *channels) = serializer.loads_unsafe(text)
    assert identity is None
    assert channels == ["room.7", "é"]
    assert 0 < expires - time.time() <= tokens.DEFAULT_MAX_AGE + 1


@pytest.mark.parametrize("bad", [0, -1, float("nan"), 10**10, "60", None, True])
def test_a_time_that_is_none_is_an_error(sse: SSE, bad: Any) -> None:
    with pytest.raises(InvalidValue, match="max_age is a number of seconds"):
        sse.sign("room.7", max_age=bad)


TOO_MANY = [str(n) for n in range(65)]


@pytest.mark.parametrize("bad", [[], [""], ["$run.x"], ["a\n"], TOO_MANY])
def test_channels_that_cannot_be_listened_to_are_an_error(
    sse: SSE, bad: list[str]
) -> None:
    with pytest.raises(InvalidValue):
        sse.sign(*bad)


def test_without_a_key_none_is_signed_and_none_is_good(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    token = sse.sign("room.7")
    app.config["SECRET_KEY"] = None
    with pytest.raises(InvalidValue, match="SECRET_KEY"):
        sse.sign("room.7")
    assert status(client, by_header, token, "room.7") == 403

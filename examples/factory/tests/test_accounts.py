"""Accounts: who is served a stream, and until when."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_sse_lite.testing import read_events


def test_a_page_without_a_login_leads_to_the_login(app: Flask) -> None:
    assert app.test_client().get("/").location == "/login"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/events"), ("POST", "/tickets"), ("POST", "/tickets/1/close")],
)
def test_nothing_is_served_without_a_login(app: Flask, method: str, path: str) -> None:
    assert app.test_client().open(path, method=method).status_code == 401


def test_a_logout_ends_the_streams_of_that_user(
    log_in: Callable[[str], FlaskClient],
) -> None:
    ann, bob = log_in("ann"), log_in("bob")
    hers, his = ann.get("/events"), bob.get("/events")
    ann.post("/logout")
    bob.post("/tickets", data={"text": "It hangs."})
    # Hers has ended, without what came later. His goes on.
    assert read_events(hers) == []
    assert [event.json["text"] for event in read_events(his, count=1)] == ["It hangs."]
    # Her browser comes back, and is not let in.
    assert ann.get("/events").status_code == 401

"""What the tests share: an application of their own, and its clients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from .. import create_app


@pytest.fixture
def app() -> Flask:
    """Each test has an application of its own, with channels of its own."""
    return create_app({"TESTING": True})


@pytest.fixture
def log_in(app: Flask) -> Callable[[str], FlaskClient]:
    """A function that gives a client with the cookies of a user."""

    def log_in(user: str) -> FlaskClient:
        client = app.test_client()
        client.post("/login", data={"user": user})
        return client

    return log_in

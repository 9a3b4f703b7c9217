"""A support desk: an application factory with two blueprints, and its own tests.

To run it: ``flask --app examples/factory run``, and log in in two windows.
To test it: ``pytest examples/factory``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask

from flask_sse_lite import sse

from . import accounts, tickets


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """The application.

    :param config: what differs from the defaults, as in tests.
    """
    app = Flask(__name__)
    app.config.from_mapping(SECRET_KEY="change me", SESSION_COOKIE_SAMESITE="Lax")
    app.config.from_mapping(config or {})
    app.config.from_prefixed_env()

    # Its routes serve the module sse.js. The tickets' stream has a view of its own.
    sse.init_app(app)
    tickets.init_app(app)
    app.register_blueprint(accounts.blueprint)
    app.register_blueprint(tickets.blueprint)
    return app

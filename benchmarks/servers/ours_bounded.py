"""The extension in several applications of one process, each on a port of its own: one
without identities and limits, and others with some.

They share a process, because two processes of the same program differ by more than an
identity costs. What never lives here: which limits there are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from control import control, scattering
from flask import Flask, request

from flask_sse_lite import SSE


def who() -> str:
    """A client's name: its own, or that of its channel."""
    return request.args.get("who") or request.args["channel"]


def application(*, identities: bool, **settings: Any) -> Flask:
    app, sse = Flask("bounded"), SSE()
    app.config.update(SSE_PUBLIC_CHANNELS=["*"], **settings)
    if identities:
        sse.identity(who)
    app.register_blueprint(sse)
    app.register_blueprint(control(sse.publish))
    app.register_blueprint(scattering(sse.publish))
    return app


#: The applications by port. bounds.py names the ports, and each one's configuration.
APPLICATIONS = {
    port: application(**config)
    for port, config in json.loads(os.environ["APPLICATIONS"]).items()
}


def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    return APPLICATIONS[environ["SERVER_PORT"]](environ, start)

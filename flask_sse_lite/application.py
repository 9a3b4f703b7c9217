"""Which application is meant, and where its channels are.

Here lives what ``register_blueprint`` and ``init_app`` do to an application, and how a
verb finds the application again, in a request and elsewhere.
"""

from __future__ import annotations

import time
import weakref
from typing import Any

from flask import Flask, current_app, has_app_context, request, request_started

from . import cli
from .channels import Channels
from .errors import NoApplication
from .servers.surroundings import worker_processes

# Outside an application context, a verb means the only application that there ever was.
# The second is kept to know that there are several; more need not be.
_registered: list[weakref.ref[Flask]] = []

#: Where a request notes when it began.
_BEGAN = "flask_sse_lite.began"


def set_up(app: Flask) -> None:
    """Give an application its channels and commands, unless it has them.

    :raises InvalidValue: for what the application has configured wrongly by now.
    """
    if "sse" in app.extensions:
        return
    channels = Channels(
        app.config, lambda data: app.json.dumps(data), app.instance_path
    )
    channels.check_configuration()
    app.extensions["sse"] = channels
    if cli.commands.name not in app.cli.commands:
        app.cli.add_command(cli.commands)
    if len(_registered) < 2:
        _registered.append(weakref.ref(app))

    def note_request(*_: object, **__: object) -> None:
        request.environ.setdefault(_BEGAN, time.monotonic())
        if not channels.has_served:
            channels.has_served = True
            channels.processes = worker_processes(request.environ)

    # The signal comes before every hook of the application's, which can be what lets a
    # client in. It keeps no receiver alive: the application does.
    app.extensions["sse.note_request"] = note_request
    request_started.connect(note_request, app)


def began(environ: dict[str, Any]) -> float:
    """When a request began, before any code of the application's ran in it
    (``time.monotonic()``)."""
    noted: float | None = environ.get(_BEGAN)
    return time.monotonic() if noted is None else noted


def current_channels() -> Channels:
    """The channels of the application that is meant.

    :raises NoApplication: when nobody can tell which one is meant, or it has no
        channels.
    """
    if has_app_context():
        app: Flask | None = current_app._get_current_object()  # type: ignore[attr-defined]
    else:
        app = _registered[0]() if len(_registered) == 1 else None
    if app is None:
        raise NoApplication(
            "Outside a request, say which application is meant: with app.app_context()"
        )
    if "sse" not in app.extensions:
        raise NoApplication(
            f"The application {app.name!r} has no channels: call "
            "app.register_blueprint(sse), or sse.init_app(app), when you make it"
        )
    channels: Channels = app.extensions["sse"]
    return channels

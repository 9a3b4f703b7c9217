"""Which application is meant, and where its channels are.

Here lives what ``register_blueprint`` and ``init_app`` do to an application, and how a
verb finds the application again, in a request and elsewhere.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import Flask, current_app, has_app_context

from . import cli
from .channels import Channels
from .errors import NoApplication
from .servers.surroundings import worker_processes
from .signals.courier import Courier

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

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
        app.config,
        lambda data: app.json.dumps(data),
        app.instance_path,
        courier=Courier(app, app.app_context),
    )
    channels.check_configuration()
    app.extensions["sse"] = channels
    if cli.commands.name not in app.cli.commands:
        app.cli.add_command(cli.commands)
    if len(_registered) < 2:
        _registered.append(weakref.ref(app))
    serve = app.wsgi_app

    def note_request(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        environ[_BEGAN] = time.monotonic()
        if not channels.has_served:
            channels.has_served = True
            channels.processes = worker_processes(environ)
        return serve(environ, start)

    # A middleware comes before all that can let a client in: hooks, and the session,
    # which can take long to be read.
    app.wsgi_app = note_request  # type: ignore[assignment,method-assign]


def began(environ: WSGIEnvironment) -> float:
    """When Flask was given a request (``time.monotonic()``). Nothing that Flask knows
    of the client is older."""
    noted: float | None = environ.get(_BEGAN)
    return time.monotonic() if noted is None else noted


def current_channels() -> Channels:
    """The channels of the application that is meant.

    :raises NoApplication: when nobody can tell which one is meant, or it has no
        channels.
    """
    app: Flask | None
    try:
        app = current_app._get_current_object()  # type: ignore[attr-defined]
    except RuntimeError:
        if has_app_context():
            raise  # It is another error, such as that of code that interrupted this.
        app = _registered[0]() if len(_registered) == 1 else None
    if app is None:
        raise NoApplication(
            "Outside a request, say which application is meant: with app.app_context()"
        )
    return channels_of(
        app, "app.register_blueprint(sse), or sse.init_app(app), when you make it"
    )


def channels_of(app: Flask, call: str) -> Channels:
    """The channels of an application.

    :param call: what the developer must call, and when.
    :raises NoApplication: when it has no channels.
    """
    channels: Channels | None = app.extensions.get("sse")
    if channels is None:
        raise NoApplication(
            f"The application {app.name!r} has no channels: call {call}"
        )
    return channels

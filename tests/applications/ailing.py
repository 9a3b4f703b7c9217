"""The channels, with one thing wrong in the application itself: ``AILMENT`` of the
configuration says what."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Response, request
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse
from flask_sse_lite.response import MIMETYPE

from .channels import app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOGIN = '<form method="post">Log in: <input type="password" name="secret"></form>'

AILMENT = app.config.get("AILMENT", "")


def collecting(application: WSGIApplication) -> WSGIApplication:
    """A middleware that collects the whole body."""

    def middleware(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        items = application(environ, start)
        try:
            return [b"".join(items)]
        finally:
            if hasattr(items, "close"):
                items.close()

    return middleware


def changing(application: WSGIApplication) -> WSGIApplication:
    """A middleware that changes each piece."""

    def middleware(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        items = application(environ, start)
        return (item.replace(b"data", b"DATA") for item in items)

    return middleware


def compressed(response: Response) -> Response:
    """A hook that compresses streams."""
    if response.mimetype != MIMETYPE:
        return response
    response.response = (gzip.compress(item) for item in response.iter_encoded())
    response.headers["Content-Encoding"] = "gzip"
    return response


def login_page() -> ResponseReturnValue | None:
    """A hook that answers strangers by a page, with the status 200."""
    is_stream = request.path.startswith("/stream")
    return LOGIN if is_stream and "session" not in request.cookies else None


def login_redirect() -> ResponseReturnValue | None:
    if request.path == "/login":
        return LOGIN
    return app.redirect("/login") if request.path == "/stream" else None


MIDDLEWARES: dict[str, Callable[[Any], Any]] = {
    "collecting": collecting,
    "changing": changing,
}

if AILMENT in MIDDLEWARES:
    app.wsgi_app = MIDDLEWARES[AILMENT](app.wsgi_app)  # type: ignore[method-assign]
elif AILMENT == "compressing":
    app.after_request(compressed)
elif AILMENT == "no threads":
    sys.modules["uwsgi"].has_threads = False  # type: ignore[attr-defined]
elif AILMENT == "login page":
    app.before_request(login_page)
elif AILMENT == "login redirect":
    app.before_request(login_redirect)


@app.get("/own")
def own() -> ResponseReturnValue:
    """A view of the application's own."""
    return sse.stream("room")

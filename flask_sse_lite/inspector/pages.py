"""The inspector's views: the page, its files, its streams, and what its buttons do.

Here lives how each request is answered, and every answer begins with the question who
can look (``permission``). What workers tell lives in reporting.py. The page itself is
in ``static/``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from flask import Response, abort, current_app, request
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from .. import browser_module, permission, routes, views
from ..application import current_channels
from ..channels import Channels
from ..errors import BrokerUnavailable, InvalidValue
from ..event import check_channel
from ..response import NOSNIFF
from . import forgery
from .reporting import ANSWERS, Reporting
from .snapshot import is_shown

#: The page's own files, and nothing else: no script or style stands in the page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    **NOSNIFF,
}

#: The files that the page loads, with what they are.
FILES = {
    "inspector.css": "text/css",
    "inspector.js": "text/javascript",
    "cells.js": "text/javascript",
    "plot.js": "text/javascript",
}

#: Events of a channel's past that its watcher gets.
REPLAY = 50

#: The key of ``app.extensions`` under which an application keeps its part.
_KEY = "sse.inspector"

_FOLDER = Path(__file__).parent / "static"


def set_up(app: Any) -> None:
    """Have an application tell of its streams, where it is configured to. A second call
    does nothing."""
    channels: Channels = app.extensions["sse"]
    if _KEY in app.extensions or channels.courier is None:
        return
    reporting = Reporting(channels, channels.courier)
    app.extensions[_KEY] = reporting

    def attend() -> None:
        if channels.settings.inspector:
            reporting.attend()

    channels.before_stream = attend


def page(guard: permission.Guard | None, view: object, serve: object) -> AnyResponse:
    """The page.

    :param guard: the application's ``inspector_guard``.
    :param view: the blueprint's view of the page.
    :param serve: the blueprint's view of the files.
    """
    if refusal := permission.to_inspect(guard):
        return refusal
    here = _address(view)
    cookie = forgery.known_cookie()
    text = Markup(_file("page.html")[0].decode()).format(
        name=current_app.name,
        style=_address(serve, name="inspector.css", v=_file("inspector.css")[1]),
        script=_address(serve, name="inspector.js", v=_file("inspector.js")[1]),
        module=_address(browser_module.serve_module),
        here=here,
        token=forgery.token_of(cookie),
    )
    response = Response(text, headers=HEADERS)
    forgery.give_cookie(response, cookie, here)
    return response


def file(guard: permission.Guard | None, name: str) -> AnyResponse:
    """One of the page's files."""
    if refusal := permission.to_inspect(guard):
        return refusal
    if name not in FILES:
        abort(404)
    return browser_module.serve_file(*_file(name), FILES[name])


def stream(
    guard: permission.Guard | None, identify: permission.Identify | None
) -> AnyResponse:
    """What workers tell; or, where the query names a channel, the channel's events.

    :param identify: the application's function that says who the client is.
    """
    names = views.requested_channels()
    if not all(map(is_shown, names)):
        abort(404)
    permit = permission.for_inspector(names or (ANSWERS,), guard, identify)
    if isinstance(permit, AnyResponse):
        return permit
    response = views.stream(permit, REPLAY if names else 0, is_onlooker=True)
    if not names and response.status_code == 200:
        _reporting().look()
    return response


def act(guard: permission.Guard | None, action: str) -> AnyResponse:
    """What a button of the page does."""
    if refusal := permission.to_inspect(guard):
        return refusal
    forgery.check_origin_and_token()
    words = request.get_json(silent=True)
    if action not in ACTIONS:
        abort(404)
    if not isinstance(words, dict):
        abort(400, "The inspector's page sends JSON.")
    try:
        ACTIONS[action](words)
    except InvalidValue as error:
        abort(400, f"{error}.")
    except BrokerUnavailable as error:
        abort(503, f"{error}.")
    return Response(status=204)


def _publish(words: Mapping[str, Any]) -> None:
    current_channels().publish(
        _text(words, "data"),
        _text(words, "type") or None,
        None,
        None,
        _text(words, "channel"),
    )


def _disconnect(words: Mapping[str, Any]) -> None:
    if identity := _text(words, "identity"):
        current_channels().disconnect(identity, None)
    else:
        _reporting().end_connection(_text(words, "worker"), _text(words, "name"))


def _stop(words: Mapping[str, Any]) -> None:
    channel = _text(words, "channel")
    check_channel(channel)
    if not is_shown(channel):
        raise InvalidValue(f"{channel!r} is no channel of a run")
    current_channels().broker.end(channel)


#: What the page's buttons do.
ACTIONS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "publish": _publish,
    "disconnect": _disconnect,
    "stop": _stop,
}


def _text(words: Mapping[str, Any], key: str) -> str:
    value = words.get(key, "")
    if not isinstance(value, str):
        raise InvalidValue(f"{key!r} is text, not {value!r}")
    return value


def _reporting() -> Reporting:
    reporting: Reporting = current_app.extensions[_KEY]
    return reporting


def _address(view: object, **values: Any) -> str:
    address = routes.address(current_app, view, **values)
    assert address is not None  # The views come with the routes.
    return address


@cache
def _file(name: str) -> tuple[bytes, str]:
    text = (_FOLDER / name).read_bytes()
    return text, browser_module.version_of(text)

"""What a page is given to listen with: the module ``sse.js``, and words for templates.

Here lives how a browser gets the module, for how long it keeps it, and what templates
write of it. What the module does is written in ``client/``, from which it is built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from flask import Flask, Response, current_app, g, has_request_context, request
from markupsafe import Markup

from . import routes
from .arguments import MAX_CHANNELS, checked_names
from .client_faults import query
from .names import Name
from .response import NOSNIFF

#: The folder of ``sse.js`` and ``sse.d.ts``, for those who bundle them or serve them by
#: themselves.
static_folder = str(Path(__file__).parent / "static")

#: The parameter of the module's address that has its version.
VERSION_PARAMETER = "v"

#: Seconds that a browser keeps the module of a versioned address: a year, which is the
#: longest that caches are asked for. Another module has another address.
KEPT_SECONDS = 365 * 24 * 60 * 60

#: Characters of the version: enough that no two modules have the same.
VERSION_LENGTH = 12


#: The attribute of ``flask.g`` that keeps the first position of a request.
_POSITION = "_sse_position"


class Module(NamedTuple):
    """The module's text, and what its text is called."""

    text: bytes
    version: str


@cache
def module() -> Module:
    text = Path(static_folder, "sse.js").read_bytes()
    return Module(text, version_of(text))


def add_version(endpoint: str, values: dict[str, Any]) -> None:
    """Flask calls this for each address that ``url_for`` makes within the blueprint."""
    if endpoint.endswith(".client"):
        values.setdefault(VERSION_PARAMETER, module().version)


def serve_module() -> Response:
    """The module. At an address without its version, a browser asks each time whether
    the module is still the same."""
    return serve_file(*module(), "text/javascript")


def version_of(text: bytes) -> str:
    """What a file's text is called in the file's address."""
    return hashlib.sha256(text).hexdigest()[:VERSION_LENGTH]


def serve_file(text: bytes, version: str, mimetype: str) -> Response:
    """A file of the extension's own, for a page."""
    response = Response(text, mimetype=mimetype, headers=NOSNIFF)
    response.set_etag(version)
    if query().get(VERSION_PARAMETER) == version:
        response.cache_control.public = True
        response.cache_control.max_age = KEPT_SECONDS
        response.cache_control.immutable = True
    else:
        response.cache_control.no_cache = True
    response.make_conditional(request)
    return response


def note_position(position: str) -> str:
    """Remember where a request's page begins: the first position that was taken. What
    is published later is not in the data that is read later.

    :returns: the first position of this request, or the given one outside a request.
    """
    if not has_request_context():
        return position
    first: str = g.setdefault(_POSITION, position)
    return first


def add_to_templates(app: Flask, view: object, take: Callable[[], str]) -> None:
    """Have an application's templates know ``sse_url`` and ``sse_script``, unless an
    SSE that was registered earlier has given them. Flask calls a context processor when
    it renders: the templates' environment is not made before the application has
    configured it.

    :param view: the view of the blueprint that ``sse_url`` is to lead to.
    :param take: takes the position where the log stands now.
    """
    processors = app.template_context_processors[None]
    if not any(isinstance(known, _Words) for known in processors):
        processors.append(_Words(view, take))


class _Words:
    """The context processor by which templates know our words."""

    def __init__(self, view: object, take: Callable[[], str]) -> None:
        self._view = view
        self._take = take

    def __call__(self) -> dict[str, Any]:
        return {"sse_url": self._url, "sse_script": self._script}

    def _url(self, *channels: Name) -> str:
        """``{{ sse_url("room.7") }}``: where the stream of these channels is served,
        from the position of the page on."""
        names = checked_names(channels, MAX_CHANNELS) if channels else ()
        position = note_position(self._take())
        return self._served(self._view, channel=names, last_event_id=position)

    def _script(self, nonce: str | None = None) -> Markup:
        """``{{ sse_script() }}``: the tag by which a page loads the module.

        :param nonce: what the page's Content-Security-Policy asks scripts for, if it
            does.
        """
        proof = Markup(' nonce="{}"').format(nonce) if nonce else ""
        tag = Markup('<script type="module" src="{}"{}></script>')
        return tag.format(self._served(serve_module), proof)

    @staticmethod
    def _served(view: object, **values: Any) -> str:
        """Where the current application serves a view of the blueprint."""
        address = routes.address(current_app, view, **values)
        assert address is not None  # The words come with the routes.
        return address

"""The module that a page loads: ``sse.js``, as it lies in the package.

Here lives how a browser gets the module, and for how long it keeps it. What the module
does is written in ``client/``, from which it is built.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from flask import Response, request

from .response import NOSNIFF

#: The folder of ``sse.js`` and ``sse.d.ts``, for those who bundle them or serve them by
#: themselves.
static_folder = str(Path(__file__).parent / "static")

#: What the module's address says its version in.
VERSION_PARAMETER = "v"

#: Seconds that a browser keeps the module of a versioned address: a year, which is the
#: longest that caches are asked for. Another module has another address.
KEPT_SECONDS = 365 * 24 * 60 * 60

#: Characters of the version: enough that no two modules have the same.
VERSION_LENGTH = 12


class Module(NamedTuple):
    """The module's text, and what its text is called."""

    text: bytes
    version: str


@cache
def module() -> Module:
    text = Path(static_folder, "sse.js").read_bytes()
    return Module(text, hashlib.sha256(text).hexdigest()[:VERSION_LENGTH])


def add_version(endpoint: str, values: dict[str, Any]) -> None:
    """Flask calls this for each address that ``url_for`` makes within the blueprint."""
    if endpoint.endswith(".client"):
        values.setdefault(VERSION_PARAMETER, module().version)


def serve_module() -> Response:
    """The module. At an address without its version, a browser asks each time whether
    the module is still the same."""
    text, version = module()
    response = Response(text, mimetype="text/javascript", headers=NOSNIFF)
    response.set_etag(version)
    if request.args.get(VERSION_PARAMETER) == version:
        response.cache_control.public = True
        response.cache_control.max_age = KEPT_SECONDS
        response.cache_control.immutable = True
    else:
        response.cache_control.no_cache = True
    response.make_conditional(request)
    return response

"""What the frames below a call tell: which server answers the request, where a
middleware hides the server's ``write``, and which code iterates a response.

Here lives how frames are read. What a server's frame means lives in that server's
module.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import lru_cache
from types import FrameType
from typing import TYPE_CHECKING

from .server import Server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_OURS = __name__.partition(".")[0]

#: Modules whose frames only pass the iteration on: ``reader`` skips them.
PASSING = (_OURS, "flask", "werkzeug.wsgi", "werkzeug.wrappers")


def find_below(
    environ: WSGIEnvironment, servers: tuple[type[Server], ...], hidden_by: str
) -> Server | None:
    """The server whose code is below this call, if it is one of ``servers``.

    :param hidden_by: the name of what hides the server's ``write``.
    """
    for frame in _frames():
        module = frame.f_globals.get("__name__", "")
        for kind in servers:
            if not is_in(module, kind.home) or not _is_of(frame, environ):
                continue
            if write := kind.write_in(frame):
                server = kind(environ, write)
                server.hidden_by = hidden_by
                return server
    return None


def _is_of(frame: FrameType, environ: WSGIEnvironment) -> bool:
    """Whether a server's frame belongs to this request. A view that calls another view,
    as tests do, has the frames of its own request below. (The environs are compared by
    ``wsgi.input`` too, since a middleware can copy an environ.)"""
    known = frame.f_locals
    handler = known.get("self")
    for theirs in (
        known.get("environ"),
        getattr(handler, "environ", None),
        getattr(handler, "env", None),
    ):
        if theirs is environ:
            return True
        if isinstance(theirs, dict) and "wsgi.input" in environ:
            return theirs.get("wsgi.input") is environ["wsgi.input"]
    return False


def reader() -> str:
    """The code that asks for the next item, as module and function. Empty where no
    Python code is below."""
    for module, function in callers():
        if not is_in(module, PASSING):
            return f"{module}.{function}"
    return ""


def callers() -> Iterator[tuple[str, str]]:
    """The module and the function of each call that goes on in this thread, from the
    innermost out."""
    for frame in _frames():
        yield frame.f_globals.get("__name__", ""), frame.f_code.co_name


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


@lru_cache(maxsize=1024)
def is_in(module: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of these packages, or inside one."""
    return any(module == name or module.startswith(f"{name}.") for name in packages)

"""What stands below a call in its thread: the server that answers the request, where a
middleware keeps its ``write`` to itself, and who asks for the items of a response.

Here lives how frames are read. What is concluded of a server lives in its module.
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

#: Modules whose frames only pass on what is asked for.
PASSING = (_OURS, "flask", "werkzeug.wsgi", "werkzeug.wrappers")


def find_below(
    environ: WSGIEnvironment, servers: tuple[type[Server], ...], hidden_by: str
) -> Server | None:
    """The server in whose code this thread is, if it is one of some.

    :param hidden_by: what stands before it.
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
    """Whether a server's frame is that of a request: a view that asks another one, as
    tests do, has its own request's frames below. (A middleware may copy an environ.)"""
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
    """Who asks for the next item, as a module and a function; nothing where nobody
    below is of Python."""
    for frame in _frames():
        module = frame.f_globals.get("__name__", "")
        if not is_in(module, PASSING):
            return f"{module}.{frame.f_code.co_name}"
    return ""


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


@lru_cache(maxsize=1024)
def is_in(module: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of some, or within one."""
    return any(module == name or module.startswith(f"{name}.") for name in packages)

"""What a request and its thread tell of the servers around an application.

Here lives what is concluded from a flag or a name: how many worker processes there are,
which web server takes a header for itself, which server never passes events on, and
which adapter never tells that a client has left. What is known of a server whose
connections can be taken over never stands here: it has a module of its own.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from ..log_messages import ASGI_ADAPTER, COLLECTED_BY_SERVER, Message
from . import gunicorn
from .below import callers, is_in, reader

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Adapters that serve a WSGI application from an ASGI server.
ASGI_ADAPTERS = (
    *("a2wsgi", "asgiref", "hypercorn", "starlette", "uvicorn"),
    *("fastapi", "wsgi2asgi"),
)

#: Servers that collect a whole response before they send any of it.
COLLECTORS = ("apig_wsgi", "awsgi", "awsgi2", "serverless_wsgi", "tornado", "zappa")

# The logged warnings, each with the process's id. A forked child logs its own.
_said: set[tuple[int, str, tuple[object, ...]]] = set()


def worker_processes(environ: WSGIEnvironment) -> int | None:
    """How many processes the server was told to start. None where the server says
    that there can be several, and nothing says how many.

    ``wsgi.multiprocess`` proves nothing: adapters of ASGI and bjoern always set it.
    """
    if count := gunicorn.worker_processes() or _uwsgi_processes():
        return count
    return None if environ.get("wsgi.multiprocess") else 1


def _uwsgi_processes() -> int:
    """How many workers uWSGI runs; 0 under other servers."""
    count: Any = getattr(sys.modules.get("uwsgi"), "numproc", 0)
    return count if isinstance(count, int) else 0


def keeps_location(environ: WSGIEnvironment) -> bool:
    """Whether the web server obeys the ``Location`` of a 200 instead of passing it on.

    Apache does so under mod_wsgi's daemon mode, CGI, FastCGI and SCGI, as CGI demands
    (RFC 3875, section 6.2.2). It answers a path by serving that path, and an absolute
    address by a redirect.
    """
    is_gateway = "GATEWAY_INTERFACE" in environ and "uwsgi.version" not in environ
    return is_gateway and environ.get("SERVER_SOFTWARE", "").startswith("Apache")


def unfit_server() -> str:
    """The adapter or server, among those under which event streams fail, that has
    called the application of the current request; empty where none has. Must be called
    in the thread of the request.

    Only what has called Flask counts: an ``async`` view has code of asgiref's in its
    own calls.
    """
    is_below = False
    for module, function in callers():
        if is_below and is_in(module, (*ASGI_ADAPTERS, *COLLECTORS)):
            return module.partition(".")[0]
        is_below = is_below or (module == "flask.app" and function == "__call__")
    return ""


def warn_of_reader() -> None:
    """Log, once, if the code that iterates a response is an adapter or a server under
    which event streams fail. Must be called within the iterable's ``__next__``."""
    name = reader()
    if is_in(name, ASGI_ADAPTERS):
        warn_once(ASGI_ADAPTER, name)
    elif is_in(name, COLLECTORS):
        warn_once(COLLECTED_BY_SERVER, name)


def warn_once(message: Message, *words: object) -> None:
    """Log a warning of these words once in the life of the process."""
    said = (os.getpid(), message.code, words)
    if said not in _said:
        _said.add(said)
        message.log(*words)

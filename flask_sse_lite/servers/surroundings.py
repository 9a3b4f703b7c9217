"""What stands around an application, as far as a request and its thread tell.

Here lives what is concluded from a flag or a name, and how sure that is: how many
worker processes there are, which web server keeps a header to itself, who never lets a
stream's events through, and who never tells that a client has left. Servers whose
connections can be taken over have modules of their own.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from . import gunicorn
from .below import is_in, reader

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Adapters that serve a WSGI application from an ASGI server.
ASGI_ADAPTERS = (
    *("a2wsgi", "asgiref", "hypercorn", "starlette", "uvicorn"),
    *("fastapi", "wsgi2asgi"),
)

#: What collects a whole response before it sends any of it.
COLLECTORS = ("apig_wsgi", "awsgi", "awsgi2", "serverless_wsgi", "tornado", "zappa")

logger = logging.getLogger("flask_sse_lite")

# What was said, with the process that said it. A forked child is one of its own.
_said: set[tuple[int, str]] = set()


def worker_processes(environ: WSGIEnvironment) -> int | None:
    """How many processes serve the application: as many as its server was told to
    start. None where the server alone knows, and says that there may be several.

    ``wsgi.multiprocess`` is no count: adapters of ASGI and bjoern always set it.
    """
    if count := gunicorn.worker_processes() or _uwsgi_processes():
        return count
    return None if environ.get("wsgi.multiprocess") else 1


def _uwsgi_processes() -> int:
    """0 where this is no uWSGI."""
    count: Any = getattr(sys.modules.get("uwsgi"), "numproc", 0)
    return count if isinstance(count, int) else 0


def keeps_location(environ: WSGIEnvironment) -> bool:
    """Whether the web server takes the ``Location`` of a 200 for an order to itself.

    Apache does, as CGI has it (RFC 3875, section 6.2.2): under mod_wsgi's daemon mode,
    CGI, FastCGI and SCGI it serves a path as a request of its own, and makes a redirect
    of an absolute address.
    """
    is_gateway = "GATEWAY_INTERFACE" in environ and "uwsgi.version" not in environ
    return is_gateway and environ.get("SERVER_SOFTWARE", "").startswith("Apache")


def warn_of_reader() -> None:
    """Tell the operator, once, what whoever asks for a response's items makes of event
    streams. To be called from within the iterable's ``__next__``."""
    name = reader()
    if is_in(name, ASGI_ADAPTERS):
        warn_once(
            f"An adapter of ASGI ({name}) serves event streams. Such an adapter never "
            "tells an application that a client has left: each stream holds one of the "
            "adapter's threads until it ends by itself, and when all are held, nothing "
            "is answered any more. Serve the application by a WSGI server (gunicorn), "
            'or set app.config["SSE_MAX_AGE"], after which streams end and browsers '
            "come back, and give the adapter more threads than there are streams."
        )
    elif is_in(name, COLLECTORS):
        warn_once(
            f"Event streams do not reach their clients: the server ({name}) collects a "
            "whole response before it sends any of it, and a stream has no end. Serve "
            "the application by a WSGI server that sends what it gets (gunicorn)."
        )


def warn_once(message: str) -> None:
    """Say something once in the life of the process."""
    said = (os.getpid(), message)
    if said not in _said:
        _said.add(said)
        logger.warning(message)

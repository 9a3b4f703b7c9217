"""The WSGI servers whose connections can be taken over, a module each.

To add one: a module with a class of ``Server``, and the class in ``SERVERS``. What is
done with a connection lives in handoff.py.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..system.poller import IS_SUPPORTED
from . import gunicorn, uwsgi
from .below import find_below
from .cheroot import Cheroot
from .gunicorn import Gunicorn
from .iterating import Waitress, Wsgiref
from .pywsgi import GeventPywsgi
from .server import Refusal, Server, name_of
from .uwsgi import UWSGI
from .werkzeug import Werkzeug

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

SERVERS: tuple[type[Server], ...] = (
    *(Gunicorn, GeventPywsgi, Cheroot, Werkzeug, UWSGI),
    *(Waitress, Wsgiref),
)

#: Where servers put a connection's socket.
SOCKETS = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")

logger = logging.getLogger("flask_sse_lite")

# The processes whose operator was warned. A forked child is one of its own.
_warned: set[int] = set()


def find_server(environ: WSGIEnvironment, write: Callable[..., Any]) -> Server:
    """The server that a response was started on, whether its connection can be taken
    over or not.

    :raises Refusal: when it is none that is known here.
    """
    _warn_of_hazards()
    for server in SERVERS:
        if server.is_behind(write):
            return server(environ, write)
    if below := find_below(environ, SERVERS, hidden_by=name_of(write)):
        return below
    raise Refusal(
        f"not a server whose sockets can be had: {name_of(write)}", "unsupported-server"
    )


def check_request(environ: WSGIEnvironment) -> None:
    """Make sure that the connection of a request could be taken over.

    :raises Refusal: when it is one of HTTP/2, or the system cannot do it.
    """
    if not IS_SUPPORTED:
        raise Refusal("this system has no epoll", "unsupported-system")
    if not environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1."):
        raise Refusal("the request is not of HTTP/1.x", "http-version")


def known_socket(environ: WSGIEnvironment, server: Server | None) -> Any:
    """The socket of a request's connection, or its descriptor, to be looked at and
    tuned; None where the server does not show it. Whether the connection can be taken
    over is another question: TLS and HTTP/2 have such a socket too.

    :param server: what ``find_server`` found, if it did.
    """
    if server is not None and server.lends_sockets:
        return server.socket()
    for key in SOCKETS:
        if key in environ:
            return environ[key]
    if "uwsgi" in sys.modules:
        return uwsgi.connection()
    # gevent.pywsgi and cheroot read requests from a file of the connection's.
    file = getattr(environ.get("wsgi.input"), "rfile", None)
    file = getattr(file, "rfile", file)
    return getattr(getattr(file, "raw", None), "_sock", None)


def _warn_of_hazards() -> None:
    """Tell the operator, at the first stream of a process, by which options the server
    will end workers that are full of streams."""
    pid = os.getpid()
    if pid not in _warned:
        _warned.add(pid)
        for hazard in (*gunicorn.hazards(), *uwsgi.hazards()):
            logger.warning(hazard)

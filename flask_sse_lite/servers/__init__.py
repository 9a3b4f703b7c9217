"""The WSGI servers that are known, a module each.

To add a server, write a module with a subclass of ``Server``, and add that class to
``SERVERS``. How a connection is taken over never stands here: see ``hub/handoff.py``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..log_messages import SERVER_OPTION
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

#: The keys under which servers put a connection's socket into the environ.
SOCKETS = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")

# The ids of the processes that have logged the warnings. A forked child logs its own.
_warned: set[int] = set()


def find_server(environ: WSGIEnvironment, write: Callable[..., Any]) -> Server:
    """The server that a response was started on. Its connection cannot always be taken
    over.

    :raises Refusal: when the server is not one of ``SERVERS``.
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
    """Make sure that nothing in a request rules out taking its connection over.

    :raises Refusal: when the request is not HTTP/1.x, or the system has no epoll.
    """
    if not IS_SUPPORTED:
        raise Refusal("this system has no epoll", "unsupported-system")
    if not environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1."):
        raise Refusal("the request is not of HTTP/1.x", "http-version")


def known_socket(environ: WSGIEnvironment, server: Server | None) -> Any:
    """The socket of a request's connection, or its descriptor. None where the server
    does not show it. Callers can look at the socket and set its options, but must not
    conclude that the connection can be taken over: TLS and HTTP/2 have a socket too.

    :param server: the server that ``find_server`` found, if any.
    """
    if server is not None and server.lends_sockets:
        return server.socket()
    for key in SOCKETS:
        if key in environ:
            return environ[key]
    if "uwsgi" in sys.modules:
        return uwsgi.connection()
    # gevent.pywsgi and cheroot read requests from a file object over the socket.
    file = getattr(environ.get("wsgi.input"), "rfile", None)
    file = getattr(file, "rfile", file)
    return getattr(getattr(file, "raw", None), "_sock", None)


def _warn_of_hazards() -> None:
    """Log, at the first stream of a process, each option by which the server will end
    workers that are full of streams."""
    pid = os.getpid()
    if pid not in _warned:
        _warned.add(pid)
        for hazard in (*gunicorn.hazards(), *uwsgi.hazards()):
            SERVER_OPTION.log(hazard)

"""The handoff: taking a connection over from its WSGI server, so that the server's
worker, thread or greenlet is free.

Here lives what is known of each server, one class each: whose ``write`` came from
``start_response``, where its socket is, and what the head that it sent promised. To
add a server, write its class and put it into ``SERVERS``. What happens to a connection
afterwards is the hub's affair.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from .descriptors import first_descriptor
from .poller import (
    IS_SUPPORTED,
    close_descriptor,
    forget_in_gevent,
    plain_sockets,
)

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Why a server's count of what it sent may differ from ours.
CHANGED = "a middleware reads ahead, or changes the body"


class Refusal(Exception):
    """Why a stream stays with the server, in a few words.

    ``is_remediable`` tells whether an operator could do something about it.
    """

    def __init__(self, reason: str, *, is_remediable: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_remediable = is_remediable


class Server:
    """One WSGI server, as an application's response meets it.

    :param environ: the request's.
    :param write: what ``start_response`` returned.
    """

    name: ClassVar[str]
    #: Where the class of the object behind ``write`` is defined, and its name.
    owner: ClassVar[tuple[str, str]]

    def __init__(self, environ: WSGIEnvironment, write: Callable[..., Any]) -> None:
        self.environ = environ
        self.write = write
        self.behind: Any = getattr(write, "__self__", None)

    @classmethod
    def is_behind(cls, write: Callable[..., Any]) -> bool:
        """Whether this ``write`` is of such a server."""
        behind = type(getattr(write, "__self__", None))
        return any((c.__module__, c.__name__) == cls.owner for c in behind.__mro__)

    def close_after(self) -> None:
        """Have the head say that the connection closes after this response, where
        the server can be told so."""

    def check(self, sent: int) -> None:
        """Make sure that the head is sent, and of the body just what we gave.

        :param sent: bytes of the body that we gave.
        :raises Refusal: when it is otherwise, or cannot be known.
        """
        raise NotImplementedError

    def headers(self) -> Iterable[tuple[Any, Any]]:
        """The head's fields as they were sent."""
        return ()

    def socket(self) -> Any:
        """The connection's socket, or its descriptor."""
        raise NotImplementedError

    def is_chunked(self) -> bool:
        """Whether the body goes in chunks, as the head that was sent says."""
        raise NotImplementedError


class Gunicorn(Server):
    """gunicorn's own workers: sync, gthread, gevent."""

    name = "gunicorn"
    owner = ("gunicorn.http.wsgi", "Response")

    def close_after(self) -> None:
        self.behind.force_close()

    def check(self, sent: int) -> None:
        if not self.behind.headers_sent or self.behind.sent != sent:
            raise Refusal(CHANGED)

    def headers(self) -> Iterable[tuple[Any, Any]]:
        return list(self.behind.headers)

    def socket(self) -> Any:
        return self.behind.sock

    def is_chunked(self) -> bool:
        return bool(self.behind.chunked)


class GeventPywsgi(Server):
    """gevent.pywsgi, by itself or as gunicorn's worker gevent_pywsgi."""

    name = "gevent.pywsgi"
    owner = ("gevent.pywsgi", "WSGIHandler")

    def close_after(self) -> None:
        self.behind.close_connection = True

    def check(self, sent: int) -> None:
        if not self.behind.headers_sent:
            raise Refusal(CHANGED)
        # It counts the head and the framing too.
        status_line = len(b"HTTP/1.1 \r\n") + len(self.behind.status)
        fields = sum(len(name) + len(value) + 4 for name, value in self.headers())
        framing = len(b"%x\r\n\r\n" % sent) if self.is_chunked() else 0
        if self.behind.response_length != status_line + fields + 2 + framing + sent:
            raise Refusal(CHANGED)

    def headers(self) -> Iterable[tuple[Any, Any]]:
        return list(self.behind.response_headers)

    def socket(self) -> Any:
        return self.behind.socket

    def is_chunked(self) -> bool:
        return bool(self.behind.response_use_chunked)


class Cheroot(Server):
    """cheroot, CherryPy's server."""

    name = "cheroot"
    owner = ("cheroot.wsgi", "Gateway")

    def check(self, sent: int) -> None:
        if not self.behind.req.sent_headers:
            raise Refusal(CHANGED)

    def headers(self) -> Iterable[tuple[Any, Any]]:
        return list(self.behind.req.outheaders)

    def socket(self) -> Any:
        return self.behind.req.conn.socket

    def is_chunked(self) -> bool:
        return bool(self.behind.req.chunked_write)


class Werkzeug(Server):
    """werkzeug's development server, which keeps what it knows in the closure of its
    ``write``."""

    name = "werkzeug"

    @classmethod
    def is_behind(cls, write: Callable[..., Any]) -> bool:
        return (
            getattr(write, "__module__", "") == "werkzeug.serving"
            and "chunk_response" in write.__code__.co_freevars
        )

    def check(self, sent: int) -> None:
        if self._known("status_sent") is None:
            raise Refusal(CHANGED)
        if self.environ.get("wsgi.multiprocess"):
            raise Refusal("werkzeug forks a process for each request")

    def headers(self) -> Iterable[tuple[Any, Any]]:
        return list(self._known("headers_sent"))

    def socket(self) -> Any:
        return self.environ.get("werkzeug.socket")

    def is_chunked(self) -> bool:
        return bool(self._known("chunk_response"))

    def _known(self, name: str) -> Any:
        write: Any = self.write
        index = write.__code__.co_freevars.index(name)
        return write.__closure__[index].cell_contents


class UWSGI(Server):
    """uWSGI, whose workers have Python inside: it writes through functions of its own,
    and what goes to the socket is the plain body."""

    name = "uWSGI"

    @classmethod
    def is_behind(cls, write: Callable[..., Any]) -> bool:
        return "uwsgi" in sys.modules and _name(write) == "uwsgi_write"

    def check(self, sent: int) -> None:
        uwsgi = sys.modules["uwsgi"]
        if not getattr(uwsgi, "has_threads", False):
            # Without them the interpreter stands still between two requests.
            raise Refusal("uWSGI runs without --enable-threads", is_remediable=True)
        if any(option.startswith("https-socket") for option in uwsgi.opt):
            raise Refusal("the server itself ends TLS")

    def socket(self) -> Any:
        return sys.modules["uwsgi"].connection_fd()

    def is_chunked(self) -> bool:
        return False


class TrustedGunicorn(Server):
    """gunicorn behind something that hides its ``write``, when the operator vouches
    that nothing on the way changes the body (``SSE_HANDOFF = True``)."""

    name = "gunicorn, trusted"

    @classmethod
    def is_meant(cls, environ: WSGIEnvironment) -> bool:
        return "gunicorn.socket" in environ

    def check(self, sent: int) -> None:
        """It is trusted."""

    def socket(self) -> Any:
        return self.environ["gunicorn.socket"]

    def is_chunked(self) -> bool:
        return bool(self.environ["SERVER_PROTOCOL"] == "HTTP/1.1")


SERVERS: tuple[type[Server], ...] = (Gunicorn, GeventPywsgi, Cheroot, Werkzeug, UWSGI)


def find_server(
    environ: WSGIEnvironment, write: Callable[..., Any], *, trusted: bool
) -> Server:
    """The server that a response was started on.

    :param trusted: whether to go by the environ where ``write`` says nothing.
    :raises Refusal: when it is none that is known here, or one of HTTP/2.
    """
    if not IS_SUPPORTED:
        raise Refusal("this system has no epoll")
    if not environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1."):
        raise Refusal("the request is not of HTTP/1.x")
    for server in SERVERS:
        if server.is_behind(write):
            return server(environ, write)
    if trusted and TrustedGunicorn.is_meant(environ):
        return TrustedGunicorn(environ, write)
    hidden = {"gunicorn.socket", "gunicorn.sock", "werkzeug.socket"} & environ.keys()
    if hidden:
        raise Refusal(
            "a middleware hides the server's write() (SSE_HANDOFF = True if nothing "
            f"changes the body): {_name(write)}",
            is_remediable=True,
        )
    raise Refusal(f"not a server whose sockets can be had: {_name(write)}")


def take_connection(server: Server, sent: int) -> tuple[int, bool]:
    """Take the connection from its server, which from then on holds a dead one: it will
    find its client gone, and be done with it. To be called in the thread that serves
    the response, when the server has sent what it was given and asks for more.

    :param sent: bytes of the body that it was given.
    :returns: the connection's descriptor, now ours, and whether its body is chunked.
    :raises Refusal: when it stays with the server.
    """
    server.check(sent)
    for name, _ in server.headers():
        if name.lower() in ("content-encoding", b"content-encoding"):
            raise Refusal("the body has a Content-Encoding", is_remediable=True)
    theirs = _plain_descriptor(server.socket())
    try:
        ours = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, first_descriptor())
    except OSError as error:
        raise Refusal(f"no file descriptor left: {error}", is_remediable=True) from None
    try:
        forget_in_gevent(theirs)
        os.dup2(_dead_end(), theirs, inheritable=False)
    except OSError as error:
        close_descriptor(ours)
        raise Refusal(f"no file descriptor left: {error}", is_remediable=True) from None
    os.set_blocking(ours, False)
    return ours, server.is_chunked()


def _plain_descriptor(sock: Any) -> int:
    """The descriptor of a socket that has nothing between it and the wire.

    :raises Refusal: for all others. TLS has more shapes than one can list, so what is
        allowed is listed.
    """
    if isinstance(sock, int) and sock >= 0:
        return sock
    if type(sock) not in plain_sockets():
        raise Refusal(f"the connection is no plain socket: {type(sock).__name__}")
    descriptor: int = sock.fileno()
    if descriptor < 0:
        raise Refusal("the connection is closed")
    return descriptor


# A process needs one: an end of a pair whose other end is closed, for servers to
# write into in vain. Forked children may share it.
_dead_ends: list[int] = []


def _dead_end() -> int:
    if not _dead_ends:
        one, other = socket.socketpair()
        other.close()
        _dead_ends.append(one.detach())
    return _dead_ends[0]


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))

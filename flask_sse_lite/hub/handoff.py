"""The handoff: taking a connection over from its WSGI server, so that the server's
worker, thread or greenlet is free.

Here lives how that is done without the server's noticing. What differs between servers
lives in servers/. What happens to a connection afterwards is unknown here.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from types import GeneratorType
from typing import Any

from ..servers.below import is_in, reader
from ..servers.server import NothingSent, Refusal, Server
from ..system.open_files import first_descriptor
from ..system.poller import close_descriptor, forget_in_gevent, is_plain

if sys.platform != "win32":
    import fcntl


#: Packages that iterate a body, and are known not to change it.
TRANSPARENT = ("ddtrace", "opentelemetry", "sentry_sdk", "werkzeug")

_OURS = __name__.partition(".")[0]


def check_readers(server: Server) -> None:
    """Check that the server itself iterates the body, or does so through code that is
    known to pass on everything. Other code can change what comes later, even if it has
    changed nothing so far. Call this from within the iterable's ``__next__``.

    :raises Refusal: with the name of the code that iterates the body.
    """
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if is_in(module, server.home):
            _check_body(server.body(frame))
            return
        if not is_in(module, (_OURS, *TRANSPARENT)):
            raise _suspicion(f"{module}.{frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    # No server was found. Under uWSGI that is so: its threads have no Python code below
    # the application.


def _check_body(body: object) -> None:
    """Check that nothing stands between the server and our body that has no Python
    frame, as ``map`` has none.

    :param body: what the server iterates; None where that is not known.
    """
    if body is None or isinstance(body, GeneratorType):
        return
    if not is_in(type(body).__module__, (_OURS, *TRANSPARENT)):
        raise _suspicion(f"{type(body).__module__}.{type(body).__qualname__}")


def _suspicion(name: str) -> Refusal:
    return Refusal(
        "a middleware iterates the body, and can change it (SSE_HANDOFF = True if it "
        f"does not): {name}",
        "middleware-iterates",
        is_remediable=True,
    )


def take_connection(server: Server, sent: int, *, trusted: bool) -> tuple[int, bool]:
    """Take the connection from its server. From then on, the server holds a dead one:
    it finds that the client is gone, and ends the request. Call this in the thread that
    serves the response, when the server has sent what it was given and asks for more.

    :param sent: bytes of the body that the server was given.
    :param trusted: whether the application vouches that nothing changes the body.
    :returns: the connection's descriptor, now ours, and whether its body is chunked.
    :raises Refusal: where the connection stays with the server.
    """
    try:
        server.check(sent)
    except NothingSent:
        raise NothingSent(reader()) from None
    if server.hidden_by and not trusted:
        raise Refusal(
            "a middleware hides the server's write() (SSE_HANDOFF = True if nothing "
            f"changes the body): {server.hidden_by}",
            "middleware-hides",
            is_remediable=True,
        )
    if not (trusted and server.is_sure):
        check_readers(server)
    sock = server.socket()
    theirs = _plain_descriptor(sock)
    if not isinstance(sock, int):
        with suppress(OSError):  # A Unix socket has no such option.
            # Without it, an event would wait until the one before is acknowledged.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        ours = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, first_descriptor())
    except OSError as error:
        raise _shortage(error) from None
    try:
        forget_in_gevent(theirs)
        os.dup2(_dead_end(), theirs, inheritable=False)
    except OSError as error:
        close_descriptor(ours)
        raise _shortage(error) from None
    os.set_blocking(ours, False)
    return ours, server.is_chunked()


def _shortage(error: OSError) -> Refusal:
    return Refusal(
        f"no file descriptor left: {error}", "no-descriptors", is_remediable=True
    )


def _plain_descriptor(sock: Any) -> int:
    """The descriptor of a socket that has nothing between it and the wire.

    :raises Refusal: for all others. TLS has more kinds of sockets than one can list, so
        we list those that are allowed.
    """
    if isinstance(sock, int) and sock >= 0:
        return sock
    if not is_plain(sock):
        raise Refusal(
            f"the connection is no plain socket: {type(sock).__name__}", "tls"
        )
    descriptor: int = sock.fileno()
    if descriptor < 0:
        raise Refusal("the connection is closed", "connection-closed")
    return descriptor


# The dead connection that servers get: one end of a pair whose other end is closed. A
# process needs one, and forked children can share it.
_dead_ends: list[int] = []


def _dead_end() -> int:
    if not _dead_ends:
        one, other = socket.socketpair()
        other.close()
        _dead_ends.append(one.detach())
    return _dead_ends[0]

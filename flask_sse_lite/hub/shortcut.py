"""The shortcut: sends an iterable's pieces to their client, past the WSGI server that
keeps the connection.

For each token of an answer, the server's own way costs more than the token itself.
outlet.py decides whether the shortcut is used.
"""

from __future__ import annotations

from collections.abc import Callable

from ..servers.server import Refusal, Server
from ..system.poller import is_plain
from .connection import framed
from .handoff import check_readers


def shortcut(server: Server) -> Callable[[bytes], None]:
    """Make a function that sends more of a response's body. Call this from within the
    iterable's ``__next__``, after ``server.check``.

    :returns: the function, for the same thread. It waits for a client that does not
        read, as the server would, and raises OSError where the client is gone.
    :raises Refusal: where the pieces must go through the server.
    """
    check_readers(server)
    sock = server.socket()
    if not is_plain(sock):
        raise Refusal("the connection is no plain socket", "tls")
    is_chunked = server.is_chunked()

    def send(piece: bytes) -> None:
        frame = framed(piece, chunked=is_chunked)
        sent = sock.send(frame)
        if sent < len(frame):
            sock.sendall(frame[sent:])
        server.note_sent(len(piece), len(frame))

    return send

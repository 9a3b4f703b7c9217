"""The shortcut: an iterable's pieces on the way to their client, past the WSGI server
that keeps the connection.

Here lives how a piece is sent there. A server's own way costs more than the piece
itself, for each token of an answer. Who sends when, the pulse decides.
"""

from __future__ import annotations

from collections.abc import Callable

from ..servers.server import Refusal, Server
from ..system.poller import is_plain
from .connection import framed
from .handoff import check_readers


def shortcut(server: Server) -> Callable[[bytes], None]:
    """A way to send more of a response's body. To be called from within the iterable's
    ``__next__``, behind ``server.check``; and what is returned, by the same thread,
    which waits there for a client that does not read, as it would in the server. It
    raises OSError when the client is gone.

    :raises Refusal: where the pieces are to go through the server.
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

"""cheroot, CherryPy's server.

Here lives what is known of this server alone. How a connection is taken over lives in
hub/handoff.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .server import CHANGED, NothingSent, Refusal, Server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class Cheroot(Server):
    """A response of cheroot's."""

    name = "cheroot"
    owner = ("cheroot.wsgi", "Gateway")
    home = ("cheroot.wsgi",)
    iterated = "response"

    def __init__(self, environ: WSGIEnvironment, write: Callable[..., Any]) -> None:
        super().__init__(environ, write)
        # Earlier responses on the same connection have sent these bytes.
        self._written = self._count()

    def _count(self) -> int:
        """Bytes sent on this connection so far; 0 under TLS, where cheroot counts
        none."""
        count: int = getattr(self.behind.req.conn.wfile, "bytes_written", 0)
        return count

    def program(self) -> object | None:
        return getattr(self.behind.req, "server", None)

    @classmethod
    def has_stopped(cls, program: Any) -> bool:
        return not program.ready

    @classmethod
    def grace(cls, program: Any) -> float:
        return float(program.shutdown_timeout)

    def close_after(self) -> None:
        self.behind.req.close_connection = True

    def check_sent(self, sent: int) -> None:
        request = self.behind.req
        if not request.sent_headers:
            raise NothingSent
        status_line = len(request.server.protocol) + len(request.status) + 3
        fields = sum(len(name) + len(value) + 4 for name, value in self.headers())
        framing = len(b"%x\r\n\r\n" % sent) if self.is_chunked() else 0
        if self._count() - self._written != status_line + fields + 2 + framing + sent:
            raise Refusal(CHANGED, "body-changed")

    def headers(self) -> Iterable[tuple[Any, Any]]:
        return list(self.behind.req.outheaders)

    def socket(self) -> Any:
        return self.behind.req.conn.socket

    def is_chunked(self) -> bool:
        return bool(self.behind.req.chunked_write)

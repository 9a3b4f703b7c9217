"""cheroot, CherryPy's server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .server import CHANGED, Refusal, Server


class Cheroot(Server):
    """A response of cheroot's."""

    name = "cheroot"
    owner = ("cheroot.wsgi", "Gateway")

    def close_after(self) -> None:
        self.behind.req.close_connection = True

    def check_sent(self, sent: int) -> None:
        if not self.behind.req.sent_headers:
            raise Refusal(CHANGED)

    def headers(self) -> Iterable[tuple[Any, Any]]:
        return list(self.behind.req.outheaders)

    def socket(self) -> Any:
        return self.behind.req.conn.socket

    def is_chunked(self) -> bool:
        return bool(self.behind.req.chunked_write)

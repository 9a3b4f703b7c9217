"""gevent.pywsgi, by itself or as gunicorn's worker gevent_pywsgi.

Here lives what is known of this server alone. How a connection is taken over lives in
hub/handoff.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import FrameType
from typing import Any

from .server import CHANGED, NothingSent, Refusal, Server


class GeventPywsgi(Server):
    """A response of gevent.pywsgi's."""

    name = "gevent.pywsgi"
    owner = ("gevent.pywsgi", "WSGIHandler")
    home = ("gevent.pywsgi",)

    def body(self, frame: FrameType) -> object:
        return getattr(self.behind, "result", None)

    def program(self) -> object | None:
        return getattr(self.behind, "server", None)

    @classmethod
    def has_stopped(cls, program: Any) -> bool:
        return bool(program.closed)

    @classmethod
    def grace(cls, program: Any) -> float:
        return float(program.stop_timeout)

    def close_after(self) -> None:
        if self.hidden_by:
            return  # Where a middleware hides the server, the head can be still unset.
        self.behind.close_connection = True
        # gevent has settled its own Connection field already, and not sent it yet.
        self.behind.response_headers = [
            field for field in self.headers() if field[0].lower() != b"connection"
        ]
        self.behind.response_headers.append((b"Connection", b"close"))

    def check_sent(self, sent: int) -> None:
        if not self.behind.headers_sent:
            raise NothingSent
        # gevent's response_length counts the head and the framing too.
        status_line = len(b"HTTP/1.1 \r\n") + len(self.behind.status)
        fields = sum(len(name) + len(value) + 4 for name, value in self.headers())
        framing = len(b"%x\r\n\r\n" % sent) if self.is_chunked() else 0
        if self.behind.response_length != status_line + fields + 2 + framing + sent:
            raise Refusal(CHANGED, "body-changed")

    def note_sent(self, size: int, framed: int) -> None:
        self.behind.response_length += framed

    def headers(self) -> Iterable[tuple[Any, Any]]:
        # None until a middleware that hides start_response has called it.
        return list(self.behind.response_headers or ())

    def socket(self) -> Any:
        return self.behind.socket

    def is_chunked(self) -> bool:
        return bool(self.behind.response_use_chunked)

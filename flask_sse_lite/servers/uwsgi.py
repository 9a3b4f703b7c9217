"""uWSGI, over HTTP by itself, behind its router, or behind nginx."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..system.outgoing import bytes_acknowledged, bytes_waiting
from .server import ENOUGH_REQUESTS, NothingSent, Refusal, Server, too_few_requests

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


#: Options for sockets at which uWSGI's workers do TLS themselves.
_TLS_SOCKETS = ("https-socket", "ssl-socket", "suwsgi-socket")


class UWSGI(Server):
    """uWSGI, whose workers have Python inside: it writes through functions of its own,
    and what goes to the socket is the plain body."""

    name = "uWSGI"
    home = ("__main__",)

    @classmethod
    def is_behind(cls, write: Callable[..., Any]) -> bool:
        name = getattr(write, "__name__", "")
        return "uwsgi" in sys.modules and name == "uwsgi_write"

    def __init__(self, environ: WSGIEnvironment, write: Callable[..., Any]) -> None:
        super().__init__(environ, write)
        # It answers none but the thread that serves the request.
        self._descriptor = connection()
        self._acknowledged = bytes_acknowledged(self._descriptor)

    @property
    def is_sure(self) -> bool:
        """Whether it can be known that the head is out: uWSGI itself does not tell."""
        return self._acknowledged is not None

    def check_sent(self, sent: int) -> None:
        if self._acknowledged is not None and not self._has_sent():
            raise NothingSent
        uwsgi = sys.modules["uwsgi"]
        if not getattr(uwsgi, "has_threads", False):
            # Without them the interpreter stands still between two requests.
            raise Refusal(
                "uWSGI runs without --enable-threads", "no-threads", is_remediable=True
            )
        if not uwsgi.opt.keys().isdisjoint(_TLS_SOCKETS):
            raise Refusal("the server itself ends TLS", "tls")

    def _has_sent(self) -> bool:
        """Whether anything was sent since the response was started. (What waits is
        asked for first: in between it may be acknowledged, but not the other way.)"""
        if bytes_waiting(self._descriptor):
            return True
        return bytes_acknowledged(self._descriptor) != self._acknowledged

    def socket(self) -> Any:
        return self._descriptor

    def send(self, data: bytes) -> None:
        os.write(self._descriptor, data)

    def is_chunked(self) -> bool:
        return False


def connection() -> int:
    """The descriptor of the connection that the calling thread serves."""
    descriptor: int = sys.modules["uwsgi"].connection_fd()
    return descriptor


def hazards() -> Iterator[str]:
    """What its options do to streams, for its operator."""
    for option in ("cheaper", "idle"):
        if value := _option(option):
            yield (
                f"uWSGI runs with --{option} {value}. A worker that is full of event "
                "streams, and gets no requests meanwhile, looks idle to it, and it "
                "ends them all. Leave that option out."
            )
    limit = _option("max-requests")
    if limit.isdecimal() and 0 < int(limit) < ENOUGH_REQUESTS:
        yield too_few_requests("uWSGI's --max-requests", int(limit))


def _option(name: str) -> str:
    """An option's value; nothing where it is not given, or this is no uWSGI."""
    value: Any = getattr(sys.modules.get("uwsgi"), "opt", {}).get(name, b"")
    if isinstance(value, list):
        value = value[-1]  # It was given more than once.
    return value.decode() if isinstance(value, bytes) else str(value)

"""uWSGI, which speaks HTTP itself, or stands behind its router or nginx.

Here lives what is known of this server alone. How a connection is taken over lives in
hub/handoff.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..system.outgoing import bytes_acknowledged, bytes_waiting
from .server import ENOUGH_REQUESTS, NothingSent, Refusal, Server, too_few_requests

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


#: Options that open a socket at which uWSGI's workers do TLS themselves.
_TLS_SOCKETS = ("https-socket", "ssl-socket", "suwsgi-socket")


class UWSGI(Server):
    """A response of uWSGI's. uWSGI embeds Python and writes through its own C
    functions. It sends the body to the socket as it is, without framing."""

    name = "uWSGI"
    home = ("__main__",)

    @classmethod
    def is_behind(cls, write: Callable[..., Any]) -> bool:
        name = getattr(write, "__name__", "")
        return "uwsgi" in sys.modules and name == "uwsgi_write"

    def __init__(self, environ: WSGIEnvironment, write: Callable[..., Any]) -> None:
        super().__init__(environ, write)
        # uWSGI answers only the thread that serves the request, so ask now.
        self._descriptor = connection()
        self._acknowledged = bytes_acknowledged(self._descriptor)

    @property
    def is_sure(self) -> bool:
        """Whether the system tells that the head is sent. uWSGI itself does not."""
        return self._acknowledged is not None

    def check_sent(self, sent: int) -> None:
        if self._acknowledged is not None and not self._has_sent():
            raise NothingSent
        uwsgi = sys.modules["uwsgi"]
        if not getattr(uwsgi, "has_threads", False):
            # Without threads, the interpreter stands still between two requests.
            raise Refusal(
                "uWSGI runs without --enable-threads", "no-threads", is_remediable=True
            )
        if not uwsgi.opt.keys().isdisjoint(_TLS_SOCKETS):
            raise Refusal("the server itself ends TLS", "tls")

    def _has_sent(self) -> bool:
        """Whether anything was sent since the response was started. (The waiting bytes
        are asked for first: between the two questions, waiting bytes can become
        acknowledged ones, but not the reverse.)"""
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
    """Warnings for the operator: uWSGI's options that harm streams."""
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
    """An option's value; empty where it is not given, or the server is not uWSGI."""
    value: Any = getattr(sys.modules.get("uwsgi"), "opt", {}).get(name, b"")
    if isinstance(value, list):
        value = value[-1]  # The option was given more than once.
    return value.decode() if isinstance(value, bytes) else str(value)

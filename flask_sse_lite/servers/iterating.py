"""Servers that keep their sockets: waitress, and the standard library's wsgiref.

These servers iterate every stream themselves. Here lives what is known of them: whether
a response's head is sent, and whether the server was stopped. No connection is ever
taken over from them.
"""

from __future__ import annotations

from typing import Any

from .server import NothingSent, Refusal, Server, name_of


class Waitress(Server):
    """A response of waitress's."""

    name = "waitress"
    owner = ("waitress.task", "WSGITask")
    home = ("waitress",)
    lends_sockets = False

    def program(self) -> object | None:
        return getattr(self.behind.channel, "server", None)

    @classmethod
    def has_stopped(cls, program: Any) -> bool:
        return bool(program.socket.fileno() < 0)

    def check_sent(self, sent: int) -> None:
        if not self.behind.wrote_header:
            raise NothingSent
        raise Refusal(
            f"not a server whose sockets can be had: {name_of(self.write)}",
            "unsupported-server",
        )


class Wsgiref(Server):
    """A response of wsgiref.simple_server's."""

    name = "wsgiref"
    owner = ("wsgiref.simple_server", "ServerHandler")
    home = ("wsgiref",)
    lends_sockets = False

    def program(self) -> object | None:
        request_handler = getattr(self.behind, "request_handler", None)
        return getattr(request_handler, "server", None)

    @classmethod
    def has_stopped(cls, program: Any) -> bool:
        return has_shut_down(program)

    def check_sent(self, sent: int) -> None:
        if not self.behind.headers_sent:
            raise NothingSent
        raise Refusal(
            f"not a server whose sockets can be had: {name_of(self.write)}",
            "unsupported-server",
        )


def has_shut_down(program: Any) -> bool:
    """Whether a ``socketserver.BaseServer`` was stopped. This is True as soon as
    ``shutdown()`` is called, before it returns: in a server without threads it returns
    only when the stream has ended."""
    is_asked = getattr(program, "_BaseServer__shutdown_request", False)
    is_done = getattr(program, "_BaseServer__is_shut_down", None)
    return bool(
        is_asked or (is_done and is_done.is_set()) or program.socket.fileno() < 0
    )

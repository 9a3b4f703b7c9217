"""werkzeug's development server, which ``flask run`` starts.

Here lives what is known of this server alone. How a connection is taken over lives in
hub/handoff.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from .iterating import has_shut_down
from .server import NothingSent, Refusal, Server


class Werkzeug(Server):
    """A response of werkzeug's. Its state is in the closure of its ``write``."""

    name = "werkzeug"
    home = ("werkzeug.serving",)
    iterated = "application_iter"

    @classmethod
    def is_behind(cls, write: Callable[..., Any]) -> bool:
        return (
            getattr(write, "__module__", "") == "werkzeug.serving"
            and "chunk_response" in write.__code__.co_freevars
        )

    @classmethod
    def write_in(cls, frame: FrameType) -> Callable[..., Any] | None:
        write = frame.f_locals.get("write")
        return write if callable(write) and cls.is_behind(write) else None

    def program(self) -> object | None:
        return getattr(self._known("self"), "server", None)

    @classmethod
    def has_stopped(cls, program: Any) -> bool:
        return has_shut_down(program)

    def check_sent(self, sent: int) -> None:
        if self._known("status_sent") is None:
            raise NothingSent
        if self.environ.get("wsgi.multiprocess"):
            raise Refusal("werkzeug forks a process for each request", "forking-server")

    def headers(self) -> Iterable[tuple[Any, Any]]:
        # None until a middleware that hides start_response has called it.
        return list(self._known("headers_set") or ())

    def socket(self) -> Any:
        return self.environ.get("werkzeug.socket")

    def is_chunked(self) -> bool:
        return bool(self._known("chunk_response"))

    def _known(self, name: str) -> Any:
        write: Any = self.write
        index = write.__code__.co_freevars.index(name)
        return write.__closure__[index].cell_contents

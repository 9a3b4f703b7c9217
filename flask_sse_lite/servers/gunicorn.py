"""gunicorn, with its own workers: sync, gthread, gevent."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..descriptors import descriptors_lacking
from .server import (
    CHANGED,
    ENOUGH_REQUESTS,
    Refusal,
    Server,
    too_few_requests,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


#: What gunicorn's setting is where nobody sets it, in seconds.
DEFAULT_GRACE = 30.0


class Gunicorn(Server):
    """A response of gunicorn's."""

    name = "gunicorn"
    owner = ("gunicorn.http.wsgi", "Response")
    home = ("gunicorn",)
    iterated = "respiter"

    def close_after(self) -> None:
        self.behind.force_close()

    def check_sent(self, sent: int) -> None:
        if not self.behind.headers_sent or self.behind.sent != sent:
            raise Refusal(CHANGED)

    def note_sent(self, size: int, framed: int) -> None:
        self.behind.sent += size

    def headers(self) -> Iterable[tuple[Any, Any]]:
        return list(self.behind.headers)

    def socket(self) -> Any:
        return self.behind.sock

    def is_chunked(self) -> bool:
        return bool(self.behind.chunked)


class TrustedGunicorn(Server):
    """gunicorn behind something that hides its ``write``, when the operator vouches
    that nothing on the way changes the body (``SSE_HANDOFF = True``)."""

    name = "gunicorn, trusted"
    home = ("gunicorn",)

    @classmethod
    def is_meant(cls, environ: WSGIEnvironment) -> bool:
        return "gunicorn.socket" in environ

    def check_sent(self, sent: int) -> None:
        """It is trusted; but it must be known how it frames the body."""
        settings = getattr(current_worker(), "cfg", None)
        if getattr(settings, "protocol", "http") != "http":
            raise Refusal("how gunicorn frames its body over uwsgi, only write() tells")

    def socket(self) -> Any:
        return self.environ["gunicorn.socket"]

    def is_chunked(self) -> bool:
        return bool(self.environ["SERVER_PROTOCOL"] == "HTTP/1.1")


def current_worker() -> object:
    """The worker whose process this is: it owns the handler of its signals. Where there
    is none, something else."""
    return getattr(signal.getsignal(signal.SIGTERM), "__self__", None)


def is_stopping(worker: object) -> bool:
    """Whether a worker has begun to stop: for a signal or ``max_requests``, which turn
    its ``alive`` to False, or as its arbiter is gone, which it finds out in its own
    time."""
    if not getattr(worker, "alive", True):
        return True
    arbiter = getattr(worker, "ppid", None)
    return isinstance(arbiter, int) and arbiter != os.getppid()


def graceful_timeout() -> float:
    """Seconds that a worker which stops leaves to its requests, before it cuts them."""
    settings = getattr(current_worker(), "cfg", None)
    timeout: float = getattr(settings, "graceful_timeout", DEFAULT_GRACE)
    return timeout


def connections() -> int:
    """How many connections the worker itself may hold; 0 under other servers."""
    settings = getattr(current_worker(), "cfg", None)
    if getattr(settings, "worker_class_str", "") == "sync":
        return 1
    return getattr(settings, "worker_connections", 0)


def hazards() -> Iterator[str]:
    """What its options do to streams, for its operator."""
    worker = current_worker()
    limit = getattr(getattr(worker, "cfg", None), "max_requests", 0)
    # Its worker gevent_pywsgi, which has a server within, counts no requests.
    if 0 < limit < ENOUGH_REQUESTS and not getattr(worker, "server_class", None):
        yield too_few_requests("gunicorn's --max-requests", limit)
    if lacking := descriptors_lacking(connections()):
        yield (
            f"gunicorn's --worker-connections is {connections()}, and the limit on "
            "open files leaves too little for them beside the streams: a worker that "
            f"has none left may fail. Raise it by {lacking} or more (ulimit -n, "
            "LimitNOFILE= of systemd), or allow fewer connections"
        )

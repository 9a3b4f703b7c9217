"""gunicorn, with its own workers: sync, gthread, gevent.

Here lives what is known of this server alone. How a connection is taken over lives in
hub/handoff.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from typing import Any

from ..system.open_files import descriptors_lacking
from ..system.pipes import peek
from .server import (
    CHANGED,
    ENOUGH_REQUESTS,
    NothingSent,
    Refusal,
    Server,
    too_few_requests,
)

#: Seconds of gunicorn's ``graceful_timeout`` by default.
DEFAULT_GRACE = 30.0

#: The signals for which a worker has handlers that stop it.
STOP_SIGNALS = frozenset(
    number
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGABRT")
    if (number := getattr(signal, name, None))
)


class Gunicorn(Server):
    """A response of gunicorn's."""

    name = "gunicorn"
    owner = ("gunicorn.http.wsgi", "Response")
    home = ("gunicorn",)
    iterated = "respiter"

    def close_after(self) -> None:
        self.behind.force_close()

    def check_sent(self, sent: int) -> None:
        if not self.behind.headers_sent:
            raise NothingSent
        if self.behind.sent != sent:
            raise Refusal(CHANGED, "body-changed")

    def note_sent(self, size: int, framed: int) -> None:
        self.behind.sent += size

    def headers(self) -> Iterable[tuple[Any, Any]]:
        return list(self.behind.headers)

    def socket(self) -> Any:
        return self.behind.sock

    def is_chunked(self) -> bool:
        return bool(self.behind.chunked)


def current_worker() -> object:
    """The gunicorn worker of this process, found as the owner of SIGTERM's handler.
    Under other servers this is None or another object, so callers must read its
    attributes with a default."""
    return getattr(signal.getsignal(signal.SIGTERM), "__self__", None)


def is_stopping(worker: object) -> bool:
    """Whether a worker has begun to stop, or will. A signal or ``max_requests`` sets
    its ``alive`` to False. A worker whose arbiter is gone stops too, but notices that
    late."""
    if not getattr(worker, "alive", True):
        return True
    arbiter = getattr(worker, "ppid", None)
    if isinstance(arbiter, int) and arbiter != os.getppid():
        return True
    return _was_told_to_stop(worker)


def _was_told_to_stop(worker: object) -> bool:
    """Whether a signal waits that will stop the worker. Only the main thread runs its
    handler, and that thread can be held for long: by a connection that sends nothing
    (gunicorn has SIGTERM restart the system call), by a lock, or by a library that
    computes. Python writes each signal into the worker's pipe at once, so we look
    there."""
    pipe: Any = getattr(worker, "PIPE", None)
    if not pipe or not isinstance(pipe[0], int):
        return False
    return not STOP_SIGNALS.isdisjoint(peek(pipe[0]))


def graceful_timeout() -> float:
    """Seconds that a stopping worker gives its requests before it cuts them."""
    settings = getattr(current_worker(), "cfg", None)
    timeout: float = getattr(settings, "graceful_timeout", DEFAULT_GRACE)
    return timeout


def connections() -> int:
    """How many connections the worker itself can hold; 0 under other servers."""
    settings = getattr(current_worker(), "cfg", None)
    if getattr(settings, "worker_class_str", "") == "sync":
        return 1
    return getattr(settings, "worker_connections", 0)


def worker_processes() -> int:
    """How many workers gunicorn was told to run; 0 under other servers."""
    settings = getattr(current_worker(), "cfg", None)
    count = getattr(settings, "workers", 0)
    return count if isinstance(count, int) else 0


def hazards() -> Iterator[str]:
    """Warnings for the operator: gunicorn's options that harm streams."""
    worker = current_worker()
    limit = getattr(getattr(worker, "cfg", None), "max_requests", 0)
    # gunicorn's worker gevent_pywsgi has a server_class, and counts no requests.
    if 0 < limit < ENOUGH_REQUESTS and not getattr(worker, "server_class", None):
        yield too_few_requests("gunicorn's --max-requests", limit)
    if lacking := descriptors_lacking(connections()):
        yield (
            f"gunicorn's --worker-connections is {connections()}, and the limit on "
            "open files leaves too little for them beside the streams: a worker that "
            f"has none left can fail. Raise it by {lacking} or more (ulimit -n, "
            "LimitNOFILE= of systemd), or allow fewer connections"
        )

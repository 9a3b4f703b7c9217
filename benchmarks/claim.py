"""Shows what a subscriber costs: no thread and no greenlet, on each WSGI server.

    python benchmarks/claim.py                       # or: make claim
    python benchmarks/claim.py --subscribers 5000

Each server gets its subscribers, then an ordinary request beside them, and one event,
which each subscriber must receive. Threads and memory are counted from outside, in
/proc; the application counts its greenlets. The last two lines show that the counting
would notice: there a subscriber of the usual recipe costs a thread or a greenlet.

The applications are servers/ours.py and servers/queue_recipe.py. These figures are
rough; bench.py measures finely.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from contenders import SERVERS, gunicorn
from processes import HERE, BenchmarkError, free_port, raise_descriptor_limit
from report import table
from server import Server, server

CLIENT_SECONDS = 30  # for each wait of a client
LOOK_SECONDS = 0.2  # after a request, for the thread that answered it to end
STREAM = b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
PUBLISH = "/publish?first=7&count=1"
EVENT = b"data: 7 "  # as servers/stamped.py makes it, and nothing else in a stream
SPARE_CONNECTIONS = 100  # beside the subscribers, where a server counts them all
UWSGI = Path(sys.executable).parent / "uwsgi"


@dataclass(frozen=True)
class Case:
    """A server to look at. Without `is_installed` it is left out."""

    name: str
    command: Sequence[str]
    is_installed: bool = True


def flask_run(app: str) -> Sequence[str]:
    app = str(SERVERS / app)
    options = ("--host=127.0.0.1", "--port={port}")
    return (sys.executable, "-m", "flask", "--app", app, "run", *options)


def cheroot(app: str) -> Sequence[str]:
    # cheroot's --chdir comes too late: after the import.
    path = os.pathsep.join([str(SERVERS), str(HERE.parent)])
    start = ("env", f"PYTHONPATH={path}", sys.executable, "-m", "cheroot")
    return (*start, "--bind=127.0.0.1:{port}", app)


def uwsgi(app: str) -> Sequence[str]:
    options = ("--enable-threads", "--threads=4", "--master", "--die-on-term")
    where = ("--http-socket=127.0.0.1:{port}", f"--chdir={SERVERS}")
    return (str(UWSGI), *where, *options, f"--wsgi={app}")


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


GEVENT = "--worker-class=gevent"
CASES = (
    Case("gunicorn sync", gunicorn("ours:app"), has("gunicorn")),
    Case("gunicorn gthread", gunicorn("ours:app", "--threads=4"), has("gunicorn")),
    Case("gunicorn gevent", gunicorn("ours:app", GEVENT), has("gevent")),
    Case("flask run", flask_run("ours")),
    Case("cheroot", cheroot("ours:app"), has("cheroot")),
    Case("uWSGI, 4 threads", uwsgi("ours:app"), UWSGI.exists()),
    Case("recipe: flask run", flask_run("queue_recipe")),
    Case(
        "recipe: gunicorn gevent",
        gunicorn("queue_recipe:app", GEVENT, "--worker-connections={connections}"),
        has("gevent"),
    ),
)


@dataclass(frozen=True)
class Look:
    """What a server has at one moment."""

    threads: int
    greenlets: int
    kilobytes: int

    @classmethod
    def at(cls, running: Server) -> Look:
        _, counted = running.answer("GET", "/greenlets")
        time.sleep(LOOK_SECONDS)
        used = running.usage()
        return cls(used.threads, json.loads(counted)["greenlets"], used.kilobytes)


class Subscriber:
    """A client that reads its stream when it is asked to."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), CLIENT_SECONDS)
        self._socket.sendall(STREAM)
        self._read = b""
        self._read_to(b"\r\n\r\n")
        self._read_to(b"\n\n")

    def get_event(self) -> None:
        """Wait for the event."""
        self._read_to(EVENT)

    def _read_to(self, mark: bytes) -> None:
        while mark not in self._read:
            received = self._socket.recv(4096)
            if not received:
                raise BenchmarkError("a stream ended")
            self._read += received
        self._read = self._read.partition(mark)[2]

    def close(self) -> None:
        self._socket.close()


def show(case: Case, subscribers: int) -> Sequence[str]:
    """Look at a server; return a line of the table."""
    port = free_port()
    filled = {"port": port, "connections": subscribers + SPARE_CONNECTIONS}
    command = [part.format_map(filled) for part in case.command]
    with server([command], port, None) as running, ExitStack() as clients:
        before = Look.at(running)
        audience = [
            clients.enter_context(closing(Subscriber(port))) for _ in range(subscribers)
        ]
        beside = Look.at(running)
        request_ms = milliseconds(lambda: ask(running, "GET", "/plain"))
        event_ms = milliseconds(lambda: publish(running, audience))
    each = (beside.kilobytes - before.kilobytes) / subscribers
    return [
        case.name,
        f"{before.threads} → {beside.threads}",
        f"{before.greenlets} → {beside.greenlets}",
        f"{before.kilobytes / 1024:.1f} → {beside.kilobytes / 1024:.1f}",
        f"{each:.1f}",
        f"{request_ms:.0f}",
        f"{len(audience):,}",
        f"{event_ms:.0f}",
    ]


def milliseconds(action: Callable[[], object]) -> float:
    start = time.monotonic()
    action()
    return (time.monotonic() - start) * 1000


def ask(running: Server, method: str, path: str) -> None:
    if (status := running.request(method, path)) != 200:
        raise BenchmarkError(f"{path} was answered by {status}")


def publish(running: Server, audience: Sequence[Subscriber]) -> None:
    """Publish an event, and return when every subscriber has it."""
    ask(running, "POST", PUBLISH)
    for subscriber in audience:
        subscriber.get_event()


HEADER = (
    *("server", "threads", "greenlets", "memory, MB", "kB each"),
    *("a request, ms", "got the event", "all, ms"),
)


def main() -> int:
    options = argparse.ArgumentParser(description="Show what a subscriber costs.")
    options.add_argument("--subscribers", type=int, default=1000, metavar="N")
    subscribers = options.parse_args().subscribers
    # An exception, so that every process started here is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    raise_descriptor_limit(subscribers)
    rows, failures = [], {}
    for case in filter(lambda case: case.is_installed, CASES):
        try:
            rows.append(show(case, subscribers))
        except BenchmarkError as error:
            failures[case.name] = str(error)
    print(table(f"Without subscribers, and with {subscribers:,}", HEADER, rows))
    print("\nOne more thread or greenlet is the hub's, which serves them all; with")
    print("gthread, others are its pool's, which it fills when it is first used.")
    missing = ", ".join(case.name for case in CASES if not case.is_installed)
    if missing:
        print(f"\nNot installed, and left out: {missing}")
    for name, why in failures.items():
        print(f"\nFAILED: {name}: {why}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""Servers whose application streams generators, which note what happens to them.

The application is applications/generators.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flask_sse_lite.event import HEARTBEAT
from flask_sse_lite.hub import current_hub

from .servers import PATIENCE, Client, Server, serve, until

GENERATORS = "tests.applications.generators:app"


#: Servers that can send something while they wait for the application.
BEATING = [
    "gunicorn gthread",
    "gunicorn gevent",
    "gunicorn gevent_pywsgi",
    "gunicorn sync",
    "gevent.pywsgi",
    "cheroot",
    "werkzeug",
    "uWSGI",
]


#: waitress sends nothing but what the generator yields.
SERVERS = [*BEATING, "waitress"]


#: Seconds between heartbeats.
HEARTBEAT_TIME = 0.15


_names = count()


class Generators:
    """A server, and the folder in which its generators note what happens to them."""

    def __init__(self, kind: str, server: Server, folder: Path) -> None:
        self.kind = kind
        self.server = server
        self.folder = folder

    def new(self) -> str:
        """A name that no other test uses."""
        return f"generator{next(_names)}"

    def happened(self, name: str) -> list[str]:
        try:
            return (self.folder / name).read_text().splitlines()
        except FileNotFoundError:
            return []

    def await_(self, name: str, what: str) -> None:
        until(lambda: what in self.happened(name))

    def open(self, gate: str) -> None:
        (self.folder / f"{gate}.open").touch()

    def left(self) -> dict[str, int]:
        """What generators have left behind in the process."""
        left: dict[str, int] = json.loads(self.server.request("GET", "/left").body)
        return left

    @contextmanager
    def ask(
        self, name: str, steps: str, path: str = "/ask", **options: Any
    ) -> Iterator[Client]:
        """A client that has read the head."""
        query = urlencode({"name": name, "steps": steps, **options})
        with Client(self.server.port) as client:
            client.request(f"{path}?{query}")
            yield client

    def read(self, name: str, steps: str, **options: Any) -> bytes:
        """The whole body of a stream."""
        with self.ask(name, steps, **options) as client:
            return b"".join(iter(client.read, b""))


def lose_patience() -> None:
    """Have each run that goes on wait no longer for its first reader. (A short
    ``ARRIVAL`` instead would be over before a busy machine has begun a response.)"""
    timed: Any = current_hub()._audiences.timed
    for run in list(timed):
        run._arrival = 0.0


@contextmanager
def generators(
    kind: str, folder: Path, *, options: str = "", **config: Any
) -> Iterator[Generators]:
    config = {
        "SSE_HEARTBEAT": HEARTBEAT_TIME,
        # By default it follows from the heartbeat: a client that pauses would be cut.
        "SSE_MAX_STALL": PATIENCE,
        "FOLDER": str(folder),
        **config,
    }
    with serve(kind, app=GENERATORS, options=options, **config) as server:
        yield Generators(kind, server, folder)


def read_until(client: Client, mark: bytes) -> bytes:
    """What comes up to a mark, and perhaps a little more."""
    body = b""
    while mark not in body:
        piece = client.read()
        assert piece, body
        body += piece
    return body


def assert_nothing_is_left(served: Generators) -> None:
    until(lambda: not any(served.left().values()))


def await_silence(served: Generators) -> None:
    """Wait for as long as several heartbeats take."""
    with served.server.channel() as channel, served.server.stream(channel) as stream:
        read_until(stream, 3 * HEARTBEAT)


def noted(served: Generators, name: str) -> int:
    """How many items a generator is known to have made. (Other notes of it may come at
    any time: a run's request is torn down while the run goes on.)"""
    return max(int(what) for what in served.happened(name) if what.isdecimal())


def stalled(served: Generators, name: str) -> int:
    """How many items a generator has made when it stops making more."""
    made, before = noted(served, name), -1
    while made != before:
        # A generator that is not stalled makes more in less time than this.
        time.sleep(0.3)
        made, before = noted(served, name), made
    return made

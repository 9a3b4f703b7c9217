"""The stores that processes share: an SQLite file, or a Redis that runs while it is
measured. A URL names each.

What never lives here: who publishes, who listens, and what is measured.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from processes import BenchmarkError, free_port, process

MEMORY = "memory://"
MARK = "the-end-of-what-is-counted"
START_SECONDS = 10  # for Redis to answer


@contextmanager
def sqlite_file() -> Iterator[str]:
    """Return the URL of a new file, which is removed at the exit."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield f"sqlite:///{folder}/events.db"


class Redis:
    """A running Redis, which can be asked what it does."""

    def __init__(self, port: int, client: Any) -> None:
        self.url = f"redis://127.0.0.1:{port}"
        self.client = client

    def calls(self) -> int:
        """Return how many scripts have been run: each read and each publish of the
        broker's is one."""
        stats = self.client.info("commandstats")
        names = ("cmdstat_evalsha", "cmdstat_eval")
        return sum(stats[name]["calls"] for name in names if name in stats)

    @contextmanager
    def sent(self) -> Iterator[Counter[str]]:
        """Count by name the commands that others send. Commands that a script runs do
        not count."""
        counts: Counter[str] = Counter()
        with self.client.monitor() as monitor:
            self._read_to_mark(monitor)  # what our own connection began with
            yield counts
            counts.update(self._read_to_mark(monitor))

    def _read_to_mark(self, monitor: Any) -> list[str]:
        self.client.echo(MARK)
        names: list[str] = []
        while True:
            command = monitor.next_command()
            if command["command"] == f"ECHO {MARK}":
                return names
            if command["client_type"] != "lua":
                names.append(command["command"].split()[0])

    def connections(self) -> list[dict[str, str]]:
        """Return all connections but the one that asks."""
        own = str(self.client.client_id())
        found: list[dict[str, str]] = self.client.client_list()
        return [one for one in found if one["id"] != own]


@contextmanager
def redis_server() -> Iterator[Redis]:
    """Run a Redis that keeps nothing on disk.

    :raises BenchmarkError: where there is none, or redis-py is missing.
    """
    try:
        import redis
    except ImportError as error:
        raise BenchmarkError("needs the package redis") from error
    program = shutil.which("redis-server")
    if program is None:
        raise BenchmarkError("redis-server is not installed")
    port = free_port()
    nothing = subprocess.DEVNULL
    with (
        tempfile.TemporaryDirectory() as folder,
        process(
            [
                *(program, "--bind", "127.0.0.1", "--port", str(port)),
                *("--dir", folder, "--save", "", "--appendonly", "no"),
            ],
            core=None,
            stdout=nothing,
            stderr=nothing,
        ) as started,
        contextlib.closing(redis.Redis(port=port)) as client,
    ):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError as error:
                if started.poll() is not None or time.monotonic() > deadline:
                    raise BenchmarkError("redis-server did not start") from error
                time.sleep(0.05)
        yield Redis(port, client)

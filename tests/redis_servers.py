"""Real Redis servers for the tests, each a process of its own.

Here lives how one is started, asked, ended and put to sleep. What is to hold of a
broker that uses it stands in the tests.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .servers import HOST, PATIENCE, reserved_port, until

#: The program, if it is installed: Redis, or where another is named, that one.
REDIS = shutil.which(os.environ.get("REDIS_SERVER", "redis-server"))

#: What keeps its data in files, and loses none in an orderly end.
PERSISTENT = ("--appendonly", "yes")


class RedisServer:
    """A Redis process, on a port and on a Unix socket.

    :param options: more of its command line, with ``{port}`` for its port.
    """

    def __init__(self, port: int, folder: str, options: Sequence[str]) -> None:
        self.port = port
        self.path = f"{folder}/redis.sock"
        self.url = f"redis://{HOST}:{port}"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it, and wait until it answers.

        :param options: more of its command line, this time.
        """
        assert REDIS
        Path(self.path).unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [
                REDIS,
                *("--bind", HOST, "--port", str(self.port), "--dir", self._folder),
                *("--unixsocket", self.path, "--save", ""),
                *(option.format(port=self.port) for option in self._options),
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        until(self._answers)

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, "It ended by itself."
        try:
            return Path(self.path).exists() and bool(self.ask("PING"))
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False

    def stop(self) -> None:
        """End it as an operator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self._process:
            process, self._process = self._process, None
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
            process.wait(PATIENCE)

    def freeze(self) -> None:
        """Let it go on existing, and do nothing."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def forget(self) -> None:
        """Delete what it has in files; it is not running."""
        for path in Path(self._folder).iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix != ".pem":
                path.unlink()

    def incremental_files(self) -> list[Path]:
        """Where it writes each command, if it does."""
        return [*Path(self._folder).glob("appendonlydir/*.incr.aof")]

    @property
    def has_written(self) -> bool:
        """Whether all that it acknowledged is the system's to write. (Where the disk is
        slow, it can keep that to itself for two seconds, under ``everysec``.)"""
        told = self.ask("INFO", "persistence")
        return bool(told.get("aof_buffer_length", 0) == 0)

    def clients(self, type: str) -> int:
        """How many connections of a type it has, but for the one that asks."""
        count = len(self.ask("CLIENT", "LIST", "TYPE", type).splitlines())
        return count - (type == "normal")

    def ask(self, *words: Any, **options: Any) -> Any:
        """What it answers to a command.

        :param options: of the client.
        """
        retry = Retry(NoBackoff(), 0)
        with redis.Redis(unix_socket_path=self.path, retry=retry, **options) as client:
            return client.execute_command(*words)


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A Redis that answers, until the end of the block. Without it, the test is
    skipped."""
    if REDIS is None:
        pytest.skip("redis-server is not installed")
    with TemporaryDirectory(prefix="redis-") as folder, reserved_port() as port:
        server = RedisServer(port, folder, options)
        server.start()
        try:
            yield server
        finally:
            server.kill()

"""Real Redis servers for the tests, each a process of its own.

How one is started, asked, frozen and ended lives here. What must hold of a broker that
uses it stands in the tests.
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

#: The program, if it is installed: ``REDIS_SERVER`` of the environment, or Redis.
REDIS = shutil.which(os.environ.get("REDIS_SERVER", "redis-server"))

#: Options of a server that keeps its data in files, and loses none in an orderly end.
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
        """Start the server, and wait until it answers.

        :param options: more of its command line, for this start only.
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
        """End the server as an operator does."""
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
        """Suspend the process: it goes on existing, and does nothing."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def forget(self) -> None:
        """Delete the server's files. It must not be running."""
        for path in Path(self._folder).iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix != ".pem":
                path.unlink()

    def incremental_files(self) -> list[Path]:
        """The files to which it appends each command, if there are any."""
        return [*Path(self._folder).glob("appendonlydir/*.incr.aof")]

    @property
    def has_written(self) -> bool:
        """Whether all that the server acknowledged was handed to the system to write.
        (Where the disk is slow, it can hold that back for two seconds, under
        ``everysec``.)"""
        told = self.ask("INFO", "persistence")
        return bool(told.get("aof_buffer_length", 0) == 0)

    def clients(self, type: str) -> int:
        """How many connections of a type the server has, without the one that asks."""
        count = len(self.ask("CLIENT", "LIST", "TYPE", type).splitlines())
        return count - (type == "normal")

    def ask(self, *words: Any, **options: Any) -> Any:
        """The server's answer to a command.

        :param options: of the client.
        """
        retry = Retry(NoBackoff(), 0)
        with redis.Redis(unix_socket_path=self.path, retry=retry, **options) as client:
            return client.execute_command(*words)


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A Redis that answers, until the end of the block. The test is skipped where Redis
    is not installed."""
    if REDIS is None:
        pytest.skip("redis-server is not installed")
    with TemporaryDirectory(prefix="redis-") as folder, reserved_port() as port:
        server = RedisServer(port, folder, options)
        server.start()
        try:
            yield server
        finally:
            server.kill()

"""Workers of task queues for the tests, each a process that a command starts.

How a worker is started and ended lives here. What it must do stands in the tests.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .redis_servers import RedisServer
from .servers import PATIENCE, ROOT, SCRIPTS

#: Where the documentation says that Redis is.
REDIS_URL = "redis://localhost:6379/0"


@contextmanager
def working(
    command: str, folder: Path, store: RedisServer, log: Path
) -> Iterator[None]:
    """A worker, started by a command of the documentation, until the end of the block.
    It is asked to end, so that it sees to the processes that it has forked.

    :param folder: where the command is given.
    :param store: the Redis that it uses in place of ``REDIS_URL``.
    :param log: the file for what it prints.
    """
    words = command.strip().replace(REDIS_URL, store.url)
    with log.open("wb") as output:
        worker = subprocess.Popen(
            ["sh", "-c", f"exec {SCRIPTS}/{words}"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{folder}"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
    finally:
        worker.terminate()
        try:
            worker.wait(PATIENCE)
        finally:
            print(log.read_text(errors="replace"))
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)

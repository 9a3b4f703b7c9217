"""Programs that start others, such as browsers: they end with all that they started.

What such a program is told, and how it is driven, lives with each of them.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .servers import PATIENCE


@contextmanager
def launched(
    command: Sequence[str], environment: Mapping[str, str], log: Path, *kept: int
) -> Iterator[int]:
    """A program that runs until the end of the block.

    :param log: the file of what it says.
    :param kept: descriptors that it gets.
    :return: its number, which is that of a group of its own, with every process that
        it starts.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            pass_fds=kept,
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)

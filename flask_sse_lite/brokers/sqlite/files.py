"""Files: how the database's file is made, and with which modes.

Here lives what is done to the folder and to the file before SQLite opens it. The file's
content is unknown here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..deadline import Deadline

#: Modes of a new file and of a new folder: only their owner can read what is published.
#: What exists already keeps its mode.
MODE = 0o600
FOLDER_MODE = 0o700

#: Seconds between two tries to lock the folder.
RETRY = 0.002


def make_file(path: str, deadline: Deadline, *, makes_folder: bool) -> None:
    """Make a database's file, unless it exists. One process at a time does so. It first
    removes what a deleted database has left, because SQLite would take that for a part
    of the new one."""
    if os.path.exists(path):
        return
    folder = os.path.dirname(path)
    if makes_folder:
        _make_folder(folder)
    with _locked(folder, deadline):
        if os.path.exists(path):
            return
        for ending in ("-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.unlink(path + ending)
        # SQLite gives the files that it makes beside this one the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, MODE))


def _make_folder(path: str) -> None:
    """Make a folder for its owner alone, and those that it lies in."""
    parent = os.path.dirname(path)
    if parent != path and not os.path.isdir(parent):
        _make_folder(parent)
    with suppress(FileExistsError):
        os.mkdir(path, FOLDER_MODE)


@contextmanager
def _locked(folder: str, deadline: Deadline) -> Iterator[None]:
    """Lock a folder during a block, against other processes.

    :raises BlockingIOError: where another process holds the lock until the deadline.
    """
    try:
        import fcntl
    except ImportError:  # Not a Unix.
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not deadline.left:
                    raise
                time.sleep(RETRY)
        yield
    finally:
        os.close(descriptor)

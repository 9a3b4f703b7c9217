"""The witness: a small file that shows whether the database has gone back.

The witness lies beside the database. It has the newest position that was given out, and
what tells this database, this boot and this witness from others. If somebody puts an
older database back, copies it or loses its ``-wal``, the witness does not fit any more.
What follows from that is unknown here.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote

#: What a witness begins with. A file that begins differently is no witness.
HEAD = "flask_sse_lite 1"

#: A witness's one line: the head, the newest position, and ``Life``.
_LINE = re.compile(
    f"{HEAD} ([0-9]{{20}}) ([0-9a-f]{{16}}) ([0-9a-f-]*) ([0-9]+) ([0-9a-f-]+)\n"
)

#: Bytes before the position.
_OFFSET = len(HEAD) + 1

#: The longest part of a witness that is read, in bytes.
_LONGEST = 512

#: The ioctl that asks a Linux file system how often it has used a file's inode number:
#: ``_IOR('v', 1, long)`` on the usual processors.
_GET_GENERATION = 0x80087601


class Life(NamedTuple):
    """What identifies one life of a store: its epoch, the machine's boot, the device,
    and the identity of its files (``files``), which a copy does not have."""

    epoch: str
    boot: str
    device: str
    files: str


class Witness:
    """The witness of one store. One thread at a time uses it, and a forked child opens
    it anew.

    :param file: the database.
    :param prefix: the store's, in that database.
    """

    def __init__(self, file: str, prefix: str) -> None:
        self._file = os.path.realpath(file)
        self._path = f"{self._file}-{quote(prefix, safe='')}.witness"
        self._descriptor: int | None = None
        self._seen = Life("", "", "", "")

    def open(self) -> None:
        """Open the witness, and make it where it is missing. Users who can write to the
        database can write to the witness.

        :raises OSError: where that cannot be done.
        """
        self.close()
        like = os.stat(self._file)
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._path, flags)
        except FileNotFoundError:
            self._descriptor = os.open(self._path, flags | os.O_CREAT, 0o600)
            _open_to_writers(self._descriptor, like)
        own = os.fstat(self._descriptor)
        files = f"{like.st_ino}-{own.st_ino}-{_generation(self._descriptor)}"
        self._seen = Life("", boot_id(), str(like.st_dev), files)

    def here(self, epoch: str) -> Life:
        """The store's life, as this process sees it."""
        return self._seen._replace(epoch=epoch)

    def read(self) -> tuple[int, Life] | None:
        """The newest position and the life that the witness has; None where the file is
        no witness."""
        assert self._descriptor is not None
        text = os.pread(self._descriptor, _LONGEST, 0).decode("ascii", "replace")
        match = _LINE.fullmatch(text)
        return (int(match[1]), Life(*match.groups()[1:])) if match else None

    def write(self, epoch: str, sequence: int) -> None:
        """Write the newest position, and the store's life as it is now."""
        assert self._descriptor is not None
        line = f"{HEAD} {sequence:020d} {' '.join(self.here(epoch))}\n".encode()
        os.pwrite(self._descriptor, line, 0)
        os.ftruncate(self._descriptor, len(line))

    def reach(self, sequence: int) -> None:
        """Note that a position was given out. (Of two processes at once, the one with
        the lower position can write last. The next publish mends that.)"""
        if self._descriptor is not None:
            try:
                os.pwrite(self._descriptor, b"%020d" % sequence, _OFFSET)
            except OSError:
                pass  # The event is in the database, so its publish must not fail.

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def boot_id() -> str:
    """The name of this boot of the machine; empty where the system has none."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
    return ""


def _generation(descriptor: int) -> str:
    """What tells a file from an earlier one with the same inode number; ``"0"`` where
    the file system does not say it."""
    try:
        import fcntl

        return fcntl.ioctl(descriptor, _GET_GENERATION, bytes(8)).hex()
    except (ImportError, OSError):
        return "0"


def _open_to_writers(descriptor: int, like: os.stat_result) -> None:
    """Open a new file to the users who can write to another file, and to nobody
    else."""
    mode = 0o600
    for writer in (0o060, 0o006):
        if like.st_mode & writer == writer:
            mode |= writer
    with suppress(OSError):  # This process is not in that group.
        if os.fstat(descriptor).st_gid != like.st_gid:
            os.fchown(descriptor, -1, like.st_gid)
        os.fchmod(descriptor, mode)

"""Named files: whether the files of an open database are still those under their names.

A connection checks that before and after it writes. Deleting, renaming and replacing a
file change its folder's time, so that most often the folder alone is looked at.
"""

from __future__ import annotations

import os
import time

#: The endings of the files that lie beside an open database.
ENDINGS = ("-wal", "-shm")

#: Nanoseconds within which a folder can change twice while its time changes once.
CLOCK_TICK = 50_000_000


class NamedFiles:
    """The files of a database that was just opened, and their folder.

    :param path: the database.
    """

    def __init__(self, path: str) -> None:
        self._folder = os.path.dirname(path)
        # SQLite puts the other files beside a link's target, maybe in another folder.
        self._is_link = os.path.islink(path)
        self._paths = [path, *(os.path.realpath(path) + end for end in ENDINGS)]
        self._files = self._find()
        self._known = (0, 0, 0)

    def is_same(self) -> bool:
        """Whether none of the files was deleted or replaced since then."""
        try:
            found = os.stat(self._folder)
        except OSError:
            return False
        key = (found.st_dev, found.st_ino, found.st_mtime_ns)
        if key == self._known:
            return True
        if self._find() != self._files:
            return False
        if not self._is_link and time.time_ns() - found.st_mtime_ns > CLOCK_TICK:
            self._known = key
        return True

    def written_ahead(self) -> int:
        """Bytes of the write-ahead log's file: the most that the log has had since the
        file was last truncated.

        :raises OSError: where the file is gone.
        """
        return os.stat(self._paths[1]).st_size

    def _find(self) -> list[tuple[int, int] | None]:
        return [_identity(path) for path in self._paths]


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino)

"""Bells: how the processes that use one file wake each other.

In a folder beside the file, each process that listens has a bell: a Unix datagram
socket. A publisher rings by sending to all of them. A process that misses a ring loses
nothing, because it looks at the file now and then by itself. A process that can have no
bell looks more often. What stands in the file is unknown here.
"""

from __future__ import annotations

import os
import secrets
import socket
import stat
import time
import weakref
from collections.abc import Callable
from contextlib import suppress

from ...log_messages import NO_BELL
from ...system.locks import Alarm, RLock

#: Seconds between two looks where no bell can be had.
POLL_INTERVAL = 0.1

#: Bytes that a socket's path can have, with its final NUL. A socket with a longer path
#: is reached through a descriptor of its folder.
PATH_BYTES = 108 if os.path.isdir("/proc/self/fd") else 104

#: Bytes of those that a socket's name takes at most: a slash, a dot, a process ID of 7
#: digits, a dash and a word of 8.
NAME_BYTES = 18

#: Nanoseconds within which a folder can change twice while its time changes once.
CLOCK_TICK = 50_000_000

#: Seconds after which a hidden bell is removed: its owner was killed before it could
#: give the bell its real name.
HANG_UP = 60.0

#: Rings taken in one go.
RINGS = 64


class Bells:
    """The bells of the processes that use a file.

    Any thread can call ``ring``, ``interrupt`` and ``close``. Only the thread that
    listens calls ``listen`` and ``wait``.

    :param file: the database. The folder lies beside it, and is open to the users who
        can write to the database.
    """

    def __init__(self, file: str) -> None:
        self.folder = f"{file}-bells"
        self._is_short = len(os.fsencode(self.folder)) + NAME_BYTES < PATH_BYTES
        self._file = file
        self._pid = os.getpid()
        # Code that interrupts the holder gets the lock too. _send and _address allow
        # for that.
        self._lock = RLock()
        self._sender: socket.socket | None = None
        #: The folder's inode and time, and the names of the bells in it.
        self._known: tuple[tuple[int, int], list[str]] = ((0, 0), [])
        self._descriptor: int | None = None
        self._own: socket.socket | None = None
        self._path = ""
        self._remove: Callable[[], object] = lambda: None
        self._interrupted = Alarm()

    # Ringing

    def ring(self) -> None:
        """Wake all processes that listen."""
        for name in self._listeners():
            self._send(name)

    def _listeners(self) -> list[str]:
        try:
            found = os.stat(self.folder)
            key = (found.st_ino, found.st_mtime_ns)
            known, names = self._known
            if key != known:
                if key[0] != known[0]:
                    self._close_folder()
                names = [n for n in os.listdir(self.folder) if not n.startswith(".")]
                if time.time_ns() - found.st_mtime_ns > CLOCK_TICK:
                    self._known = (key, names)
            return names
        except OSError:
            return []  # Nobody has listened yet.

    def _send(self, name: str) -> None:
        with self._lock:
            sender = self._sender
            if sender is None:
                sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                sender.setblocking(False)
                self._sender = sender
            try:
                sender.sendto(b"!", self._address(name))
            except ConnectionRefusedError:
                # The owner died. Names are unique, so unlinking is safe.
                with suppress(OSError):
                    os.unlink(os.path.join(self.folder, name))
            except OSError:
                pass  # The bell's queue is full (EAGAIN), or its owner removes it.

    def _address(self, name: str) -> str:
        if self._is_short:
            return f"{self.folder}/{name}"
        if self._descriptor is None:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
            if self._descriptor is None:
                self._descriptor = descriptor
            else:  # Code that interrupted this was faster.
                os.close(descriptor)
        return f"/proc/self/fd/{self._descriptor}/{name}"

    # Listening

    def listen(self) -> None:
        """Hang up a bell for this process. Where that fails, warn, and do without."""
        self._stop_listening()
        try:
            self._own = self._make()
        except (OSError, AttributeError) as error:
            NO_BELL.log(self.folder, error, POLL_INTERVAL, folder=self.folder)

    def _make(self) -> socket.socket:
        self._make_folder()
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        path = os.path.join(self.folder, name)
        try:
            # A socket refuses until it is bound, and a publisher would take its owner
            # for dead. So it is bound under a hidden name, and renamed after that.
            with self._lock:
                own.bind(self._address(f".{name}"))
            hidden = os.path.join(self.folder, f".{name}")
            self._share(hidden, 0o666)
            self._remove = weakref.finalize(own, _remove, path, os.getpid())
            os.rename(hidden, path)
        except BaseException:
            own.close()
            raise
        self._path = path
        return own

    def _make_folder(self) -> None:
        with suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)
            self._share(self.folder, 0o777)
        self._close_folder()
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            with suppress(OSError):
                if name[0] == "." and os.lstat(path).st_mtime < time.time() - HANG_UP:
                    os.unlink(path)

    def _share(self, path: str, mode: int) -> None:
        """Open a path to the users who can write to the database, and to nobody
        else."""
        like = os.stat(self._file)
        writers = 0
        for shift in (0, 3, 6):
            if like.st_mode >> shift & 0o6 == 0o6:
                writers |= 0o7 << shift
        found = os.stat(path)
        with suppress(OSError):  # Another user owns the path, and has done the same.
            if found.st_gid != like.st_gid:
                os.chown(path, -1, like.st_gid)
            if stat.S_IMODE(found.st_mode) != mode & writers:
                os.chmod(path, mode & writers)

    def wait(self, timeout: float) -> None:
        """Wait until the bell rings, for some seconds at most."""
        own = self._own
        if own is None:
            self._interrupted.wait(min(timeout, POLL_INTERVAL))
            return
        try:
            own.settimeout(timeout)
            own.recv(1)
            own.settimeout(0)
            for _ in range(RINGS):
                own.recv(1)
        except BlockingIOError:
            pass
        except TimeoutError:
            if not os.path.lexists(self._path):
                self.listen()  # Somebody has removed the bell.

    def interrupt(self) -> None:
        """End a wait, now or soon."""
        self._interrupted.set()
        if self._path:
            self._send(os.path.basename(self._path))

    # The end

    def _stop_listening(self) -> None:
        own, self._own = self._own, None
        if own:
            self._remove()
            own.close()

    def close(self) -> None:
        """Let go of everything. In a forked child, the parent's bell stays."""
        if os.getpid() != self._pid:
            # A thread that only the parent has can hold the old lock for ever.
            self._lock = RLock()
        self._stop_listening()
        sender, self._sender = self._sender, None
        if sender:
            sender.close()
        self._close_folder()

    def _close_folder(self) -> None:
        """Close the folder's descriptor. (The folder can have been replaced.)"""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _remove(path: str, pid: int) -> None:
    """Remove a bell, if this process has hung it up; with the last one, the folder."""
    if os.getpid() == pid:
        with suppress(OSError):
            os.unlink(path)
            os.rmdir(os.path.dirname(path))

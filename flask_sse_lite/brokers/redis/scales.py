"""Scales: how a Redis store stays below ``SSE_HISTORY_BYTES``.

Here lives what a process does that was told to weigh the store: it finds the largest
channels, and how many bytes each of them sheds. The scripts, and when somebody is
told to weigh, are in scripts/sizes.py.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

from ...errors import BrokerUnavailable
from ...history.revocations import REVOCATIONS
from ...history.sizes import excesses, goal
from ...log_messages import REDIS_SIZES_UNTOLD, WEIGHING_FAILED
from ...system.gevent import can_wait, is_kill
from . import scripts

#: Channels that one command asks for, so that Redis is soon free for other commands.
CHANNELS_AT_ONCE = 32

#: Seconds that a process waits for the thread, before the store is closed and behind
#: that.
CLOSE_PATIENCE = 5.0

T = TypeVar("T")


class Scales:
    """The weight of one store.

    A store of many channels is weighed by many commands. A thread of their own gives
    them, so that neither a publisher nor the follower waits for them.

    :param name: the store's, for the log.
    :param ask: runs a script with the streams of some channels, and more arguments.
    :param channels: asks for all that the store has.
    """

    def __init__(
        self,
        name: str,
        ask: Callable[[scripts.Script, Collection[str], Sequence[Any]], Any],
        channels: Callable[[], Collection[str]],
    ) -> None:
        self._name = name
        self._ask = ask
        self._channels = channels
        self._is_told = False
        self._thread: threading.Thread | None = None
        self._is_running = False
        self._is_asked = False
        self._process = os.getpid()

    def weigh(self) -> None:
        """Begin to weigh the store, and to drop what is too much. Where that cannot
        begin, or where Redis is away meanwhile, another process is told to weigh soon.
        """
        self._is_asked = True
        if self._is_running:
            return
        self._is_running = True
        thread = threading.Thread(
            target=self._run, name="flask_sse_lite.scales", daemon=True
        )
        try:
            thread.start()
            self._thread = thread
        except (RuntimeError, MemoryError):  # The system gives no more threads.
            self._is_running = False

    def finish(self) -> None:
        """Wait for the thread's end, for some seconds. A process that publishes once
        and closes weighs the store before it goes: where all publishers are such
        processes, nobody else does. A forked child has no such thread."""
        is_ours = self._process == os.getpid() and can_wait()
        if self._thread and is_ours and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_PATIENCE)

    def _run(self) -> None:
        # Who asks when the thread is about to end is noticed behind its end. Two
        # threads at once do no harm.
        while self._is_asked:
            self._is_running = True
            try:
                while self._is_asked:
                    self._lighten()
            finally:
                self._is_running = False

    def _lighten(self) -> None:
        """Weigh the store until that is enough. No error but a kill ends the thread."""
        self._is_asked = False
        try:
            while self._is_too_heavy_again():
                pass
        except BrokerUnavailable:
            pass  # Another process is told to weigh soon.
        except BaseException as error:
            # gevent's Timeout and SystemExit are no Exceptions, and come here too.
            if is_kill(error):
                raise
            WEIGHING_FAILED.log(self._name, error=True, store=self._name)

    def _is_too_heavy_again(self) -> bool:
        """Weigh the store, and drop what is too much.

        :returns: whether so much was published meanwhile that it must be weighed again.
        """
        limit, written, sizes = 0, 0, dict[str, int]()
        for names in pieces(self._channels()):
            limit, found, so_far = self._ask(scripts.sizes, names, ())
            written = written or int(so_far)
            sizes.update(zip(names, map(int, found), strict=True))
            if any(sizes[name] < 0 for name in names):
                self._tell()
                return False
        total = sum(sizes.values())
        if total > limit:
            # Without the revocations, every client would be sent off.
            sizes.pop(REVOCATIONS, None)
            for name, excess in excesses(sizes, limit).items():
                while excess > 0 and total > goal(limit):
                    gone = int(self._ask(scripts.shed, (name,), (excess, name)))
                    excess, total = excess - gone, total - gone
                    if not gone:
                        break
        return bool(self._ask(scripts.weighed, (), (total, written)))

    def _tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            REDIS_SIZES_UNTOLD.log(self._name)


def pieces(names: Collection[T]) -> Iterator[list[T]]:
    """The names, some at a time."""
    listed = list(names)
    for start in range(0, len(listed), CHANNELS_AT_ONCE):
        yield listed[start : start + CHANNELS_AT_ONCE]

"""Endings: how all streams of a process, a stopped server or an application end.

Here lives how each stream first gets what was published before its end, and whose last
words are waited for. How a single stream ends, because its client left, its channel was
closed or it is old, lives in fanout.py and looks.py.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from ..history.log import Log
from ..log_messages import NOT_STOPPED
from ..servers.programs import Program, programs
from ..signals import DisconnectReason
from ..signals.story import expect
from ..system.locks import Guard
from .audiences import Audiences
from .connection import Connection
from .fanout import Fanout, Loop
from .readers import Timed

#: Seconds that the readers of a run are kept when the server stops, so that they get
#: the run's last words. There is a bound, because the broker can be away.
LAST_WORDS = 1.0


class Ending:
    """Streams that must end.

    :param is_of: whether a stream is one of them.
    :param patience: seconds that the requests among them can still take. None where the
        whole hub stops: the readers of runs are then kept for the runs' last words.
    :param why: what their ends are told as.
    """

    def __init__(
        self,
        is_of: Callable[[Timed | Connection], bool],
        patience: float | None = 0,
        why: DisconnectReason = "end-streams",
    ) -> None:
        self.is_of = is_of
        self.patience = patience
        self.why = why
        self.is_done = threading.Event()


def of_program(program: Program) -> Ending:
    """The streams of a server that was stopped."""
    return Ending(lambda whom: whom.program is program, program.grace, "shutdown")


class Endings:
    """What a hub must end. Only the loop uses this, where nothing else is said.

    :param loop: its ``_welcome_all`` takes in new connections, so that they end too.
    :param lock: the hub's lock.
    """

    def __init__(
        self, loop: Loop, lock: Guard, audiences: Audiences, fanout: Fanout
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._audiences = audiences
        self._fanout = fanout
        #: Set when all streams have ended, after ``stop``. Any thread can wait for it.
        self.has_stopped = threading.Event()
        self._asked: deque[Ending] = deque()
        # Until when the readers of runs are kept, and the channels of these runs.
        self._stops_at = 0.0
        self._awaited: set[tuple[Log, str]] = set()

    def __len__(self) -> int:
        """How many endings are still to be done."""
        return len(self._asked)

    def ask(self, ending: Ending) -> None:
        """Have streams ended at the loop's next turn. Any thread can call this, and
        must then wake the hub."""
        self._asked.append(ending)

    def stop(self) -> None:
        """End all streams, so that their clients come back elsewhere. The readers of a
        run are kept until they have its last words, for ``LAST_WORDS`` at most."""
        self._end_all(Ending(lambda whom: True, None, "shutdown"))
        with self._lock:
            if not len(self._fanout):
                self.has_stopped.set()

    def end_the_dismissed(self) -> None:
        """End the streams of servers that were stopped while this process goes on, and
        of applications that have asked for it."""
        for program in programs.take_stopped():
            self.ask(of_program(program))
        while self._asked:
            # It is taken out only when it is done, so that a loop which fails comes
            # back to it.
            ending = self._asked[0]
            self._end_all(ending)
            self._asked.popleft()
            ending.is_done.set()

    def _end_all(self, ending: Ending) -> None:
        """End some streams properly, after all that was published before."""
        with self._lock:
            timed = self._audiences.everybody()
        for whom in timed:
            if ending.is_of(whom):
                self._have_stop(whom, ending)
        # A run that ends from here on has its last words sent by a later turn.
        awaited = set() if ending.patience is not None else self._still_awaited()
        self._loop._welcome_all()
        fanout = self._fanout
        for group in list(fanout.groups.values()):
            if any(map(ending.is_of, group.connections())):
                fanout.guard(fanout.deliver_all, group)
                fanout.take_in(group)
        for connection in list(fanout.connections.values()):
            channels = connection.cursor.channels
            if not ending.is_of(connection):
                continue
            if not any((connection.log, channel) in awaited for channel in channels):
                fanout.end(connection, ending.why)

    def _have_stop(self, whom: Timed, ending: Ending) -> None:
        try:
            expect(whom.story, ending.why)
            if ending.patience is None and (last_words := whom.last_words):
                self._awaited.add(last_words)
            whom.stop(ending.patience)
        except Exception:
            NOT_STOPPED.log(whom, error=True)

    def _still_awaited(self) -> set[tuple[Log, str]]:
        """The channels of runs whose last words are still waited for."""
        now = time.monotonic()
        self._stops_at = self._stops_at or now + LAST_WORDS
        if now >= self._stops_at:
            return set()
        return {(log, name) for log, name in self._awaited if log.is_running(name)}

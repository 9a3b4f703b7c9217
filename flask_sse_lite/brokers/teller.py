"""The teller: tells the channels of ``SSE_PRESENCE`` who comes and leaves, in a process
that shares no store.

Here live the board of a process that shares nothing, and the thread that looks at it
(under a monkey-patched gevent, a greenlet). The thread begins when somebody comes to
such a channel, and ends when nobody is there or is told any more. What is told is
decided in presence.py. Where processes share a store, the follower does this.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from ..errors import BrokerUnavailable
from ..history.log import Log
from ..log_messages import PRESENCE_FAILED
from ..system.gevent import is_kill
from ..system.locks import Alarm
from .presence import Board, Presence, Roll, Telling, Wish

#: Seconds between two looks at who is there: a join is told as fast as people notice,
#: and ten thousand identities cost some hundredths of a processor.
LOOK = 0.5

#: Seconds between two rounds where one cannot tell all: readers read meanwhile.
BETWEEN_ROUNDS = 0.05

#: Seconds for which the thread waits for a stream whose channels were asked for.
EXPECTED = 10.0


class MemoryBoard(Board):
    """What the only process knows of who is there, and what it has told.

    One thread at a time calls ``roll`` and ``tell``. Any thread can read ``told``.

    :param identities: see ``Broker.identities``.
    """

    def __init__(
        self, log: Log, identities: Callable[[], Mapping[str, Mapping[str, int]]]
    ) -> None:
        self._log = log
        self._identities = identities
        self._number = 0
        #: The identities that are told, by channel: see ``Roll``. Each change makes
        #: another inner dictionary, so that no reader sees one that changes.
        self.told: dict[str, dict[str, float | None]] = {}

    def note(self, identities: Mapping[str, Mapping[str, int]]) -> None:
        """Nothing must be noted: the process knows it."""

    def noted(self, channel: str) -> dict[str, int]:
        return dict.fromkeys(self.told.get(channel, {}), 0)

    def roll(self, leave_after: float, *, is_urgent: bool) -> Roll:
        present = {name: tuple(who) for name, who in self._identities().items()}
        return Roll(self._number, time.monotonic(), present, dict(self.told))

    def tell(
        self, channel: str, number: int, tellings: Sequence[Telling]
    ) -> list[tuple[str, int]] | None:
        if number != self._number:
            return None
        self._number += 1
        told = dict(self.told.get(channel, {}))
        is_closed = self._log.is_finished(self._log.cursor((channel,)))
        try:
            for telling in tellings:
                if telling.event and not is_closed:
                    self._log.append(channel, telling.event)
                if telling.is_told:
                    told[telling.identity] = telling.since
                else:
                    told.pop(telling.identity, None)
        finally:  # What was told before an error must not be told twice.
            self.told[channel] = told
            if not told:
                del self.told[channel]
        return []


class Teller:
    """The thread that has the channels told. Any thread can call its methods.

    :param identities: see ``Broker.identities``.
    """

    def __init__(
        self,
        board: MemoryBoard,
        wish: Wish,
        identities: Callable[[], Mapping[str, Mapping[str, int]]],
    ) -> None:
        self._board = board
        self._wish = wish
        self._identities = identities
        self._presence = Presence(board, wish, lambda position: None)
        self._expects_until = 0.0
        self._alarm = Alarm()
        self._is_closed = False
        #: The thread that looks, if there is one. Only one of two threads that begin at
        #: once gets into it, because setdefault is atomic.
        self._looking: dict[str, threading.Thread] = {}

    def expect(self) -> None:
        """Somebody is about to come.

        :raises BrokerUnavailable: where no thread can be started.
        """
        self._expects_until = time.monotonic() + EXPECTED
        if not self._looking:
            self._start()

    def close(self) -> None:
        """End the thread, for good."""
        self._is_closed = True
        self._alarm.set()

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._run, name="flask_sse_lite.teller", daemon=True
        )
        if self._is_closed or self._looking.setdefault("", thread) is not thread:
            return
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            self._looking.clear()
            raise BrokerUnavailable(
                f"Nobody can be told who comes and leaves: {error}"
            ) from error

    def _run(self) -> None:
        try:
            while self._looks_on():
                self._alarm.wait(LOOK)
        finally:
            self._looking.clear()
            # Somebody came at the last moment, or somebody has killed this greenlet.
            with suppress(Exception):
                if self._is_needed():
                    self._start()

    def _is_needed(self) -> bool:
        if self._is_closed:
            return False
        is_expecting = time.monotonic() < self._expects_until
        return is_expecting or bool(self._board.told) or self._is_anybody_there()

    def _is_anybody_there(self) -> bool:
        return any(map(self._wish.is_told, self._identities()))

    def _looks_on(self) -> bool:
        """Tell what there is to tell. No error but a kill ends the thread, and then
        another one goes on.

        :returns: whether the thread must look again.
        """
        try:
            if not self._is_needed():
                return False
            while not self._presence.tell() and not self._is_closed:
                self._alarm.wait(BETWEEN_ROUNDS)
        except BaseException as error:
            if is_kill(error):
                raise
            PRESENCE_FAILED.log(error=True)
        return True

"""The courier: brings an application's signals to their receivers.

Here lives how a signal waits for its turn, and the one thread (under gevent one
greenlet) that calls receivers. Whoever has something to tell only puts it into a queue:
a receiver that is slow, waits or raises delays no delivery, no request and no publish.
What is told is unknown here, and so is Flask: the application is the sender, and brings
its own context.

The thread starts with the first signal that has a receiver. It goes on while a stream
is open of which something will be told, and ends soon after that.
"""

from __future__ import annotations

import atexit
import inspect
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import Context
from typing import Any, NamedTuple

from blinker import Signal

from ..log_messages import (
    LOOK_FAILED,
    RECEIVER_FAILED,
    SIGNAL_CONTEXT_FAILED,
    SIGNALS_AGAIN,
    SIGNALS_DROPPED,
    Message,
)
from ..system.gevent import can_wait, is_kill
from ..system.locks import Alarm, RLock
from .deliveries import Deliveries

#: Signals that can wait for their receivers in a process. A signal without a large
#: event costs about 1 kB, so that a receiver which hangs costs some 10 MB.
MOST_WAITING = 10_000

#: Characters of published data that can wait in the queue. Ten thousand large events
#: would cost more memory than all streams.
MOST_CHARACTERS = 16 * 1024 * 1024

#: Seconds that the thread stays when there is nothing to tell and no stream is open, so
#: that not every publish starts a thread.
LINGER = 1.0

#: Seconds between two calls of what looks around while a stream is open.
LOOK_INTERVAL = 5.0

#: Seconds that an exiting process waits for receivers to hear of its last streams.
EXIT_PATIENCE = 1.0

#: Seconds between two lines of the log about one receiver that fails, and how many
#: receivers are remembered for that.
BETWEEN_LINES = 60.0
MOST_LINES = 100

#: Seconds between two looks of ``settle`` at whether the thread runs.
LOOK = 0.05

#: The name of every courier's thread.
THREAD = "flask_sse_lite.signals"


class Notice(NamedTuple):
    """A signal that waits for its receivers.

    :param weight: characters of published data that the facts hold.
    """

    signal: Signal
    facts: dict[str, Any]
    weight: int


class Courier:
    """The way of an application's signals. Any thread can call any method, also code
    that interrupts another call. No method waits, except where it says so.

    :param sender: the application.
    :param context: makes the context in which receivers run.
    """

    def __init__(
        self, sender: Any, context: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._sender = sender
        self._context = context
        # By process id: a forked child tells nothing of what its parent had to tell.
        self._rounds: dict[int, _Round] = {}
        #: Each is called by the thread when it begins, every ``LOOK_INTERVAL`` seconds
        #: while it stays for somebody, and behind all that it has told.
        self.looks: list[Callable[[], None]] = []
        #: What is noted of deliveries; None where nobody wants to know.
        self.deliveries: Deliveries | None = None
        _couriers.add(self)

    def watch_deliveries(self) -> Deliveries:
        """Have deliveries noted, of the streams that begin from now on."""
        if self.deliveries is None:
            self.deliveries = Deliveries(self.tell)
        return self.deliveries

    @property
    def _round(self) -> _Round:
        pid = os.getpid()
        try:
            return self._rounds[pid]
        except KeyError:
            # Two threads at once go on with the same one. The other is empty.
            new = _Round(self._sender, self._context, self.looks)
            return self._rounds.setdefault(pid, new)

    def tell(self, signal: Signal, weight: int = 0, **facts: Any) -> None:
        """Have a signal sent soon, behind those that were told before. Where too many
        wait, it is dropped and counted. The caller has seen that the signal has
        receivers.

        :param weight: characters of published data that the facts hold.
        """
        self._round.take(Notice(signal, facts, weight))

    def stay_for(self, whom: object) -> None:
        """Keep the thread until ``leave`` is called for the same: something is still to
        be told of whom."""
        self._round.stay_for(whom)

    def leave(self, whom: object) -> None:
        """Undo ``stay_for``. A second call does nothing."""
        self._round.leave(whom)

    def expected(self) -> list[object]:
        """Those for whom the thread stays in this process."""
        return self._round.expected()

    @property
    def dropped(self) -> int:
        """How many signals of this process were dropped."""
        return self._round.dropped

    def settle(self, timeout: float) -> bool:
        """Wait until all that was told before was sent. A receiver must not call this:
        it would wait for itself.

        :param timeout: seconds to wait at most.
        :returns: whether all was sent.
        """
        return self._round.settle(timeout)

    def settle_at_exit(self, deadline: float) -> None:
        """``settle``, where this process has anything to tell, and only once where that
        takes too long.

        :param deadline: until when to wait (``time.monotonic()``).
        """
        if told := self._rounds.get(os.getpid()):
            told.settle_at_exit(deadline)


class _Round:
    """The signals of an application in one process."""

    def __init__(
        self,
        sender: Any,
        context: Callable[[], AbstractContextManager[object]],
        looks: list[Callable[[], None]],
    ) -> None:
        self._sender = sender
        self._context = context
        self._looks = looks
        self._looked_at = 0.0
        self._pid = os.getpid()
        self._notices: deque[Notice | Alarm] = deque()
        self._bell = Alarm()
        # The thread that sends holds this lock. The thread that starts it takes the
        # lock for it.
        self._turn = threading.Lock()
        #: Those of whom something will be told.
        self._expected: set[object] = set()
        # The characters in the queue, and the lock of that number.
        self._weight = 0
        self._weighing = RLock()
        self.dropped = 0
        self._is_dropping = False
        self._is_given_up = False
        # When a failure was last logged, by the message and what has failed.
        self._logged_at: dict[tuple[str, str], float] = {}

    def take(self, notice: Notice) -> None:
        is_heavy = notice.weight and self._weight + notice.weight > MOST_CHARACTERS
        if is_heavy or len(self._notices) >= MOST_WAITING:
            self._drop(notice)
            self._ring()  # If no thread could be started before, it can be now.
            return
        self._weigh(notice.weight)
        self._notices.append(notice)
        self._ring()

    def _weigh(self, change: int) -> None:
        if change:
            with self._weighing:
                self._weight += change

    def _drop(self, notice: Notice) -> None:
        with self._weighing:
            self.dropped += 1
            is_first, self._is_dropping = not self._is_dropping, True
        if is_first:
            name = _name(notice.signal)
            SIGNALS_DROPPED.log(name, signal=name)

    def stay_for(self, whom: object) -> None:
        self._expected.add(whom)
        self._ring()

    def expected(self) -> list[object]:
        return list(self._expected)

    def leave(self, whom: object) -> None:
        self._expected.discard(whom)
        self._bell.set()

    def settle(self, timeout: float) -> bool:
        if not (self._notices or self._turn.locked()):
            return True
        is_reached, deadline = Alarm(), time.monotonic() + timeout
        self._notices.append(is_reached)
        while self._ring():
            left = deadline - time.monotonic()
            if is_reached.wait(max(min(left, LOOK), 0)):
                return True
            if left <= 0:
                return False
        return False  # No thread can be started any more.

    def settle_at_exit(self, deadline: float) -> None:
        if not self._is_given_up:
            patience = max(deadline - time.monotonic(), 0)
            self._is_given_up = not self.settle(patience)

    # The thread

    def _ring(self) -> bool:
        """Have the thread look at what there is, and start it where it does not run.

        :returns: False where it does not run and cannot be started now.
        """
        self._bell.set()
        if self._turn.locked():
            return True
        if not can_wait():
            return False  # gevent's hub greenlet starts none. The next signal does.
        if not self._turn.acquire(blocking=False):
            return True
        if not _hooks:
            _hooks.append(atexit.register(settle_all))
        try:
            # Not in the context of the request in which this is told.
            threading.Thread(
                target=Context().run, args=[self._run], name=THREAD, daemon=True
            ).start()
        except (RuntimeError, MemoryError):
            # There are too many threads, or the interpreter ends. The next signal
            # tries again.
            self._turn.release()
            return False
        return True

    def _run(self) -> None:
        try:
            self._look_around(0)
            while True:
                self._send_all()
                self._look_around(LOOK_INTERVAL if self._expected else 0)
                is_told = self._bell.wait(self._patience())
                self._stay_at_home()
                if not (is_told or self._expected or self._notices):
                    break
        finally:
            self._turn.release()
            # A signal that was told after the last look found the turn taken, and
            # started no thread. (The same holds where this greenlet was killed.)
            if self._expected or self._notices:
                self._ring()

    def _patience(self) -> float | None:
        """How long the thread can sleep."""
        if not self._expected:
            return LINGER
        if not self._looks:
            return None
        return max(self._looked_at + LOOK_INTERVAL - time.monotonic(), 0)

    def _look_around(self, interval: float) -> None:
        """Call what looks around, unless that was done a moment ago."""
        if not self._looks or time.monotonic() - self._looked_at < interval:
            return
        self._looked_at = time.monotonic()
        for look in list(self._looks):
            try:
                look()
            except Exception:
                if self._is_worth_a_line(LOOK_FAILED, ""):
                    LOOK_FAILED.log(look, error=True)

    def _send_all(self) -> None:
        while self._notices:
            notice = self._notices.popleft()
            if isinstance(notice, Alarm):
                notice.set()
                continue
            self._weigh(-notice.weight)
            self._send(notice)
            self._stay_at_home()
        with self._weighing:
            has_dropped, self._is_dropping = self._is_dropping, False
        if has_dropped:
            SIGNALS_AGAIN.log(self.dropped, dropped=self.dropped)

    def _send(self, notice: Notice) -> None:
        """Call the receivers of a signal, one after the other. What one of them raises
        is logged, and the others are called all the same."""
        if notice.signal.is_muted:
            return
        try:
            with self._context():
                for receiver in list(notice.signal.receivers_for(self._sender)):
                    self._call(receiver, notice)
        except BaseException as error:
            # gevent's Timeout and SystemExit are no Exceptions, and come here too.
            if is_kill(error):
                raise
            name = _name(notice.signal)
            if self._is_worth_a_line(SIGNAL_CONTEXT_FAILED, name):
                SIGNAL_CONTEXT_FAILED.log(name, error=True, signal=name)

    def _call(self, receiver: Callable[..., Any], notice: Notice) -> None:
        try:
            if inspect.iscoroutinefunction(receiver):
                receiver = self._sender.ensure_sync(receiver)
            receiver(self._sender, **notice.facts)
        except BaseException as error:
            if is_kill(error):
                raise
            name = _name(notice.signal)
            if self._is_worth_a_line(RECEIVER_FAILED, f"{name} {receiver!r}"):
                RECEIVER_FAILED.log(name, receiver, error=True, signal=name)

    def _is_worth_a_line(self, message: Message, what: str) -> bool:
        """Whether a failure is logged. A receiver can fail at each signal, and
        strangers can cause any number of signals."""
        now, key = time.monotonic(), (message.code, what)
        last = self._logged_at.get(key)
        if last is not None and now - last < BETWEEN_LINES:
            return False
        if len(self._logged_at) >= MOST_LINES:
            self._logged_at.clear()
        self._logged_at[key] = now
        return True

    def _stay_at_home(self) -> None:
        """Wait forever, if this is the copy of the greenlet that a forked child has
        under gevent: what it would send is told in the parent."""
        while os.getpid() != self._pid:
            time.sleep(LINGER)


def _name(signal: Signal) -> str:
    return str(getattr(signal, "name", signal))


_couriers: weakref.WeakSet[Courier] = weakref.WeakSet()

# What was registered with the interpreter. Forked children inherit both this list and
# what was registered.
_hooks: list[Callable[[], None]] = []


def settle_all() -> None:
    """Have receivers told what is left, as the process exits. A receiver that hangs
    costs ``EXIT_PATIENCE`` seconds. The hub calls this too, behind its last streams."""
    deadline = time.monotonic() + EXIT_PATIENCE
    for courier in list(_couriers):
        courier.settle_at_exit(deadline)

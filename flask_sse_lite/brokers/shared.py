"""What brokers have in common whose events stand in a store that processes share.

Here lives how a process follows such a store. As soon as it has readers, one daemon
thread (under a monkey-patched gevent, a greenlet) feeds its log with all that is
published, its own events included, in the store's order; what a channel retained
before is loaded when it is first wanted. A process that only publishes follows
nothing. How a store is spoken to lives in the module of its broker.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import threading
import time
import weakref
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import wraps
from heapq import heappushpop
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from ..errors import BrokerUnavailable, Reentered
from ..event import Event
from ..history.fed import FedLog
from ..history.pacing import BREATH
from ..history.records import Past, Record, unreadable
from ..history.retention import RUNS_BYTES
from ..own_events import LOST
from ..position import RUN_PREFIX, position_id
from ..system.backoff import Backoff
from ..system.gevent import can_wait, is_kill
from ..system.locks import Alarm, Guard
from . import Broker, Claim
from .deadline import Deadline, Deadlines, OutOfTime

#: Seconds without news after which the store is asked all the same: a publisher may
#: have died between publishing and telling.
LOOK_INTERVAL = 1.0

#: Seconds between two tries to reach a store that is away: the first and the longest
#: pause, each spread so that processes do not come all at once.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0

#: Lives of the store whose newest position is known: there may be somebody who has just
#: published in the one before.
LIVES = 4

#: Channels of which a process says in its log that it cannot read an entry there.
MAX_UNREADABLE_TOLD = 100

#: Seconds that a fork waits for the others who use a store.
FORK_PATIENCE = 1.0

#: Seconds that ``close`` waits for the follower to end.
CLOSE_PATIENCE = 5.0

logger = logging.getLogger("flask_sse_lite")


class Retention(NamedTuple):
    """How much a store keeps of each channel: events, and seconds."""

    history: int
    age: float


class State(NamedTuple):
    """What a store says of itself: the name of its life (16 hexadecimal digits), its
    newest position there, and what it keeps."""

    epoch: str
    sequence: int
    retention: Retention


class Summary(NamedTuple):
    """What a store retains of one channel: how many events, and for how many seconds
    the newest entry has stood there. That may be the channel's end."""

    channel: str
    events: int
    age: float
    is_closed: bool


class News(NamedTuple):
    """What stands behind a position of a store.

    ``records`` are those of the channels that are loaded, in order, up to ``sequence``.
    Where the store has dropped something of them behind the position that was asked
    for, ``lost`` has the highest position dropped of each. ``more`` says that there is
    more behind ``sequence``. Of another epoch than the log's, only ``epoch`` counts.
    """

    epoch: str
    sequence: int
    records: list[Record]
    lost: Mapping[str, int]
    more: bool


P = ParamSpec("P")
T = TypeVar("T")


def _bounded(
    method: Callable[Concatenate[SharedBroker, P], T],
) -> Callable[Concatenate[SharedBroker, P], T]:
    """Have a public call end within the broker's timeout, whatever it waits for."""

    @wraps(method)
    def call(broker: SharedBroker, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with broker._within():
            return method(broker, *args, **kwargs)

    return call


class Closing(Alarm):
    """Whether a broker is closed, for who asks and for who waits for it."""

    __slots__ = ("_is_set",)

    def __init__(self) -> None:
        super().__init__()
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        super().set()


class SharedBroker(Broker):
    """A broker that follows a store.

    A subclass says how the store is spoken to: the methods below "The store" and "The
    follower's ears". Each raises ``BrokerUnavailable`` where the store is away; their
    callers see to the rest. Those of the store may be called by several threads at
    once, the others are the follower's own.

    :param name: what logs and errors call the store; without passwords.
    :param timeout: seconds after which a store that does not answer is away.
    """

    is_shared = True
    #: Seconds that a run's process may keep silent before it is taken for dead.
    lease = 5.0

    #: Seconds between two looks after runs, and two tellings of how many are served
    #: here; and those for which the telling holds, if there is no other.
    duty_interval = 1.5
    count_life = 6.0

    counting_takes = 2 * duty_interval

    #: See ``limit_runs``.
    _runs_bytes = RUNS_BYTES

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self._reset()
        _brokers.add(self)

    def _reset(self) -> None:
        """As new: at the beginning, and in a forked child."""
        self.log: FedLog = FedLog(runs_bytes=self._runs_bytes)
        # Whoever changes the log holds this: see _changing.
        self._lock = Guard()
        self._follower: threading.Thread | None = None
        self._is_attached = False
        self._is_away = False
        self._closing = Closing()
        self._deadlines = Deadlines()
        #: When the last look at the store began that brought the log up to it.
        self._looked_at = 0.0
        #: The newest position that was published here, by epoch; and the last epoch.
        self._newest: dict[str, list[int]] = {}
        self._last_epoch = ""
        #: Events published since others last got their turn.
        self._burst = 0
        #: Channels with an entry that could not be read, of which the log was told.
        self._unreadable: set[str] = set()
        #: What the store knows this process by; and its runs.
        self._process = secrets.token_hex(8)
        self._claims: set[Claim] = set()
        #: Channels whose readers wait for the end of a run that the store does not
        #: know, and since when. The follower's.
        self._doubted: dict[str, float] = {}
        self._is_counted = False
        self._duties_at = 0.0
        #: Until then no process is taken for dead: it may have been the store's absence
        #: that kept it silent.
        self._patient_until = 0.0

    # The store

    @abstractmethod
    def _put(self, channel: str, event: Event | None) -> tuple[str, int]:
        """Put an event, or the end of its channel, at the next position, and wake all
        who follow.

        :returns: epoch and sequence number.
        """

    @abstractmethod
    def _state(self) -> State: ...

    @abstractmethod
    def _load(self, channels: Collection[str]) -> tuple[State, dict[str, Past]]:
        """The store's state, and what it retains of each of these channels; both as of
        one moment, or the pasts as of a later one."""

    @abstractmethod
    def _news(self, after: int) -> News:
        """What stands behind a position: see ``News``. The lock is held; which channels
        are loaded, ``log.holds`` and ``log.held`` say."""

    @abstractmethod
    def _summaries(self) -> Iterable[Summary]:
        """What is retained of each channel, or somewhat more of it."""

    @abstractmethod
    def _renew(self, epoch: str) -> None:
        """Have the store begin another life, unless it has another epoch than this one:
        it has forgotten events of it."""

    # Its runs. A claim holds for a lease's time from its beginning, and from each time
    # that it is extended.

    @abstractmethod
    def _begin(self, claim: Claim) -> tuple[str, int] | None:
        """Put the beginning of a run at the next position, unless one goes on in its
        channel. Where one has lost its process, it is ended first.

        A claim that began before is begun anew only if the store has lost it: neither
        where its channel was ended since then, nor where another run has begun there.
        In the epoch where it began it keeps its beginning, and nothing is put.

        :returns: epoch and sequence number where the claim's run begins, if it goes on.
        """

    @abstractmethod
    def _say(
        self,
        claim: Claim,
        event: Event | None,
        dropped: int,
        reason: Event | None = None,
    ) -> tuple[str, int] | None:
        """As ``_put``, unless the run is over, or not known.

        :param dropped: the highest position that need not be kept of its channel.
        :param reason: what is put right before the end, in the same step.
        """

    @abstractmethod
    def _extend(self, claims: Collection[Claim]) -> tuple[str, set[str]]:
        """Have runs go on.

        :returns: the epoch, and the tokens of those that are known, even if over.
        """

    @abstractmethod
    def _end_lost(self) -> None:
        """Put ``LOST`` and the end into the channels of runs whose lease is over. A
        lease without a run is dropped."""

    @abstractmethod
    def _unknown(self, channels: Collection[str]) -> set[str]:
        """Those of these channels in which no run goes on, as far as the store knows.
        A run there that has no lease gets one: it ends if nobody extends that."""

    @abstractmethod
    def _end_unknown(self, channel: str, epoch: str, seen: int) -> None:
        """Put ``LOST`` and the end into a channel in which no run goes on, unless its
        last word is the end.

        :param seen: where the caller stands in this epoch. Nothing is put if the
            channel has something newer: that may be the end.
        """

    # Its counts

    @abstractmethod
    def _count(self, counts: Mapping[str, int]) -> None:
        """Note for ``count_life`` how many streams of which channels this process
        serves, instead of what was noted of it before."""

    @abstractmethod
    def _counted(self, channel: str) -> int:
        """How many streams of a channel the others serve."""

    # The follower's ears

    @abstractmethod
    def _listen(self) -> None:
        """Begin to listen, so that nothing that is published from here on goes unheard;
        also after what it listened by was lost."""

    @abstractmethod
    def _wait(self, timeout: float) -> bool:
        """Wait for news, so many seconds at most, or until ``_interrupt`` is called.
        What is heard in full may be fed at once: see ``_hear``.

        :returns: whether the store is to be looked at.
        """

    @abstractmethod
    def _interrupt(self) -> None:
        """End a wait. For any thread."""

    @abstractmethod
    def _let_go(self) -> None:
        """Close all that is open. Nobody uses it any more, or this is a forked child,
        which must leave the parent's alone."""

    def _before_fork(self) -> None:
        """Let go of what may not be open over a fork."""

    def _after_fork(self) -> None:
        """The parent goes on."""

    # The contract

    def within_timeout(self) -> AbstractContextManager[object]:
        return self._within()

    def _within(self) -> AbstractContextManager[Deadline]:
        """The deadline of the public call that this is a part of; of what is none, one
        of its own."""
        return self._deadlines.within(self.timeout)

    @property
    def _deadline(self) -> Deadline:
        """The same, for what comes next alone."""
        return self._deadlines.current or Deadline(self.timeout)

    @_bounded
    def publish(self, channel: str, event: Event) -> Event:
        epoch, sequence = self._put_there(channel, event)
        return event.published(channel, position_id(epoch, sequence, channel))

    @_bounded
    def end(self, channel: str) -> None:
        self._put_there(channel, None)

    def _put_there(self, channel: str, event: Event | None) -> tuple[str, int]:
        self._check_open()
        position = self._put(channel, event)
        self._note_published(position)
        return position

    @property
    def _published(self) -> tuple[str, int]:
        """The newest position that was published here."""
        epoch = self._last_epoch
        return (epoch, self._newest[epoch][0]) if epoch else ("", 0)

    def _note_published(self, position: tuple[str, int]) -> None:
        # Another thread may have published later, and come here before. Of two, each of
        # these steps keeps the higher, and nothing comes in between: a lock is one that
        # code could wait for which has interrupted its holder.
        epoch, sequence = position
        heappushpop(self._newest.setdefault(epoch, [sequence]), sequence)
        if epoch != self._last_epoch:
            self._last_epoch = epoch
            for old in list(self._newest)[:-LIVES]:
                self._newest.pop(old, None)
        if self._follower:
            self._burst += 1
            if self._burst * 2 > self._retention.history:
                # As in pacing.py: under gevent, the follower can only run when we give
                # way to it.
                self._burst = 0
                time.sleep(BREATH)

    @_bounded
    def position(self) -> str:
        self._check_open()
        state = self._state()
        return position_id(state.epoch, state.sequence, "")

    @_bounded
    def summaries(self) -> list[Summary]:
        """The channels of which the store retains something."""
        self._check_open()
        return sorted(self._summaries())

    @_bounded
    def want(
        self, channels: Collection[str], since: str = "", *, fresh: bool = False
    ) -> None:
        self._check_open()
        asked_at = time.monotonic()
        if not self._is_attached:
            with self._changing():
                self._attach()
        if missing := self.log.missing(channels):
            with self._changing():
                if missing := self.log.missing(missing):
                    self._fetch(missing)
        if fresh or self._is_behind(channels, since):
            while not self._look(asked_at):
                pass

    def _is_behind(self, channels: Collection[str], since: str) -> bool:
        """Whether the log must be brought up to the store before a cursor is taken."""
        epoch, sequence = self._published
        if epoch and (epoch != self.log.epoch or sequence > self.log.sequence):
            # A newcomer is not to be given what was published here before it came.
            return True
        return bool(since) and not self.log.knows(channels, since)

    @_bounded
    def begin_run(self, channel: str, budget: int) -> Claim | None:
        self.want((channel,))
        claim = Claim(channel, budget)
        has_begun = self._have_begun(claim)
        try:
            self.want((channel,), fresh=True)
        except BaseException:
            # Others may read it already, and it has said nothing.
            with suppress(BrokerUnavailable):
                self.end_run(claim, LOST)
            raise
        return claim if has_begun else None

    def _have_begun(self, claim: Claim) -> bool:
        if began := self._begin(claim):
            claim.began = began
            self._note_published(began)
            self._claims.add(claim)
            if claim.is_over:  # Since a moment ago, and it is not to begin again.
                self._claims.discard(claim)
        return began is not None

    @_bounded
    def say(self, claim: Claim, event: Event) -> Event | None:
        try:
            position = self._say_there(claim, event)
        except BaseException:
            claim.is_broken = True
            raise
        if position is None:
            self._give_up(claim)
            return None
        self._note_published(position)
        return event.published(claim.channel, position_id(*position, claim.channel))

    @_bounded
    def end_run(self, claim: Claim, reason: Event | None = None) -> None:
        # First of all: if the store is away, the lease is to come to its end.
        self._give_up(claim)
        if claim.is_broken:
            reason = reason or LOST
        if position := self._say_there(claim, None, reason):
            self._note_published(position)

    def _give_up(self, claim: Claim) -> None:
        claim.is_over = True
        self._claims.discard(claim)

    def _say_there(
        self, claim: Claim, event: Event | None, reason: Event | None = None
    ) -> tuple[str, int] | None:
        self._check_open()
        dropped = self.log.dropped(claim.channel)
        position = self._say(claim, event, dropped, reason)
        if position is None and self._have_begun(claim):
            # The store had lost the run. (The follower may have been faster.)
            position = self._say(claim, event, 0, reason)
        return position

    def limit_runs(self, size: int) -> None:
        self._runs_bytes = size  # A forked child has a log of its own.
        super().limit_runs(size)

    @_bounded
    def subscribers(self, channel: str) -> int:
        self._check_open()
        return self.listeners().get(channel, 0) + self._counted(channel)

    def close(self) -> None:
        self._closing.set()
        follower = self._follower
        if follower and follower is not threading.current_thread():
            self._interrupt()
            follower.join(CLOSE_PATIENCE)
        self._let_go()

    def _is_at_store(self) -> bool:
        """Whether this thread has interrupted itself while it has the store for itself,
        so that nobody else can go on before it has."""
        return False

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise BrokerUnavailable(f"The broker of {self.name} is closed")
        if not can_wait():
            raise Reentered

    # Entries that cannot be read

    def _cannot_read(
        self, epoch: str, sequence: int, age: float, channel: str, error: Exception
    ) -> Record:
        """What stands for an entry that this process cannot read. The operator is told
        once of each channel, and of a bounded number of them."""
        told = self._unreadable
        if channel not in told and len(told) < MAX_UNREADABLE_TOLD:
            told.add(channel)
            # Whoever knows the name of a run's channel can read it. What an error says
            # of an entry can be as long and as secret as the entry.
            is_run = channel.startswith(RUN_PREFIX)
            logger.warning(
                "%s has an entry in %s that this release cannot read (%s). Readers of "
                "that channel get a stream-gap in its place. Another program, or a "
                "later release, has written it.",
                *(self.name, "a run" if is_run else f"the channel {channel!r}"),
                type(error).__name__,
            )
        return unreadable(epoch, sequence, age, channel)

    # Following

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change the log, by what the store says. One at a time; nobody waits long for
        a store that is known to be away."""
        if self._is_at_store():
            # Whoever holds the lock can be waiting for what this thread has there.
            raise Reentered
        is_followers = threading.current_thread() is self._follower
        deadline = self._deadline
        failure = None
        if not self._lock.acquire(timeout=deadline.left):
            raise OutOfTime(f"{self.name} is too slow")
        try:
            if self._is_away and not is_followers:
                raise BrokerUnavailable(f"{self.name} is away")
            if not deadline.left:
                raise OutOfTime(f"{self.name} is too slow")
            yield
        except (OutOfTime, Reentered):
            raise  # Neither says anything of the store.
        except BrokerUnavailable as error:
            failure = error
            raise
        finally:
            self._lock.release()
            # Not before: who handles the log's lines may publish them.
            if failure and self._is_attached:
                self._note_away(failure)

    def _attach(self) -> None:
        """Begin to follow, at the store's position. The lock is held."""
        if not self._is_attached:
            self._restart(*self._load(()))
            try:
                self._start_follower()
            except RuntimeError as error:
                self._follower = None
                raise BrokerUnavailable(
                    f"{self.name} cannot be listened to: {error}"
                ) from error
            self._is_attached = True

    def _start_follower(self) -> None:
        self._follower = threading.Thread(
            target=self._follow,
            args=(os.getpid(), self._closing),
            name="flask_sse_lite.follower",
            daemon=True,
        )
        self._follower.start()

    def _restart(self, state: State, pasts: Mapping[str, Past]) -> None:
        self._retention = state.retention
        self.log.restart(
            state.epoch,
            state.sequence,
            pasts,
            history=state.retention.history,
            age=state.retention.age,
        )

    def _fetch(self, channels: Collection[str]) -> None:
        """Load channels. The lock is held."""
        state, pasts = self._load(channels)
        if state.epoch != self.log.epoch:
            wanted = {*self.log.wanted(), *channels}
            self._restart(*self._load(wanted))
        else:
            self.log.load(pasts)

    def _look(self, asked_at: float = 0.0) -> bool:
        """Feed what is new, or a piece of it.

        :param asked_at: nothing is done when a look has begun since then: of thousands
            who ask, few have to.
        :returns: whether the log is up to the store.
        """
        with self._changing():
            if asked_at and self._looked_at >= asked_at:
                return True
            looked_at = time.monotonic()
            if unfed := self.log.unfed():
                self._fetch(unfed)
            news = self._news(self.log.sequence)
            if news.epoch == self.log.epoch and news.sequence < self.log.sequence:
                # It has lost some. What comes next would have the ids of those.
                self._renew(news.epoch)
                news = news._replace(epoch="")
            if news.epoch != self.log.epoch:
                self._restart(*self._load(self.log.wanted()))
                more = False
            else:
                self._take(news)
                more = news.more
            if not more:
                self._looked_at = looked_at
            return not more

    def _take(self, news: News) -> None:
        """Feed what is new in this life. The lock is held."""
        for channel, dropped in news.lost.items():
            self.log.lose(channel, dropped)
        for record in news.records:
            self.log.feed(record)
        self.log.advance(news.sequence)

    def _hear(self, epoch: str, records: Iterable[Record]) -> bool:
        """Feed what was heard, as long as it is what comes next.

        :returns: whether something was missed, so that the store is to be looked at.
        """
        with self._changing():
            if self.log.has_unfed:
                return True
            for record in records:
                if epoch != self.log.epoch or record.sequence > self.log.sequence + 1:
                    return True
                if record.sequence == self.log.sequence + 1:
                    self.log.feed(record)
        return False

    def _follow(self, pid: int, closing: Closing) -> None:
        """The follower's thread. It ends with the broker, and for no error."""
        pause, backoff = FIRST_PAUSE, Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while not closing.is_set():
            try:
                self._listen()
                while not closing.is_set():
                    while not self._look():
                        self._do_duties()
                    self._note_back()
                    pause = FIRST_PAUSE
                    self._do_duties()
                    while not (self._wait(LOOK_INTERVAL) or closing.is_set()):
                        self._do_duties()
                    _stop_in_child(pid)
            except BaseException as error:
                # Not only an Exception: gevent's Timeout is none, nor is SystemExit.
                _stop_in_child(pid)
                if closing.is_set():
                    return
                self._note_away(error)
                if not isinstance(error, BrokerUnavailable):
                    # The store may well be there, and the next look succeed.
                    pause = backoff.next()
                closing.wait(pause * random.uniform(0.5, 1))
                pause = min(2 * pause, LONGEST_PAUSE)
                _stop_in_child(pid)
                if is_kill(error):
                    # Who has killed this greenlet waits for its end.
                    self._start_follower()
                    return

    def _do_duties(self) -> None:
        """Look after runs, and tell how many are served here, if it is time. For the
        follower, as often as possible: whoever does not is taken for dead."""
        now = time.monotonic()
        if now < self._duties_at:
            return
        self._duties_at = now + self.duty_interval * random.uniform(0.8, 1)
        # A store that can only be read is good enough for following.
        with suppress(BrokerUnavailable):
            if self._claims:
                self._keep_claims()
            if now >= self._patient_until:
                self._end_lost()
            self._end_forgotten(now)
        with suppress(BrokerUnavailable):
            counts = self.listeners()
            if counts or self._is_counted:
                self._count(counts)
                self._is_counted = bool(counts)

    def _keep_claims(self) -> None:
        claims = list(self._claims)
        epoch, known = self._extend(claims)
        for claim in claims:
            if claim.token in known:
                claim.began = (epoch, claim.began[1])
            elif claim in self._claims:
                self._have_begun(claim)  # The store has lost it.

    def _end_forgotten(self, now: float) -> None:
        """End the runs whose readers wait here and which the store has lost. A run's
        own process, if it lives, has given it to the store anew before."""
        own = {claim.channel for claim in list(self._claims)}
        waiting = [name for name in self.log.awaiting_end() if name not in own]
        unknown = self._unknown(waiting) if waiting else ()
        self._doubted = {name: self._doubted.get(name, now) for name in unknown}
        for name, since in self._doubted.items():
            if now - since >= self.lease:
                self._end_unknown(name, self.log.epoch, self.log.sequence)

    def _note_away(self, error: BaseException) -> None:
        was_away, self._is_away = self._is_away, True
        if was_away:
            return
        if isinstance(error, BrokerUnavailable):
            logger.warning("%s. Open streams wait for it", error)
        else:
            logger.error("Following %s failed", self.name, exc_info=error)

    def _note_back(self) -> None:
        if self._is_away:
            self._is_away = False
            self._patient_until = time.monotonic() + self.lease
            logger.info("%s is back", self.name)


def _stop_in_child(pid: int) -> None:
    """Go no further, if this is a forked child's copy of a greenlet. (Where it ended,
    the threading module would miss it.)"""
    while os.getpid() != pid:
        threading.Event().wait()


# Forks. A child gets a copy of everything in whatever state it is, and of threads none.

_brokers: weakref.WeakSet[SharedBroker] = weakref.WeakSet()


def _each(do: Callable[[SharedBroker], None]) -> Callable[[], None]:
    def do_with_all() -> None:
        for broker in list(_brokers):
            with suppress(Exception):
                do(broker)

    return do_with_all


def _begin_anew(broker: SharedBroker) -> None:
    broker._let_go()
    broker._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_each(lambda broker: broker._before_fork()),
        after_in_parent=_each(lambda broker: broker._after_fork()),
        after_in_child=_each(_begin_anew),
    )

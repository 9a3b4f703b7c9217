"""The store: what a place that processes share must be able to do to carry their
events.

Here live the verbs of a store, and the types of its answers. A store has no thread,
feeds no log, and retries nothing for long: ``follower.py`` calls its verbs, and
``shared.py`` makes a broker of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple

from ..errors import BrokerUnavailable, Reentered
from ..event import Event
from ..history.records import Past, Record
from ..system.gevent import can_wait
from ..system.locks import Alarm
from .contract import Claim, Summary
from .deadline import Deadline, Deadlines
from .presence import Board
from .view import View

#: Seconds between two looks at a store that cannot wake those who wait for news.
POLL_INTERVAL = 0.1


class Retention(NamedTuple):
    """How much a store keeps of each channel: events, and seconds."""

    history: int
    age: float


class State(NamedTuple):
    """What a store says of itself: the epoch, which names its life (16 hexadecimal
    digits), its newest position in that, and how much it keeps."""

    epoch: str
    sequence: int
    retention: Retention


class News(NamedTuple):
    """What stands in a store after a position.

    ``records`` are those of the loaded channels, in order, up to ``sequence``. Records
    of other channels are left out. If the store has dropped records of a loaded channel
    after the position that was asked for, ``lost`` has the highest dropped position of
    that channel. ``more`` says that the store has more after ``sequence``. If ``epoch``
    is another than the log's, the other fields do not count.
    """

    epoch: str
    sequence: int
    records: list[Record]
    lost: Mapping[str, int]
    more: bool


class Heard(NamedTuple):
    """What came of a wait for news.

    ``is_to_look`` says that the store must be asked for what is new. ``records`` are
    those that arrived whole, in the order of their arrival, in groups with their epoch.
    The follower iterates a group once, while nobody else changes the log, so a store
    can make the records lazily. ``has_more`` says that more has arrived already.
    """

    is_to_look: bool
    records: Sequence[tuple[str, Iterable[Record]]] = ()
    has_more: bool = False


class Closing(Alarm):
    """Whether a store is being closed. Threads can ask for that, and wait for it."""

    __slots__ = ("_is_set",)

    def __init__(self) -> None:
        super().__init__()
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        super().set()


class Store(ABC):
    """One process's way to a store that processes share.

    Any thread can call any verb, several at once. Only the follower calls ``listen``
    and ``wait``. A verb raises ``BrokerUnavailable`` where the store is away, at
    ``deadline`` at the latest; the caller does not try again. A verb that waits for
    other threads must call ``check_open`` after its wait. A position is an epoch and a
    sequence number; sequence numbers grow by one with each entry, over all channels.

    It has more than 20 methods: together they are the whole of what a store has to do.

    :param name: what logs and errors call the store; without passwords.
    :param timeout: seconds after which a store that does not answer is away.
    """

    #: Seconds of silence after which a run's process is taken for dead.
    lease = 5.0

    #: Seconds between two rounds of a process's duties: it looks after runs, and tells
    #: how many streams it serves.
    duty_interval = 1.5

    #: Seconds that such a count holds, if no other comes.
    count_life = 6.0

    #: How the store knows whose streams there are. A store can do without it: then
    #: ``SSE.present`` is an error, and so is ``SSE_PRESENCE``.
    board: Board | None = None

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self._begin_here()

    def _begin_here(self) -> None:
        #: What this process knows of the store.
        self.view = View(self.name)
        #: Set when the store is being closed. No verb must be called then.
        self.closing = Closing()
        #: The deadlines of the public calls that go on here.
        self.deadlines = Deadlines()
        self._alarm = Alarm()

    # Events

    @abstractmethod
    def put(self, channel: str, event: Event | None) -> tuple[str, int]:
        """Put an event, or the end of its channel (None), at the next position, and
        wake all processes that listen. A channel's end ends its run.

        :returns: the position.
        """

    def put_in_all(
        self, channels: Collection[str], event: Event
    ) -> Iterable[tuple[str, int]]:
        """Put an event into several channels. A store that can puts it into all of them
        in one step, or into none.

        :returns: the positions, as soon as each is known.
        """
        return (self.put(channel, event) for channel in channels)

    @abstractmethod
    def state(self) -> State:
        """What the store says of itself. An empty store begins its first life."""

    @abstractmethod
    def load(self, channels: Collection[str]) -> tuple[State, dict[str, Past]]:
        """The store's state, and what it retains of each of these channels. The pasts
        must be of the same moment as the state, or of a later one."""

    @abstractmethod
    def news(self, after: int) -> News:
        """What stands after a position in the log's epoch. The log does not change
        during this call. ``view.log.holds`` and ``view.log.held`` say which channels
        are loaded."""

    @abstractmethod
    def summaries(self) -> Iterable[Summary]:
        """A summary of what is retained of each channel. It can count somewhat more
        than that."""

    @abstractmethod
    def renew(self, epoch: str) -> None:
        """Begin another life, because the store has forgotten events of this epoch.
        Does nothing where the store has another epoch already."""

    # Runs. A claim holds for the time of one lease after it was begun, and after each
    # time that it was extended.

    @abstractmethod
    def begin(self, claim: Claim) -> tuple[str, int] | None:
        """Put the beginning of a run at the next position, unless another run goes on
        in its channel. If that run's lease is over, its process is gone: it is ended
        first.

        A claim that has begun before is begun anew only if the store has lost it, its
        channel was not ended since then, and no other run has begun there. In the epoch
        where it began, the claim keeps its position, and nothing is put.

        :returns: the position where the claim's run begins, if it goes on.
        """

    @abstractmethod
    def say(
        self,
        claim: Claim,
        event: Event | None,
        dropped: int,
        reason: Event | None = None,
    ) -> tuple[str, int] | None:
        """As ``put``, unless the run is over or the store does not know it.

        :param dropped: the highest position of the channel that the store can drop.
        :param reason: an event that is put right before the end, in the same step.
        """

    @abstractmethod
    def extend(self, claims: Collection[Claim]) -> tuple[str, set[str]]:
        """Extend the leases of runs, so that they go on.

        :returns: the epoch, and the tokens of those runs that the store knows, even if
            they are over.
        """

    @abstractmethod
    def end_lost(self) -> None:
        """Put ``LOST`` and the end into the channels of runs whose lease is over. Drop
        leases without a run."""

    @abstractmethod
    def unknown(self, channels: Collection[str]) -> set[str]:
        """Those of these channels in which no run goes on, as far as the store knows.
        A run there without a lease gets one, so that the run ends if nobody extends
        the lease."""

    @abstractmethod
    def end_unknown(self, channel: str, epoch: str, seen: int) -> None:
        """Put ``LOST`` and the end into a channel, unless a run goes on there or the
        channel's last entry is an end.

        :param seen: the caller's position in this epoch. Nothing is put if the channel
            has a newer entry, because that can be the end.
        """

    # Counts

    @abstractmethod
    def count(self, counts: Mapping[str, int]) -> None:
        """Note how many streams of which channels this process (``view.process``)
        serves, in place of its previous counts. That holds for ``count_life``."""

    @abstractmethod
    def counted(self, channel: str) -> int:
        """How many streams of a channel the other processes serve."""

    def facts(self) -> Mapping[str, str]:
        """What the store's server tells of itself, by its own names: ``flask sse
        doctor`` judges what it knows of that. Empty where there is no server."""
        return {}

    # News. The methods here are those of a store that can wake nobody: the follower
    # looks at it again and again.

    def listen(self) -> None:  # noqa: B027
        """Begin to listen, so that nothing goes unheard that is published from here on.
        The follower calls this, and calls it again after an error."""

    def wait(self, timeout: float) -> Heard:
        """Wait for news, for some seconds at most, or until ``interrupt`` is called.
        The follower calls this."""
        self._alarm.wait(min(timeout, POLL_INTERVAL))
        return Heard(is_to_look=True)

    def interrupt(self) -> None:
        """End a wait."""
        self._alarm.set()

    # The process

    def finish(self) -> None:  # noqa: B027
        """Wait for what the store still does by itself, for some seconds at most. It is
        closed next."""

    @abstractmethod
    def close(self) -> None:
        """Close all that is open. Nobody uses it any more; or this is a forked child,
        and what belongs to the parent must not change."""

    def before_fork(self) -> None:  # noqa: B027
        """Let go of what must not be open during a fork."""

    def after_fork(self) -> None:  # noqa: B027
        """Go on in the parent."""

    def begin_anew(self) -> None:
        """Begin anew in a forked child. The parent's locks cannot be used there: a
        thread that the child does not have can hold them."""
        with suppress(Exception):
            self.close()
        self._begin_here()

    def within(self) -> AbstractContextManager[Deadline]:
        """Bound a block by the deadline of the public call that it is a part of.
        Outside of such a call, the block has a deadline of its own."""
        return self.deadlines.within(self.timeout)

    @property
    def deadline(self) -> Deadline:
        """The deadline of the public call that the caller is a part of. Outside of such
        a call, a deadline for the caller's next wait alone."""
        return self.deadlines.current or Deadline(self.timeout)

    def check_open(self) -> None:
        """:raises BrokerUnavailable: where the store is closed.
        :raises Reentered: where the caller must not wait."""
        if self.closing.is_set():
            raise BrokerUnavailable(f"The broker of {self.name} is closed")
        if not can_wait():
            raise Reentered

    @property
    def is_entered(self) -> bool:
        """Whether the caller has interrupted code of its own thread that uses the
        store alone. Other threads wait for that code, so the caller must not wait for
        them."""
        return False

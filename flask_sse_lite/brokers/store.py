"""The store: what a place must be able to do that processes share, so that it can
carry their events.

Here stand the verbs of such a place, and the types of what it answers. A store has no
thread, feeds no log, and retries nothing for long: ``follower.py`` calls its verbs, and
``shared.py`` makes a broker of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from ..errors import BrokerUnavailable, Reentered
from ..event import Event
from ..history.records import Past, Record
from ..system.gevent import can_wait
from ..system.locks import Alarm
from .contract import Claim, Summary
from .deadline import Deadline, Deadlines
from .view import View

#: Seconds between two looks at a store that cannot wake who waits for news.
POLL_INTERVAL = 0.1


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


class News(NamedTuple):
    """What stands behind a position of a store.

    ``records`` are those of the channels that are loaded, in order, up to ``sequence``.
    Records of other channels are passed over. Where the store has dropped something of
    a loaded channel behind the position that was asked for, ``lost`` has the highest
    position dropped of it. ``more`` says that there is more behind ``sequence``. Of
    another epoch than the log's, only ``epoch`` counts.
    """

    epoch: str
    sequence: int
    records: list[Record]
    lost: Mapping[str, int]
    more: bool


class Heard(NamedTuple):
    """What a wait for news has brought.

    ``is_to_look`` says that the store has to be asked for what is new. ``records`` are
    those that were heard in full, in the order of their arrival, each group with its
    epoch. A group is read once, while nobody else changes the log: a store can make the
    records then. ``has_more`` says that more has arrived already.
    """

    is_to_look: bool
    records: Sequence[tuple[str, Iterable[Record]]] = ()
    has_more: bool = False


class Closing(Alarm):
    """Whether a store is being closed, for who asks and for who waits for it."""

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
    """A store that processes share, as one of them uses it.

    Any thread may call any verb, several at once, except ``listen`` and ``wait``, which
    are the follower's. A verb raises ``BrokerUnavailable`` where the store is away, at
    ``deadline`` at the latest; the caller does not try again. A verb that waits for
    others calls ``check_open`` behind its wait. A position is an epoch and a sequence
    number; sequence numbers grow by one with each entry, over all channels.

    It has more than 20 methods: together they are the whole of what a store has to do.

    :param name: what logs and errors call the store; without passwords.
    :param timeout: seconds after which a store that does not answer is away.
    """

    #: Seconds that a run's process can keep silent before it is taken for dead.
    lease = 5.0

    #: Seconds between two looks of a process after runs, and between two tellings of
    #: how many streams it serves.
    duty_interval = 1.5

    #: Seconds that such a telling holds, if no other comes.
    count_life = 6.0

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self._begin_here()

    def _begin_here(self) -> None:
        #: What this process knows of the store.
        self.view = View(self.name)
        #: Set where no verb is to be called any more.
        self.closing = Closing()
        #: Until when the public calls that go on here must have their answers.
        self.deadlines = Deadlines()
        self._alarm = Alarm()

    # Events

    @abstractmethod
    def put(self, channel: str, event: Event | None) -> tuple[str, int]:
        """Put an event, or the end of its channel (None), at the next position, and
        wake all who listen. A channel's end ends its run.

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
        """The store's state, and what it retains of each of these channels; both as of
        one moment, or the pasts as of a later one."""

    @abstractmethod
    def news(self, after: int) -> News:
        """What stands behind a position of the log's epoch. The log does not change
        meanwhile; ``view.log.holds`` and ``view.log.held`` say which channels are
        loaded."""

    @abstractmethod
    def summaries(self) -> Iterable[Summary]:
        """What is retained of each channel, or somewhat more of it."""

    @abstractmethod
    def renew(self, epoch: str) -> None:
        """Begin another life, unless the store has another epoch than this one: it has
        forgotten events of it."""

    # Runs. A claim holds for a lease's time from its beginning, and from each time that
    # it is extended.

    @abstractmethod
    def begin(self, claim: Claim) -> tuple[str, int] | None:
        """Put the beginning of a run at the next position, unless one goes on in its
        channel. Where one has lost its process, that run is ended first.

        A claim that began before is begun anew only if the store has lost it: neither
        where its channel was ended since then, nor where another run has begun there.
        In the epoch where it began it keeps its beginning, and nothing is put.

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
        """As ``put``, unless the run is over, or not known.

        :param dropped: the highest position that need not be kept of its channel.
        :param reason: what is put right before the end, in the same step.
        """

    @abstractmethod
    def extend(self, claims: Collection[Claim]) -> tuple[str, set[str]]:
        """Have runs go on.

        :returns: the epoch, and the tokens of those that are known, even if over.
        """

    @abstractmethod
    def end_lost(self) -> None:
        """Put ``LOST`` and the end into the channels of runs whose lease is over. A
        lease without a run is dropped."""

    @abstractmethod
    def unknown(self, channels: Collection[str]) -> set[str]:
        """Those of these channels in which no run goes on, as far as the store knows.
        A run there that has no lease gets one: it ends if nobody extends that."""

    @abstractmethod
    def end_unknown(self, channel: str, epoch: str, seen: int) -> None:
        """Put ``LOST`` and the end into a channel in which no run goes on, unless its
        last word is the end.

        :param seen: where the caller stands in this epoch. Nothing is put if the
            channel has something newer: that can be the end.
        """

    # Counts

    @abstractmethod
    def count(self, counts: Mapping[str, int]) -> None:
        """Note for ``count_life`` how many streams of which channels this process
        (``view.process``) serves, instead of what was noted of it before."""

    @abstractmethod
    def counted(self, channel: str) -> int:
        """How many streams of a channel the other processes serve."""

    # News. A store that cannot wake who waits is looked at again and again.

    def listen(self) -> None:  # noqa: B027
        """Begin to listen, so that nothing that is published from here on goes unheard;
        also after what it listened by was lost. For the follower."""

    def wait(self, timeout: float) -> Heard:
        """Wait for news, so many seconds at most, or until ``interrupt`` is called. For
        the follower."""
        self._alarm.wait(min(timeout, POLL_INTERVAL))
        return Heard(is_to_look=True)

    def interrupt(self) -> None:
        """End a wait."""
        self._alarm.set()

    # The process

    @abstractmethod
    def close(self) -> None:
        """Close all that is open. Nobody uses it any more; or this is a forked child,
        which must leave the parent's alone."""

    def before_fork(self) -> None:  # noqa: B027
        """Let go of what cannot be open over a fork."""

    def after_fork(self) -> None:  # noqa: B027
        """The parent goes on."""

    def begin_anew(self) -> None:
        """Begin in a forked child as if nothing had been: a copy of the parent's locks
        can be held by a thread that is not there."""
        self.close()
        self._begin_here()

    def within(self) -> AbstractContextManager[Deadline]:
        """The deadline of the public call that the caller is a part of. Outside of one,
        the block has a deadline of its own."""
        return self.deadlines.within(self.timeout)

    @property
    def deadline(self) -> Deadline:
        """The same, for what comes next alone."""
        return self.deadlines.current or Deadline(self.timeout)

    def check_open(self) -> None:
        """:raises BrokerUnavailable: where the store is closed, or the caller must not
        wait."""
        if self.closing.is_set():
            raise BrokerUnavailable(f"The broker of {self.name} is closed")
        if not can_wait():
            raise Reentered

    @property
    def is_entered(self) -> bool:
        """Whether this thread has interrupted itself while it has the store for itself,
        so that nobody else can go on before it has."""
        return False

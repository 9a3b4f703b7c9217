"""The contract: what every broker promises to the application's channels and runs.

Only the contract lives here. How a broker keeps it lives in the module of that broker,
and ``flask_sse_lite.testing.broker_suite`` checks it.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from ..errors import Unsupported
from ..event import Event
from ..history.log import Log
from .presence import Wish

#: What is said where a broker does not know whose streams there are.
_NO_IDENTITIES = (
    "{} needs a broker that knows whose streams there are, and this application's own "
    "does not: give its store a board, as docs/own-broker.rst has it"
)


class Summary(NamedTuple):
    """What a store retains of one channel: how many events, and the age of the newest
    entry in seconds. The newest entry can be the channel's end."""

    channel: str
    events: int
    age: float
    is_closed: bool


class Claim:
    """The right of one run to feed a channel, until the run is over.

    ``began`` is the epoch and the position where the run began: where the log stood
    before its first event. If the store loses its events, the run is begun there anew,
    at another position, unless it ``is_over``. A run ``is_broken`` if one of its events
    could not be published.
    """

    __slots__ = ("began", "budget", "channel", "is_broken", "is_over", "token")

    def __init__(
        self, channel: str, budget: int, began: tuple[str, int] = ("", 0)
    ) -> None:
        self.channel = channel
        self.budget = budget
        self.began = began
        self.is_broken = self.is_over = False
        self.token = secrets.token_hex(8)


class Broker(ABC):
    """One process's way to the events of an application.

    Any thread or greenlet can call any method. A broker is made in the process that
    uses it, and costs nothing before its first use. ``close`` lets go of what it holds
    then (connections, files, a thread), and so does a forked child.

    All methods but ``close`` raise ``BrokerUnavailable`` where they need a store and
    cannot reach it. They do so within ``SSE_BROKER_TIMEOUT``, which bounds all that a
    call waits for.
    """

    #: What this process remembers, and what its readers read.
    log: Log

    #: Whether all processes get what one of them publishes.
    is_shared: bool

    #: How many streams of each channel this process serves. Set by ``Channels``; the
    #: broker calls it to report counts.
    listeners: Callable[[], Mapping[str, int]] = staticmethod(dict)

    #: Whose streams of each channel this process serves: the identities, with the
    #: numbers of their streams. Set by ``Channels``; the broker calls it to report who
    #: is there.
    identities: Callable[[], Mapping[str, Mapping[str, int]]] = staticmethod(dict)

    #: Seconds until ``subscribers`` has counted every client that came or left before.
    counting_takes: float = 0.0

    @property
    def is_away(self) -> bool:
        """Whether the store was away when this process, for its readers, last asked."""
        return False

    @property
    def reconnects(self) -> int:
        """How often the store was away for the readers of this process, and is back."""
        return 0

    def lag(self) -> int:
        """How many entries the store has that this process's log was not told of yet.
        The log of a process without readers is told of none."""
        return 0

    def within_timeout(self) -> AbstractContextManager[object]:
        """Give all calls in a block, together, the time that one call has."""
        return nullcontext()

    @abstractmethod
    def publish(self, channel: str, event: Event) -> Event:
        """Put an event at the next position of all channels. The log of every process
        that listens to its channel gets it, in the order of the positions.

        :returns: the event as it stands in its channel, with its id.
        """

    def publish_to_all(
        self, channels: Collection[str], event: Event
    ) -> Iterable[Event]:
        """Put an event into several channels, one after the other, as the caller
        iterates. A broker that has a step for all of them puts it into all or none. A
        caller that wants one bound for all steps has it by ``within_timeout``.

        :returns: the event as it stands in each of the channels.
        """
        return (self.publish(channel, event) for channel in channels)

    @abstractmethod
    def end(self, channel: str) -> None:
        """Put a channel's end at the next position, in the same way."""

    @abstractmethod
    def position(self) -> str:
        """The position of the newest event of any process. All that was published
        before this is called stands at that position or before it."""

    def summaries(self) -> list[Summary]:
        """The channels of which the store retains something. Empty where events end
        with their process."""
        return []

    @abstractmethod
    def want(
        self, channels: Collection[str], since: str = "", *, fresh: bool = False
    ) -> None:
        """Have the log hold what is retained of some channels, and from here on what
        is published to them. Callers do this before they take a cursor. If clients of
        this process listen to these channels already, it must cost the store nothing.

        :param since: the id that the cursor will resume from. If the store knows it,
            the log knows it when this returns.
        :param fresh: whether the log must have all that was published before this call.
        """

    @abstractmethod
    def begin_run(self, channel: str, budget: int) -> Claim | None:
        """Begin a run that feeds a channel, unless another run, of any process, feeds
        it. That opens the channel. What the run says is kept while the run goes on, and
        after its end for as long as other events are kept. A run ends when anyone ends
        its channel. When its process has been gone for some seconds, its readers get a
        ``stream-error`` that says so, and the end.

        :param budget: bytes of it that are kept.
        :returns: the run's claim; this process's log gets what the run says. None where
            another run goes on; the log then knows where that run began.
        """

    @abstractmethod
    def say(self, claim: Claim, event: Event) -> Event | None:
        """As ``publish``, for a run.

        :returns: None where the run is over, so that nothing was published.
        """

    @abstractmethod
    def end_run(self, claim: Claim, reason: Event | None = None) -> None:
        """As ``end``, for a run, unless it is over. Even where this fails, the process
        says nothing more of the run. If the store cannot be told, the run's readers get
        a ``stream-error`` that says so, and the end, some seconds later.

        :param reason: why the run ends before all was said. The readers get both the
            reason and the end, or neither. A run whose ``say`` has failed always ends
            with a reason.
        """

    def limit(self, history: int, runs: int) -> None:
        """Bound what the log holds, in bytes: all events together, and the output of
        all runs together. How much a store keeps does not change."""
        self.log.limit(history, runs)

    @abstractmethod
    def subscribers(self, channel: str) -> int:
        """How many streams of a channel all processes together serve."""

    def present(self, channel: str) -> dict[str, int]:
        """Who listens to a channel, with the number of their streams, over all
        processes. An identity without a stream has 0 as long as its leave has not been
        told: see ``tell_presence``.

        :raises Unsupported: where the broker does not know it.
        """
        raise Unsupported(_NO_IDENTITIES.format("SSE.present()"))

    def tell_presence(self, wish: Wish) -> None:
        """From now on, put a ``stream-join`` and a ``stream-leave`` into the channels
        that are wished for, as identities come and leave: each is put once, whichever
        process serves their streams, and whichever dies.

        :raises Unsupported: where the broker cannot do that.
        """
        raise Unsupported(_NO_IDENTITIES.format("SSE_PRESENCE"))

    @abstractmethod
    def close(self) -> None:
        """Let go of connections, files and threads. The log stays readable."""

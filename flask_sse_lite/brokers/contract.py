"""The contract: what every broker promises to the application's channels and runs.

Here stands the contract alone. How a broker keeps its promises lives in the module of
that broker, and ``flask_sse_lite.testing.broker_suite`` checks them.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from ..event import Event
from ..history.log import Log


class Summary(NamedTuple):
    """What a store retains of one channel: how many events, and for how many seconds
    the newest entry has stood there. The newest entry can be the channel's end."""

    channel: str
    events: int
    age: float
    is_closed: bool


class Claim:
    """The right of one run to feed a channel, until it is over.

    ``began`` is the epoch and the position where it began: where the log stood before
    its first event. A store that lost what it had gets the run anew, at another, unless
    it ``is_over``. Of a run that ``is_broken``, something could not be said.
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

    Any thread or greenlet may call any method. A broker is made in the process that
    uses it. It costs nothing before its first use; what it holds then (connections,
    files, a thread) it lets go of at ``close``, and in a forked child.

    All but ``close`` raise ``BrokerUnavailable`` where a store that they need cannot be
    reached, within ``SSE_BROKER_TIMEOUT``: whatever a call waits for counts.
    """

    #: What this process remembers, and what its readers read.
    log: Log

    #: Whether what one process publishes arrives in all of them.
    is_shared: bool

    #: How many streams of each channel this process serves. Set by ``Channels``; the
    #: broker calls it to report counts.
    listeners: Callable[[], Mapping[str, int]] = staticmethod(dict)

    #: Seconds until ``subscribers`` knows of all who came, or left, up to now.
    counting_takes: float = 0.0

    def within_timeout(self) -> AbstractContextManager[object]:
        """Have all calls of a block end within the time that one of them has."""
        return nullcontext()

    @abstractmethod
    def publish(self, channel: str, event: Event) -> Event:
        """Put an event at the next position of all, and see to it that it comes into
        the log of every process that listens to its channel, in that order.

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
        """Where the newest event of any process stands: not behind what anyone has
        published before this is called."""

    def summaries(self) -> list[Summary]:
        """The channels of which the store retains something. A broker whose events
        outlive no process has none to tell of."""
        return []

    @abstractmethod
    def want(
        self, channels: Collection[str], since: str = "", *, fresh: bool = False
    ) -> None:
        """Have the log hold what is retained of some channels, and from here on what
        is published to them. Callers do this before they take a cursor. It must cost
        the store nothing where others listen to these channels already.

        :param since: the id that the cursor will resume from. Where it is known to the
            store it is known to the log when this returns.
        :param fresh: whether the log is to have all that was published before this.
        """

    @abstractmethod
    def begin_run(self, channel: str, budget: int) -> Claim | None:
        """Have a run feed a channel from here on, unless one does, in whatever process.
        That opens the channel. What the run says is kept, whatever its age, until
        as long after its end as other events are kept. A run ends with its channel,
        whoever ends that; and where its process is gone for some seconds, its readers
        get a ``stream-error`` that says so, and the end.

        :param budget: bytes that are kept of it.
        :returns: the run's claim, with what it says in this process's log from here on;
            None where another goes on: then its beginning is known to the log.
        """

    @abstractmethod
    def say(self, claim: Claim, event: Event) -> Event | None:
        """As ``publish``, for a run.

        :returns: None where the run is over. Nothing was published, then.
        """

    @abstractmethod
    def end_run(self, claim: Claim, reason: Event | None = None) -> None:
        """As ``end``, for a run, unless it is over. The process says nothing more of
        the run, even where this fails: where the store cannot be told, the run's
        readers get a ``stream-error`` that says so, and the end, some seconds later.

        :param reason: why the run ends before all was said. The readers get the reason
            and the end, or neither. A run whose ``say`` has failed never ends without
            a reason.
        """

    def limit_runs(self, size: int) -> None:
        """Have the log hold no more than so many bytes of the output of all runs
        together. How much a store keeps is not changed by that."""
        self.log.limit_runs(size)

    @abstractmethod
    def subscribers(self, channel: str) -> int:
        """How many streams of a channel there are, in all processes together."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections, files and threads. The log stays readable."""

"""What the tests of the suite share: a store under test, a reader, and a few verbs."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, TypeVar

import pytest

from ...brokers import Broker, Claim
from ...brokers.store import Store
from ...errors import BrokerUnavailable
from ...event import Event
from ...position import position_id

#: Seconds that the suite waits for what must come. On a slow machine, the environment's
#: ``PATIENCE`` is a factor by which it waits longer.
PATIENCE = 30.0 * float(os.environ.get("PATIENCE") or 1)

#: Events of each channel that the brokers keep.
HISTORY = 8

#: More bytes than any test publishes.
ALL = 1 << 30

T = TypeVar("T")


def until(condition: Callable[[], T], timeout: float = PATIENCE) -> T:
    """Wait until a condition is true, by asking again and again.

    :param timeout: seconds after which the test fails.
    :returns: the condition's first true value.
    """
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        assert waited < timeout, f"not so within {timeout} s"
        # Asking costs something too, so a longer wait asks less often.
        time.sleep(min(0.01 + waited / 20, 0.1))
    return value


class StoreUnderTest(ABC):
    """A store or another place of a broker's events, as the tests use it."""

    #: Whether two of its brokers share their events.
    is_shared = True

    #: Whether its brokers know who is there.
    has_board = True

    def __init__(self) -> None:
        self._opened = ExitStack()

    @property
    def url(self) -> str:
        """The URL that an application configures to use this store."""
        return "memory://"

    @abstractmethod
    def connect(self, **config: Any) -> Broker:
        """Make a broker, as another process would.

        :param config: the configuration besides the URL.
        """

    def open(self, **config: Any) -> Broker:
        """Make a broker that is closed at the end of the test."""
        broker = self.connect(**{"SSE_HISTORY": HISTORY, **config})
        self._opened.callback(broker.close)
        return broker

    def lose_everything(self) -> None:
        """Empty the store while brokers use it."""
        raise NotImplementedError

    def go_away(self) -> None:
        raise NotImplementedError

    def come_back(self) -> None:
        """Come back with all that was there before."""
        raise NotImplementedError

    def close(self) -> None:
        self._opened.close()


class Reader:
    """A subscriber of a broker, and what it has read so far."""

    def __init__(
        self, broker: Broker, *channels: str, since: str = "", last: int = 0
    ) -> None:
        broker.want(channels, since)
        self._log = broker.log
        self._cursor = self._log.cursor(channels, since, last)
        self._news = threading.Event()
        self._log.watch(channels, self._news.set)
        self.events: list[Event] = []
        self.gaps: list[Event] = []
        self.has_ended = False

    @property
    def position(self) -> str:
        return self._cursor.id

    @property
    def data(self) -> list[str]:
        return [event.data for event in self.events]

    def read(self) -> None:
        """Read what the log has now."""
        self._news.clear()
        batch = self._log.read(self._cursor, ALL)
        if batch.gap:
            self.gaps.append(batch.gap)
        self.events += [entry.event for entry in batch.entries if entry.event]
        self.has_ended = self.has_ended or batch.ended

    def has_come_to(self, position: str) -> bool:
        """Whether the reader has read all up to a position, or its channels have ended.
        (Events of other channels move the position on, but wake no reader.)"""
        self.read()
        return self.has_ended or sequences([self.position]) >= sequences([position])

    def until(self, condition: Callable[[], object]) -> None:
        """Read until a condition is true."""
        self.read()
        while not condition():
            assert self._news.wait(PATIENCE), f"no news, after {self.data}"
            self.read()

    def take(self, count: int) -> list[str]:
        """The data of the next ``count`` events. Fails if there is a gap."""
        self.until(lambda: len(self.events) >= count)
        assert not self.gaps
        assert len(self.events) == count
        taken, self.events = self.data, []
        return taken


def publish(broker: Broker, channel: str, *data: str) -> list[str]:
    """:returns: the ids."""
    return [broker.publish(channel, Event(text)).id or "" for text in data]


def sequences(ids: Iterable[str | None]) -> list[int]:
    return [int((id or "").partition("-")[2]) for id in ids]


# Runs


def say(broker: Broker, claim: Claim, *data: str) -> list[str]:
    """:returns: the ids."""
    said = [broker.say(claim, Event(text)) for text in data]
    return [event.id or "" for event in said if event]


def begun(broker: Broker, channel: str, budget: int = 1_000_000) -> Claim:
    claim = broker.begin_run(channel, budget)
    assert claim
    return claim


def reader_of_run(broker: Broker, channel: str) -> Reader:
    """A reader of a run, from the run's beginning."""
    broker.want((channel,), fresh=True)
    start = broker.log.run_start(channel)
    assert start is not None
    first = position_id(broker.log.epoch, start, channel)
    return Reader(broker, channel, since=first)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the lease and the intervals of all stores."""
    monkeypatch.setattr(Store, "lease", 2.0)
    monkeypatch.setattr(Store, "duty_interval", 0.2)
    monkeypatch.setattr(Store, "count_life", 1.0)


def said(broker: Broker, claim: Claim, text: str) -> list[str]:
    """Have a run say something.

    :returns: the ids; none while the store is away.
    """
    try:
        return say(broker, claim, text)
    except BrokerUnavailable:
        return []


def begins_nowhere(broker: Broker, channel: str) -> bool:
    try:
        return broker.begin_run(channel, 1000) is None
    except BrokerUnavailable:
        return True

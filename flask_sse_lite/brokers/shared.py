"""The broker of a store that processes share.

Three parts together keep the contract: the store carries the events, the log of this
process remembers them, and the follower feeds the log from the store. How a store is
asked lives in its own module.
"""

from __future__ import annotations

import os
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, suppress
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from ..errors import BrokerUnavailable
from ..event import Event
from ..history.fed import FedLog
from ..history.pacing import BREATH
from ..history.retention import HISTORY_BYTES, RUNS_BYTES
from ..own_events import LOST
from ..position import position_id
from .contract import Broker, Claim, Summary
from .duties import Duties
from .follower import Follower
from .presence import Presence, Wish
from .store import Store

P = ParamSpec("P")
T = TypeVar("T")


def _bounded(
    method: Callable[Concatenate[SharedBroker, P], T],
) -> Callable[Concatenate[SharedBroker, P], T]:
    """Bound all waits of a public call, together, by the store's timeout."""

    @wraps(method)
    def call(broker: SharedBroker, /, *args: P.args, **kwargs: P.kwargs) -> T:
        store = broker.store
        with store.deadlines.within(store.timeout):
            return method(broker, *args, **kwargs)

    return call


class SharedBroker(Broker):
    """A broker that follows a store.

    It has more than 20 methods: the contract's, and a few steps that they share.
    """

    is_shared = True

    counting_takes = 2 * Store.duty_interval

    def __init__(self, store: Store) -> None:
        self.store = store
        self._limits = (HISTORY_BYTES, RUNS_BYTES)
        self._wish: Wish | None = None
        self._begin_here()
        _brokers.add(self)

    def _begin_here(self) -> None:
        """Set up the parts, when a broker is made and in a forked child."""
        self._view = self.store.view
        self.log: FedLog = self._view.log
        self.log.limit(*self._limits)
        self._duties = Duties(
            self.store, lambda: self.listeners(), lambda: self.identities()
        )
        self._duties.presence = self._presence()
        self._follower = Follower(self.store, self._duties)
        #: Events published since we last gave way to the follower.
        self._burst = 0

    @property
    def is_away(self) -> bool:
        return self._follower.is_away

    @property
    def reconnects(self) -> int:
        return self._follower.reconnects

    @_bounded
    def lag(self) -> int:
        state = self.store.state()
        # In this order: what is fed meanwhile does not count as missing.
        if state.epoch != self.log.epoch:
            return state.sequence
        return max(0, state.sequence - self.log.sequence)

    def within_timeout(self) -> AbstractContextManager[object]:
        return self.store.within()

    # Events

    @_bounded
    def publish(self, channel: str, event: Event) -> Event:
        self.store.check_open()
        position = self.store.put(channel, event)
        self._note_published(position)
        return event.published(channel, position_id(*position, channel))

    def publish_to_all(
        self, channels: Collection[str], event: Event
    ) -> Iterator[Event]:
        self.store.check_open()
        positions = self.store.put_in_all(channels, event)
        for channel, position in zip(channels, positions, strict=True):
            self._note_published(position)
            yield event.published(channel, position_id(*position, channel))

    @_bounded
    def end(self, channel: str) -> None:
        self.store.check_open()
        self._note_published(self.store.put(channel, None))

    def _note_published(self, position: tuple[str, int]) -> None:
        self._view.note_published(position)
        if self._follower.thread:
            self._burst += 1
            if self._burst * 2 > self._follower.retention.history:
                # As in history/pacing.py: under gevent, the follower runs only while
                # the publisher sleeps.
                self._burst = 0
                time.sleep(BREATH)

    @_bounded
    def position(self) -> str:
        self.store.check_open()
        state = self.store.state()
        return position_id(state.epoch, state.sequence, "")

    @_bounded
    def summaries(self) -> list[Summary]:
        self.store.check_open()
        return sorted(self.store.summaries())

    @_bounded
    def want(
        self, channels: Collection[str], since: str = "", *, fresh: bool = False
    ) -> None:
        self.store.check_open()
        asked_at = time.monotonic()
        if not self._follower.is_attached:
            self._follower.attach()
        if missing := self.log.missing(channels):
            self._follower.fetch(missing)
        if fresh or self._is_behind(channels, since):
            while not self._follower.look(asked_at):
                pass

    def _is_behind(self, channels: Collection[str], since: str) -> bool:
        """Whether the log must get what is new in the store before a cursor is
        taken."""
        epoch, sequence = self._view.published
        if epoch and (epoch != self.log.epoch or sequence > self.log.sequence):
            # Without it, a newcomer would get what was published here before it came.
            return True
        return bool(since) and not self.log.knows(channels, since)

    # Runs

    @_bounded
    def begin_run(self, channel: str, budget: int) -> Claim | None:
        self.want((channel,))
        claim = Claim(channel, budget)
        has_begun = self._duties.have_begun(claim)
        try:
            self.want((channel,), fresh=True)
        except BaseException:
            # Others can have read the run's beginning, and must get an end.
            with suppress(BrokerUnavailable):
                self.end_run(claim, LOST)
            raise
        return claim if has_begun else None

    @_bounded
    def say(self, claim: Claim, event: Event) -> Event | None:
        try:
            position = self._say(claim, event)
        except BaseException:
            claim.is_broken = True
            raise
        if position is None:
            self._duties.give_up(claim)
            return None
        self._note_published(position)
        return event.published(claim.channel, position_id(*position, claim.channel))

    @_bounded
    def end_run(self, claim: Claim, reason: Event | None = None) -> None:
        # First of all: if the store is away, the lease must not be extended.
        self._duties.give_up(claim)
        if claim.is_broken:
            reason = reason or LOST
        if position := self._say(claim, None, reason):
            self._note_published(position)

    def _say(
        self, claim: Claim, event: Event | None, reason: Event | None = None
    ) -> tuple[str, int] | None:
        self.store.check_open()
        dropped = self.log.dropped(claim.channel)
        position = self.store.say(claim, event, dropped, reason)
        if position is None and self._duties.have_begun(claim):
            # The store had lost the run, and has it again. (The follower can have
            # begun it anew before us.)
            position = self.store.say(claim, event, 0, reason)
        return position

    def limit(self, history: int, runs: int) -> None:
        self._limits = (history, runs)  # A forked child has a log of its own.
        super().limit(history, runs)

    @_bounded
    def subscribers(self, channel: str) -> int:
        self.store.check_open()
        return self.listeners().get(channel, 0) + self.store.counted(channel)

    @_bounded
    def present(self, channel: str) -> dict[str, int]:
        if not self.store.board:
            return super().present(channel)
        self.store.check_open()
        found = Counter(self.identities().get(channel, {}))
        # update adds the numbers, and keeps an identity whose number is 0.
        found.update(self.store.board.noted(channel))
        return dict(found)

    def tell_presence(self, wish: Wish) -> None:
        if not self.store.board:
            super().tell_presence(wish)
        self._wish = wish  # A forked child has duties of its own.
        self._duties.presence = self._presence()

    def _presence(self) -> Presence | None:
        if not (self._wish and self.store.board):
            return None
        return Presence(self.store.board, self._wish, self._view.note_published)

    # The process

    def close(self) -> None:
        self.store.finish()
        self.store.closing.set()
        self._follower.stop()
        self.store.close()

    def begin_anew(self) -> None:
        """Begin anew in a forked child, with nothing of the parent's."""
        self.store.begin_anew()
        self._begin_here()


# Forks. A child gets a copy of everything, in whatever state it is, and no threads.

_brokers: weakref.WeakSet[SharedBroker] = weakref.WeakSet()


def _each(do: Callable[[SharedBroker], None]) -> Callable[[], None]:
    def do_with_all() -> None:
        for broker in list(_brokers):
            with suppress(Exception):
                do(broker)

    return do_with_all


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_each(lambda broker: broker.store.before_fork()),
        after_in_parent=_each(lambda broker: broker.store.after_fork()),
        after_in_child=_each(SharedBroker.begin_anew),
    )

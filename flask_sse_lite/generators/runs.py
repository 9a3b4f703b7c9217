"""The runs of a process: how many there are, and how many there can be.

Here lives what a new run needs before it begins: a place, and a channel that no other
run feeds. What a run does from then on lives in run.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from ..brokers import Broker
from ..signals.courier import Courier
from ..signals.story import run_story_of
from ..system.gevent import is_patched_by_gevent
from ..system.locks import Guard
from .items import Items
from .run import Run

#: Runs at once in a process of native threads. Each run costs a thread, and so some
#: 8 MB of address space.
MAX_RUNS_ON_THREADS = 100

#: Runs at once in a process under gevent, where each costs a greenlet, some 20 kB with
#: what a generator holds. Anyone who can send requests can start runs, so this bounds
#: what they cost other servers.
MAX_RUNS_UNDER_GEVENT = 1_000


class TooManyRuns(Exception):
    """The process has no room for another run now."""


class RunPlace:
    """The place of one run, from before it begins until its thread has ended."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.began_at = time.monotonic()


class Runs:
    """The runs of an application in this process. Thread-safe."""

    def __init__(self) -> None:
        #: One place for each run that has a thread or will get one.
        self._places: set[RunPlace] = set()
        self._lock = Guard()

    def __len__(self) -> int:
        return len(self._places)

    def going_on(self) -> list[RunPlace]:
        """The places that are taken now. The run of one can be over, with a thread that
        has not ended."""
        return list(self._places)

    def begin(
        self,
        channel: str,
        broker: Broker,
        items: Items,
        *,
        linger: float,
        budget: int,
        limit: int | None,
        context: Callable[[], AbstractContextManager[object]],
        courier: Courier | None = None,
    ) -> None:
        """Start a run. If another run goes on in this channel, close the items instead.

        :param courier: tells receivers of the run, if there is one.
        :param limit: how many runs there can be at once; None for the bounds above.
        :raises TooManyRuns: where there are that many, or no thread can be started.
        """
        if limit is None:
            is_cheap = is_patched_by_gevent()
            limit = MAX_RUNS_UNDER_GEVENT if is_cheap else MAX_RUNS_ON_THREADS
        place = RunPlace(channel)
        with self._lock:
            if len(self._places) >= limit:
                raise TooManyRuns
            self._places.add(place)
        try:
            claim = broker.begin_run(channel, budget)
        except BaseException:
            self._places.discard(place)
            raise
        if claim is None:
            self._places.discard(place)
            items.close()
            return
        run = Run(
            claim,
            broker,
            items,
            linger=linger,
            context=context,
            at_exit=lambda: self._places.discard(place),
            story=run_story_of(courier, channel),
        )
        try:
            run.begin()
        except RuntimeError as error:
            raise TooManyRuns from error

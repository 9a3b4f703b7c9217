"""The runs of a process: how many there are, and how many there can be.

Here lives what a new run needs before it begins: a place, and a channel that no other
run feeds. What a run does from then on lives in run.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from ..brokers import Broker
from ..system.locks import Guard
from ..system.poller import is_patched_by_gevent
from .items import Items
from .run import Run

#: Runs at once in a process of native threads, of which each costs one (and some 8 MB
#: of address space).
MAX_RUNS_ON_THREADS = 100

#: Runs at once in a process under gevent, where each costs a greenlet, some 20 kB with
#: what a generator holds. The bound is for what runs cost elsewhere: whoever can send
#: requests can start as many.
MAX_RUNS_UNDER_GEVENT = 1_000


class TooManyRuns(Exception):
    """There is no room for another one now."""


class Runs:
    """The runs of an application in this process. Thread-safe."""

    def __init__(self) -> None:
        #: One for each that has a thread, or is to have one.
        self._places: set[object] = set()
        self._lock = Guard()

    def __len__(self) -> int:
        return len(self._places)

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
    ) -> None:
        """Start a run, unless one goes on in this channel: then its items are closed.

        :param limit: how many there may be at once; None for what suits the process.
        :raises TooManyRuns: when there are that many.
        """
        if limit is None:
            is_cheap = is_patched_by_gevent()
            limit = MAX_RUNS_UNDER_GEVENT if is_cheap else MAX_RUNS_ON_THREADS
        place = object()
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
        )
        try:
            run.begin()
        except RuntimeError as error:
            raise TooManyRuns from error

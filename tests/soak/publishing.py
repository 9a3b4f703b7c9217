"""The publishers: events without a pause, and what is known of each of them.

An event is published by a request to any worker, as an application's users do it. An
attempt that fails is repeated as another attempt at the same event, because nobody can
tell whether it was carried out. So every event is published at last, and clients must
see all numbers of their channels.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import cycle, takewhile

from tests.servers import HOST, PATIENCE

from .plan import EVERYBODY, EVERYBODY_RATE, Plan
from .visitor import Final, Said, is_behind

#: Publishers at once. Each has channels of its own, and waits for each answer.
PUBLISHERS = 4

#: Seconds after which an attempt that failed is repeated.
AGAIN = 0.05

#: Bytes of an event's data.
SIZE = 64


class Publisher:
    """One thread that publishes to some channels in turn.

    :param pause: seconds from one event to the next.
    """

    def __init__(self, port: int, channels: Sequence[str], pause: float) -> None:
        #: The ids of each channel's events, in order.
        self.ids: dict[str, list[str]] = {channel: [] for channel in channels}
        #: Attempts that failed: they can have been carried out all the same.
        self.failed: set[tuple[str, int, int]] = set()
        self._port = port
        self._pause = pause
        self._is_over = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        return sum(map(len, self.ids.values()))

    def finish(self) -> None:
        self._is_over.set()
        self._thread.join(4 * PATIENCE)
        assert not self._thread.is_alive(), "a publisher waits for an answer"

    def _run(self) -> None:
        due = time.monotonic()
        for channel in cycle(self.ids):
            if self._is_over.wait(max(0.0, due - time.monotonic())):
                break
            self._publish(channel)
            # Behind an outage, what was not published is not made up for.
            due = max(due + self._pause, time.monotonic() - self._pause)
        self._hang_up()

    def _publish(self, channel: str) -> None:
        number, attempt = len(self.ids[channel]), 0
        while not (id := self._try(channel, number, attempt)):
            self.failed.add((channel, number, attempt))
            attempt += 1
            time.sleep(AGAIN)
        self.ids[channel].append(id)

    def _try(self, channel: str, number: int, attempt: int) -> str | None:
        said = Said(channel, number, attempt, time.monotonic_ns())
        try:
            self._connection = self._connection or http.client.HTTPConnection(
                HOST, self._port, timeout=PATIENCE
            )
            body = str(said).ljust(SIZE)
            self._connection.request("POST", f"/say?to={channel}", body)
            answer = self._connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException):
            self._hang_up()
            return None
        return text if answer.status == 200 else None

    def _hang_up(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


class Publishers:
    """All publishers of a run."""

    def __init__(self, port: int, plan: Plan) -> None:
        shares = [plan.rooms[n::PUBLISHERS] for n in range(PUBLISHERS)]
        shares = [share for share in shares if share]
        pause = len(shares) / (plan.rate - EVERYBODY_RATE)
        self._all = [Publisher(port, share, pause) for share in shares]
        self._all.append(Publisher(port, [EVERYBODY], 1 / EVERYBODY_RATE))

    @property
    def count(self) -> int:
        return sum(publisher.count for publisher in self._all)

    @property
    def failed(self) -> set[tuple[str, int, int]]:
        return set().union(*(publisher.failed for publisher in self._all))

    @property
    def ids(self) -> dict[str, list[str]]:
        return {c: ids for publisher in self._all for c, ids in publisher.ids.items()}

    def finish(self) -> dict[str, Final]:
        """Publish no more.

        :returns: the last event of each channel.
        """
        for publisher in self._all:
            publisher.finish()
        return {
            channel: Final(len(ids) - 1, ids[-1] if ids else "")
            for channel, ids in self.ids.items()
        }

    def abandon(self) -> None:
        """End all, whatever they wait for."""
        for publisher in self._all:
            publisher._is_over.set()
        with suppress(AssertionError):
            self.finish()

    def missed(self, channel: str, opening: str, first: int) -> int:
        """How many events a newcomer missed.

        :param opening: the id that its stream began with.
        :param first: the number of the first event that it was sent.
        """
        before = reversed(self.ids[channel][:first])
        return sum(1 for _ in takewhile(partial(is_behind, opening), before))


@contextmanager
def publishing(port: int, plan: Plan) -> Iterator[Publishers]:
    """Publish until the end of the block, at the latest."""
    publishers = Publishers(port, plan)
    try:
        yield publishers
    finally:
        publishers.abandon()

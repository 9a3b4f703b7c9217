"""Clients that come and go all the time, beside others that stay. The numbers of file
descriptors are used again at once, so a connection that is taken for another is
noticed."""

from __future__ import annotations

import http.client
import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count
from typing import NamedTuple

import pytest

from . import IS_LONG
from .crowd import IN_FLIGHT, Crowd, Member
from .servers import HOST, PATIENCE, Server, serve, until

CROWDED = "tests.applications.crowded:app"

#: Longer than any test waits: no heartbeat hides a missing wake.
NEVER = 4 * PATIENCE

ROOMS = [f"room.{n}" for n in range(10)]

SUBSCRIBERS = 1000
ROUNDS = 32 if IS_LONG else 4

#: Subscribers that stay from the first round to the last.
REGULARS = 100

#: Newcomers between two turns of ``Bustle``.
PACE = 100

#: Clients in each round that leave before they can have been answered.
FLEETING = 20

WORKERS = [
    "gunicorn sync",
    "gunicorn gthread",
    "gunicorn gevent",
    "gunicorn gevent_pywsgi",
]


class Published(NamedTuple):
    sequence: int
    id: str
    data: str


def sequence(id: str | None) -> int:
    """The sequence number in a position."""
    assert id is not None
    return int(id.rpartition("-")[2])


class Bustle:
    """What else goes on at a server: events in all rooms, and ordinary requests. Each
    has a thread, which takes one step at every turn."""

    def __init__(self, server: Server) -> None:
        self.published: dict[str, list[Published]] = {room: [] for room in ROOMS}
        self._server = server
        self._turns = [threading.Semaphore(0), threading.Semaphore(0)]
        self._is_over = False

    def due(self, member: Member) -> list[tuple[str, str]]:
        """The ids and the data of all events that came after a member's opening."""
        assert member.opening is not None
        since = sequence(member.opening.id)
        rooms = [self.published[channel] for channel in member.channels]
        due = sorted(event for room in rooms for event in room if event[0] > since)
        return [(event.id, event.data) for event in due]

    @contextmanager
    def going_on(self) -> Iterator[None]:
        with ThreadPoolExecutor(2) as pool:
            steps = (self._publish, self._request)
            running = [*map(pool.submit, steps, self._turns)]
            try:
                yield
            finally:
                self._is_over = True
                self.turn()
            for future in running:
                future.result()

    def turn(self) -> None:
        for turn in self._turns:
            turn.release()

    def _numbers(self, turns: threading.Semaphore) -> Iterator[int]:
        for number in count():
            turns.acquire()
            if self._is_over:
                return
            yield number

    def _publish(self, turns: threading.Semaphore) -> None:
        for number in self._numbers(turns):
            events = [{"data": f"{room}: {number}", "channel": room} for room in ROOMS]
            ids = self._server.publish(*events)
            for event, id in zip(events, ids, strict=True):
                self.published[event["channel"]].append(
                    Published(sequence(id), id, event["data"])
                )

    def _request(self, turns: threading.Semaphore) -> None:
        """Make requests on one connection, for as long as the server keeps it. Each
        answer must be the one to its request."""
        connection = http.client.HTTPConnection(HOST, self._server.port)
        with closing(connection):
            for number in self._numbers(turns):
                body = os.urandom(1 + number * 997 % 20_000)
                token = f"request-{number}"
                connection.request("POST", f"/echo?token={token}", body)
                answer = connection.getresponse()
                assert answer.status == 200
                assert answer.headers["X-Token"] == token
                assert answer.read() == body


class Churn:
    """A crowd that some clients leave, in every way there is, while others come."""

    def __init__(self, crowd: Crowd, bustle: Bustle) -> None:
        self.members: list[Member] = []
        #: All members that there ever were, without the fleeting ones.
        self.guests: list[Member] = []
        self._crowd = crowd
        self._bustle = bustle
        self._random = random.Random(0)
        self._numbers = count()

    def fill(self) -> None:
        while len(self.members) < SUBSCRIBERS:
            number = next(self._numbers)
            # Every tenth member listens to two rooms.
            rooms = self._random.sample(ROOMS, 2 if number % 10 == 0 else 1)
            newcomer = self._crowd.join(*rooms, token=f"guest-{number}")
            self.members.append(newcomer)
            self.guests.append(newcomer)
            if number % PACE == 0:
                self._bustle.turn()
            self._crowd.read()
            self._crowd.await_answers(self.members[-IN_FLIGHT:], at_most=IN_FLIGHT - 1)
        self._crowd.await_answers(self.members)

    def replace_half(self) -> None:
        regulars, others = self.members[:REGULARS], self.members[REGULARS:]
        self._random.shuffle(others)
        leaving, staying = others[: SUBSCRIBERS // 2], others[SUBSCRIBERS // 2 :]
        self.members = [*regulars, *staying]
        for number, member in enumerate(leaving):
            if number % 10 == 0:
                self._crowd.half_close(member)
            elif number % 2:
                self._crowd.leave(member)
            else:
                self._crowd.reset(member)
        for number in range(FLEETING):
            fleeting = self._crowd.join(ROOMS[0])
            (self._crowd.reset if number % 2 else self._crowd.leave)(fleeting)
        self.fill()
        half_closed = leaving[::10]
        self._crowd.await_ends(half_closed)
        for member in half_closed:
            assert member.is_whole
            self._crowd.leave(member)


@pytest.mark.parametrize("kind", WORKERS)
def test_who_stays_misses_nothing_and_nobody_gets_what_is_anothers(kind: str) -> None:
    with (
        serve(
            kind, app=CROWDED, options="--keep-alive 60", SSE_HEARTBEAT=NEVER
        ) as server,
        Crowd(server.port) as crowd,
    ):
        worker = server.stats()["process"]
        bustle = Bustle(server)
        churn = Churn(crowd, bustle)
        with bustle.going_on():
            churn.fill()
            for _ in range(ROUNDS):
                churn.replace_half()
        awaited = {member: bustle.due(member) for member in churn.members}
        assert len(awaited[churn.members[0]]) > ROUNDS
        crowd.until(lambda: all(len(m.events) >= len(d) for m, d in awaited.items()))
        for guest in churn.guests:
            assert guest.status == 200
            assert guest.headers["x-token"] == guest.more["token"]
            due = bustle.due(guest)
            if guest not in awaited:  # It has left, and may have read less.
                del due[len(guest.events) :]
            assert [(event.id, event.data) for event in guest.events] == due
        # The server can be about to notice that the last have left.
        until(lambda: server.stats()["streams"] == SUBSCRIBERS)
        stats = server.stats()
        assert stats["process"] == worker
        assert stats["iterated"] == 0
        for member in churn.members:
            crowd.leave(member)
        until(lambda: server.stats()["streams"] == 0)

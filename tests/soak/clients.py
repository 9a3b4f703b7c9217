"""Clients that come and go, in a process of their own, which can run in a network of
its own: ``python -m tests.soak.clients HOST PORT …``.

How clients connect, leave and come back lives here; what each must be sent is known to
``visitor``. The process prints what its clients have seen, a line of JSON each second.
A line on its standard input has the last event of each channel: then nobody leaves any
more, and when all have seen that event, or after some time, the process ends.
"""

from __future__ import annotations

import argparse
import errno
import heapq
import json
import random
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import NamedTuple, get_type_hints

from tests.crowd import Member

from .plan import EVERYBODY, GIVE_UP
from .visitor import Final, Tally, Visitor

#: Seconds that an answer can take to begin. Browsers wait as long. Clients that gave up
#: earlier would only leave requests behind that nobody waits for, and on a slow machine
#: the workers would have no time for others.
ANSWER = 180.0

#: Seconds after which a client comes back, at first and at most; and what is left to
#: chance.
COMES_BACK, AT_MOST, CHANCE = 0.2, 3.0, 0.5

#: Seconds within which all must have come to the end.
LAST_WAIT = 90.0

#: New clients in one turn, at most: a server's backlog is limited.
AT_ONCE = 20

#: Seconds between two reports.
REPORT = 1.0

_READ_SIZE = 1 << 18

#: A connect that does not wait has begun.
_BEGUN = (0, errno.EINPROGRESS)


class Options(NamedTuple):
    host: str
    port: int
    clients: int
    name: str
    rooms: int
    stay: float
    heartbeat: float
    seconds: float

    @classmethod
    def read(cls) -> Options:
        parser = argparse.ArgumentParser(description=__doc__)
        for name, kind in get_type_hints(cls).items():
            parser.add_argument(name, type=kind)
        return cls(**vars(parser.parse_args()))


class Guest:
    """A client's place in the crowd: its connection, if it has one."""

    def __init__(self, visitor: Visitor, leaves_at: float) -> None:
        self.visitor = visitor
        self.leaves_at = leaves_at
        self.member: Member | None = None
        self.is_asking = False
        self.heard = 0.0
        self.failures = 0


class Clients:
    """All clients of this process. One thread uses them."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._selector = selectors.DefaultSelector()
        self._chance = random.Random(options.name)
        self._names = count()
        self._tally = Tally()
        self._guests: set[Guest] = set()
        #: When somebody comes (back), or leaves, and who; a number keeps the order.
        self._due: list[tuple[float, int, Callable[[Guest], None], Guest]] = []
        self._order = count()
        self.is_over = False
        self._finals: dict[str, Final] | None = None
        self._gives_up_at = 0.0
        self._silence = GIVE_UP * options.heartbeat

    def run(self) -> None:
        """Come and go until all have come to the end."""
        self._selector.register(sys.stdin, selectors.EVENT_READ, None)
        begun = reported = now = time.monotonic()
        self._report(now)
        while not self.is_over:
            self._let_in(now - begun)
            self._do_due(now)
            self._wait()
            now = time.monotonic()
            if now >= reported + REPORT:
                reported = now
                self._look_around(now)
                self._report(now)
        self._report(time.monotonic())

    # Who comes, and who goes

    def _let_in(self, passed: float) -> None:
        """Have so many come as there are to be by now: all, behind the time in which
        they come one by one."""
        arriving = min(1.0, passed / max(0.05 * self._options.seconds, 1e-9))
        wanted = int(self._options.clients * arriving)
        for _ in range(min(AT_ONCE, wanted - len(self._guests))):
            self._admit()

    def _admit(self) -> None:
        room = f"room.{self._chance.randrange(self._options.rooms)}"
        name = f"{self._options.name} {next(self._names)}"
        visitor = Visitor(name, (room, EVERYBODY), self._tally)
        guest = Guest(visitor, self._time_to_leave())
        self._guests.add(guest)
        self._at(guest.leaves_at, self._leave, guest)
        self._come(guest)

    def _time_to_leave(self) -> float:
        return time.monotonic() + self._chance.expovariate(1 / self._options.stay)

    def _at(self, when: float, do: Callable[[Guest], None], guest: Guest) -> None:
        heapq.heappush(self._due, (when, next(self._order), do, guest))

    def _do_due(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, _, do, guest = heapq.heappop(self._due)
            if guest in self._guests:
                do(guest)

    def _leave(self, guest: Guest) -> None:
        """Leave for good, or come back at once as a page that is loaded anew; both by a
        proper end or by a reset."""
        if self._finals is not None:
            return
        if member := guest.member:
            if self._chance.random() < 0.5:
                linger = struct.pack("ii", 1, 0)
                member.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._close(guest)
        if self._chance.random() < 0.5:
            self._tally.counts["left"] += 1
            self._guests.discard(guest)
            return
        self._tally.counts["reloaded"] += 1
        guest.leaves_at = self._time_to_leave()
        self._at(guest.leaves_at, self._leave, guest)
        if member:
            self._come_back(guest)

    def _come_back(self, guest: Guest) -> None:
        """Come back in a moment."""
        pause = min(AT_MOST, COMES_BACK * 2**guest.failures)
        pause += self._chance.uniform(0, CHANCE)
        self._at(time.monotonic() + pause, self._come, guest)

    # Connections

    def _come(self, guest: Guest) -> None:
        if guest.member:
            return
        visitor = guest.visitor
        member = Member(visitor.channels, "/stream", visitor.since, {})
        guest.member, guest.is_asking = member, True
        guest.heard = time.monotonic()
        member.socket.setblocking(False)
        error = member.socket.connect_ex((self._options.host, self._options.port))
        if error not in _BEGUN:
            self._fail(guest, "unreachable")
            return
        self._selector.register(member.socket, selectors.EVENT_WRITE, guest)

    def _fail(self, guest: Guest, why: str) -> None:
        self._tally.counts[why] += 1
        self._close(guest)
        guest.failures += 1
        self._come_back(guest)

    def _close(self, guest: Guest) -> None:
        member, guest.member = guest.member, None
        assert member
        with suppress(KeyError):
            self._selector.unregister(member.socket)
        member.socket.close()

    def _wait(self) -> None:
        for key, _ in self._selector.select(0.05):
            if key.data is None:
                self._hear(sys.stdin.readline())
            elif key.data.is_asking:
                self._ask(key.data)
            else:
                self._read(key.data)

    def _ask(self, guest: Guest) -> None:
        member = guest.member
        assert member
        if member.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail(guest, "unreachable")
            return
        guest.visitor.come()
        try:
            member.socket.send(member.request())
        except OSError:
            self._fail(guest, "cut")
            return
        guest.is_asking = False
        self._selector.modify(member.socket, selectors.EVENT_READ, guest)

    def _read(self, guest: Guest) -> None:
        member = guest.member
        assert member
        try:
            data = member.socket.recv(_READ_SIZE)
        except OSError:
            data = b""
        if not data:
            self._fail(guest, "ended" if member.is_whole else "cut")
            return
        guest.heard = time.monotonic()
        had_opened = member.opening is not None
        try:
            member.take(data)
        except (AssertionError, ValueError) as error:
            self._tally.wrong.append(f"{guest.visitor.name}: {error}")
            self._fail(guest, "broken")
            return
        if member.opening and not had_opened:
            guest.failures = 0
            guest.visitor.take([member.opening], time.monotonic_ns())
        if member.status != 200 and member.is_answered:
            self._refused(guest, member)
            return
        guest.visitor.take(member.events, time.monotonic_ns())
        # Where the stream stands: events that only tell a position are not kept.
        guest.visitor.since = member.since or guest.visitor.since
        member.events.clear()
        if member.is_whole:
            self._fail(guest, "ended")

    def _refused(self, guest: Guest, member: Member) -> None:
        if member.status != 503:
            self._tally.wrong.append(
                f"{guest.visitor.name} was answered {member.status}: {member.body!r}"
            )
        self._fail(guest, "refused")

    # The end, and what was seen

    def _hear(self, line: str) -> None:
        if not line:
            self.is_over = True  # Whoever started this process is gone.
            return
        self._finals = {name: Final(*f) for name, f in json.loads(line).items()}
        self._gives_up_at = time.monotonic() + LAST_WAIT

    def _look_around(self, now: float) -> None:
        for guest in list(self._guests):
            if (member := guest.member) is None:
                continue
            patience = self._silence if member.opening else ANSWER
            if now > guest.heard + patience:
                self._fail(guest, "silent")
        if self._finals is None:
            return
        lacking = [*self._lacking(self._finals)]
        if not lacking or now > self._gives_up_at:
            self._tally.counts["unfinished"] += len(lacking)
            self._tally.wrong += lacking
            for guest in self._guests:
                guest.visitor.finish(self._finals)
            self.is_over = True

    def _lacking(self, finals: dict[str, Final]) -> Iterator[str]:
        for guest in self._guests:
            for channel in guest.visitor.lacks(finals):
                yield f"{guest.visitor.name} did not come to the end of {channel}"

    def _report(self, now: float) -> None:
        connected = sum(
            guest.member is not None and guest.member.opening is not None
            for guest in self._guests
        )
        tally = self._tally
        report = {"at": now, "connected": connected, **tally.as_json()}
        print(json.dumps(report), flush=True)
        tally.counts.clear()
        tally.delays.clear()
        for kept in (tally.wrong, tally.firsts, tally.odd):
            kept.clear()


if __name__ == "__main__":
    Clients(Options.read()).run()

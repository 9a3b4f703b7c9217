"""Members of a room who come, go, are thrown out and come back, step by random step;
and what each of their streams must have had in the end.

Who serves the room is the affair of the tests.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from math import inf
from typing import NamedTuple, Protocol

import h11

from flask_sse_lite import Event
from flask_sse_lite.history.revocations import LEEWAY
from flask_sse_lite.own_events import BOOKKEEPING

from .patience import patient
from .servers import until

USERS = ["ann", "bob", "cid", "dan"]

#: Who listens too and is never thrown out, so that her streams have no reason to end.
RESIDENT = "eve"

#: Seconds after a disconnect in which a user who is let in anew can be sent off once
#: more, and then comes back. A process takes the store's answer for so much newer as it
#: took until it looked at its own clock; on a busy machine that is no moment.
SENT_OFF_AGAIN = LEEWAY + patient(5.0)

#: Streams that are open at once, at most.
MOST_STREAMS = 40

#: What a client sees where its server died.
CUT = (OSError, h11.RemoteProtocolError, http.client.HTTPException)


class Opened(NamedTuple):
    """A stream that a client was given.

    :param leave: has ``events`` end, from another thread.
    :param process: the worker that serves it; empty where nobody kills workers.
    """

    events: Iterable[Event]
    leave: Callable[[], object]
    process: str = ""


class Service(Protocol):
    """Whoever serves the room. A verb raises one of ``CUT`` where its server died."""

    def publish(self, text: str) -> str | None:
        """Publish an event.

        :returns: its id.
        """

    def listen(self, user: str, since: str) -> Opened | None:
        """Ask for a stream, from an id or from now on; None for a 403."""

    def disconnect(self, user: str, text: str) -> str | None:
        """Throw a user out, and publish an event as soon as that is done.

        :returns: the event's id.
        """

    def forbid(self, user: str) -> None:
        """From now on, ``listen`` refuses the user."""

    def admit(self, user: str) -> None:
        """Undo ``forbid``."""


class Stream:
    """A stream of one user, read by a thread.

    :param since: the id that the client resumed from; empty for none.
    :param behind: the number of the last event that the stream must not have.
    :param is_newcomer: the stream can have earlier events too: its worker can have been
        told of them late.
    :param can_end: the user was let in so soon after a disconnect that a process can
        have taken the two for the other way round: the user can be sent off once more.
    """

    def __init__(
        self,
        opened: Opened,
        user: str,
        since: str,
        behind: int,
        *,
        is_newcomer: bool,
        can_end: bool,
    ) -> None:
        self.user = user
        self.process = opened.process
        self.can_end = can_end
        #: From this number on, no event must come; None where all must.
        self.most: int | None = None
        self.seen: list[int] = []
        self.last_id = since
        self.has_ended = self.is_cut = self.has_left = False
        self._behind, self._began_anew = behind, is_newcomer
        self._opened = opened
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._read()
            self.has_ended = True
        except CUT:
            self.is_cut = True

    def _read(self) -> None:
        for event in self._opened.events:
            assert event.type not in ("stream-gap", "stream-end")
            self.last_id = event.id or self.last_id
            if event.type not in BOOKKEEPING:
                self.seen.append(int(event.data))

    @property
    def is_over(self) -> bool:
        return self.has_ended or self.is_cut

    @property
    def is_newcomer(self) -> bool:
        """Whether a stream that goes on from here can have earlier events, too."""
        return self._began_anew and not self.seen

    @property
    def behind(self) -> int:
        """The number of the last event that a stream which goes on from here must not
        have."""
        return self.seen[-1] if self.seen else self._behind

    def is_done(self, last: int) -> bool:
        """Whether the stream has all that it must have, up to the last event."""
        if self.is_over:
            return self.can_end or self.most is not None
        # Whoever came, or was resumed, behind the last event gets nothing more.
        return self.most is None and self.behind == last

    def leave(self) -> None:
        self.has_left = not self.is_over
        self._opened.leave()
        self._thread.join()

    def check(self, unsure: Collection[int]) -> None:
        """Nothing came too late, twice, or not at all, and no stream ended that nobody
        had ended.

        :param unsure: the events of which nobody knows whether they were published.
        """
        may_be_over = self.can_end or self.has_left or self.most is not None
        assert may_be_over or not self.has_ended, f"{self.user} was sent off"
        if not self.seen:
            return
        first = self._behind + 1
        if self._began_anew:
            first = min(first, self.seen[0])
        assert self.seen == sorted({*self.seen})
        assert first <= self.seen[0]
        due = {*range(first, self.seen[-1] + 1)}
        assert due - {*self.seen} <= {*unsure}
        assert self.most is None or self.seen[-1] < self.most


class World:
    """Random steps of members."""

    def __init__(self, service: Service, seed: int) -> None:
        self.random = random.Random(seed)
        self.service = service
        self.banned: set[str] = set()
        #: When each user was disconnected last.
        self.disconnected: dict[str, float] = {}
        self.published = 0
        #: The events of which nobody knows whether they were published.
        self.unsure: set[int] = set()
        self.streams: list[Stream] = []
        self.over: list[Stream] = []
        self.ids: list[tuple[str, int]] = []
        #: The steps, with their weights.
        self.steps: dict[Callable[[], None], int] = {
            self.publish: 60,
            self.connect: 18,
            self.disconnect: 8,
            self.admit: 6,
            self.leave: 8,
        }

    def publish(self) -> None:
        self._publish(self.service.publish)

    def _publish(self, publish: Callable[[str], str | None]) -> bool:
        """Publish the next number.

        :returns: False where the server died meanwhile.
        """
        number, self.published = self.published, self.published + 1
        try:
            id = publish(str(number))
        except CUT:
            self.unsure.add(number)
            return False
        assert id
        self.ids.append((id, number))
        return True

    def connect(self) -> None:
        user = self.random.choice([*USERS, RESIDENT])
        if self.ids and self.random.random() < 0.7:
            since, number = self.random.choice(self.ids[-50:])
            self._listen(user, since, number, is_newcomer=False)
        else:
            self._listen(user, "", self.published - 1, is_newcomer=True)

    def _listen(self, user: str, since: str, behind: int, *, is_newcomer: bool) -> bool:
        """Have a user listen: see ``Stream``.

        :returns: False where the server died meanwhile.
        """
        since_out = time.monotonic() - self.disconnected.get(user, -inf)
        try:
            opened = self.service.listen(user, since)
        except CUT:
            return False
        assert (opened is None) == (user in self.banned)
        if opened:
            self.streams.append(
                Stream(
                    opened,
                    user,
                    since,
                    behind,
                    is_newcomer=is_newcomer,
                    can_end=since_out <= SENT_OFF_AGAIN,
                )
            )
        return True

    def resume(self) -> None:
        """Whoever was cut or sent off once more, and was not thrown out, goes on."""
        for stream in [s for s in self.streams if s.is_over]:
            if stream.most is None:
                since = stream.last_id
                behind = stream.behind if since else self.published - 1
                is_newcomer = stream.is_newcomer
                if not self._listen(
                    stream.user, since, behind, is_newcomer=is_newcomer
                ):
                    continue
            self._put_away(stream)

    def leave(self) -> None:
        if self.streams:
            self._put_away(self.random.choice(self.streams))

    def _put_away(self, stream: Stream) -> None:
        self.streams.remove(stream)
        stream.leave()
        self.over.append(stream)

    def disconnect(self) -> None:
        user = self.random.choice(USERS)
        if self.random.random() < 0.5:
            self.banned.add(user)
            self.service.forbid(user)
        for stream in [s for s in self.streams if s.user == user]:
            if stream.most is None:
                stream.most = self.published
        while not self._publish(partial(self.service.disconnect, user)):
            pass
        self.disconnected[user] = time.monotonic()

    def admit(self) -> None:
        user = self.random.choice(USERS)
        self.banned.discard(user)
        self.service.admit(user)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            (step,) = self.random.choices([*self.steps], [*self.steps.values()])
            step()
            if len(self.streams) > MOST_STREAMS:
                self.leave()

    def end(self) -> None:
        """All that were thrown out have ended, and the others have everything."""
        self.publish()
        while self.published - 1 in self.unsure:
            self.publish()
        last = self.published - 1

        def is_done() -> bool:
            self.resume()
            return all(stream.is_done(last) for stream in self.streams)

        until(is_done)

    def check(self) -> None:
        streams = (*self.streams, *self.over)
        for stream in streams:
            stream.check(self.unsure)
        assert any(stream.most is not None for stream in streams)

    def close(self) -> None:
        for stream in self.streams:
            stream.leave()

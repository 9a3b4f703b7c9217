"""The ears: how a process hears from Redis what is published.

Here lives the one connection that listens, and what is made of the messages that come
by it. The follower's thread alone uses it. What is done about them is unknown here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

from ...history.records import Record
from ..deadline import Deadline
from ..store import Heard, Store
from .entries import record
from .links import Link
from .pool import Pool

#: Seconds of silence after which the connection that listens is tried, and the store
#: is looked at.
HEALTH_INTERVAL = 5.0

#: Messages that are fed before others get their turn.
MESSAGES_AT_ONCE = 128


#: What one publish says to all who listen: the epoch, the sequence number, the channel
#: and the entry's body.
Message = tuple[str, int, str, bytes]


class Ears:
    """What one process hears.

    :param store: who listens.
    :param topic: where publishers say what they have published.
    """

    def __init__(self, store: Store, pool: Pool, topic: str) -> None:
        self._store = store
        self._pool = pool
        self._topic = topic
        self._ears: Link | None = None
        self._heard_at = 0.0
        self._pinged_at: float | None = None
        #: The newest position heard on this connection.
        self._heard = ("", 0)

    def listen(self) -> None:
        deadline = Deadline(self._store.timeout)
        with self._pool.translated(deadline):
            if self._ears:
                self._pool.drop(self._ears)
            self._ears = ears = self._pool.open(deadline)
            ears.call("SUBSCRIBE", self._topic)
        self._heard_at = time.monotonic()
        self._pinged_at = None
        self._heard = ("", 0)

    def wait(self, timeout: float) -> Heard:
        """Wait for messages, so many seconds at most."""
        ears = self._ears
        assert ears
        ears.deadline = deadline = Deadline(timeout + self._store.timeout)
        with self._pool.translated(deadline):
            if ears.can_read(timeout):
                return self._take_in(ears)
            now = time.monotonic()
            if self._pinged_at is not None:
                if now - self._pinged_at >= self._store.timeout:
                    raise TimeoutError("It does not answer")
            elif now - self._heard_at >= HEALTH_INTERVAL:
                ears.send("PING")
                self._pinged_at = now
        return Heard(is_to_look=False)

    def _take_in(self, ears: Link) -> Heard:
        """Take what has arrived, or a piece of it."""
        is_to_look = False
        has_more = True
        messages: list[Message] = []
        while has_more and len(messages) < MESSAGES_AT_ONCE:
            # Each message has its time: of a burst, the last takes longer to come.
            ears.deadline = Deadline(self._store.timeout)
            kind, *_, text = ears.read()
            if kind == b"message":
                try:
                    messages.append(_message(text))
                except ValueError:
                    is_to_look = True  # No publish of ours says that.
            # An answer to a PING says nothing of what the store has.
            is_to_look = is_to_look or kind == b"pong"
            has_more = ears.can_read(0)
        self._heard_at = time.monotonic()
        self._pinged_at = None
        is_back, groups = self._grouped(messages)
        return Heard(is_to_look or is_back, groups, has_more)

    def _grouped(
        self, messages: list[Message]
    ) -> tuple[bool, list[tuple[str, Iterable[Record]]]]:
        """The messages by their epochs, and whether one was a step back."""
        is_back = False
        groups: list[tuple[str, Iterable[Record]]] = []
        for epoch, group in groupby(messages, itemgetter(0)):
            heard = list(group)
            if epoch == self._heard[0] and heard[0][1] <= self._heard[1]:
                is_back = True
            self._heard = (epoch, heard[-1][1])
            # A record is made when it is fed: whether its channel is loaded is only
            # certain then.
            groups.append((epoch, map(self._record, heard)))
        return is_back, groups

    def _record(self, message: Message) -> Record:
        epoch, sequence, channel, body = message
        view = self._store.view
        if not view.log.holds(channel):
            return Record(sequence, 0.0, channel, None)  # Nobody will look at it.
        return record(view, epoch, sequence, 0.0, channel, body)


def _message(text: bytes) -> Message:
    """:raises ValueError: for what no publish of ours says."""
    position, channel, body = text.split(b"\n", 2)
    epoch, _, sequence = position.decode().partition(" ")
    return epoch, int(sequence), channel.decode(), body

"""The ears: how a process hears from Redis what is published.

Here lives the one connection that listens, and how its messages become records. Only
the follower's thread uses it. What is done with the records is unknown here.
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

#: Seconds of silence after which the listening connection is pinged. When the answer
#: comes, the store is looked at.
HEALTH_INTERVAL = 5.0

#: Messages that are fed before other threads or greenlets get their turn.
MESSAGES_AT_ONCE = 128


#: What one publish tells all processes that listen: the epoch, the sequence number, the
#: channel and the entry's body.
Message = tuple[str, int, str, bytes]


class Ears:
    """What one process hears.

    :param store: the store that listens.
    :param topic: the topic on which publishers tell what they have published.
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
        """Wait for messages, for some seconds at most."""
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
        """Read the messages that have arrived, up to ``MESSAGES_AT_ONCE``."""
        is_to_look = False
        has_more = True
        messages: list[Message] = []
        while has_more and len(messages) < MESSAGES_AT_ONCE:
            # Each message has a deadline of its own, because a burst takes longer.
            ears.deadline = Deadline(self._store.timeout)
            kind, *_, text = ears.read()
            if kind == b"message":
                try:
                    messages.append(_message(text))
                except ValueError:
                    is_to_look = True  # Another program has written it.
            # A PING's answer does not say whether messages were lost, so we look.
            is_to_look = is_to_look or kind == b"pong"
            has_more = ears.can_read(0)
        self._heard_at = time.monotonic()
        self._pinged_at = None
        is_back, groups = self._grouped(messages)
        return Heard(is_to_look or is_back, groups, has_more)

    def _grouped(
        self, messages: list[Message]
    ) -> tuple[bool, list[tuple[str, Iterable[Record]]]]:
        """The messages in groups of one epoch, and whether a position came that is not
        after the one before it: the store went back."""
        is_back = False
        groups: list[tuple[str, Iterable[Record]]] = []
        for epoch, group in groupby(messages, itemgetter(0)):
            heard = list(group)
            if epoch == self._heard[0] and heard[0][1] <= self._heard[1]:
                is_back = True
            self._heard = (epoch, heard[-1][1])
            # Records are made when they are fed: only then is it certain which channels
            # are loaded.
            groups.append((epoch, map(self._record, heard)))
        return is_back, groups

    def _record(self, message: Message) -> Record:
        epoch, sequence, channel, body = message
        view = self._store.view
        if not view.log.holds(channel):
            return Record(sequence, 0.0, channel, None)  # Only its position counts.
        return record(view, epoch, sequence, 0.0, channel, body)


def _message(text: bytes) -> Message:
    """:raises ValueError: for a message that no release of ours sends."""
    position, channel, body = text.split(b"\n", 2)
    epoch, _, sequence = position.decode().partition(" ")
    return epoch, int(sequence), channel.decode(), body

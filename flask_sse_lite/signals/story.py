"""A story: what is told of one stream, from ``connected`` to ``disconnected``, or of
one run.

Here lives what a stream must be counted for so that its end can be told, and the tally
by which a group of connections is counted at once. A stream has a story only where a
signal of streams has a receiver as it begins: without one, nothing here is called. What
ends a stream or a run is unknown here.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from ..history.cursor import Batch
from . import (
    DisconnectReason,
    Path,
    RefusalReason,
    RunEndReason,
    connected,
    disconnected,
    gap,
    refused,
    run_ended,
    run_started,
)
from .courier import Courier


class Story:
    """One stream's story. One thread at a time counts for it; any thread can call
    ``expect`` and ``end``.

    :param channels: what the stream listens to.
    :param identity: who its client is, as far as that is known.
    :param since: the id that it resumes from; empty for a newcomer.
    """

    __slots__ = (
        "_began_at",
        "_bytes",
        "_came_at",
        "_channels",
        "_courier",
        "_deliveries",
        "_events",
        "_identity",
        "_is_over",
        "_joined",
        "_path",
        "_since",
        "_tally",
        "_why",
        "path_reason",
    )

    def __init__(
        self,
        courier: Courier,
        channels: tuple[str, ...],
        identity: str | None,
        since: str,
    ) -> None:
        self._courier = courier
        self._deliveries = courier.deliveries
        # The stream's cursor was made a moment ago. What it finds behind itself that
        # is older was missed.
        self._came_at = 0.0 if self._deliveries is None else time.monotonic()
        self._channels = channels
        self._identity = identity
        self._since = since
        #: The code of the reason why the server iterates the stream, if it does.
        self.path_reason: str | None = None
        self._path: Path | None = None
        self._began_at = 0.0
        self._events = self._bytes = 0
        # The tally of the stream's group, and what is to be added to it: what the
        # stream was sent before, less what the tally said when the stream joined it.
        # These are one value, which another thread reads as a whole.
        self._joined: tuple[Tally, int, int] | None = None
        self._why: DisconnectReason | None = None
        # Whoever takes this lock tells the end. The lock is never given back.
        self._is_over = threading.Lock()

    def begin(self, path: Path) -> None:
        """The stream has begun. Call this before anything can end it: its end is told
        behind this."""
        self._path = path
        if path == "handed off":
            self.path_reason = None
        self._began_at = time.monotonic()
        self._courier.stay_for(self)
        if connected.receivers:
            self._courier.tell(connected, **self._facts(), since=self._since)

    def refuse(self, reason: RefusalReason) -> None:
        """There was no place for the stream, after all."""
        tell_refused(self._courier, reason, self._channels, self._identity)

    def expect(self, why: DisconnectReason) -> None:
        """The stream is about to end, for a reason that its end will not show. The
        first reason counts."""
        if self._why is None:
            self._why = why

    @property
    def is_over(self) -> bool:
        return self._is_over.locked()

    def end(self, why: DisconnectReason = "left", unsent: int = 0) -> None:
        """The stream has ended. A second call does nothing, and neither does one before
        ``begin``.

        :param why: the reason, unless another was expected.
        :param unsent: bytes that were counted and did not go.
        """
        if self._path is None or not self._is_over.acquire(blocking=False):
            return
        if disconnected.receivers:
            self._courier.tell(
                disconnected,
                **self._facts(),
                reason=self._why or why,
                seconds=time.monotonic() - self._began_at,
                events=self._events,
                bytes=max(self._bytes - unsent, 0),
            )
        self._courier.leave(self)

    def _facts(self) -> dict[str, Any]:
        return {
            "channels": self._channels,
            "identity": self._identity,
            "path": self._path,
            "path_reason": self.path_reason,
        }

    # Counting

    def note(self, events: int, size: int) -> None:
        """The stream is sent so many events and bytes."""
        self._events += events
        self._bytes += size
        if self._joined:
            tally, more_events, more_bytes = self._joined
            self._joined = (tally, more_events + events, more_bytes + size)

    def note_batch(self, batch: Batch, data: bytes) -> None:
        """The stream alone is sent what was read."""
        self.note(events_in(batch), len(data))
        if self._deliveries is not None and self._deliveries.wants:
            self._deliveries.note(batch, self._came_at)
        if batch.gap:
            tell_gap(self._courier, batch, streams=1)
        if batch.ended:
            self.expect("ended")

    @property
    def sent(self) -> tuple[int, int]:
        """How many events and bytes the stream was sent so far. Any thread can ask.
        The answer can be a moment old, and then too low."""
        joined = self._joined
        if joined is None:
            return self._events, self._bytes
        tally, events, size = joined
        return events + tally.events, size + tally.bytes

    def join(self, tally: Tally | None) -> Tally:
        """The stream is counted with its group from here on.

        :param tally: the group's, if it has one.
        """
        tally = tally or Tally(self._courier)
        self._joined = (tally, self._events - tally.events, self._bytes - tally.bytes)
        return tally

    def leave(self, tally: Tally) -> None:
        """Undo ``join``."""
        if self._joined:
            # In this order: who asks in between is told too few, and never too many.
            (_, events, size), self._joined = self._joined, None
            self._events, self._bytes = events + tally.events, size + tally.bytes


class RunStory:
    """What is told of one run. Its thread counts for it; any thread can call ``end``,
    and the run sees to it that one does."""

    def __init__(self, courier: Courier, channel: str) -> None:
        self._courier = courier
        self._channel = channel
        self._began_at = 0.0
        self._events = self._bytes = 0

    def begin(self) -> None:
        self._began_at = time.monotonic()
        self._courier.stay_for(self)
        if run_started.receivers:
            self._courier.tell(run_started, channel=self._channel)

    def note(self, size: int) -> None:
        """The run has said an event of so many bytes."""
        self._events += 1
        self._bytes += size

    def end(self, why: RunEndReason) -> None:
        if run_ended.receivers:
            self._courier.tell(
                run_ended,
                channel=self._channel,
                reason=why,
                seconds=time.monotonic() - self._began_at,
                events=self._events,
                bytes=self._bytes,
            )
        self._courier.leave(self)


class Tally:
    """What a group was sent since its first story. Only the hub's loop uses this."""

    __slots__ = ("_courier", "_deliveries", "_round", "bytes", "events", "in_flight")

    def __init__(self, courier: Courier) -> None:
        self._courier = courier
        self._deliveries = courier.deliveries
        # What the group is sent, to how many streams, and since when.
        self._round: tuple[Batch, int, float] | None = None
        self.events = self.bytes = 0
        #: What is being sent: events and bytes. A connection that falls behind
        #: meanwhile is given this too, and one that has gone is not.
        self.in_flight = (0, 0)

    def begin(self, batch: Batch, data: bytes, streams: int) -> None:
        """The group is about to be sent what was read."""
        self.in_flight = (events_in(batch), len(data))
        if self._deliveries is not None and self._deliveries.wants:
            self._round = (batch, streams, time.monotonic())
        if batch.gap:
            tell_gap(self._courier, batch, streams)

    def finish(self) -> None:
        """Whoever is still in the group was sent it."""
        (events, size), self.in_flight = self.in_flight, (0, 0)
        self.events += events
        self.bytes += size
        if self._round is not None and self._deliveries is not None:
            (batch, streams, began), self._round = self._round, None
            self._deliveries.note(batch, 0.0, streams, began)


def events_in(batch: Batch) -> int:
    """How many events of the application's there are in a batch."""
    return sum(1 for entry in batch.entries if entry.event)


def tell_gap(courier: Courier, batch: Batch, streams: int) -> None:
    """Tell that so many streams have lost the same events."""
    if gap.receivers and batch.gap:
        lost = batch.gap.json
        courier.tell(
            gap, channels=tuple(lost["channels"]), since=lost["since"], streams=streams
        )


def tell_refused(
    courier: Courier,
    reason: RefusalReason,
    channels: tuple[str, ...],
    identity: str | None,
) -> None:
    """Tell that a client was given no stream."""
    if refused.receivers:
        size = sum(map(len, channels))  # A stranger has chosen them.
        courier.tell(refused, size, reason=reason, channels=channels, identity=identity)


def story_of(
    courier: Courier | None, channels: tuple[str, ...], identity: str | None, since: str
) -> Story | None:
    """The story of a stream that begins; None where nobody listens for it."""
    if courier is None or not (
        connected.receivers
        or disconnected.receivers
        or gap.receivers
        or refused.receivers
        or courier.deliveries is not None
    ):
        return None
    return Story(courier, channels, identity, since)


def run_story_of(courier: Courier | None, channel: str) -> RunStory | None:
    """The story of a run that begins; None where nobody listens for it."""
    if not (run_started.receivers or run_ended.receivers):
        return None
    return RunStory(courier, channel) if courier else None


def expect(story: Story | None, why: DisconnectReason) -> None:
    """``Story.expect``, where there is a story."""
    if story is not None:
        story.expect(why)

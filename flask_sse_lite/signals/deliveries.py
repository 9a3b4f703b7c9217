"""Deliveries: how long events take to reach the clients of one process, and which of
them were traced.

Here lives what is noted of each round in which the hub sends a group what it has read,
and of each step in which a stream alone is sent something. Neither is noted where
nobody wants to know. What is made of that (metrics.py, opentelemetry.py) is unknown
here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from blinker import NamedSignal

from ..history.cursor import Batch
from ..traced import untold

#: Traced events were sent to clients. It is for opentelemetry.py alone, and its facts
#: can change with any release.
traced_delivery = NamedSignal("sse-traced-delivery")

#: Durations that are kept between two calls of ``take``, some seconds apart. The
#: metrics' histogram takes 2 ms for so many. What comes behind them is not measured, so
#: that a process which delivers much pays for a look at ``wants`` alone.
MOST_SAMPLES = 500


class Deliveries:
    """What is noted of deliveries, in one process at a time.

    The threads that deliver look at ``wants`` and call ``note``, several at once. One
    thread at a time calls ``take``. Before anything begins, ``measure`` and ``trace``
    say what is noted.

    :param tell: has a signal sent soon, with its weight and its facts.
    """

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._pid = os.getpid()
        self._samples: list[float] = []
        self._is_measured = self._is_traced = False
        #: Whether anything is to be noted now. A race costs a sample.
        self.wants = False

    def measure(self) -> None:
        """Have durations kept for ``take``."""
        self._is_measured = self.wants = True

    def trace(self) -> None:
        """Have traced events told."""
        self._is_traced = self.wants = True

    def note(
        self, batch: Batch, since: float, streams: int = 1, began: float = 0.0
    ) -> None:
        """Note that streams were sent a batch.

        :param since: when their clients came (``time.monotonic()``). What was published
            before that was missed, and not late.
        :param began: when the round began that sent it; 0 for now.
        """
        entries = batch.entries
        if not entries or entries[-1].time < since:
            return
        is_missed = entries[0].time < since
        if self._is_measured and not is_missed and len(self._samples) < MOST_SAMPLES:
            self._samples.append(time.monotonic() - entries[0].time)
        if self._is_traced:
            self._tell_traced(batch, since, streams, began)
        else:
            self.wants = len(self._samples) < MOST_SAMPLES

    def take(self) -> list[float]:
        """The seconds from a publish to the end of a round or step that sent it, of
        those since the last call. Of several events that were sent together, the
        oldest counts."""
        samples, self._samples = self._samples, []
        self.wants = self._is_measured or self._is_traced
        if self._pid != os.getpid():
            # The parent of this forked child has measured these.
            self._pid = os.getpid()
            return []
        return samples

    def _tell_traced(
        self, batch: Batch, since: float, streams: int, began: float
    ) -> None:
        traces: list[str] = []
        channels: dict[str, None] = {}
        for entry in batch.entries:
            if entry.time >= since and (trace := untold(entry.event)):
                traces.append(trace)
                channels[entry.channel] = None
        if not traces:
            return
        ended, now = time.time_ns(), time.monotonic()
        facts: dict[str, Any] = {
            "traces": tuple(traces),
            "channels": tuple(channels),
            "streams": streams,
            "began": ended - int((now - (began or now)) * 1e9),
            "ended": ended,
        }
        self._tell(traced_delivery, sum(map(len, traces)), **facts)

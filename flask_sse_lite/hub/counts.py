"""Counts: how streams are delivered.

Here lives what an operator is told of deliveries: a debug line for each stream, a
warning where an operator can do something, and the counts of ``sse.stats()``. Who
listens to which channel lives in listeners.py, and what counts against
``SSE_MAX_CONNECTIONS`` in places.py.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TypedDict

from ..log_messages import NOT_HANDED_OFF
from ..servers.server import Reason
from ..system.locks import RLock

logger = logging.getLogger("flask_sse_lite")


#: How many streams are open now.
OpenStreams = TypedDict("OpenStreams", {"handed off": int, "iterated": int})

#: What ``sse.stats()`` returns. "handed off" counts by server, "iterated" by reason in
#: words, and "reasons" by the reason's code, which never changes.
Stats = TypedDict(
    "Stats",
    {
        "open": OpenStreams,
        "handed off": dict[str, int],
        "iterated": dict[str, int],
        "reasons": dict[Reason, int],
    },
)


class Paths:
    """How the streams of a process were delivered, since it began. Thread-safe."""

    def __init__(self) -> None:
        # Code that interrupts the holder gets the lock too. It can see a count that is
        # about to rise.
        self._lock = RLock()
        self._handed_off: Counter[str] = Counter()
        self._iterated: Counter[str] = Counter()
        self._codes: Counter[Reason] = Counter()

    def note_handed_off(self, server: str) -> None:
        """Note that a stream was taken over from a server of this name."""
        with self._lock:
            self._handed_off[server] += 1
        logger.debug(
            "A stream is handed off: %s", server, extra={"sse_path": "handed off"}
        )

    def note_iterated(self, reason: str, code: Reason, *, is_remediable: bool) -> None:
        """Note that a stream stays with its server.

        :param reason: why, in words; ``code`` is the same for programs.
        :param is_remediable: whether an operator could do something about it.
        """
        with self._lock:
            self._iterated[reason] += 1
            self._codes[code] += 1
            is_first = self._iterated[reason] == 1
        told = {"sse_path": "iterated", "sse_reason": code}
        logger.debug("A stream is iterated: %s", reason, extra=told)
        if is_remediable and is_first:
            NOT_HANDED_OFF.log(reason, path="iterated", reason=code)

    def stats(self, are_open: OpenStreams) -> Stats:
        """What ``sse.stats()`` returns.

        :param are_open: how many streams are open now.
        """
        with self._lock:
            return {
                "open": are_open,
                "handed off": dict(self._handed_off),
                "iterated": dict(self._iterated),
                "reasons": dict(self._codes),
            }

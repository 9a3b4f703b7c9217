"""Which way streams went: handed off or iterated, and why.

Here lives what an operator is told of it: a debug line for each stream, a warning where
something can be done, and the counts of ``sse.stats()``.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TypedDict

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
    """The ways of a process's streams, since it began. Thread-safe."""

    def __init__(self) -> None:
        # Whoever interrupts its holder may see a count that is about to rise.
        self._lock = RLock()
        self._handed_off: Counter[str] = Counter()
        self._iterated: Counter[str] = Counter()
        self._codes: Counter[Reason] = Counter()

    def note_handed_off(self, server: str) -> None:
        """A stream was taken over from such a server."""
        with self._lock:
            self._handed_off[server] += 1
        logger.debug("A stream is handed off: %s", server)

    def note_iterated(self, reason: str, code: Reason, *, is_remediable: bool) -> None:
        """A stream stays with its server.

        :param reason: why, in words; ``code`` is the same for programs.
        :param is_remediable: whether an operator could do something about it.
        """
        with self._lock:
            self._iterated[reason] += 1
            self._codes[code] += 1
            is_first = self._iterated[reason] == 1
        logger.debug("A stream is iterated: %s", reason)
        if is_remediable and is_first:
            logger.warning(
                "Event streams cannot be handed off, and each holds a thread or a "
                "greenlet of the server: %s",
                reason,
            )

    def stats(self, are_open: OpenStreams) -> Stats:
        """How many streams went which way, beside those that are open."""
        with self._lock:
            return {
                "open": are_open,
                "handed off": dict(self._handed_off),
                "iterated": dict(self._iterated),
                "reasons": dict(self._codes),
            }

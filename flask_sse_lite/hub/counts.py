"""Which way streams went: handed off or iterated, and why.

Here lives what an operator is told of it: a debug line for each stream, a warning where
something can be done, and the counts of ``sse.stats()``.
"""

from __future__ import annotations

import logging
from collections import Counter

from ..system.locks import RLock

logger = logging.getLogger("flask_sse_lite")


class Paths:
    """The ways of a process's streams, since it began. Thread-safe."""

    def __init__(self) -> None:
        # Whoever interrupts its holder may see a count that is about to rise.
        self._lock = RLock()
        self._handed_off: Counter[str] = Counter()
        self._iterated: Counter[str] = Counter()

    def note_handed_off(self, server: str) -> None:
        """A stream was taken over from such a server."""
        with self._lock:
            self._handed_off[server] += 1
        logger.debug("A stream is handed off: %s", server)

    def note_iterated(self, reason: str, *, is_remediable: bool) -> None:
        """A stream stays with its server.

        :param is_remediable: whether an operator could do something about it.
        """
        with self._lock:
            self._iterated[reason] += 1
            is_first = self._iterated[reason] == 1
        logger.debug("A stream is iterated: %s", reason)
        if is_remediable and is_first:
            logger.warning(
                "Event streams cannot be handed off, and each holds a thread or a "
                "greenlet of the server: %s",
                reason,
            )

    def counts(self) -> dict[str, dict[str, int]]:
        """How many went which way, by server or reason."""
        with self._lock:
            return {
                "handed off": dict(self._handed_off),
                "iterated": dict(self._iterated),
            }

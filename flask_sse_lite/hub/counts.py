"""Counts: how many streams listen to each channel, whose they are, and how streams are
delivered.

Here lives what an operator is told of that: a debug line for each stream, a warning
where an operator can do something, and the counts of ``sse.stats()``. What counts
against ``SSE_MAX_CONNECTIONS`` lives in places.py.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import TypedDict

from ..history.log import Log
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


class Listeners:
    """How many streams listen to each channel of each log, in all and of each identity.
    Any thread can read this."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Log, str]] = Counter()
        self._by_identity: Counter[tuple[Log, str, str]] = Counter()

    def __len__(self) -> int:
        """How many channels have listeners."""
        return len(self._counts)

    def note(
        self,
        log: Log,
        channels: Iterable[str],
        change: int,
        identity: str | None = None,
    ) -> None:
        """Note that a stream of these channels came (1) or left (-1). The caller holds
        the hub's lock.

        :param identity: whose stream it is; None where the application has not said
            it.
        """
        for channel in channels:
            self._counts[log, channel] += change
            if not self._counts[log, channel]:
                del self._counts[log, channel]
            if identity is not None:
                key = (log, channel, identity)
                self._by_identity[key] += change
                if not self._by_identity[key]:
                    del self._by_identity[key]

    def of(self, log: Log, channel: str) -> int:
        """How many streams a channel has."""
        return self._counts[log, channel]

    def logs(self) -> set[Log]:
        """The logs that have streams."""
        return {log for log, _ in dict(self._counts)}

    def by_channel(self, log: Log) -> dict[str, int]:
        """How many streams each channel of a log has; channels without any are left
        out."""
        # This takes no lock, because the caller can have interrupted its holder.
        # Copying a dictionary is one step.
        return {
            channel: count
            for (its_log, channel), count in dict(self._counts).items()
            if its_log is log and count
        }

    def by_identity(self, log: Log) -> dict[str, dict[str, int]]:
        """How many streams each identity has on each channel of a log. Identities and
        channels without any are left out."""
        found: dict[str, dict[str, int]] = {}
        # As in by_channel: no lock, and a copy that is made in one step.
        for (its_log, channel, identity), count in dict(self._by_identity).items():
            if its_log is log and count:
                found.setdefault(channel, {})[identity] = count
        return found


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
        logger.debug("A stream is handed off: %s", server)

    def note_iterated(self, reason: str, code: Reason, *, is_remediable: bool) -> None:
        """Note that a stream stays with its server.

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

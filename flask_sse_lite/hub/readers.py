"""Who reads a log through the hub: streams that have the same channels, together.

Here lives what the hub asks of a stream, and how a log tells the readers of the same
channels of news. What is done about the news lives in audiences.py for the streams that
a server iterates, and in fanout.py for the connections that were taken over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..history.log import Log
from ..servers.programs import Program
from ..settings import Settings

#: The channels of a log that readers have in common.
Key = tuple[Log, tuple[str, ...]]


class Timed(Protocol):
    """What the hub tells of the time."""

    @property
    def heartbeat(self) -> float:
        """Seconds of silence before a sign of life is sent."""

    def tick(self, now: float) -> None:
        """Look at the clock (``time.monotonic()``). It must neither wait nor raise."""

    def stop(self, patience: float | None = None) -> None:
        """The server stops. It must neither wait nor raise; the hub calls it again and
        again.

        :param patience: seconds that a request can still take; None for what the server
            leaves it.
        """

    @property
    def program(self) -> Program | None:
        """The server of the stream, if that can be stopped while its process goes
        on."""

    @property
    def settings(self) -> Settings | None:
        """The settings of the stream's application; None for what is no stream."""

    @property
    def last_words(self) -> tuple[Log, str] | None:
        """The channel whose readers are still to be told that the server stops."""


class Iterated(Timed, Protocol):
    """A stream of channels that a server iterates, as the hub sees it."""

    log: Log

    @property
    def channels(self) -> tuple[str, ...]:
        """What the stream listens to."""

    def wake(self) -> None:
        """There is something to read. It must neither wait nor raise."""


class Readers:
    """Those who read the same channels of a log. Only the hub's loop touches this,
    apart from ``tell``."""

    def __init__(
        self, log: Log, channels: tuple[str, ...], tell_hub: Callable[[Readers], None]
    ) -> None:
        self.log = log
        self.channels = channels
        self.has_news = False
        self._tell_hub = tell_hub

    def tell(self) -> None:
        """There are news. The log calls this, in the publisher's thread."""
        if not self.has_news:
            self.has_news = True
            self._tell_hub(self)


class Audience(Readers):
    """Streams of the same channels that their servers iterate. The hub wakes them, some
    at a time: if a publisher woke them, it would pay for each of them, and what a wake
    allocates would pile up for Python's garbage collector."""

    def __init__(self, first: Iterated, tell_hub: Callable[[Readers], None]) -> None:
        super().__init__(first.log, first.channels, tell_hub)
        self.members: set[Iterated] = set()

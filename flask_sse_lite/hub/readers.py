"""Readers: the streams that read a log through the hub, grouped by their channels.

Here lives what the hub asks of a stream, and how a log tells the readers of the same
channels that there are news. The streams that a server iterates are then woken in
audiences.py, and the connections that were taken over are written to in fanout.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..history.cursor import Cursor
from ..history.log import Log
from ..servers.programs import Program
from ..settings import Settings
from ..signals.story import Story
from .client import Client

#: The channels of a log that readers have in common.
Key = tuple[Log, tuple[str, ...]]


class Timed(Protocol):
    """Something that the hub tells the time, again and again."""

    @property
    def heartbeat(self) -> float:
        """Seconds of silence before a sign of life is sent."""

    def tick(self, now: float) -> None:
        """Look at the clock (``time.monotonic()``). It must neither wait nor raise."""

    def stop(self, patience: float | None = None) -> None:
        """End, because the server stops. This must neither wait nor raise; the hub
        calls it again and again.

        :param patience: seconds that a request can still take; None for what the server
            leaves it.
        """

    @property
    def program(self) -> Program | None:
        """The server of the stream, if that can be stopped while its process goes
        on."""

    @property
    def settings(self) -> Settings | None:
        """The settings of the stream's application; None where this is no stream."""

    @property
    def story(self) -> Story | None:
        """What is told of the stream; None where nothing is told of it."""

    @property
    def last_words(self) -> tuple[Log, str] | None:
        """The channel whose readers must still be told that the server stops; None
        where there is none."""


class Iterated(Timed, Protocol):
    """A stream of channels that a server iterates, as the hub sees it."""

    log: Log
    client: Client

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that the stream listens to."""

    @property
    def cursor(self) -> Cursor:
        """How far the stream has read."""

    def wake(self) -> None:
        """Note that there is something to read. This must neither wait nor raise."""

    def end(self) -> None:
        """End now, without what there is to read. This must neither wait nor raise."""


class Readers:
    """The streams that read the same channels of a log. Only the hub's loop uses this,
    except for ``tell``."""

    def __init__(
        self, log: Log, channels: tuple[str, ...], tell_hub: Callable[[Readers], None]
    ) -> None:
        self.log = log
        self.channels = channels
        self.has_news = False
        self._tell_hub = tell_hub

    def tell(self) -> None:
        """Note that there are news. The log calls this, in the publisher's thread."""
        if not self.has_news:
            self.has_news = True
            self._tell_hub(self)


class Audience(Readers):
    """Streams of the same channels that their servers iterate. The hub wakes them, some
    at a time. If a publisher woke them, it would pay for each of them, and what each
    wake allocates would pile up for Python's garbage collector."""

    def __init__(self, first: Iterated, tell_hub: Callable[[Readers], None]) -> None:
        super().__init__(first.log, first.channels, tell_hub)
        self.members: set[Iterated] = set()

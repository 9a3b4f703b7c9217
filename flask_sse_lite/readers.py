"""Who reads a log through the hub: connections that were taken over, in groups, and
streams that their servers iterate, in audiences.

Here lives what the hub knows of them, and how a log tells them of news. What is then
done about it lives in the hub.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .connection import Connection
from .cursor import Cursor
from .log import Log
from .servers.programs import Program
from .settings import Settings


class Timed(Protocol):
    """What the hub tells of the time."""

    @property
    def heartbeat(self) -> float:
        """Seconds of silence before a sign of life is sent."""

    def tick(self, now: float) -> None:
        """Look at the clock (``time.monotonic()``). May not wait, nor raise."""

    def stop(self, patience: float | None = None) -> None:
        """The server stops. May not wait, nor raise; called again and again.

        :param patience: seconds that a request may still take; None for what the
            server leaves it.
        """

    @property
    def program(self) -> Program | None:
        """The server that can be stopped while its process goes on, if it is served by
        such a one."""

    @property
    def settings(self) -> Settings | None:
        """The application's, of which it is a stream; None for what is no stream."""

    @property
    def last_words(self) -> tuple[Log, str] | None:
        """The channel whose readers are still to be told that the server stops."""


class Iterated(Timed, Protocol):
    """A stream of channels that a server iterates, as the hub sees it."""

    log: Log

    @property
    def channels(self) -> tuple[str, ...]:
        """What it listens to."""

    def wake(self) -> None:
        """There is something to read. May not wait, nor raise."""


class Readers:
    """Those who read the same channels of a log. The hub's loop's own, but for
    ``tell``."""

    def __init__(
        self, log: Log, channels: tuple[str, ...], tell_hub: Callable[[Readers], None]
    ) -> None:
        self.log = log
        self.channels = channels
        self.has_news = False
        self._tell_hub = tell_hub

    def tell(self) -> None:
        """The log's call, in the publisher's thread."""
        if not self.has_news:
            self.has_news = True
            self._tell_hub(self)


class Group(Readers):
    """Connections that have read the same to the same place, which is its cursor."""

    def __init__(self, first: Connection, tell_hub: Callable[[Readers], None]) -> None:
        super().__init__(first.log, first.cursor.channels, tell_hub)
        self.settings = first.settings
        self.cursor = first.cursor
        #: By whether their bodies are chunked, and by descriptor. Whoever writes to all
        #: needs no more of them: what is not looked at need not be in the processor's
        #: cache.
        self.members: dict[bool, dict[int, Connection]] = {False: {}, True: {}}
        #: Those that have read more than the group, and wait for it to come to them.
        self.waiting: list[Connection] = []
        #: When all of them were last sent events, and the last id among these.
        self.sent_at = 0.0
        self.named: str | None = first.cursor.id

    def connections(self) -> list[Connection]:
        return [one for alike in self.members.values() for one in alike.values()]

    def is_behind(self, cursor: Cursor) -> bool:
        """Whether a reader has read what the group has not. (Of another life than the
        log's, the group has read nothing.)"""
        if self.cursor.epoch is not self.log.epoch:
            return True
        return cursor.epoch is self.log.epoch and cursor.reach > self.cursor.position


class Audience(Readers):
    """Streams of the same channels that their servers iterate. They are woken by the
    hub, some at a time: when a publisher woke them, it would pay for each of them, and
    what a wake allocates would pile up for Python's garbage collector."""

    def __init__(self, first: Iterated, tell_hub: Callable[[Readers], None]) -> None:
        super().__init__(first.log, first.channels, tell_hub)
        self.members: set[Iterated] = set()

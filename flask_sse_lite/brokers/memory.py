"""The memory broker: the log itself. Nothing leaves the process."""

from __future__ import annotations

from collections.abc import Collection

from ..errors import InvalidValue
from ..event import Event
from ..log import Log
from ..settings import Settings
from . import Broker


class MemoryBroker(Broker):
    """Publishing is appending."""

    is_shared = False

    def __init__(self, log: Log) -> None:
        self.log = log

    def publish(self, channel: str, event: Event) -> Event:
        return self.log.append(channel, event)

    def end(self, channel: str) -> None:
        self.log.end(channel)

    def position(self) -> str:
        return self.log.position()

    def want(self, channels: Collection[str], since: str = "") -> None:
        """The log holds all there is."""

    def close(self) -> None:
        """There is nothing to let go of."""


def connect(settings: Settings, folder: str | None) -> MemoryBroker:
    if settings.url.rstrip("/").lower() != "memory:":
        raise InvalidValue(f"{settings.url_key} has nothing behind memory://")
    return MemoryBroker(Log(history=settings.history, age=settings.history_age))

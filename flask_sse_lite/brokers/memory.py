"""The memory broker: the log itself. Nothing leaves the process."""

from __future__ import annotations

from collections.abc import Collection

from ..errors import InvalidValue
from ..event import Event
from ..history.log import Log
from ..settings import Settings
from .contract import Broker, Claim


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

    def want(
        self, channels: Collection[str], since: str = "", *, fresh: bool = False
    ) -> None:
        """Nothing must be loaded: the log has all events."""

    def begin_run(self, channel: str, budget: int) -> Claim | None:
        start = self.log.hold(channel, budget)
        if start is None:
            return None
        return Claim(channel, budget, (self.log.epoch, start))

    def say(self, claim: Claim, event: Event) -> Event | None:
        return self.log.say(claim.channel, claim.began[1], event)

    def end_run(self, claim: Claim, reason: Event | None = None) -> None:
        self.log.end_run(claim.channel, claim.began[1], reason)

    def subscribers(self, channel: str) -> int:
        return self.listeners().get(channel, 0)

    def close(self) -> None:
        """There is nothing to let go of."""


def connect(settings: Settings, folder: str | None) -> MemoryBroker:
    if settings.url.rstrip("/").lower() != "memory:":
        raise InvalidValue(f"{settings.url_key} has nothing behind memory://")
    return MemoryBroker(Log(history=settings.history, age=settings.history_age))

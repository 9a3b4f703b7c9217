"""The memory broker: the log itself. Nothing leaves the process.

What the channels of ``SSE_PRESENCE`` are told lives in teller.py.
"""

from __future__ import annotations

from collections.abc import Collection

from ..errors import InvalidValue
from ..event import Event
from ..history.log import Log
from ..settings import Settings
from .contract import Broker, Claim
from .presence import Wish
from .teller import MemoryBoard, Teller


class MemoryBroker(Broker):
    """Publishing is appending."""

    is_shared = False

    def __init__(self, log: Log) -> None:
        self.log = log
        self._board = MemoryBoard(log, lambda: self.identities())
        self._wish: Wish | None = None
        self._teller: Teller | None = None

    def publish(self, channel: str, event: Event) -> Event:
        return self.log.append(channel, event)

    def end(self, channel: str) -> None:
        self.log.end(channel)

    def position(self) -> str:
        return self.log.position()

    def want(
        self, channels: Collection[str], since: str = "", *, fresh: bool = False
    ) -> None:
        # Nothing must be loaded: the log has all events. But somebody comes.
        if self._wish and self._teller and any(map(self._wish.is_told, channels)):
            self._teller.expect()

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

    def present(self, channel: str) -> dict[str, int]:
        return self._board.noted(channel) | dict(self.identities().get(channel, {}))

    def tell_presence(self, wish: Wish) -> None:
        self._wish = wish
        self._teller = Teller(self._board, wish, lambda: self.identities())

    def close(self) -> None:
        if self._teller:
            self._teller.close()


def connect(settings: Settings, folder: str | None) -> MemoryBroker:
    if settings.url.rstrip("/").lower() != "memory:":
        raise InvalidValue(f"{settings.url_key} has nothing behind memory://")
    return MemoryBroker(Log(history=settings.history, age=settings.history_age))

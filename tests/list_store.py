"""A store that is a list in this process, and that does at once what it is told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from flask_sse_lite import BrokerUnavailable, Event
from flask_sse_lite.brokers.contract import Claim, Summary
from flask_sse_lite.brokers.store import Heard, News, Retention, State, Store
from flask_sse_lite.history.records import Past, Record
from flask_sse_lite.position import new_epoch

from .patience import patient

RETENTION = Retention(100, 3600.0)


class ListStore(Store):
    """A store whose entries are a list. A test says what goes wrong there.

    ``calls`` are the verbs that were called, each with what it was told.
    """

    def __init__(self) -> None:
        super().__init__("the list", timeout=patient(10.0))
        self.epoch = new_epoch()
        self.entries: list[Record] = []
        self.calls: list[tuple[object, ...]] = []
        #: The highest position of each channel that the store has dropped.
        self.dropped: dict[str, int] = {}
        #: How many entries the store tells of in one answer.
        self.piece = 100
        #: What the next wait hears.
        self.heard = Heard(is_to_look=False)
        #: The runs that the store knows, by token, each with the position where it
        #: began; and whether others can begin.
        self.runs: dict[str, int] = {}
        self.is_open_to_runs = True
        #: The store is away, or takes no writes.
        self.is_away = self.is_read_only = False

    def called(self, verb: str) -> list[Any]:
        """What a verb was told, each time that it was called."""
        return [told for name, *told in self.calls if name == verb]

    def _note(self, *call: object, is_write: bool = False) -> None:
        self.calls.append(call)
        if self.is_away:
            raise BrokerUnavailable(f"{self.name} cannot be reached")
        if is_write and self.is_read_only:
            raise BrokerUnavailable(f"{self.name} takes no writes")

    # What a test does behind the process's back

    def add(self, channel: str, data: str) -> Record:
        """Another process publishes."""
        record = Record(len(self.entries) + 1, 0.0, channel, Event(data))
        self.entries.append(record)
        return record

    def begin_another_life(self) -> None:
        self.epoch = new_epoch()
        self.entries.clear()

    # The verbs

    def put(self, channel: str, event: Event | None) -> tuple[str, int]:
        self._note("put", channel, is_write=True)
        record = Record(len(self.entries) + 1, 0.0, channel, event)
        self.entries.append(record)
        return self.epoch, record.sequence

    def state(self) -> State:
        return State(self.epoch, len(self.entries), RETENTION)

    def load(self, channels: Collection[str]) -> tuple[State, dict[str, Past]]:
        self._note("load", *sorted(channels))
        pasts = {
            name: Past(
                self.dropped.get(name, 0),
                [record for record in self.entries if record.channel == name],
            )
            for name in channels
        }
        return self.state(), pasts

    def news(self, after: int) -> News:
        self._note("news", after)
        newest = min(after + self.piece, len(self.entries))
        held = self.view.log.held()
        return News(
            self.epoch,
            len(self.entries) if after > len(self.entries) else newest,
            [record for record in self.entries[after:newest] if record.channel in held],
            {name: at for name, at in self.dropped.items() if at > after},
            newest < len(self.entries),
        )

    def summaries(self) -> Iterable[Summary]:
        return []

    def renew(self, epoch: str) -> None:
        self._note("renew", epoch)
        if epoch == self.epoch:
            self.epoch = new_epoch()

    def begin(self, claim: Claim) -> tuple[str, int] | None:
        self._note("begin", claim.channel, is_write=True)
        if not self.is_open_to_runs:
            return None
        return self.epoch, self.runs.setdefault(claim.token, len(self.entries))

    def say(
        self,
        claim: Claim,
        event: Event | None,
        dropped: int,
        reason: Event | None = None,
    ) -> tuple[str, int] | None:
        return self.put(claim.channel, event) if claim.token in self.runs else None

    def extend(self, claims: Collection[Claim]) -> tuple[str, set[str]]:
        self._note("extend", *sorted(one.channel for one in claims), is_write=True)
        return self.epoch, {one.token for one in claims if one.token in self.runs}

    def end_lost(self) -> None:
        self._note("end_lost", is_write=True)

    def unknown(self, channels: Collection[str]) -> set[str]:
        self._note("unknown", *sorted(channels))
        return {*channels} if self.is_open_to_runs else set()

    def end_unknown(self, channel: str, epoch: str, seen: int) -> None:
        self._note("end_unknown", channel, epoch, seen, is_write=True)

    def count(self, counts: Mapping[str, int]) -> None:
        self._note("count", dict(counts))

    def counted(self, channel: str) -> int:
        return 0

    def wait(self, timeout: float) -> Heard:
        heard, self.heard = self.heard, Heard(is_to_look=False)
        return heard

    def close(self) -> None:
        self._note("close")

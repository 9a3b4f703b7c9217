"""A toy: a broker whose events stand in a folder, each in a file of its own.

What a store of one's own must do lives here, and no more. The shelf drops nothing and
wakes nobody: processes look at it ten times a second.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from flask_sse_lite import BrokerUnavailable, Event
from flask_sse_lite.brokers import Claim
from flask_sse_lite.brokers.contract import Summary
from flask_sse_lite.brokers.presence import Board, Roll, Telling
from flask_sse_lite.brokers.store import News, Retention, State, Store
from flask_sse_lite.event import stored_event
from flask_sse_lite.history.records import Past, Record
from flask_sse_lite.own_events import LOST
from flask_sse_lite.position import position_id
from flask_sse_lite.settings import Settings
from flask_sse_lite.system.locks import Guard

Index = dict[str, Any]

#: The index of a shelf on which nothing was put yet.
EMPTY: Index = {
    **{"epoch": "", "sequence": 0, "runs": {}, "counts": {}},
    **{"who": {}, "told": {}, "turn": {"number": 0, "of": "", "until": 0, "holds": 0}},
}


class ShelfStore(Store):
    """A folder with a file for each event, and one for the index."""

    def __init__(self, folder: Path, keeps: Retention, timeout: float) -> None:
        super().__init__(f"The shelf {folder}", timeout)
        self._folder = folder
        self._keeps = keeps
        self._step = Guard()
        self.board = ShelfBoard(self)

    @contextmanager
    def open_index(self) -> Iterator[Index]:
        """The index, for a caller that can change it."""
        deadline, file = self.deadline, self._folder / "index"
        if not self._step.acquire(deadline.left):
            raise BrokerUnavailable(f"{self.name} is too slow")
        try:
            self.check_open()
            with open(self._folder / "lock", "w") as lock:
                while not has_locked(lock):
                    if not deadline.left:
                        raise OSError("another process has it")
                    time.sleep(0.001)
                before = file.read_text() if file.exists() else json.dumps(EMPTY)
                index = json.loads(before)
                index["epoch"] = index["epoch"] or secrets.token_hex(8)
                yield index
                if (after := json.dumps(index)) != before:
                    file.with_suffix(".new").write_text(after)
                    file.with_suffix(".new").replace(file)
        except OSError as error:
            raise BrokerUnavailable(f"{self.name} fails: {error}") from error
        finally:
            self._step.release()

    def add(
        self, index: Index, channel: str, event: Event | None, budget: int = 0
    ) -> tuple[str, int]:
        index["sequence"] += 1
        said = [event.data, event.type, event.id, event.retry] if event else None
        entry = json.dumps([time.time(), channel, said, budget])
        (self._folder / f"{index['sequence']:016}").write_text(entry)
        if goes_on(index, channel) and not (event or budget):
            index["runs"][channel]["ended"] = time.time()
        return index["epoch"], index["sequence"]

    def _records(self, index: Index, after: int = 0) -> Iterator[Record]:
        for file in sorted(self._folder.glob("0*")):
            if (sequence := int(file.name)) > after:
                at, channel, said, budget = json.loads(file.read_text())
                event = None
                if said:
                    data, type, id, retry = said
                    position = position_id(index["epoch"], sequence, channel)
                    event = stored_event(data, type, id, retry, channel, position)
                yield Record(sequence, time.time() - at, channel, event, budget)

    def _past(self, index: Index, channel: str) -> Past:
        records = [r for r in self._records(index) if r.channel == channel]
        run = index["runs"].get(channel)
        if run and (run["ended"] or time.time()) >= time.time() - self._keeps.age:
            return Past(0, records, run["start"], run["budget"])
        kept = records[-self._keeps.history :]
        left_out = records[: -len(kept)] if kept else []
        return Past(left_out[-1].sequence if left_out else 0, kept)

    def _state(self, index: Index) -> State:
        return State(index["epoch"], index["sequence"], self._keeps)

    # Events

    def put(self, channel: str, event: Event | None) -> tuple[str, int]:
        with self.open_index() as index:
            return self.add(index, channel, event)

    def state(self) -> State:
        with self.open_index() as index:
            return self._state(index)

    def load(self, channels: Collection[str]) -> tuple[State, dict[str, Past]]:
        with self.open_index() as index:
            pasts = {name: self._past(index, name) for name in channels}
            return self._state(index), pasts

    def news(self, after: int) -> News:
        with self.open_index() as index:
            records = list(self._records(index, after))
            return News(index["epoch"], index["sequence"], records, {}, False)

    def summaries(self) -> list[Summary]:
        with self.open_index() as index:
            newest = {record.channel: record for record in self._records(index)}
            pasts = {name: self._past(index, name).records for name in newest}
        counts = {n: sum(r.event is not None for r in pasts[n]) for n in newest}
        return [Summary(n, counts[n], r.age, ends(r)) for n, r in newest.items()]

    def renew(self, epoch: str) -> None:
        with self.open_index() as index:
            if index["epoch"] == epoch:
                index["epoch"] = secrets.token_hex(8)

    # Runs

    def begin(self, claim: Claim) -> tuple[str, int] | None:
        with self.open_index() as index:
            self._end_lost(index)
            run = index["runs"].get(claim.channel)
            if run and run["token"] == claim.token:
                return None if run["ended"] else (index["epoch"], run["start"])
            if run and (claim.began[0] or not run["ended"]):
                return None
            began = self.add(index, claim.channel, None, claim.budget)
            index["runs"][claim.channel] = {
                **{"token": claim.token, "start": began[1], "budget": claim.budget},
                **{"lease": time.time() + self.lease, "ended": None},
            }
            return began

    def say(
        self,
        claim: Claim,
        event: Event | None,
        dropped: int,
        reason: Event | None = None,
    ) -> tuple[str, int] | None:
        with self.open_index() as index:
            run = index["runs"].get(claim.channel)
            if not run or run["ended"] or run["token"] != claim.token:
                return None
            if reason:
                self.add(index, claim.channel, reason)
            return self.add(index, claim.channel, event)

    def extend(self, claims: Collection[Claim]) -> tuple[str, set[str]]:
        with self.open_index() as index:
            tokens = {claim.token for claim in claims}
            known = [run for run in index["runs"].values() if run["token"] in tokens]
            for run in known:
                run["lease"] = time.time() + self.lease
            return index["epoch"], {run["token"] for run in known}

    def end_lost(self) -> None:
        with self.open_index() as index:
            self._end_lost(index)

    def _end_lost(self, index: Index) -> None:
        for channel, run in index["runs"].items():
            if not run["ended"] and run["lease"] < time.time():
                self._tell_lost(index, channel)

    def _tell_lost(self, index: Index, channel: str) -> None:
        for event in (LOST, None):
            self.add(index, channel, event)

    def unknown(self, channels: Collection[str]) -> set[str]:
        with self.open_index() as index:
            return {name for name in channels if not goes_on(index, name)}

    def end_unknown(self, channel: str, epoch: str, seen: int) -> None:
        with self.open_index() as index:
            if goes_on(index, channel) or index["epoch"] != epoch:
                return
            said = [r for r in self._records(index) if r.channel == channel]
            if not said or (said[-1].sequence <= seen and not ends(said[-1])):
                self._tell_lost(index, channel)

    # Counts

    def count(self, counts: Mapping[str, int]) -> None:
        with self.open_index() as index:
            until = time.time() + self.count_life
            index["counts"][self.view.process] = [dict(counts), until]

    def counted(self, channel: str) -> int:
        with self.open_index() as index:
            return sum(
                counts.get(channel, 0)
                for process, (counts, until) in index["counts"].items()
                if process != self.view.process and until > time.time()
            )

    def living(self, index: Index) -> set[str]:
        """The processes that serve streams."""
        now = time.time()
        return {name for name, (_, until) in index["counts"].items() if until > now}

    def is_closed(self, index: Index, channel: str) -> bool:
        said = [r for r in self._records(index) if r.channel == channel]
        return bool(said) and ends(said[-1])

    # The process

    def close(self) -> None:
        """Nothing is open between two verbs."""

    def before_fork(self) -> None:
        self._step.acquire()  # A child would keep a lock that is open.

    def after_fork(self) -> None:
        self._step.release()

    def begin_anew(self) -> None:
        super().begin_anew()
        self._step = Guard()


class ShelfBoard(Board):
    """What the index says of who is there, and of what was told."""

    def __init__(self, store: ShelfStore) -> None:
        self._store = store

    def note(self, identities: Mapping[str, Mapping[str, int]]) -> None:
        with self._store.open_index() as index:
            noted = {name: dict(counts) for name, counts in identities.items()}
            index["who"][self._store.view.process] = noted
            for process in index["who"].keys() - self._store.living(index):
                del index["who"][process]

    def noted(self, channel: str) -> dict[str, int]:
        with self._store.open_index() as index:
            holds = index["turn"]["holds"] > time.time()
            found = Counter(dict.fromkeys(index["told"].get(channel, ()), 0))
            found = found if holds else Counter()
            for process in self._store.living(index) - {self._store.view.process}:
                found.update(index["who"].get(process, {}).get(channel, {}))
        return found

    def roll(self, leave_after: float, *, is_urgent: bool) -> Roll | None:
        with self._store.open_index() as index:
            now, turn, told = time.time(), index["turn"], index["told"]
            holds = turn["holds"] > now
            is_others = turn["of"] != self._store.view.process and turn["until"] > now
            if is_others and not (is_urgent and holds):
                return None
            is_lapsed = bool(told) and not holds
            present: dict[str, set[str]] = {}
            for process in self._store.living(index):
                for channel, counts in index["who"].get(process, {}).items():
                    present.setdefault(channel, set()).update(counts)
            if not is_others and (present or told):
                until = now + self._store.count_life
                turn |= {"of": self._store.view.process, "until": until}
                if not is_lapsed:
                    turn["holds"] = until + leave_after
            return Roll(turn["number"], now, present, told, is_lapsed)

    def tell(
        self, channel: str, number: int, tellings: Sequence[Telling]
    ) -> list[tuple[str, int]] | None:
        with self._store.open_index() as index:
            if index["turn"]["number"] != number:
                return None
            index["turn"]["number"] += 1
            told = index["told"].setdefault(channel, {})
            is_closed, positions = self._store.is_closed(index, channel), []
            for identity, event, is_told, since in tellings:
                if event and not is_closed:
                    positions.append(self._store.add(index, channel, event))
                told.pop(identity, None)
                if is_told:
                    told[identity] = since
            if not told:
                del index["told"][channel]
            return positions


def has_locked(file: IO[str]) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def goes_on(index: Index, channel: str) -> bool:
    run = index["runs"].get(channel)
    return run is not None and not run["ended"]


def ends(record: Record) -> bool:
    return record.event is None and not record.budget


def connect_to_shelf(settings: Settings, folder: str | None) -> ShelfStore:
    """The store of ``shelf:///a/folder``. The folder must exist."""
    keeps = Retention(settings.history, settings.history_age)
    path = Path(urlsplit(settings.url).path)
    return ShelfStore(path, keeps, settings.broker_timeout)

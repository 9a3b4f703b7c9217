"""Presence: whose streams there are, and what the channels of ``SSE_PRESENCE`` are told
of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ...brokers import Broker
from ...brokers.store import Store
from ...own_events import JOIN, LEAVE
from .harness import PATIENCE, Reader, StoreUnderTest, until

#: Identities can be any text.
ODD = ["a:b", "two\nlines", "é☃😀", "\ud800", '"\\', " ", "x" * 512]

#: What an application configures that is told who comes and leaves.
TOLD: dict[str, Any] = {"SSE_PRESENCE": ["room.*"], "SSE_RETRY": 0}


class Process:
    """A process whose streams a test says."""

    def __init__(self, broker: Broker, *channels: str, since: str) -> None:
        self.broker = broker
        self.who: dict[str, dict[str, int]] = {}
        broker.identities = self._identities
        broker.listeners = lambda: dict.fromkeys([*channels, *self.who], 1)
        # A broker without readers does not tell its counts.
        self.reader = Reader(broker, *channels, since=since)

    def _identities(self) -> dict[str, dict[str, int]]:
        return {channel: dict(counts) for channel, counts in self.who.items()}

    def told(self) -> list[tuple[str | None, str]]:
        """What was told up to now: the type, and the identity."""
        self.reader.read()
        assert not self.reader.gaps
        return [(event.type, event.json["identity"]) for event in self.reader.events]

    def there(self) -> list[str]:
        """Who has come and not left, as was told up to now."""
        latest = {identity: type for type, identity in self.told()}
        return sorted(who for who, type in latest.items() if type == JOIN)

    def until_told(self, *told: tuple[str, str]) -> None:
        """Wait until just this was told, in whatever order."""
        self.reader.until(lambda: len(self.reader.events) >= len(told))
        assert sorted(map(str, self.told())) == sorted(map(str, told))


def joins(identities: Iterable[str]) -> list[tuple[str, str]]:
    return [(JOIN, identity) for identity in identities]


def leaves(identities: Iterable[str]) -> list[tuple[str, str]]:
    return [(LEAVE, identity) for identity in identities]


def process_of(
    store: StoreUnderTest, *channels: str, since: str = "", **config: Any
) -> Process:
    """A process that reads these channels, from a position on."""
    if not store.has_board:
        pytest.skip("Nobody knows who is there")
    return Process(store.open(**config), *channels, since=since)


@pytest.fixture
def impatient(hasty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is away for some seconds has left. A process that gets no turn on a busy
    machine must not seem to be dead meanwhile, or all would have left."""
    monkeypatch.setattr(Store, "count_life", PATIENCE / 7)
    monkeypatch.setattr("flask_sse_lite.settings.RETURNING", PATIENCE / 10)


@pytest.mark.usefixtures("hasty")
def test_it_is_known_who_is_there_over_all_processes(store: StoreUnderTest) -> None:
    first = process_of(store, "a")
    second = process_of(store, "a") if store.is_shared else first
    first.who = {"a": {"ann": 2, **dict.fromkeys(ODD, 1)}, "b": {"ann": 1}}
    wanted = {"ann": 2, **dict.fromkeys(ODD, 1)}
    if store.is_shared:
        second.who = {"a": {"ann": 1, "bob": 1}}
        wanted |= {"ann": 3, "bob": 1}
    for process in (first, second):
        until(lambda p=process: p.broker.present("a") == wanted)  # type: ignore[misc]
        until(lambda p=process: p.broker.present("b") == {"ann": 1})  # type: ignore[misc]
        assert process.broker.present("nobody's") == {}
    first.who = {"b": {"ann": 1}}
    left = {"ann": 1, "bob": 1} if store.is_shared else {}
    until(lambda: second.broker.present("a") == left)


@pytest.mark.usefixtures("hasty")
def test_who_was_at_a_closed_broker_is_not_there(shared: StoreUnderTest) -> None:
    first, second = process_of(shared, "a"), process_of(shared, "a")
    first.who, second.who = {"a": {"ann": 1}}, {"a": {"bob": 1}}
    until(lambda: second.broker.present("a") == {"ann": 1, "bob": 1})
    first.broker.close()
    until(lambda: second.broker.present("a") == {"bob": 1})


@pytest.mark.usefixtures("hasty")
def test_who_is_there_is_known_again_when_the_store_has_lost_it(
    shared: StoreUnderTest,
) -> None:
    first, second = process_of(shared, "a"), process_of(shared, "a")
    first.who = {"a": {"ann": 1}}
    until(lambda: second.broker.present("a") == {"ann": 1})
    shared.lose_everything()
    until(lambda: second.broker.subscribers("a") > 1)
    until(lambda: second.broker.present("a") == {"ann": 1})


@pytest.mark.usefixtures("impatient")
def test_who_comes_and_leaves_is_told(store: StoreUnderTest) -> None:
    process = process_of(store, "room.7", **TOLD)
    process.who = {"room.7": {"ann": 1, "bob": 1}, "other": {"cid": 1}}
    process.until_told(*joins(["ann", "bob"]))
    process.who = {"room.7": {"ann": 1}}
    # Bob counts as there for a while: he can come back.
    there = [{"ann": 1, "bob": 0}, {"ann": 1}]
    until(lambda: process.broker.present("room.7") in there)
    process.until_told(*joins(["ann", "bob"]), *leaves(["bob"]))
    until(lambda: process.broker.present("room.7") == {"ann": 1})
    process.who = {}
    process.until_told(*joins(["ann", "bob"]), *leaves(["bob", "ann"]))
    until(lambda: process.broker.present("room.7") == {})
    latest = process.reader.events[-1].id or ""
    since = process.reader.events[0].id or ""
    resumed = Reader(process.broker, "room.7", since=since)
    assert resumed.has_come_to(latest)
    assert len(resumed.events) == 3


@pytest.mark.usefixtures("impatient")
def test_a_reload_and_a_second_tab_are_neither(store: StoreUnderTest) -> None:
    process = process_of(store, "room.7", **TOLD)
    process.who = {"room.7": {"ann": 1}}
    process.until_told(*joins(["ann"]))
    for number in (0, 1, 2, 1):
        process.who = {"room.7": {"ann": number} if number else {}}
        until(lambda n=number: process.broker.present("room.7") == {"ann": n})  # type: ignore[misc]
    process.who = {"room.7": {"ann": 1, "bob": 1}}
    process.until_told(*joins(["ann", "bob"]))


@pytest.mark.usefixtures("impatient")
def test_all_processes_together_tell_it_once(shared: StoreUnderTest) -> None:
    processes = [process_of(shared, "room.7", **TOLD) for _ in range(3)]
    everybody = ["ann", "bob", "cid"]
    for process in processes:
        process.who = {"room.7": dict.fromkeys(everybody, 1)}
    for process in processes:
        process.until_told(*joins(everybody))
    # Ann goes over to the last process, whoever tells it.
    for process, who in zip(processes, (["bob"], ["bob"], ["ann"]), strict=True):
        process.who = {"room.7": dict.fromkeys(who, 1)}
    for process in processes:
        process.until_told(*joins(everybody), *leaves(["cid"]))


@pytest.mark.usefixtures("impatient")
def test_it_is_told_whoever_dies(shared: StoreUnderTest) -> None:
    first = process_of(shared, "room.7", **TOLD)
    first.who = {"room.7": {"ann": 1, "bob": 1}}
    first.until_told(*joins(["ann", "bob"]))  # So the turn is the first one's.
    second = process_of(shared, "room.7", **TOLD)
    second.who = {"room.7": {"cid": 1}}
    first.until_told(*joins(["ann", "bob", "cid"]))
    first.broker.close()
    second.who = {"room.7": {"ann": 1, "cid": 1}}  # Ann comes back.
    second.until_told(*joins(["cid"]), *leaves(["bob"]))
    assert second.broker.present("room.7") == {"ann": 1, "cid": 1}


@pytest.mark.usefixtures("impatient")
def test_when_nobody_looked_for_long_all_have_left(shared: StoreUnderTest) -> None:
    first = process_of(shared, "room.7", **TOLD)
    first.who = {"room.7": {"ann": 1, "bob": 1}}
    first.until_told(*joins(["ann", "bob"]))
    first.broker.close()
    bystander = process_of(shared, "room.7")  # It is of no such application.
    until(lambda: bystander.broker.present("room.7") == {})
    # The second process can tell it before its reader is there.
    since = bystander.broker.position()
    second = process_of(shared, "room.7", since=since, **TOLD)
    second.who = {"room.7": {"ann": 1}}
    second.until_told(*leaves(["ann", "bob"]), *joins(["ann"]))


@pytest.mark.usefixtures("impatient")
def test_a_room_that_fills_at_once_is_told_in_rounds(store: StoreUnderTest) -> None:
    # A round tells half of the history, so that its readers can follow.
    process = process_of(store, "room.7", **TOLD, SSE_HISTORY=64)
    crowd = [str(number) for number in range(60)]
    process.who = {"room.7": dict.fromkeys(crowd, 1)}
    process.until_told(*joins(crowd))


@pytest.mark.usefixtures("impatient")
def test_a_closed_channel_stays_closed(store: StoreUnderTest) -> None:
    process = process_of(store, "room.7", "room.8", **TOLD)
    process.who = {"room.7": {"ann": 1}, "room.8": {"bob": 1}}
    process.until_told(*joins(["ann", "bob"]))
    process.broker.end("room.7")
    process.who = {}
    process.until_told(*joins(["ann", "bob"]), *leaves(["bob"]))
    until(lambda: process.broker.present("room.7") == {})
    cursor = process.broker.log.cursor(("room.7",))
    assert process.broker.log.is_finished(cursor)

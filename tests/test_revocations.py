"""What a log knows of revocations: which clients they concern, and for how long."""

from __future__ import annotations

import json

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.fed import FedLog
from flask_sse_lite.history.log import Log
from flask_sse_lite.history.records import Past, Record
from flask_sse_lite.history.revocations import (
    LEEWAY,
    LONGEST,
    MOST,
    REVOCATIONS,
    Revocation,
    Revocations,
)

from .clocks import Clock

HISTORY = 9

EPOCH, OTHER_EPOCH = "a" * 16, "b" * 16


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> Log:
    return Log(history=9, age=99, clock=clock)


@pytest.fixture
def fed(clock: Clock) -> FedLog:
    return FedLog(clock=clock)


@pytest.fixture
def revocations(log: Log) -> Revocations:
    return log.revocations


def revoke(log: Log, identity: str | None = None, channel: str | None = None) -> None:
    log.append(REVOCATIONS, Revocation(identity, channel).to_event())


def hold_off(log: Log, identity: str, seconds: float) -> None:
    log.append(REVOCATIONS, Revocation(identity, None).to_event(seconds))


def test_who_is_held_off_is_meant_until_that_is_over(
    log: Log, revocations: Revocations, clock: Clock
) -> None:
    hold_off(log, "ann", 5.0)
    assert revocations.concern("ann", (), clock.now + 5.0)
    assert not revocations.concern("ann", (), clock.now + 5.1)
    assert not revocations.concern("bob", (), clock.now + 1.0)


def test_no_later_revocation_makes_that_shorter(
    log: Log, revocations: Revocations, clock: Clock
) -> None:
    began = clock.now
    hold_off(log, "ann", 5.0)
    clock.now += 1.0
    revoke(log, "ann")
    assert revocations.concern("ann", (), began + 5.0)
    hold_off(log, "ann", 5.0)
    assert revocations.concern("ann", (), began + 6.0)
    assert not revocations.concern("ann", (), began + 6.1)


@pytest.mark.parametrize("seconds", ["5", None, -1, 61, 1e999, [], {}])
def test_nobody_is_held_off_by_what_is_no_number_of_seconds(
    log: Log, revocations: Revocations, clock: Clock, seconds: object
) -> None:
    fields = {"identity": "ann", "channel": None, "hold_off": seconds}
    log.append(REVOCATIONS, Event(json.dumps(fields)))
    assert revocations.concern("ann", (), clock.now)
    assert not revocations.concern("ann", (), clock.now + 0.1)


def test_an_identity_is_meant_in_all_its_channels(
    log: Log, revocations: Revocations
) -> None:
    revoke(log, "ann")
    assert revocations.concern("ann", ("a", "b"), 999.0)
    assert not revocations.concern("bob", ("a", "b"), 999.0)
    assert not revocations.concern(None, ("a", "b"), 999.0)


def test_a_channel_is_meant_for_all_who_listen_to_it(
    log: Log, revocations: Revocations
) -> None:
    revoke(log, channel="a")
    assert revocations.concern("ann", ("b", "a"), 999.0)
    assert revocations.concern(None, ("a",), 999.0)
    assert not revocations.concern("ann", ("b",), 999.0)


def test_both_mean_that_identity_in_that_channel(
    log: Log, revocations: Revocations
) -> None:
    revoke(log, "ann", "a")
    assert revocations.concern("ann", ("a",), 999.0)
    assert not revocations.concern("ann", ("b",), 999.0)
    assert not revocations.concern("bob", ("a",), 999.0)
    assert not revocations.concern(None, ("a",), 999.0)


def test_who_was_let_in_later_is_not_meant(
    log: Log, clock: Clock, revocations: Revocations
) -> None:
    revoke(log, "ann")
    assert revocations.concern("ann", ("a",), clock.now)
    assert not revocations.concern("ann", ("a",), clock.now + 0.001)


def test_nobody_is_asked_about_the_same_twice(
    log: Log, revocations: Revocations
) -> None:
    revoke(log, "ann")
    seen = revocations.newest
    assert not revocations.concern("ann", ("a",), 999.0, seen)
    revoke(log, "bob")
    assert not revocations.concern("ann", ("a",), 999.0, seen)
    revoke(log, "ann")
    assert revocations.concern("ann", ("a",), 999.0, seen)


def test_what_code_that_interrupts_a_step_revokes_is_known_behind_the_step(
    log: Log, revocations: Revocations
) -> None:
    with log._lock:
        revoke(log, "ann")
        assert not revocations.newest
    assert revocations.concern("ann", ("a",), 999.0)


@pytest.mark.parametrize(
    ("identity", "channel"), [("ann", None), (None, "a"), ("ann", "a")]
)
def test_an_event_stands_for_a_revocation(
    identity: str | None, channel: str | None
) -> None:
    revocation = Revocation(identity, channel)
    event = revocation.to_event()
    assert event.type == "revoked"
    assert event.json == {"identity": identity, "channel": channel}
    assert Revocation.of(event) == revocation


def test_one_that_names_nobody_is_none() -> None:
    assert Revocation.of(Revocation(None, None).to_event()) is None


def test_those_are_told_that_are_newer_than_a_number(
    log: Log, revocations: Revocations
) -> None:
    ann, bob = Revocation("ann", None), Revocation("bob", None)
    assert (revocations.newest, revocations.since(0)) == (0, [])
    for name in ("ann", "bob"):
        revoke(log, name)
    assert revocations.newest == 2
    assert [revocations.since(seen) for seen in range(3)] == [[bob, ann], [bob], []]
    revoke(log, "ann")
    assert [revocations.since(seen) for seen in range(4)] == [
        *([ann, bob], [ann, bob], [ann], []),
    ]
    log.append(REVOCATIONS, Event(""))  # It can have meant anybody.
    assert revocations.newest == 4
    assert [revocations.since(seen) for seen in range(5)] == [None] * 4 + [[]]


def test_they_are_remembered_for_so_long_and_no_longer(
    log: Log, clock: Clock, revocations: Revocations
) -> None:
    began = clock.now
    revoke(log, "ann")
    clock.now += LONGEST
    revoke(log, "bob")
    assert revocations.known_since < began
    assert revocations.since(0) is not None
    clock.now += 0.001
    revoke(log, "bob")
    assert revocations.known_since == began
    assert revocations.since(0) is None
    assert revocations.since(1) == [Revocation("bob", None)]


def test_so_many_are_remembered_and_no_more(log: Log, revocations: Revocations) -> None:
    for number in range(MOST):
        revoke(log, str(number))
    found = revocations.since(0)
    assert found is not None
    assert len(found) == MOST
    revoke(log, "another")
    assert revocations.since(0) is None
    found = revocations.since(1)
    assert found is not None
    assert len(found) == MOST


@pytest.mark.parametrize("wait", [0.0, LONGEST + 1])
def test_those_that_are_too_many_or_too_old_send_off_who_was_let_in_before_them(
    log: Log, clock: Clock, revocations: Revocations, wait: float
) -> None:
    revoke(log, "ann")
    seen = revocations.newest
    clock.now += wait
    for number in range(1 if wait else MOST):
        clock.now += 0.001
        revoke(log, f"other {number}")
    assert len(revocations._noted) == (1 if wait else MOST)
    assert revocations.concern("anybody", ("a",), 1000.0)
    assert not revocations.concern("anybody", ("a",), 1000.0, seen)
    assert not revocations.concern("anybody", ("a",), 1000.001)


@pytest.mark.parametrize(
    "data", ["", "{}", "[]", '{"identity": 1, "channel": null}', '"identity"']
)
def test_one_that_cannot_be_read_sends_everybody_off(
    log: Log, clock: Clock, revocations: Revocations, data: str
) -> None:
    log.append(REVOCATIONS, Event(data))
    assert revocations.concern(None, ("a",), clock.now)
    assert not revocations.concern(None, ("a",), clock.now + 0.001)


def test_the_end_of_their_channel_means_nobody(
    log: Log, revocations: Revocations
) -> None:
    log.end(REVOCATIONS)
    assert not revocations.newest


# Of a store


def past(*ages: float, dropped: int = 0) -> Past:
    event = Revocation("ann", None).to_event()
    return Past(
        dropped,
        [Record(dropped + n, age, REVOCATIONS, event) for n, age in enumerate(ages, 1)],
    )


def begin(fed: FedLog, epoch: str, revoked: Past, age: float = 99) -> None:
    fed.restart(epoch, 20, {REVOCATIONS: revoked}, history=HISTORY, age=age)


def test_what_a_store_retains_is_known_when_it_is_loaded(
    fed: FedLog, clock: Clock
) -> None:
    begin(fed, EPOCH, past(30))
    assert fed.revocations.concern("ann", ("a",), clock.now - 30)
    assert not fed.revocations.concern("ann", ("a",), clock.now - 29)
    assert not fed.revocations.concern("bob", ("a",), clock.now - 98)


def test_the_clocks_of_a_store_and_of_a_process_can_differ(
    fed: FedLog, clock: Clock
) -> None:
    begin(fed, EPOCH, past(30))
    assert fed.revocations.concern("ann", ("a",), clock.now - 30 + LEEWAY)
    assert not fed.revocations.concern("ann", ("a",), clock.now - 30 + LEEWAY + 0.001)


def test_of_what_a_store_retains_no_more_nothing_is_known(
    fed: FedLog, clock: Clock
) -> None:
    begin(fed, EPOCH, past(*[30] * HISTORY, dropped=1))
    assert fed.revocations.concern("bob", ("a",), clock.now - 30)
    assert not fed.revocations.concern("bob", ("a",), clock.now - 29)
    begin(other := FedLog(clock=clock), EPOCH, past(), age=5)
    assert other.revocations.concern("bob", ("a",), clock.now - 5)
    assert not other.revocations.concern("bob", ("a",), clock.now - 4)


def test_an_entry_came_after_all_that_was_there_whatever_a_clock_says(
    fed: FedLog, clock: Clock
) -> None:
    begin(fed, EPOCH, past())
    clock.now += 10
    fed.advance(21)
    let_in, seen = clock.now - 5, fed.revocations.newest
    clock.now += 1
    event = Revocation("ann", None).to_event()
    fed.feed(Record(22, 1800.0, REVOCATIONS, event))
    assert fed.revocations.concern("ann", ("a",), let_in, seen)


def test_a_process_that_was_away_for_long_sends_off_who_was_let_in_before(
    fed: FedLog, clock: Clock
) -> None:
    begin(fed, EPOCH, past())
    let_in, seen = clock.now, fed.revocations.newest
    clock.now += 1000
    begin(fed, OTHER_EPOCH, past())
    assert fed.revocations.concern("bob", ("a",), let_in, seen)
    assert not fed.revocations.concern("bob", ("a",), clock.now, seen)


def test_what_is_fed_is_known_before_anything_behind_it_is_read(fed: FedLog) -> None:
    begin(fed, EPOCH, past())
    seen: list[int] = []
    fed.watch((REVOCATIONS,), lambda: seen.append(fed.revocations.newest))
    fed.feed(Record(21, 0.0, REVOCATIONS, Revocation("ann", None).to_event()))
    assert seen == [1]
    assert fed.revocations.concern("ann", ("a",), 999.0)


def test_what_a_store_has_dropped_unread_sends_everybody_off(
    fed: FedLog, clock: Clock
) -> None:
    begin(fed, EPOCH, past())
    seen = fed.revocations.newest
    fed.lose(REVOCATIONS, 25)
    assert fed.revocations.concern(None, ("a",), clock.now, seen)
    assert not fed.revocations.concern(None, ("a",), clock.now + 1, seen)


def test_a_store_that_has_begun_anew_sends_nobody_off(
    fed: FedLog, clock: Clock
) -> None:
    """Readers of a run must be told what became of it."""
    begin(fed, EPOCH, past())
    seen, let_in = fed.revocations.newest, clock.now
    clock.now += 10
    begin(fed, OTHER_EPOCH, past())
    assert not fed.revocations.concern(None, ("a",), let_in, seen)
    fed.feed(Record(21, 0.0, REVOCATIONS, Revocation("ann", None).to_event()))
    assert not fed.revocations.concern("bob", ("a",), let_in, seen)
    assert fed.revocations.concern("ann", ("a",), let_in, seen)

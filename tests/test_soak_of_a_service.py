"""The soak of a whole service, which ``make soak`` runs for half an hour: a short run,
and what the verdicts say of records that are not as they should be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flask_sse_lite import Event, own_events

from .browsers import chromium
from .soak import plan, verdicts
from .soak.conducting import conduct
from .soak.page import page
from .soak.record import Done, Record, Rest, Sample, Seen
from .soak.verdicts import BROKEN, HELD, Verdict, is_kept
from .soak.visitor import Final, Said, Tally, Visitor

ROOM = "room.0"

SECOND = 1_000_000_000


def test_a_short_run_keeps_all_promises_and_becomes_a_page(tmp_path: Path) -> None:
    record = conduct(plan.short(), tmp_path, print)
    found = verdicts.verdicts(record)
    broken = [verdict for verdict in found if verdict.state == BROKEN]
    assert is_kept(found), (broken, record.wrong)
    assert record.total("deliveries") > record.events > 0
    assert record.total("returns")
    assert {done.name for done in record.done} | {*record.skipped} == {*plan.DEEDS}
    html = page(record, found)
    # Where the machine is busy, there is less than was asked for.
    assert "A promise broke" not in html
    assert "http:" not in html.replace("http://www.w3.org", "")
    assert "https:" not in html


def test_the_page_fits_on_a_telephone(tmp_path: Path) -> None:
    record = long_record()
    record.wrong.append("here 1 lost 5 to 9 of room.3 " * 9)
    file = tmp_path / "index.html"
    file.write_text(page(record, verdicts.verdicts(record)))
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 390, "height": 800})
        tab.goto(file.as_uri())
        assert tab.locator("svg").count() == 8
        width = "document.documentElement.scrollWidth"
        assert tab.evaluate(width) == 390


# What a visitor must be sent


def said(number: int, attempt: int = 0, channel: str = ROOM) -> Event:
    return Event(str(Said(channel, number, attempt, SECOND)), id=f"{'a' * 16}-{number}")


def opening() -> Event:
    return own_events.opening(f"{'a' * 16}-0", 500)


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def visitor(tally: Tally) -> Visitor:
    visitor = Visitor("a visitor", (ROOM,), tally)
    visitor.come()
    visitor.take([opening(), said(3), said(4)], 2 * SECOND)
    return visitor


def come_back(visitor: Visitor, *events: Event) -> None:
    visitor.come()
    visitor.take([opening(), *events], 3 * SECOND)


def test_a_visitor_that_goes_on_is_content(visitor: Visitor, tally: Tally) -> None:
    come_back(visitor, said(5))
    assert tally.wrong == []
    assert tally.counts["continued"] == tally.counts["returns"] == 1
    assert tally.firsts == [(ROOM, f"{'a' * 16}-0", 3)]


def test_a_visitor_notices_what_it_lost(visitor: Visitor, tally: Tally) -> None:
    come_back(visitor, said(7))
    assert tally.counts["lost"] == 2
    assert tally.wrong == ["a visitor lost 5 to 6 of room.0"]


def test_a_visitor_that_is_told_a_gap_has_lost_nothing(
    visitor: Visitor, tally: Tally
) -> None:
    gap = own_events.gap("", [ROOM], "x")
    come_back(visitor, gap, said(7), said(8))
    assert tally.wrong == []
    assert tally.counts["told"] == 1


def test_a_visitor_notices_what_comes_twice(visitor: Visitor, tally: Tally) -> None:
    visitor.take([said(4)], 3 * SECOND)
    assert tally.counts["doubled"] == 1


def test_another_attempt_at_the_same_event_is_no_double(
    visitor: Visitor, tally: Tally
) -> None:
    visitor.take([said(4, 1), said(5), said(3, 1)], 3 * SECOND)
    assert tally.wrong == []
    assert tally.odd == [(ROOM, 3, 1)]
    visitor.take([said(3, 1)], 3 * SECOND)
    assert tally.counts["doubled"] == 1


def test_a_visitor_notices_what_is_not_of_its_channels(
    visitor: Visitor, tally: Tally
) -> None:
    visitor.take([said(5, channel="room.1")], 3 * SECOND)
    assert len(tally.wrong) == 1


def test_of_a_visitor_that_never_had_a_stream_nothing_is_known(tally: Tally) -> None:
    visitor = Visitor("a visitor", (ROOM,), tally)
    visitor.come()
    finals = {ROOM: Final(9, f"{'a' * 16}-9")}
    visitor.finish(finals)
    assert visitor.lacks(finals) == [ROOM]
    assert tally.firsts == []


@pytest.mark.parametrize(("last", "lacks"), [(-1, []), (0, []), (1, [ROOM])])
def test_a_newcomer_waits_for_what_was_published_behind_its_opening(
    tally: Tally, last: int, lacks: list[str]
) -> None:
    visitor = Visitor("a visitor", (ROOM,), tally)
    visitor.come()
    visitor.take([opening()], 2 * SECOND)
    id = f"{'a' * 16}-{last}" if last >= 0 else ""
    assert visitor.lacks({ROOM: Final(last, id)}) == lacks


# Verdicts


def long_record() -> Record:
    """A run of half an hour in which everything was as it should be."""
    record = Record(plan.long(30), elder=1)
    times = range(0, 1800, 5)
    record.samples = [Sample(t, 1, 60_000_000, 40_000_000, 500, 3) for t in times]
    record.seen = [Seen(t, "here", 2000, {"deliveries": 9}, {80: 9}) for t in times]
    record.published = [(1800.0, 360_000)]
    record.echo = [(float(t), {60: 50}) for t in times]
    record.store = [(float(t), 5_000_000) for t in times]
    record.before = record.after = Rest(0, 14, 3, 4)
    return record


def judged(record: Record) -> list[Verdict]:
    """The verdicts, without those that deeds were done."""
    done = {*plan.DEEDS.values()}
    return [
        v
        for v in verdicts.verdicts(record)
        if v.promise not in done and "network is gone" not in v.promise
    ]


def broken(record: Record) -> list[str]:
    return [v.promise for v in judged(record) if v.state == BROKEN]


def test_a_run_as_it_should_be_keeps_all_promises() -> None:
    assert {v.state for v in judged(long_record())} == {HELD}


def test_a_worker_that_grows_breaks_a_promise() -> None:
    record = long_record()
    record.samples = [
        s._replace(rss=s.rss + int(s.at) * 20_000) for s in record.samples
    ]
    assert broken(record) == ["A worker's memory does not grow with time"]


def test_a_worker_that_serves_more_streams_can_be_larger() -> None:
    record = long_record()
    record.samples = [
        s._replace(rss=s.rss + int(s.at) * 9_000, descriptors=500 + int(s.at))
        for s in record.samples
    ]
    assert broken(record) == []


def test_a_redis_that_grows_breaks_a_promise() -> None:
    record = long_record()
    record.store = [(at, size + int(at) * 9_000) for at, size in record.store]
    assert broken(record) == ["Redis does not grow with time"]


@pytest.mark.parametrize("is_echo_slower", [False, True])
def test_deliveries_that_become_slower_break_a_promise_unless_an_echo_does_too(
    is_echo_slower: bool,
) -> None:
    record = long_record()
    record.seen = [s._replace(delays={80 + 10 * (s.at > 900): 9}) for s in record.seen]
    if is_echo_slower:
        record.echo = [(at, {60 + 10 * (at > 900): 50}) for at, _ in record.echo]
    assert len(broken(record)) == (0 if is_echo_slower else 2)


@pytest.mark.parametrize("name", Rest._fields)
def test_what_is_left_behind_breaks_a_promise(name: str) -> None:
    record = long_record()
    assert record.after
    record.after = record.after._replace(**{name: 40})
    assert len(broken(record)) == 1


@pytest.mark.parametrize("name", ["lost", "doubled", "unfinished"])
def test_what_a_client_counts_breaks_a_promise(name: str) -> None:
    record = long_record()
    record.seen[7].counts[name] = 1
    assert broken(record)


def test_a_deed_that_was_not_done_breaks_a_promise_and_one_left_out_does_not() -> None:
    record = long_record()
    names = {v.promise for v in verdicts.verdicts(record) if v.state == BROKEN}
    assert {*plan.DEEDS.values()} <= names
    record.skipped[plan.DROP] = "only root can"
    left_out = [v for v in verdicts.verdicts(record) if v.state == "skipped"]
    assert [v.why for v in left_out] == ["only root can"]


def test_a_plan_does_everything_and_leaves_time_for_healing() -> None:
    for each in (plan.short(), plan.long(10), replace(plan.long(30), seed=3)):
        deeds = each.deeds()
        assert {deed.name for deed in deeds} == {*plan.DEEDS}
        assert deeds == sorted(deeds)
        assert deeds[-1].at <= plan.END * each.seconds


def test_a_run_of_less_than_was_asked_for_says_so() -> None:
    record = long_record()
    record.published = [(1800.0, 20_000)]
    found = verdicts.verdicts(record)
    assert [v.why for v in found if v.state == "missed"] == [
        "11, where 200 were asked for"
    ]
    record.done = [Done(1.0, 2.0, name, "") for name in plan.DEEDS]
    record.seen[9].counts["silent"] = 1
    assert "in less than was asked for" in page(record, verdicts.verdicts(record))

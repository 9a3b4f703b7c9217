"""Duties: what a process does for its store, when, and what it leaves undone while the
store is away. The tests say what time it is."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from flask_sse_lite import BrokerUnavailable
from flask_sse_lite.brokers import duties as module
from flask_sse_lite.brokers.contract import Claim
from flask_sse_lite.brokers.duties import Duties
from flask_sse_lite.brokers.follower import LONGEST_PAUSE, LOOK_INTERVAL
from flask_sse_lite.brokers.presence import Board, Presence, Roll, Wish
from flask_sse_lite.position import new_run_channel
from flask_sse_lite.system.chance import CHANCE

from .list_store import RETENTION, ListStore

BUDGET = 1000

#: Seconds within which the readers of a lost run are told, as docs/generators.rst,
#: docs/several-processes.rst and docs/what-happens-when.rst say.
PROMISED = 10.0

#: A time too short to count.
MOMENT = 0.001


class World:
    """One process, its store, and the time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.store = ListStore()
        self.listeners: dict[str, int] = {}
        self.identities: dict[str, dict[str, int]] = {}
        self.duties = Duties(
            self.store, lambda: self.listeners, lambda: self.identities
        )

    def wish(self) -> None:
        """The application wants to be told who comes, one at a time."""
        assert self.store.board
        wish = Wish(lambda channel: True, leave_after=9.0, at_once=1)
        self.duties.presence = Presence(self.store.board, wish, lambda position: None)

    def begin(self, channel: str) -> Claim:
        claim = Claim(channel, BUDGET)
        assert self.duties.have_begun(claim)
        return claim

    def await_run(self) -> str:
        """A channel whose readers wait for the end of a run."""
        channel = new_run_channel()
        log = self.store.view.log
        log.restart(
            self.store.epoch, 0, {}, history=RETENTION.history, age=RETENTION.age
        )
        log.watch([channel], lambda: None)
        return channel

    def look(self) -> None:
        """Do what is due when it is looked at next who is there."""
        self.now += module.PRESENCE_INTERVAL
        self.duties.do()

    def do_all(self, after: float) -> None:
        """Do the duties so many seconds later, when they are due."""
        self.now += after
        self.duties.due_at = self.now
        self.duties.do()

    def do_late(self) -> None:
        """Do the duties as late as they can be done: the follower begins a wait for
        news right before they are due, and does them after it."""
        self.now = self.duties.due_at + LOOK_INTERVAL
        self.duties.do()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    clock = SimpleNamespace(monotonic=lambda: world.now)
    monkeypatch.setattr(module, "time", clock)
    return world


class TestClaims:
    def test_a_run_that_the_store_begins_is_this_process_s(self, world: World) -> None:
        world.store.add("a", "before")
        claim = world.begin("a")
        assert world.duties.claims == {claim}
        assert claim.began == (world.store.epoch, 1)
        assert world.store.view.published == (world.store.epoch, 1)

    def test_a_run_that_the_store_refuses_is_nobody_s(self, world: World) -> None:
        world.store.is_open_to_runs = False
        claim = Claim("a", BUDGET)
        assert not world.duties.have_begun(claim)
        assert world.duties.claims == set()
        assert claim.began == ("", 0)

    def test_a_run_that_ends_while_it_is_begun_anew_is_not_kept(
        self, world: World
    ) -> None:
        claim = Claim("a", BUDGET)
        claim.is_over = True
        world.duties.have_begun(claim)
        assert world.duties.claims == set()

    def test_a_run_that_is_given_up_is_over(self, world: World) -> None:
        claim = world.begin("a")
        for _ in range(2):
            world.duties.give_up(claim)
        assert claim.is_over
        world.do_all(after=0)
        assert world.store.called("extend") == []

    def test_runs_are_extended_together(self, world: World) -> None:
        world.begin("a")
        world.begin("b")
        world.do_all(after=1)
        assert world.store.called("extend") == [["a", "b"]]
        assert len(world.store.called("begin")) == 2

    def test_a_run_that_the_store_has_lost_is_begun_anew(self, world: World) -> None:
        kept, lost = world.begin("a"), world.begin("b")
        del world.store.runs[lost.token]
        world.store.begin_another_life()
        world.store.add("a", "1")
        world.do_all(after=1)
        assert sorted(world.store.called("begin")[2:]) == [["a"], ["b"]]
        # A run that the store knows keeps its position, in whatever life.
        assert kept.began == (world.store.epoch, 0)
        assert lost.began == (world.store.epoch, 1)

    def test_a_run_that_was_given_up_meanwhile_is_not_begun_anew(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claim = world.begin("a")

        def extend(claims: object) -> tuple[str, set[str]]:
            world.duties.give_up(claim)  # Another thread does, at this moment.
            return world.store.epoch, set()

        monkeypatch.setattr(world.store, "extend", extend)
        world.do_all(after=1)
        assert world.store.called("begin") == [["a"]]


class TestWhen:
    def test_nothing_is_done_before_it_is_due(self, world: World) -> None:
        world.duties.do()
        assert len(world.store.called("end_lost")) == 1
        assert 0.8 <= (world.duties.due_at - world.now) / world.store.duty_interval <= 1
        world.duties.do()
        assert len(world.store.called("end_lost")) == 1
        world.now = world.duties.due_at
        world.duties.do()
        assert len(world.store.called("end_lost")) == 2

    def test_nobody_is_taken_for_dead_for_a_lease_after_the_store_was_away(
        self, world: World
    ) -> None:
        world.duties.be_patient()
        world.do_all(after=world.store.lease - 0.1)
        assert world.store.called("end_lost") == []
        world.do_all(after=0.1)
        assert world.store.called("end_lost") == [[]]


class TestForgottenRuns:
    def test_a_run_that_is_unknown_for_a_lease_is_ended(self, world: World) -> None:
        channel = world.await_run()
        world.do_all(after=0)
        world.do_all(after=world.store.lease - 0.1)
        assert world.store.called("end_unknown") == []
        world.do_all(after=0.1)
        assert world.store.called("end_unknown") == [[channel, world.store.epoch, 0]]

    def test_a_run_that_the_store_knows_again_is_doubted_no_more(
        self, world: World
    ) -> None:
        world.await_run()
        world.do_all(after=0)
        world.store.is_open_to_runs = False  # It goes on.
        world.do_all(after=1)
        world.store.is_open_to_runs = True
        world.do_all(after=world.store.lease)
        assert world.store.called("end_unknown") == []
        world.do_all(after=world.store.lease)
        assert len(world.store.called("end_unknown")) == 1

    def test_nobody_is_doubted_for_the_time_in_which_the_store_was_away(
        self, world: World
    ) -> None:
        """The run's process cannot begin it anew there."""
        world.await_run()
        world.do_all(after=0)
        world.store.is_away = True
        world.do_all(after=world.store.lease)
        world.store.is_away = False
        world.duties.be_patient()
        world.do_all(after=0)
        world.do_all(after=world.store.lease - 0.1)
        assert world.store.called("end_unknown") == []
        world.do_all(after=0.1)
        assert len(world.store.called("end_unknown")) == 1

    def test_nobody_is_doubted_for_the_time_in_which_the_store_took_no_writes(
        self, world: World
    ) -> None:
        """The follower can read such a store, and so does not find it away."""
        world.await_run()
        world.do_all(after=0)
        world.store.is_away = True
        world.do_all(after=world.store.lease - 0.1)
        world.store.is_away = False
        world.store.calls.clear()
        world.do_all(after=0.1)
        world.do_all(after=world.store.lease - 0.3)
        # Leases have run out because nobody could extend them.
        assert world.store.called("end_lost") == []
        assert world.store.called("end_unknown") == []
        world.do_all(after=0.2)
        assert len(world.store.called("end_lost")) == 1

    def test_a_process_never_doubts_its_own_runs(self, world: World) -> None:
        world.begin(world.await_run())
        world.do_all(after=0)
        world.do_all(after=world.store.lease)
        assert world.store.called("unknown") == []

    def test_where_nobody_waits_the_store_is_asked_nothing(self, world: World) -> None:
        world.do_all(after=0)
        assert world.store.calls == [("end_lost",)]


class TestInTime:
    """The readers of a lost run are told within ten seconds. Nothing is late but by
    what the product waits for itself, and all of that happens at the worst moment."""

    @pytest.fixture(autouse=True)
    def longest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(CHANCE, "uniform", max)

    def test_when_the_process_of_a_run_died(self, world: World) -> None:
        died_at = world.now
        # A round that comes a moment before the lease is over ends nothing.
        world.do_all(after=world.store.lease - MOMENT)
        world.do_late()
        # Another process hears of it at its next look, at the latest.
        assert world.now + LOOK_INTERVAL - died_at <= PROMISED

    def test_when_the_store_was_away_and_is_back(self, world: World) -> None:
        back_at = world.now
        world.now += LONGEST_PAUSE
        world.duties.be_patient()
        world.do_all(after=world.store.lease - MOMENT)
        assert world.store.called("end_lost") == []
        world.do_late()
        assert world.store.called("end_lost") == [[]]
        assert world.now + LOOK_INTERVAL - back_at <= PROMISED

    def test_when_the_store_is_back_and_has_lost_the_run(self, world: World) -> None:
        back_at = world.now
        world.now += LONGEST_PAUSE
        world.duties.be_patient()
        channel = world.await_run()
        # What was due meanwhile is done as soon as the store is found to be back.
        world.do_all(after=0)
        self.expect_an_end_in_time(world, channel, back_at)

    def test_when_the_store_has_lost_the_run_and_its_process_died(
        self, world: World
    ) -> None:
        world.duties.do()
        lost_at = world.now
        channel = world.await_run()
        world.do_late()
        self.expect_an_end_in_time(world, channel, lost_at)

    def expect_an_end_in_time(self, world: World, channel: str, since: float) -> None:
        """Check that a run that was just found to be unknown is ended in time. This
        process itself tells it, and needs no look to hear of it."""
        world.do_all(after=world.store.lease - MOMENT)
        assert world.store.called("end_unknown") == []
        world.do_late()
        assert world.store.called("end_unknown") == [[channel, world.store.epoch, 0]]
        assert world.now - since <= PROMISED


class TestCounts:
    def test_the_store_is_told_as_long_as_there_are_streams_and_once_more(
        self, world: World
    ) -> None:
        for listeners in ({}, {"a": 2}, {"a": 2}, {}, {}):
            world.listeners = dict(listeners)
            world.do_all(after=1)
        assert world.store.called("count") == [[{"a": 2}], [{"a": 2}], [{}]]

    def test_what_the_store_was_not_told_it_is_told_later(self, world: World) -> None:
        world.listeners = {"a": 1}
        world.do_all(after=1)
        world.listeners = {}
        world.store.is_away = True
        world.do_all(after=1)
        world.store.is_away = False
        world.do_all(after=1)
        world.do_all(after=1)
        assert world.store.called("count") == [[{"a": 1}], [{}], [{}]]

    def test_a_store_that_takes_no_writes_is_told_all_the_same(
        self, world: World
    ) -> None:
        world.begin("a")
        world.listeners = {"a": 1}
        world.store.is_read_only = True
        world.do_all(after=1)
        assert world.store.called("extend") == [["a"]]
        assert world.store.called("count") == [[{"a": 1}]]


class TestIdentities:
    """What a store's board is told, and when."""

    @pytest.fixture
    def board(self, world: World) -> Mock:
        world.store.board = board = Mock(spec=Board)
        board.roll.return_value = Roll(1, 0.0, {}, {})
        board.tell.return_value = []
        return board

    def test_a_board_is_told_as_long_as_there_are_any_and_once_more(
        self, world: World, board: Mock
    ) -> None:
        for who in ({}, {"a": {"ann": 1}}, {"a": {"ann": 1}}, {}, {}):
            world.identities = dict(who)
            world.do_all(after=1)
        told = [call.args[0] for call in board.note.call_args_list]
        assert told == [{"a": {"ann": 1}}, {"a": {"ann": 1}}, {}]
        assert board.roll.mock_calls == []

    def test_news_do_not_wait_for_the_next_round(
        self, world: World, board: Mock
    ) -> None:
        world.wish()
        world.do_all(after=1)
        world.duties.do()
        assert len(board.roll.mock_calls) == 1
        world.identities = {"a": {"ann": 1}}
        world.duties.do()
        assert len(board.roll.mock_calls) == 1  # A look costs something, too.
        for _ in range(2):
            world.look()
        urgent = [call.kwargs["is_urgent"] for call in board.roll.mock_calls]
        assert urgent == [False, True]

    def test_what_is_not_all_told_goes_on_at_once(
        self, world: World, board: Mock
    ) -> None:
        world.wish()
        board.roll.return_value = Roll(1, 0.0, {"a": ["ann", "bob"]}, {})
        world.do_all(after=1)
        ((channel, number, tellings),) = [c.args for c in board.tell.mock_calls]
        assert (channel, number, [t.identity for t in tellings]) == ("a", 1, ["ann"])
        board.roll.return_value = Roll(2, 0.0, {}, {})
        for _ in range(2):
            world.look()
        assert len(board.roll.mock_calls) == 2

    def test_what_another_process_told_first_is_looked_at_again(
        self, world: World, board: Mock
    ) -> None:
        world.wish()
        board.roll.return_value = Roll(1, 0.0, {"a": ["ann"]}, {})
        board.tell.return_value = None
        for _ in range(3):
            world.look()
        assert len(board.roll.mock_calls) == 3

    def test_what_could_not_be_told_is_told_later(
        self, world: World, board: Mock
    ) -> None:
        world.wish()
        board.roll.side_effect = [BrokerUnavailable("away"), Roll(2, 0.0, {}, {})]
        for _ in range(3):
            world.look()
        assert len(board.roll.mock_calls) == 2

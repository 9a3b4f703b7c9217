"""The follower: what each answer of a store leads to in the log, and what its thread
does when the store fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from flask_sse_lite import BrokerUnavailable
from flask_sse_lite.brokers.deadline import OutOfTime
from flask_sse_lite.brokers.duties import Duties
from flask_sse_lite.brokers.follower import Follower
from flask_sse_lite.brokers.store import Heard, News
from flask_sse_lite.history.cursor import Cursor
from flask_sse_lite.history.records import Record
from flask_sse_lite.history.revocations import REVOCATIONS

from .batches import data_of, lost_in
from .list_store import RETENTION, ListStore
from .patience import patient
from .servers import until

SOON = patient(10.0)

#: More bytes than any test publishes.
ALL = 1 << 20


@pytest.fixture
def store() -> Iterator[ListStore]:
    store = ListStore()
    yield store
    store.closing.set()


@pytest.fixture
def follower(store: ListStore) -> Follower:
    return Follower(store, Duties(store, dict))


@pytest.fixture
def attached(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> Follower:
    """A follower that has no thread: it does what a test tells it to do."""
    monkeypatch.setattr(follower, "_start", lambda: None)
    follower.attach()
    return follower


def read(store: ListStore, cursor: Cursor) -> list[str]:
    """What a reader gets: events, and before them the channels of its gap, in angle
    brackets."""
    batch = store.view.log.read(cursor, ALL)
    return [*(f"<{name}>" for name in lost_in(batch)), *data_of(batch)]


def watch(follower: Follower, store: ListStore, channel: str) -> Cursor:
    """A reader of a channel."""
    follower.fetch([channel])
    store.view.log.watch([channel], lambda: None)
    return store.view.log.cursor([channel])


class TestAttach:
    def test_it_begins_where_the_store_is(
        self, store: ListStore, attached: Follower
    ) -> None:
        log = store.view.log
        assert attached.is_attached
        assert (log.epoch, log.sequence) == (store.epoch, 0)
        assert attached.retention == RETENTION
        store.add("a", "1")
        attached.attach()
        assert log.sequence == 0  # It has begun before.

    def test_where_no_thread_can_be_started_it_says_so_and_tries_again(
        self,
        store: ListStore,
        follower: Follower,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def start(_: object) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(BrokerUnavailable, match="cannot be listened to"):
                follower.attach()
        assert follower.thread is None
        assert not follower.is_attached
        follower.attach()
        assert follower.thread
        store.closing.set()
        follower.stop()
        assert not follower.thread.is_alive()


class TestFetch:
    def test_a_channel_is_loaded_once(
        self, store: ListStore, attached: Follower
    ) -> None:
        store.add("a", "1")
        for _ in range(2):
            attached.fetch(["a", "b"])
        assert store.called("load") == [[REVOCATIONS], ["a", "b"]]
        attached.fetch(["a", "c"])
        assert store.called("load")[2:] == [["c"]]

    def test_where_the_store_lives_anew_all_that_is_watched_is_loaded(
        self, store: ListStore, attached: Follower
    ) -> None:
        watch(attached, store, "a")
        store.begin_another_life()
        attached.fetch(["b"])
        assert store.called("load")[-1] == [REVOCATIONS, "a", "b"]
        assert store.view.log.epoch == store.epoch


class TestLook:
    def test_what_is_new_is_fed(self, store: ListStore, attached: Follower) -> None:
        cursor = watch(attached, store, "a")
        store.add("a", "1")
        store.add("other", "2")
        store.add("a", "3")
        assert attached.look()
        assert read(store, cursor) == ["1", "3"]
        store.add("other", "4")
        assert attached.look()
        assert store.view.log.sequence == 4

    def test_a_piece_is_not_all(self, store: ListStore, attached: Follower) -> None:
        cursor = watch(attached, store, "a")
        store.piece = 2
        for number in range(3):
            store.add("a", str(number))
        assert not attached.look()
        assert read(store, cursor) == ["0", "1"]
        assert attached.look()
        assert read(store, cursor) == ["2"]

    def test_another_life_is_a_gap_for_readers(
        self, store: ListStore, attached: Follower
    ) -> None:
        cursor = watch(attached, store, "a")
        store.add("a", "1")
        attached.look()
        assert read(store, cursor) == ["1"]
        store.begin_another_life()
        store.add("a", "2")
        assert attached.look()
        assert read(store, cursor) == ["<a>", "2"]

    def test_a_store_that_has_lost_events_begins_another_life(
        self, store: ListStore, attached: Follower
    ) -> None:
        cursor = watch(attached, store, "a")
        store.add("a", "1")
        store.add("a", "2")
        attached.look()
        assert read(store, cursor) == ["1", "2"]
        before = store.epoch
        store.entries.pop()  # An older copy of the store was put in its place.
        assert attached.look()
        assert store.called("renew") == [[before]]
        assert store.view.log.epoch == store.epoch != before
        assert read(store, cursor) == ["<a>", "1"]

    def test_what_the_store_drops_before_it_is_fed_is_a_gap(
        self, store: ListStore, attached: Follower
    ) -> None:
        cursor = watch(attached, store, "a")
        store.add("a", "1")
        store.dropped["a"] = 1
        store.entries[0] = Record(1, 0.0, "dropped", None)
        store.add("a", "2")
        assert attached.look()
        assert read(store, cursor) == ["<a>", "2"]

    def test_of_many_that_ask_one_looks(
        self, store: ListStore, attached: Follower
    ) -> None:
        assert attached.look()
        asked = len(store.called("news"))
        assert attached.look(attached._looked_at)
        assert len(store.called("news")) == asked
        assert attached.look(attached._looked_at + 1)
        assert len(store.called("news")) == asked + 1


class TestHear:
    def hear(self, follower: Follower, store: ListStore, *records: Record) -> bool:
        store.heard = Heard(False, [(store.epoch, records)])
        return follower._hear()

    def test_what_is_heard_whole_needs_no_look(
        self, store: ListStore, attached: Follower
    ) -> None:
        cursor = watch(attached, store, "a")
        one, two = store.add("a", "1"), store.add("a", "2")
        assert not self.hear(attached, store, one)
        assert not self.hear(attached, store, one, two)  # One of them is known.
        assert read(store, cursor) == ["1", "2"]
        assert store.called("news") == []

    def test_where_one_is_missing_the_store_is_asked(
        self, store: ListStore, attached: Follower
    ) -> None:
        cursor = watch(attached, store, "a")
        one, _, three = (store.add("a", str(number)) for number in (1, 2, 3))
        assert self.hear(attached, store, one, three)
        assert read(store, cursor) == ["1"]
        attached.look()
        assert read(store, cursor) == ["2", "3"]

    def test_what_is_heard_of_another_life_is_not_fed(
        self, store: ListStore, attached: Follower
    ) -> None:
        cursor = watch(attached, store, "a")
        store.begin_another_life()
        assert self.hear(attached, store, store.add("a", "1"))
        assert read(store, cursor) == []

    def test_what_must_be_loaded_first_is_not_fed(
        self, store: ListStore, attached: Follower
    ) -> None:
        store.view.log.watch(["a"], lambda: None)
        assert store.view.log.has_unfed
        assert self.hear(attached, store, store.add("a", "1"))
        assert store.view.log.sequence == 0


class TestAway:
    def test_who_asks_meanwhile_is_told_at_once(
        self,
        store: ListStore,
        attached: Follower,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        store.is_away = True
        with pytest.raises(BrokerUnavailable, match="cannot be reached"):
            attached.fetch(["a"])
        store.calls.clear()
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match="the list is away"):
                attached.fetch(["a"])
        assert store.calls == []
        assert len(caplog.records) == 1

    def test_when_it_is_back_that_is_said_and_nobody_is_taken_for_dead(
        self,
        store: ListStore,
        attached: Follower,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO)
        store.is_away = True
        with pytest.raises(BrokerUnavailable):
            attached.fetch(["a"])
        store.is_away = False
        for _ in range(2):
            attached._note_back()
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        attached.fetch(["a"])
        attached._duties.do()
        assert store.called("end_lost") == []

    def test_that_the_broker_is_closed_is_no_news(
        self,
        store: ListStore,
        attached: Follower,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        store.is_away = True
        store.closing.set()  # A thread can be in the midst of asking.
        with pytest.raises(BrokerUnavailable):
            attached.fetch(["a"])
        assert not attached.is_away
        assert caplog.records == []

    def test_a_process_that_does_not_follow_takes_nobody_for_away(
        self, store: ListStore, follower: Follower, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.is_away = True
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match="cannot be reached"):
                follower.attach()
        assert caplog.records == []


class TestThread:
    def test_it_feeds_what_others_publish_and_comes_back_from_every_error(
        self,
        store: ListStore,
        follower: Follower,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        caplog.set_level(logging.INFO)
        errors: list[BaseException] = [
            ZeroDivisionError(),
            SystemExit(),
            BrokerUnavailable("the list is on fire"),
        ]
        is_well = threading.Event()

        def wait(timeout: float) -> Heard:
            if errors:
                raise errors.pop(0)
            is_well.set()
            store.closing.wait(0.01)
            return Heard(is_to_look=True)

        monkeypatch.setattr(store, "wait", wait)
        follower.attach()
        assert is_well.wait(SOON)
        cursor = watch(follower, store, "a")
        store.add("a", "1")
        until(lambda: store.view.log.sequence == 1, SOON)
        assert read(store, cursor) == ["1"]
        store.closing.set()
        follower.stop()
        assert follower.thread
        assert not follower.thread.is_alive()
        assert [(record.levelname, record.message) for record in caplog.records] == [
            ("ERROR", "SSE-E07: Following the list failed"),
            ("INFO", "the list is back"),
            ("ERROR", "SSE-E07: Following the list failed"),
            ("INFO", "the list is back"),
            ("WARNING", "SSE-W15: the list is on fire. Open streams wait for it"),
            ("INFO", "the list is back"),
        ]

    @pytest.mark.parametrize(("missed", "is_taken_for_away"), [(3, False), (4, True)])
    def test_only_looks_that_get_no_turn_again_and_again_mean_that_the_store_is_away(
        self,
        missed: int,
        is_taken_for_away: bool,
        store: ListStore,
        follower: Follower,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        were_away: list[bool] = []
        news, listen = store.news, store.listen
        is_well = threading.Event()

        def have_no_turn(after: int) -> News:
            if len(were_away) < missed:
                raise OutOfTime("the list is too slow")
            is_well.set()
            return news(after)

        def note_and_listen() -> None:
            were_away.append(follower.is_away)
            listen()

        monkeypatch.setattr(store, "news", have_no_turn)
        monkeypatch.setattr(store, "listen", note_and_listen)
        follower.attach()
        assert is_well.wait(SOON)
        until(lambda: not follower.is_away, SOON)
        store.closing.set()
        follower.stop()
        assert were_away[-1] is is_taken_for_away
        assert bool(caplog.records) is is_taken_for_away

    def test_the_thread_itself_can_close_the_store(
        self,
        store: ListStore,
        follower: Follower,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def wait(timeout: float) -> Heard:
            store.closing.set()
            follower.stop()  # It does not wait for itself.
            return Heard(is_to_look=False)

        monkeypatch.setattr(store, "wait", wait)
        follower.attach()
        assert follower.thread
        follower.thread.join(SOON)
        assert not follower.thread.is_alive()

"""What a full Redis throws out of what was told: who is there is known all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_sse_lite.brokers.presence import TOLD_AT_ONCE, Presence, Roll, Wish
from flask_sse_lite.brokers.redis.board import RedisBoard
from flask_sse_lite.brokers.store import Store

from .redis_servers import RedisServer
from .stores import RedisStore

JOIN, LEAVE = "stream-join", "stream-leave"

#: Who is away has left as soon as somebody looks again.
WISH = Wish(lambda channel: True, leave_after=0.0)

#: The keys of what is told in one channel. A full Redis throws them out one by one.
KEYS = ["told", "told:a"]


class Process:
    """A process that says whose streams it serves, and tells, when a test wants it."""

    def __init__(self, store: Store) -> None:
        assert isinstance(store.board, RedisBoard)
        self.board = store.board
        self.presence = Presence(store.board, WISH, lambda position: None)
        self.name = store.view.process
        self.store = store
        self.said: list[tuple[str, str]] = []
        self._tell, store.board.tell = store.board.tell, self._spy  # type: ignore[method-assign]

    def serve(self, **who: str) -> None:
        """Serve one stream of each channel and identity."""
        self.store.count(dict.fromkeys(who, 1))
        self.board.note(
            {channel: dict.fromkeys(whose.split(), 1) for channel, whose in who.items()}
        )

    def tell(self) -> list[tuple[str, str]]:
        """Tell all that there is to tell.

        :returns: what was said in all channels.
        """
        self.said.clear()
        assert any(self.presence.tell() for _ in range(100)), "It never ends"
        return sorted(self.said)

    def tell_out_of_turn(self, *, is_all: bool) -> list[tuple[str, str]]:
        """Tell what there is to tell, though another process has the turn.

        :param is_all: whether nothing must be left to that process.
        :returns: what was said in all channels.
        """
        self.said.clear()
        assert self.presence.tell(is_urgent=True) is is_all
        return sorted(self.said)

    def _spy(self, channel: str, number: int, tellings: Any) -> Any:
        positions = self._tell(channel, number, tellings)
        if positions is not None:
            events = [(t.event.type, t.identity) for t in tellings if t.event]
            self.said.extend(events)
        return positions


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RedisStore]:
    running = RedisStore(tmp_path)
    yield running
    running.close()


@pytest.fixture
def server(running: RedisStore) -> RedisServer:
    return running.server


@pytest.fixture
def begin(
    running: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Process]:
    """Begins a process. What it has said holds, however slow the machine is."""
    monkeypatch.setattr(Store, "count_life", 600.0)
    return lambda: Process(running.open().store)  # type: ignore[attr-defined]


@pytest.fixture
def process(begin: Callable[[], Process]) -> Process:
    """The process that has the turn, and has told of two who are there."""
    process = begin()
    process.serve(a="ann bob")
    assert process.tell() == [(JOIN, "ann"), (JOIN, "bob")]
    return process


def give_the_turn(server: RedisServer, process: Process) -> None:
    server.ask("HSET", "sse:turn", "process", process.name)


def noted(server: RedisServer) -> tuple[list[bytes], list[bytes]]:
    """The channels in which somebody is told, and who is told in one of them."""
    return (
        sorted(server.ask("SMEMBERS", "sse:told")),
        sorted(server.ask("HKEYS", "sse:told:a")),
    )


def is_unknown_once_lost(server: RedisServer, process: Process) -> bool:
    """Whether a process does not know who was told, when Redis has lost it."""
    server.ask("DEL", "sse:told:a")
    roll = process.board.roll(600.0, is_urgent=False)
    assert roll
    assert roll.broken == {"a"}
    return roll.told == {"a": {}}


@pytest.mark.parametrize("key", KEYS)
def test_who_was_told_is_noted_again_and_nothing_is_said_twice(
    server: RedisServer, begin: Callable[[], Process], key: str
) -> None:
    process = begin()
    process.serve(a="ann bob", b="cid")
    assert process.tell() == [(JOIN, "ann"), (JOIN, "bob"), (JOIN, "cid")]
    before = noted(server)
    server.ask("DEL", f"sse:{key}")
    assert process.tell() == []
    assert noted(server) == before == ([b"a", b"b"], [b'"ann"', b'"bob"'])


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("is_known_to_be_away", [False, True])
def test_who_leaves_meanwhile_is_told_to_have_left(
    server: RedisServer, process: Process, key: str, is_known_to_be_away: bool
) -> None:
    process.serve(a="ann")
    if is_known_to_be_away:
        process.tell()  # It is noted as away.
    server.ask("DEL", f"sse:{key}")
    assert process.tell() + process.tell() == [(LEAVE, "bob")]
    assert noted(server) == ([b"a"], [b'"ann"'])
    assert process.tell() == []


def test_whoever_does_not_have_the_turn_leaves_a_broken_channel_alone(
    server: RedisServer, process: Process, begin: Callable[[], Process]
) -> None:
    other = begin()
    server.ask("DEL", "sse:told:a")
    process.serve(a="ann")
    other.serve(a="cid", b="dan")
    assert other.tell_out_of_turn(is_all=False) == [(JOIN, "dan")]
    assert other.tell_out_of_turn(is_all=False) == []
    assert process.tell() + process.tell() == [(JOIN, "cid"), (LEAVE, "bob")]
    assert other.tell_out_of_turn(is_all=True) == []


def test_whoever_has_just_got_the_turn_has_all_told_again(
    server: RedisServer, process: Process, begin: Callable[[], Process]
) -> None:
    other = begin()
    server.ask("DEL", "sse:told:a")
    give_the_turn(server, other)
    assert process.tell() == []
    assert other.tell() == [(JOIN, "ann"), (JOIN, "bob")]
    assert noted(server) == ([b"a"], [b'"ann"', b'"bob"'])


def test_what_is_thrown_out_while_it_is_told_is_noticed(
    server: RedisServer, process: Process
) -> None:
    process.serve(a="ann cid")
    roll = process.board.roll

    def roll_and_lose(leave_after: float, *, is_urgent: bool) -> Roll | None:
        found = roll(leave_after, is_urgent=is_urgent)
        server.ask("DEL", "sse:told:a")
        process.board.roll = roll  # type: ignore[method-assign]
        return found

    process.board.roll = roll_and_lose  # type: ignore[method-assign]
    assert process.tell() + process.tell() == [(JOIN, "cid"), (LEAVE, "bob")]


def test_all_are_told_to_have_left_though_their_list_is_lost_meanwhile(
    server: RedisServer, begin: Callable[[], Process]
) -> None:
    process = begin()
    crowd = [f"i{number}" for number in range(3 * TOLD_AT_ONCE)]
    process.serve(a=" ".join(crowd))
    process.tell()
    process.serve()
    server.ask("HSET", "sse:turn", "holds", 1)  # Nobody has looked for long.
    process.said.clear()
    assert not process.presence.tell()
    assert len(process.said) == TOLD_AT_ONCE
    server.ask("DEL", "sse:told:a")
    first = process.said[:]
    assert sorted(first + process.tell()) == sorted((LEAVE, who) for who in crowd)
    assert noted(server) == ([], [])


@pytest.mark.parametrize("how", ["another has had the turn", "its turn is long over"])
def test_what_a_process_knew_before_does_not_count(
    server: RedisServer, process: Process, begin: Callable[[], Process], how: str
) -> None:
    other = begin()
    if how.startswith("another"):
        give_the_turn(server, other)
        assert process.tell() == []
        give_the_turn(server, process)
    else:
        process.store.count_life = -1.0
        assert process.board.roll(600.0, is_urgent=False)
        process.store.count_life = 600.0
    assert is_unknown_once_lost(server, process)


def test_what_a_process_has_seen_out_of_turn_does_not_count(
    server: RedisServer, process: Process, begin: Callable[[], Process]
) -> None:
    other = begin()
    assert other.tell_out_of_turn(is_all=True) == []
    give_the_turn(server, other)
    assert is_unknown_once_lost(server, other)


@pytest.mark.parametrize("junk", [(), ("SET",), ("HSET", "[")])
def test_a_channel_without_a_list_that_can_be_read_keeps_nobody_from_being_told(
    server: RedisServer, begin: Callable[[], Process], junk: tuple[str, ...]
) -> None:
    # Nobody was there when Redis threw the list out, and the processes ended before
    # they knew; or another program has written there.
    server.ask("SADD", "sse:told", "a", "b")
    if junk:
        command, *field = junk
        server.ask(command, "sse:told:a", *field, "x")
    process = begin()
    process.serve(b="ann")
    assert process.tell() == [(JOIN, "ann")]
    assert server.ask("SMEMBERS", "sse:told") == {b"b"}

"""Who is there, and who is told that somebody came or left. What every broker promises
of it stands in the suite of brokers."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request

from flask_sse_lite import SSE, Event, InvalidValue, Publisher, Unsupported
from flask_sse_lite.brokers import connect, register
from flask_sse_lite.brokers.presence import (
    CHANNELS_AT_ONCE,
    Board,
    Presence,
    Roll,
    Telling,
    Wish,
    due,
)
from flask_sse_lite.brokers.store import Store
from flask_sse_lite.settings import Settings
from flask_sse_lite.testing import read_events

from .browsers import blank_page, chromium
from .list_store import ListStore
from .pages import CONNECT
from .redis_servers import redis_server
from .servers import Client, Server, serve, several, until
from .stores import RedisStore, SqliteStore

JOIN, LEAVE = "stream-join", "stream-leave"


# What is decided

WISH = Wish(lambda channel: channel == "a", leave_after=10.0, at_once=2)


def decided(roll: Roll) -> list[tuple[str, str, float | None]]:
    """What is told of each identity, or how it is noted."""
    return [
        (telling.identity, telling.event.type or "", telling.since)
        if telling.event
        else (telling.identity, "noted", telling.since)
        for _, tellings, _ in due(roll, WISH)
        for telling in tellings
    ]


@pytest.mark.parametrize(
    ("present", "told", "expected"),
    [
        # Somebody comes, and is there.
        ({"a": ["ann"]}, {}, [("ann", JOIN, None)]),
        ({"a": ["ann"]}, {"a": {"ann": None}}, []),
        # Somebody is away, for longer, and back.
        ({}, {"a": {"ann": None}}, [("ann", "noted", 100.0)]),
        ({}, {"a": {"ann": 90.1}}, []),
        ({}, {"a": {"ann": 90.0}}, [("ann", LEAVE, None)]),
        ({"a": ["ann"]}, {"a": {"ann": 0.0}}, [("ann", "noted", None)]),
        # The board's clock was set back.
        ({}, {"a": {"ann": 101.0}}, [("ann", "noted", 100.0)]),
        # Nobody is told of the others, except of who was told before.
        ({"b": ["ann"]}, {}, []),
        ({}, {"b": {"ann": 90.0}}, [("ann", LEAVE, None)]),
    ],
)
def test_this_is_decided(
    present: dict[str, list[str]],
    told: dict[str, dict[str, float | None]],
    expected: list[tuple[str, str, float | None]],
) -> None:
    assert decided(Roll(1, 100.0, present, told)) == expected


def test_what_has_lapsed_ends_before_anything_begins() -> None:
    told: dict[str, dict[str, float | None]] = {"a": {"ann": None, "bob": 99.0}}
    roll = Roll(1, 100.0, {"a": ["ann", "cid"]}, told, is_lapsed=True)
    assert decided(roll) == [("ann", LEAVE, None), ("bob", LEAVE, None)]


def test_a_round_tells_so_many_and_notes_all() -> None:
    told: dict[str, dict[str, float | None]] = {"a": dict.fromkeys("xyz")}
    roll = Roll(1, 100.0, {"a": ["ann", "bob", "cid"]}, told)
    ((channel, tellings, is_whole),) = due(roll, WISH)
    assert (channel, is_whole) == ("a", False)
    assert [t.identity for t in tellings] == ["x", "y", "z", "ann", "bob"]


class ManyRooms(Board):
    """Rooms that fill at once. To read who is there takes as long as to tell so many
    rooms; a clock that nothing else moves says so."""

    def __init__(self, rooms: int, read: int) -> None:
        self.now = 0.0
        self.waiting = {f"room.{number}": ["ann"] for number in range(rooms)}
        self.read = read

    def note(self, identities: Mapping[str, Mapping[str, int]]) -> None: ...

    def noted(self, channel: str) -> dict[str, int]:
        return {}

    def roll(self, leave_after: float, *, is_urgent: bool) -> Roll:
        self.now += self.read
        return Roll(1, 100.0, dict(self.waiting), {})

    def tell(
        self, channel: str, number: int, tellings: Sequence[Telling]
    ) -> list[tuple[str, int]]:
        self.now += 1
        del self.waiting[channel]
        return []


@pytest.mark.parametrize(
    ("read", "told"), [(0, CHANNELS_AT_ONCE), (64, 64), (300, 300)]
)
def test_a_round_tells_for_as_long_as_it_has_read(read: int, told: int) -> None:
    rooms = ManyRooms(1000, read)
    wish = Wish(lambda channel: True, 10.0)
    presence = Presence(rooms, wish, lambda position: None, lambda: rooms.now)
    assert not presence.tell()
    assert len(rooms.waiting) == 1000 - told
    while not presence.tell():
        pass
    assert rooms.waiting == {}


# An application in one process


def application(**config: Any) -> tuple[Flask, SSE]:
    app, sse = Flask("rooms"), SSE()
    app.config.update(SSE_PUBLIC_CHANNELS=["*"], **config)
    sse.identity(lambda: request.headers.get("X-User"))
    sse.init_app(app)
    return app, sse


@pytest.fixture
def app() -> Iterator[Flask]:
    app, _ = application(SSE_PRESENCE=["room.*"])
    with app.app_context():
        yield app
        app.extensions["sse"].close()


@pytest.fixture
def sse(app: Flask) -> SSE:
    sse = app.blueprints["sse"]
    assert isinstance(sse, SSE)
    return sse


@pytest.fixture
def come(app: Flask) -> Iterator[Callable[..., Any]]:
    """Opens a stream, and has its server ask for the first bytes."""
    with ExitStack() as stack:

        def come(user: str | None, *channels: str) -> Any:
            query = {"channel": channels or ("room.7",)}
            headers = {"X-User": user} if user else {}
            response = app.test_client().get(
                "/stream", query_string=query, headers=headers
            )
            stack.callback(response.close)
            next(response.iter_encoded())
            return response

        yield come


def test_it_is_known_who_is_there(sse: SSE, come: Callable[..., Any]) -> None:
    assert sse.present("room.7") == sse.present() == {}
    streams = [come("ann"), come("ann"), come("bob"), come(None), come("cid", "sse")]
    assert sse.present("room.7") == {"ann": 2, "bob": 1}
    assert sse.present() == {"cid": 1}
    for stream in streams:
        stream.close()
    until(lambda: not any(sse.present("room.7").values()))


def test_who_is_told_is_in_the_past_as_all_events_are(
    app: Flask, sse: SSE, come: Callable[..., Any]
) -> None:
    position = sse.position()
    reader = app.test_client().get(f"/stream?channel=room.7&last_event_id={position}")
    come("ann")
    (event,) = read_events(reader, count=1)
    assert (event.type, event.json["identity"]) == (JOIN, "ann")
    assert event.json["channel"] == "room.7"
    late = app.test_client().get(f"/stream?channel=room.7&last_event_id={position}")
    assert [e.id for e in read_events(late, count=1)] == [event.id]


def is_telling() -> bool:
    return any(t.name == "flask_sse_lite.teller" for t in threading.enumerate())


def test_only_channels_that_are_named_cost_anything(come: Callable[..., Any]) -> None:
    come("ann", "other")
    assert not is_telling()
    come("ann", "room.7")
    assert is_telling()


def test_the_thread_ends_when_nobody_is_there_or_told(
    app: Flask, sse: SSE, come: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, sse = application(SSE_PRESENCE=["*"], SSE_RETRY=0)
    monkeypatch.setattr("flask_sse_lite.settings.RETURNING", 0.5)
    with app.app_context():
        response = app.test_client().get("/stream", headers={"X-User": "ann"})
        events = read_events(response, count=1)
        assert [event.type for event in events] == [JOIN]
        # Nobody is expected any more.
        app.extensions["sse"].broker._teller._expects_until = 0.0
        until(lambda: not is_telling())
        assert sse.present() == {}
        types = [e.type for e in sse.messages(since=first_id(events), timeout=0)]
        assert types == [LEAVE]
        again = app.test_client().get("/stream", headers={"X-User": "ann"})
        assert [event.type for event in read_events(again, count=1)] == [JOIN]
        app.extensions["sse"].close()
        until(lambda: not is_telling())


def first_id(events: list[Event]) -> str:
    return events[0].id or ""


def test_a_run_is_never_told_who_reads_it(app: Flask, sse: SSE) -> None:
    app, sse = application(SSE_PRESENCE=["*"])
    app.add_url_rule("/run", "run", lambda: sse.run(["a", "b"], identity="ann"))
    events = read_events(app.test_client().get("/run"))
    assert [event.type for event in events] == [None, None, "stream-end"]
    assert not is_telling()


@pytest.mark.parametrize("channel", ["", "two\nlines", b"room"])
def test_what_is_no_channel_is_an_error(sse: SSE, channel: Any) -> None:
    with pytest.raises(InvalidValue):
        sse.present(channel)


# A broker of an application's own that does not know who is there


@pytest.fixture
def boardless() -> str:
    register("boardless", connect_to_list)
    return "boardless://here"


def connect_to_list(settings: Settings, folder: str | None) -> ListStore:
    return ListStore()


def test_a_store_without_a_board_does_all_else(boardless: str) -> None:
    app, sse = application(SSE_URL=boardless)
    with app.app_context():
        assert sse.publish("hello").id
        assert sse.subscribers() == 0
        with pytest.raises(Unsupported, match=r"SSE.present\(\) needs .* a board"):
            sse.present()
        app.extensions["sse"].close()


def test_presence_without_a_board_is_refused_at_the_setup(boardless: str) -> None:
    with pytest.raises(Unsupported, match="SSE_PRESENCE needs"):
        application(SSE_URL=boardless, SSE_PRESENCE=["room.*"])


# What stores are told


@pytest.fixture
def long_lived(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process counts holds, however slow the machine is."""
    monkeypatch.setattr(Store, "count_life", 600.0)


def test_a_file_is_written_only_where_something_changes(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path).connect().store  # type: ignore[attr-defined]
    who = {"a": {"ann": 1}, "b": {"bob": 1}}

    def changes_by(identities: dict[str, dict[str, int]]) -> int:
        def total(connection: Any) -> int:
            return int(connection.total_changes)

        before: int = store._connection.do(total)
        store.board.note(identities)
        after: int = store._connection.do(total)
        return after - before

    store.count({"a": 1, "b": 1})
    assert changes_by(who) == 2
    assert changes_by(who) == 0
    assert changes_by({**who, "b": {"bob": 2}}) == 1
    assert changes_by({}) == 2
    assert changes_by({}) == 0
    assert store.board.roll(1.0, is_urgent=True).present == {}
    store.close()


@pytest.mark.usefixtures("long_lived")
def test_redis_is_asked_only_where_something_changes(tmp_path: Path) -> None:
    running = RedisStore(tmp_path)
    store = running.connect().store  # type: ignore[attr-defined]
    asked: list[Any] = []
    ask = store.board._ask

    def note_asked(*words: Any) -> Any:
        asked.append(words[2])
        return ask(*words)

    store.board._ask = note_asked
    who = {"a": {"ann": 1}, "b": {"bob": 1}}
    for identities in (who, who, {**who, "b": {"bob": 2}}, {"b": {"bob": 2}}):
        store.board.note(identities)
    life = int(store.count_life * 1000)
    assert asked == [
        (life, 1, "a", '{"ann":1}', "b", '{"bob":1}'),
        (life, 0, "b", '{"bob":2}'),
        (life, 0, "a", ""),
    ]
    store.close()
    running.close()


@pytest.mark.usefixtures("long_lived")
def test_who_decides_too_late_tells_nothing(tmp_path: Path) -> None:
    running = RedisStore(tmp_path)
    for under_test in (SqliteStore(tmp_path), running):
        store = under_test.connect().store  # type: ignore[attr-defined]
        telling = Telling("ann", Event("came"), True)
        store.count({"a": 1})
        store.board.note({"a": {"ann": 1}})
        number = store.board.roll(1.0, is_urgent=False).number
        ((_, position),) = store.board.tell("a", number, [telling])
        assert store.board.tell("a", number, [telling]) is None
        assert store.state().sequence == position
        store.close()
    running.close()


@pytest.mark.usefixtures("long_lived")
def test_what_another_program_has_written_is_left_out(tmp_path: Path) -> None:
    running = RedisStore(tmp_path)
    store = running.connect().store  # type: ignore[attr-defined]
    store.count({"a": 1})
    store.board.note({"a": {"ann": 1}})
    number = store.board.roll(1.0, is_urgent=False).number
    store.board.tell("a", number, [Telling("ann", None, True)])
    key = store._key("told:a")
    for junk in ("ann", "[1]", '"\\u0062"', b"\xff"):
        running.server.ask("HSET", key, junk, "x")
    running.server.ask("HSET", store._key(f"who:{store.view.process}"), "b", "[")
    roll = store.board.roll(1.0, is_urgent=False)
    assert roll.told == {"a": {"ann": None}}
    assert roll.present == {"a": {"ann": 1}, "b": {}}
    store.close()
    running.close()


@pytest.mark.usefixtures("long_lived")
def test_what_another_program_has_written_into_the_file_is_left_out(
    tmp_path: Path,
) -> None:
    under_test = SqliteStore(tmp_path)
    broker = under_test.connect()
    store = broker.store  # type: ignore[attr-defined]
    store.count({"a": 1})
    store.board.note({"a": {"ann": 1}})
    number = store.board.roll(1.0, is_urgent=False).number
    store.board.tell("a", number, [Telling("ann", None, True)])
    # SQLite keeps values of any type in most columns, and text that is not UTF-8.
    told = [
        *(("a", junk, 1.0) for junk in ("ann", "[1]", '"\\u0062"', b"\xff", '""')),
        *((b"\xff", '"bob"', 1.0), ("b", '"cid"', "x"), ("b", '"dan"', b"\xff")),
    ]
    counts = ["[", "[1]", b"\xff", 7, '{"bob":-1}', '{"bob":"x"}']
    present = [*((f"b{n}", junk) for n, junk in enumerate(counts)), (b"\xff", "{}")]
    rows = [(store.view.process, *row) for row in present]
    with closing(sqlite3.connect(under_test.file)) as connection, connection:
        connection.executemany("INSERT INTO sse_told VALUES (?, ?, ?)", told)
        connection.executemany("INSERT INTO sse_identities VALUES (?, ?, ?)", rows)
    roll = store.board.roll(1.0, is_urgent=False)
    assert roll.told == {"a": {"ann": None}, "b": {"cid": None, "dan": None}}
    assert roll.present == {
        "a": {"ann": 1},
        **{f"b{n}": {} for n in range(len(counts))},
    }
    # Whoever comes and leaves goes on being told.
    assert store.board.tell("b", number + 1, [Telling("cid", Event("left"), False)])
    assert store.board.roll(1.0, is_urgent=False).told["b"] == {"dan": None}
    with Publisher.from_url(under_test.url) as publisher:
        assert publisher.present("a") == {"ann": 1}
        assert publisher.present("b") == {"dan": 0}
        assert publisher.present("b0") == publisher.present("b3") == {}
    broker.close()


@pytest.mark.usefixtures("long_lived")
def test_a_publisher_knows_who_is_there(tmp_path: Path) -> None:
    under_test = SqliteStore(tmp_path)
    broker = under_test.connect()
    store = broker.store  # type: ignore[attr-defined]
    store.count({"a": 1})
    store.board.note({"a": {"ann": 1}})
    with Publisher.from_url(under_test.url) as publisher:
        assert publisher.present("a") == {"ann": 1}
        assert publisher.present() == {}
    broker.close()


def test_a_forked_child_s_broker_tells_too(tmp_path: Path) -> None:
    broker = connect(
        Settings.read({"SSE_URL": SqliteStore(tmp_path).url, "SSE_PRESENCE": ["a"]})
    )
    before = broker._duties.presence  # type: ignore[attr-defined]
    broker.begin_anew()  # type: ignore[attr-defined]
    after = broker._duties.presence  # type: ignore[attr-defined]
    assert before
    assert after
    assert before is not after
    assert after._board is broker.store.board  # type: ignore[attr-defined]
    broker.close()


# Real workers

WORKERS = 3


@pytest.fixture(
    params=[
        ("gunicorn sync", "sqlite"),
        ("gunicorn gthread", "redis"),
        ("gunicorn gevent", "sqlite"),
        ("gunicorn gevent", "redis"),
    ],
    ids=" on ".join,
)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    kind, store = request.param
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path}/events.db"
        if store == "redis":
            url = stack.enter_context(redis_server()).url
        yield stack.enter_context(
            serve(
                kind,
                app="tests.applications.members:app",
                options=several(kind, WORKERS),
                SSE_URL=url,
                BANS=str(tmp_path),
                SSE_PRESENCE=["room.*"],
                SSE_RETRY=500,
            )
        )


def came(server: Server, stack: ExitStack, user: str, but: str = "") -> Client:
    """A stream of a user.

    :param but: a worker that must not serve it.
    """
    found: list[Client] = []

    def is_served() -> bool:
        client = stack.enter_context(Client(server.port))
        client.request("/room/room.7", headers={"X-User": user} if user else {})
        assert client.status == 200
        if client.headers["x-process"] == but:
            client.leave()
            return False
        found.append(client)
        return True

    until(is_served)
    return found[0]


def present(server: Server) -> dict[str, int]:
    answer = server.request("GET", "/present/room.7")
    assert answer.status == 200
    found: dict[str, int] = json.loads(answer.body)
    return found


class History:
    """What was told since a position: a stream that goes on, on whatever worker."""

    def __init__(self, server: Server, position: str) -> None:
        self._server = server
        self._position = position

    def told(self, count: int) -> list[tuple[str | None, str]]:
        """So many events, from the first."""
        with Client(self._server.port) as client:
            headers = {"Last-Event-ID": self._position}
            client.request("/room/room.7", headers=headers)
            events = list(client.take(count))
        return [(event.type, json.loads(event.data)["identity"]) for event in events]


def test_each_is_told_once_though_a_worker_is_killed(server: Server) -> None:
    with ExitStack() as stack:
        (position,) = server.publish({"data": "the beginning", "channel": "room.7"})
        history = History(server, position)
        doomed = came(server, stack, "ann").headers["x-process"]
        bob = came(server, stack, "bob", but=doomed)
        came(server, stack, "bob")  # A second tab.
        everybody = {"ann": 1, "bob": 2}
        until(lambda: present(server) == everybody)
        assert sorted(map(str, history.told(2))) == sorted(
            map(str, [(JOIN, "ann"), (JOIN, "bob")])
        )
        # Ann's worker is killed. Dan comes there, too, and comes back elsewhere.
        dan = stack.enter_context(ExitStack())
        until(lambda: came(server, dan, "dan").headers["x-process"] == doomed)
        dan_is_told = history.told(3)
        assert dan_is_told[2] == (JOIN, "dan")
        os.kill(int(doomed), signal.SIGKILL)
        dan.close()
        bob.leave()  # One of two tabs, which another worker can have had.
        came(server, stack, "bob", but=doomed)
        came(server, stack, "dan", but=doomed)
        *before, last = history.told(4)
        assert before == dan_is_told
        assert last == (LEAVE, "ann")
        until(lambda: present(server).keys() == {"bob", "dan"})
        # Nothing else was told: what comes next is what is published next.
        server.publish({"data": '{"identity": ""}', "channel": "room.7"})
        assert history.told(5)[4] == (None, "")


# A page


def test_a_page_is_told(tmp_path: Path) -> None:
    with (
        serve(
            "gunicorn gevent",
            app="tests.applications.members:app",
            BANS=str(tmp_path),
            SSE_PRESENCE=["room.*"],
        ) as server,
        chromium() as browser,
        blank_page(browser) as page,
        ExitStack() as stack,
    ):
        page.goto(f"{server.url}/page")
        page.evaluate(CONNECT, ["/room/room.7", {"shared": False}])
        page.evaluate(
            """() => {
                window.names = [];
                stream.addEventListener("stream-join", event =>
                    names.push("module " + JSON.parse(event.data).identity));
                window.source = new EventSource("/room/room.7");
                source.addEventListener("stream-join", event =>
                    names.push("EventSource " + JSON.parse(event.data).identity));
                return new Promise(resolve => source.onopen = () => resolve());
            }"""
        )
        page.wait_for_function("stream.state === 'open'")
        came(server, stack, "ann")
        page.wait_for_function("names.length === 2")
        assert sorted(page.evaluate("names")) == ["EventSource ann", "module ann"]
        page.evaluate("source.close(), stream.close()")

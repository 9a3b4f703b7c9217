"""Publishing in a database transaction, and the example of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from transactions import create_app
from werkzeug.local import LocalProxy

from flask_sse_lite import SSE, BrokerUnavailable, Event, InvalidType, InvalidValue
from flask_sse_lite.sqlalchemy import publish_after_commit
from flask_sse_lite.testing import published

from .servers import ROOT, serve


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/stock.db")
    yield engine
    engine.dispose()


@pytest.fixture
def app(engine: Engine) -> Flask:
    return create_app(engine)


@pytest.fixture
def events(app: Flask) -> Iterator[list[Event]]:
    """What was published, in an application context."""
    with app.app_context(), published(app) as events:
        yield events


@pytest.fixture
def session(engine: Engine, events: list[Event]) -> Iterator[Session]:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (note TEXT UNIQUE)"))
    with Session(engine) as session:
        yield session


def note(session: Session | scoped_session[Any], what: str) -> None:
    """Write a note, and publish it after the commit."""
    session.execute(text("INSERT INTO notes VALUES (:note)"), {"note": what})
    publish_after_commit(session, what)


def told(events: list[Event]) -> list[str]:
    return [event.data for event in events]


def done(session: Session) -> list[str]:
    return list(session.scalars(text("SELECT note FROM notes ORDER BY rowid")))


def test_it_is_published_after_the_commit(
    session: Session, events: list[Event]
) -> None:
    note(session, "a")
    note(session, "b")
    session.flush()
    assert told(events) == []
    session.commit()
    assert told(events) == done(session) == ["a", "b"]


def test_it_is_published_once(session: Session, events: list[Event]) -> None:
    note(session, "a")
    session.commit()
    session.commit()
    assert told(events) == ["a"]


def test_it_is_published_as_it_was_given(session: Session, events: list[Event]) -> None:
    data = {"stock": 1}
    publish_after_commit(session, data, "stock", ["x", "y"])
    data["stock"] = 2
    session.commit()
    assert [(e.json, e.type, e.channel) for e in events] == [
        ({"stock": 1}, "stock", "x"),
        ({"stock": 1}, "stock", "y"),
    ]


def test_nothing_is_published_after_a_rollback(
    session: Session, events: list[Event]
) -> None:
    note(session, "a")
    session.rollback()
    note(session, "b")
    session.commit()
    assert told(events) == done(session) == ["b"]


def test_nothing_is_published_when_the_session_is_closed(
    session: Session, events: list[Event]
) -> None:
    note(session, "a")
    session.close()
    note(session, "b")
    session.commit()
    assert told(events) == done(session) == ["b"]


def test_nothing_is_published_of_a_block_that_fails(
    session: Session, events: list[Event]
) -> None:
    def fail() -> None:
        with session.begin():
            note(session, "a")
            note(session, "a")

    with pytest.raises(Exception, match="UNIQUE"):
        fail()
    session.commit()
    assert told(events) == []


def test_a_savepoint_that_is_released_waits_for_the_transaction(
    session: Session, events: list[Event]
) -> None:
    note(session, "a")
    with session.begin_nested():
        note(session, "b")
    assert told(events) == []
    note(session, "c")
    session.commit()
    assert told(events) == done(session) == ["a", "b", "c"]


def test_a_savepoint_that_is_released_is_rolled_back_with_the_transaction(
    session: Session, events: list[Event]
) -> None:
    with session.begin_nested():
        note(session, "a")
    session.rollback()
    session.commit()
    assert told(events) == []


@pytest.mark.parametrize("end", ["rollback", "close"])
def test_a_savepoint_that_is_rolled_back_takes_its_own_with_it(
    session: Session, events: list[Event], end: str
) -> None:
    note(session, "a")
    savepoint = session.begin_nested()
    note(session, "b")
    getattr(savepoint, end)()
    note(session, "c")
    session.commit()
    assert told(events) == done(session) == ["a", "c"]


def test_savepoints_within_a_savepoint_go_with_it(
    session: Session, events: list[Event]
) -> None:
    note(session, "a")
    outer = session.begin_nested()
    note(session, "b")
    with session.begin_nested():
        note(session, "c")
    session.begin_nested()
    note(session, "d")
    outer.rollback()
    note(session, "e")
    session.commit()
    assert told(events) == done(session) == ["a", "e"]


def test_a_commit_releases_the_savepoints_that_are_open(
    session: Session, events: list[Event]
) -> None:
    session.begin_nested()
    note(session, "a")
    session.begin_nested()
    note(session, "b")
    session.commit()
    assert told(events) == done(session) == ["a", "b"]


def test_a_flush_that_fails_in_a_savepoint_takes_it_alone(
    app: Flask, session: Session, events: list[Event]
) -> None:
    note(session, "a")

    def fail() -> None:
        with session.begin_nested():
            note(session, "b")
            note(session, "a")

    with pytest.raises(Exception, match="UNIQUE"):
        fail()
    session.commit()
    assert told(events) == done(session) == ["a"]


def test_a_session_of_a_request_that_ended_without_a_commit_tells_nothing(
    session: Session, events: list[Event]
) -> None:
    sessions = scoped_session(sessionmaker(session.get_bind()))
    note(sessions(), "a")
    sessions.remove()
    note(sessions(), "b")
    sessions.commit()
    sessions.remove()
    assert told(events) == ["b"]


@pytest.fixture
def scoped(session: Session) -> Iterator[scoped_session[Session]]:
    """A session like Flask-SQLAlchemy's ``db.session``, unused so far."""
    sessions = scoped_session(sessionmaker(session.get_bind()))
    yield sessions
    sessions.remove()


def test_a_scoped_session_is_as_good_as_its_session(
    scoped: scoped_session[Session], events: list[Event]
) -> None:
    note(scoped, "a")
    with scoped.begin_nested():
        note(scoped, "b")
    savepoint = scoped.begin_nested()
    note(scoped, "c")
    savepoint.rollback()
    note(scoped(), "d")
    assert told(events) == []
    scoped.commit()
    assert told(events) == ["a", "b", "d"]
    note(scoped, "e")
    scoped.rollback()
    note(scoped, "f")
    scoped.remove()
    note(scoped, "g")
    scoped.commit()
    assert told(events) == ["a", "b", "d", "g"]


class Subclass(Session):
    pass


@pytest.mark.parametrize("kind", ["session", "subclass", "scoped", "proxy"])
def test_a_session_that_nobody_has_used_yet_begins(
    engine: Engine, events: list[Event], kind: str
) -> None:
    plain = Subclass(engine) if kind == "subclass" else Session(engine)
    scoped = scoped_session(sessionmaker(engine))
    proxy: Any = LocalProxy(lambda: plain)
    used = {"scoped": scoped, "proxy": proxy}.get(kind, plain)
    publish_after_commit(used, "a")
    used.rollback()
    publish_after_commit(used, "b")
    used.commit()
    used.commit()
    assert told(events) == ["b"]
    used.close()


def test_a_session_that_does_not_begin_by_itself_is_told_to(
    engine: Engine, events: list[Event]
) -> None:
    with Session(engine, autobegin=False) as session:
        with pytest.raises(InvalidValue, match=r"session\.begin\(\)"):
            publish_after_commit(session, "a")
        with session.begin():
            publish_after_commit(session, "b")
    assert told(events) == ["b"]


def test_sessions_do_not_get_what_belongs_to_others(
    engine: Engine, events: list[Event]
) -> None:
    first = Session(engine)
    publish_after_commit(first, "a")
    second = Session(engine, info=first.info)
    publish_after_commit(second, "b")
    second.commit()
    assert told(events) == ["b"]
    first.commit()
    assert told(events) == ["b", "a"]
    first.close()
    second.close()


def test_an_asynchronous_session_is_refused_and_its_synchronous_one_taken(
    engine: Engine, events: list[Event]
) -> None:
    with pytest.raises(InvalidType, match=r"not 'object'.*sync_session"):
        publish_after_commit(object(), "a")  # type: ignore[arg-type]


def test_the_application_is_that_of_the_call_and_not_of_the_commit(
    app: Flask, session: Session, events: list[Event]
) -> None:
    other = Flask("other")
    SSE().init_app(other)
    note(session, "a")
    with other.app_context(), published(other) as others:
        session.commit()
    assert told(events) == ["a"]
    assert others == []


@pytest.mark.parametrize(
    ("type", "channel"),
    [("two\nlines", "a"), (["a"], "a"), (None, "a\nb"), (None, []), (None, None)],
)
def test_what_cannot_be_sent_is_refused_before_the_commit(
    session: Session, events: list[Event], type: Any, channel: Any
) -> None:
    with pytest.raises(InvalidValue):
        publish_after_commit(session, "a", type, channel)
    session.commit()
    assert events == []


def test_a_broker_that_is_away_does_not_undo_the_commit(
    app: Flask,
    session: Session,
    events: list[Event],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise BrokerUnavailable("It is away")

    note(session, "a")
    monkeypatch.setattr(app.extensions["sse"], "publish", fail)
    session.commit()
    assert "It is away" in caplog.text
    monkeypatch.undo()
    note(session, "b")
    session.commit()
    assert done(session) == ["a", "b"]
    assert told(events) == ["b"]


def test_the_application_tells_what_it_sold(app: Flask, events: list[Event]) -> None:
    client = app.test_client()
    assert 'id="pears">10<' in client.get("/").text
    assert client.post("/buy/pears", data={"count": 3}).status_code == 204
    assert client.post("/buy/pears", data={"count": 8}).status_code == 409
    assert client.post("/buy/plums").status_code == 404
    assert [event.json for event in events] == [{"name": "pears", "stock": 7}]
    assert 'id="pears">7<' in client.get("/").text


def test_a_page_is_told_by_a_real_server(tmp_path: Path) -> None:
    with serve(
        "gunicorn gthread",
        app='"transactions:create_app()"',
        folder=ROOT / "examples",
        DATABASE=f"sqlite:///{tmp_path}/stock.db",
    ) as server:
        position = server.request("GET", "/").body.decode().partition("_id=")[2]
        assert server.request("POST", "/buy/apples").status == 204
        assert server.request("POST", "/buy/none").status == 404
        with server.stream("sse", query=position.partition('"')[0]) as client:
            (event,) = client.take(1)
    assert (event.type, event.json) == ("stock", {"name": "apples", "stock": 9})

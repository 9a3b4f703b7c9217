"""The examples in the public docstrings: each public name has one, and each runs.

An example is a literal block of a docstring. It runs in a request, with the names that
``names_for`` gives. Then the views that it defines are requested.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from textwrap import dedent
from types import SimpleNamespace
from typing import Any, is_typeddict

import flask
import pytest
from flask import Flask
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

import flask_sse_lite
from flask_sse_lite import SSE, Publisher, sqlalchemy, testing

#: A literal block: indented lines after a line that ends with two colons.
BLOCK = re.compile(r"::\n\n((?:    .*\n|\n)+)")

#: Public names without an example, as there is nothing to show.
PLAIN = {
    "Event.published",  # For brokers of an application's own.
    "InvalidType",
    "Reentered",
    "UnsupportedServer",
}

#: Examples that set an application up, so that no other ``sse`` is on it.
SETTING_UP = {
    *("SSE", "SSE.init_app", "SSE.register", "SSE.add_url_rule", "SetupError"),
    *(f"SharedBlueprint.{when}_request" for when in ("before", "after", "teardown")),
}

#: What precedes an example, by its name.
BEFORE = {
    "published": """
@app.post("/say")
def say():
    sse.publish(request.form["text"])
    return "", 204
""",
}


def public_names() -> Iterator[tuple[str, object]]:
    """The exported classes with their public methods, and the functions that are
    imported from modules of their own."""
    for name in flask_sse_lite.__all__:
        thing = getattr(flask_sse_lite, name)
        if isinstance(thing, type) and not is_typeddict(thing):
            yield thing.__name__, thing
            yield from _methods_of(thing)
    for function in (testing.read_events, testing.published):
        yield function.__name__, function
    yield "publish_after_commit", sqlalchemy.publish_after_commit


def _methods_of(thing: type) -> Iterator[tuple[str, object]]:
    for name in dir(thing):
        method: Any = inspect.getattr_static(thing, name)
        method = getattr(method, "__func__", getattr(method, "fget", method))
        module = str(getattr(method, "__module__", ""))
        if module.startswith("flask_sse_lite") and not name.startswith("_"):
            yield method.__qualname__, method


PUBLIC = dict(public_names())

#: The examples, by the name in whose docstring they stand.
EXAMPLES = {
    name: "\n".join(map(dedent, BLOCK.findall(f"{inspect.getdoc(thing)}\n")))
    for name, thing in PUBLIC.items()
}


def test_the_public_names_are_found() -> None:
    assert {
        *("SSE", "SSE.init_app", "SSE.publish", "SSE.stats", "Event", "Event.encode"),
        *("SharedBlueprint.before_request", "EventStream", "EventStream.close"),
        *("Publisher.from_url", "Message.to_dict", "BrokerUnavailable"),
    } <= set(PUBLIC)
    assert SETTING_UP | set(BEFORE) <= set(EXAMPLES)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_docstring_has_an_example(name: str) -> None:
    assert bool(EXAMPLES[name]) is (name not in PLAIN)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    number: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def session() -> Iterator[Session]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


def names_for(app: Flask, sse: SSE, session: Session) -> dict[str, Any]:
    """The names that an example can use: an application and its parts. Publishers reach
    this application, whatever their URL."""

    class Near(Publisher):
        @classmethod
        def from_url(cls, url: str, **options: Any) -> Publisher:
            return cls(app.extensions["sse"])

    names = {name: getattr(flask_sse_lite, name) for name in flask_sse_lite.__all__}
    names |= {name: thing for name, thing in vars(flask).items() if name[0] != "_"}
    return names | {
        "__name__": __name__,
        "app": app,
        "db": SimpleNamespace(session=session),
        "order": Order(),
        "Publisher": Near,
        "publish_after_commit": sqlalchemy.publish_after_commit,
        "published": testing.published,
        "publisher": Near(app.extensions["sse"]) if "sse" in app.extensions else None,
        "read_events": testing.read_events,
        "server": SimpleNamespace(stop=lambda: None),
        "sse": sse,
        "stock": lambda: 3,
        "tokens_of": str.split,
    }


@pytest.mark.parametrize("name", [name for name in EXAMPLES if EXAMPLES[name]])
def test_an_example_runs(name: str, session: Session) -> None:
    app, sse = Flask("examples"), SSE()
    app.config.update(TESTING=True, SECRET_KEY="secret", SSE_HEARTBEAT=0.4)
    if name not in SETTING_UP:
        sse.init_app(app)
    names = names_for(app, sse, session)
    with app.test_request_context():
        exec(BEFORE.get(name, "") + EXAMPLES[name], names)
        if "create_app" in names:
            app = names["create_app"]()
            app.config.update(TESTING=True, SECRET_KEY="secret", SSE_HEARTBEAT=0.4)
        elif "sse" not in app.extensions:
            names["sse"].init_app(app)
    assert "sse" in app.extensions
    ask_all_views(app)


def ask_all_views(app: Flask) -> None:
    """Request every view of an application, as a user who is logged in. None may answer
    by an error."""
    client = app.test_client()
    with client.session_transaction() as cookie:
        cookie["user"] = "ann"
    for rule in app.url_map.iter_rules():
        if {"static", "sse.run"} & {rule.endpoint}:
            continue
        if rule.endpoint.startswith("sse.inspector"):
            continue  # It is switched off.
        path = re.sub("<.*?>", "kitchen", rule.rule)
        response = client.open(
            path, method="GET" if "GET" in (rule.methods or ()) else "POST"
        )
        if response.mimetype == "text/event-stream":
            opening = testing.read_events(response, count=1, bookkeeping=True)
            assert opening, path
        else:
            assert response.status_code in (200, 204, 400, 403), path

"""Publishing what a database transaction has done: after its commit, so that whoever is
told can read it, and not after a rollback.

``publish_after_commit`` and the two listeners below it are the recipe. They need
nothing but SQLAlchemy's own sessions, whoever makes them: with Flask-SQLAlchemy, call
it with ``db.session()``.

To run it: ``pip install sqlalchemy``, ``flask --app examples/transactions run``, and
open two windows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flask import Flask, abort, current_app, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    SessionTransaction,
    mapped_column,
)

from flask_sse_lite import Event, SSEError, sse

logger = logging.getLogger(__name__)


# The recipe


@dataclass
class _Waiting:
    """An event, and the transaction or savepoint whose commit it waits for."""

    event: Event
    channel: str | Iterable[str]
    transaction: SessionTransaction


def publish_after_commit(
    session: Session,
    data: Any,
    type: str | None = None,
    channel: str | Iterable[str] = "sse",
) -> None:
    """Publish an event if and when what a session does now is committed.

    What was done in a savepoint that is rolled back is never published, and what was
    done in one that is released waits for the transaction around it.

    The data is taken as it is now: after the commit, nobody could ask for it.
    """
    text = data if isinstance(data, str) else current_app.json.dumps(data)
    transaction = (
        session.get_nested_transaction() or session.get_transaction() or session.begin()
    )
    waiting = session.info.setdefault("events", [])
    waiting.append(_Waiting(Event(text, type), channel, transaction))


@event.listens_for(Session, "after_commit")
def _go_on(session: Session) -> None:
    """A transaction is committed, or a savepoint released."""
    waiting: list[_Waiting] = session.info.get("events", [])
    if savepoint := session.get_nested_transaction():
        around = savepoint.parent
        for each in waiting:
            if each.transaction is savepoint and around:
                each.transaction = around
        return
    session.info.pop("events", None)
    for each in waiting:
        try:
            sse.publish(each.event, channel=each.channel)
        except SSEError:
            # The transaction stands, whatever comes of this.
            logger.exception("Not published: %r", each.event)


@event.listens_for(Session, "after_transaction_end")
def _forget(session: Session, transaction: SessionTransaction) -> None:
    """A transaction or a savepoint is over. What still waits for it was rolled back:
    by ``rollback()``, or because the session was closed, which no listener to rollbacks
    is told of."""
    if waiting := session.info.get("events"):
        waiting[:] = [each for each in waiting if each.transaction is not transaction]


# An application that uses it


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"

    name: Mapped[str] = mapped_column(primary_key=True)
    stock: Mapped[int]


PAGE = """<!doctype html>
<title>Stock</title>
<ul>
{items}
</ul>
<script>
  const source = new EventSource("/stream?last_event_id={position}");
  source.addEventListener("stock", (event) => {{
    const {{ name, stock }} = JSON.parse(event.data);
    document.getElementById(name).textContent = stock;
  }});
</script>
"""
ITEM = """  <li>{name}: <b id="{name}">{stock}</b>
  <form method="post" action="/buy/{name}"><button>Buy</button></form>"""


def create_app(engine: Engine | None = None) -> Flask:
    app = Flask(__name__)
    app.config.from_prefixed_env()
    app.register_blueprint(sse)
    if engine is None:
        engine = create_engine(app.config.get("DATABASE", "sqlite:///stock.db"))
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        for name in ("apples", "pears"):
            if session.get(Item, name) is None:
                session.add(Item(name=name, stock=10))

    @app.get("/")
    def show() -> ResponseReturnValue:
        # The position first: what is sold from here on, the page is told.
        position = sse.position()
        with Session(engine) as session:
            items = session.scalars(select(Item))
            shown = "\n".join(ITEM.format(name=i.name, stock=i.stock) for i in items)
        return PAGE.format(items=shown, position=position)

    @app.post("/buy/<name>")
    def buy(name: str) -> ResponseReturnValue:
        """Sell some, and tell all pages; or nobody, where the stock does not suffice
        in the end."""
        with Session(engine) as session, session.begin():
            item = session.get(Item, name, with_for_update=True) or abort(404)
            item.stock -= request.form.get("count", 1, type=int)
            publish_after_commit(session, {"name": name, "stock": item.stock}, "stock")
            if item.stock < 0:
                abort(409, "There are not so many left.")
        return "", 204

    return app

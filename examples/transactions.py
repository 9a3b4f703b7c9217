"""Publishing what a database transaction has done: after its commit, so that a client
that gets the event can read the change, and never after a rollback.

``publish_after_commit`` takes any of SQLAlchemy's sessions. With Flask-SQLAlchemy, call
it with ``db.session``.

To run it: ``pip install flask-sse-lite[sqlalchemy]``, ``flask --app
examples/transactions run``, and open two windows.
"""

from __future__ import annotations

from flask import Flask, abort, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from flask_sse_lite import sse
from flask_sse_lite.sqlalchemy import publish_after_commit


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"

    name: Mapped[str] = mapped_column(primary_key=True)
    stock: Mapped[int]


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Stock</title>
<ul>
{items}
</ul>
<script type="module">
  import {{ connect }} from "/stream/sse.js";
  connect("/stream?last_event_id={position}").json("stock", ({{ name, stock }}) => {{
    document.getElementById(name).textContent = stock;
  }});
</script>
"""
ITEM = """  <li>{name}: <b id="{name}">{stock}</b>
  <form method="post" action="/buy/{name}" style="display: inline">
  <button>Buy</button></form></li>"""


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
        # The position comes first: the page is told of all that is sold from here on.
        position = sse.position()
        with Session(engine) as session:
            items = session.scalars(select(Item))
            shown = "\n".join(ITEM.format(name=i.name, stock=i.stock) for i in items)
        return PAGE.format(items=shown, position=position)

    @app.post("/buy/<name>")
    def buy(name: str) -> ResponseReturnValue:
        """Sell some, and tell all pages. Where the stock does not suffice, the
        transaction is rolled back, and no page is told."""
        with Session(engine) as session, session.begin():
            item = session.get(Item, name, with_for_update=True) or abort(404)
            item.stock -= request.form.get("count", 1, type=int)
            publish_after_commit(session, {"name": name, "stock": item.stock}, "stock")
            if item.stock < 0:
                abort(409, "There are not so many left.")
        return "", 204

    return app

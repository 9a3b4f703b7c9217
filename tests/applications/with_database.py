"""The channels, in an application with a database session in each request, which counts
what is left of its requests."""

from __future__ import annotations

import gc
from collections import Counter

from flask import Request, Response
from flask.ctx import AppContext
from flask.typing import ResponseReturnValue
from sqlalchemy import QueuePool, create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker

from flask_sse_lite import sse

from .channels import app

engine = create_engine(
    f"sqlite:///{app.config['DATABASE']}",
    poolclass=QueuePool,
    pool_size=2,
    max_overflow=0,
    pool_timeout=2,
)
session = scoped_session(sessionmaker(engine))

calls: Counter[str] = Counter()


def query() -> int:
    answer: int = session.execute(text("SELECT 42")).scalar_one()
    return answer


@app.get("/orders/stream")
def stream() -> ResponseReturnValue:
    """A stream that is preceded by a query. The query's connection belongs to the
    session until the request is torn down."""
    assert query() == 42
    response = sse.stream("orders")
    response.call_on_close(lambda: calls.update(["closed"]))
    calls["streamed"] += 1
    return response


@app.after_request
def count_after(response: Response) -> Response:
    calls["after"] += 1
    return response


@app.teardown_request
def count_request(error: BaseException | None) -> None:
    calls["request torn down"] += 1
    calls["errors"] += error is not None


@app.teardown_appcontext
def count_context(error: BaseException | None) -> None:
    session.remove()
    calls["context torn down"] += 1


@app.get("/orders")
def orders() -> ResponseReturnValue:
    """The database's answer, what was called so far, and which objects exist."""
    gc.collect()
    things = gc.get_objects()
    return {
        "answer": query(),
        "calls": calls,
        "connections": engine.pool.checkedout(),  # type: ignore[attr-defined]
        "requests": sum(isinstance(thing, Request) for thing in things),
        "responses": sum(isinstance(thing, Response) for thing in things),
        "contexts": sum(isinstance(thing, AppContext) for thing in things),
    }

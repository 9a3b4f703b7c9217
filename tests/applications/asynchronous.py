"""The application of channels.py, with ``async`` views that return streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from flask import request
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Response

from flask_sse_lite import EventStream, InvalidType, sse

from .channels import app


def words() -> Iterator[str]:
    """Words that read the request at every step, to the end."""
    for word in ("one", "two", "three"):
        yield word + request.args["mark"]


@app.get("/words")
async def view_words() -> Response:
    await asyncio.sleep(0.01)
    return EventStream(words())


@app.get("/listed")
async def view_listed() -> Response:
    """Stream a list, which exists already."""
    await asyncio.sleep(0.01)
    return EventStream(list(words()))


@app.get("/channel")
async def view_channel() -> Response:
    await asyncio.sleep(0.01)
    return sse.stream("room")


@app.get("/run")
async def view_run() -> Response:
    await asyncio.sleep(0.01)
    mark = request.args["mark"]
    return sse.run(word + mark for word in ("one", "two", "three"))


@app.get("/asynchronous/<verb>")
async def view_asynchronous(verb: str) -> ResponseReturnValue:
    """Stream an asynchronous generator, which is refused."""

    async def generate() -> AsyncIterator[str]:
        yield "never"

    generator: Any = generate()
    try:
        return EventStream(generator) if verb == "EventStream" else sse.run(generator)
    except InvalidType as error:
        return str(error), 400

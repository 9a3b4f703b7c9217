"""A model's tokens with sse-starlette."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from stamped import token
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route


async def tokens(count: int, pause: float) -> AsyncIterator[ServerSentEvent]:
    for number in range(count):
        await asyncio.sleep(pause)
        yield ServerSentEvent(token(number))


async def stream(request: Request) -> EventSourceResponse:
    query = request.query_params
    return EventSourceResponse(tokens(int(query["count"]), float(query["pause"])))


app = Starlette(routes=[Route("/tokens", stream)])

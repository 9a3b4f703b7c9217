"""A model's tokens with FastAPI's own event streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from stamped import token


async def tokens(count: int, pause: float) -> AsyncIterator[ServerSentEvent]:
    for number in range(count):
        await asyncio.sleep(pause)
        yield ServerSentEvent(raw_data=token(number))


app = FastAPI()
app.add_api_route("/tokens", tokens, response_class=EventSourceResponse)

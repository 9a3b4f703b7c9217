"""FastAPI's own event streams, with the queue per subscriber that they need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from asgi_control import control
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent

listeners: set[asyncio.Queue[ServerSentEvent]] = set()


def publish(data: str) -> None:
    event = ServerSentEvent(raw_data=data)
    for listener in listeners:
        listener.put_nowait(event)


async def stream() -> AsyncIterator[ServerSentEvent]:
    events: asyncio.Queue[ServerSentEvent] = asyncio.Queue()
    listeners.add(events)
    try:
        yield ServerSentEvent(comment="hello")
        while True:
            yield await events.get()
    finally:
        listeners.discard(events)


app = FastAPI(routes=[control(publish)])
app.add_api_route("/stream", stream, response_class=EventSourceResponse)

"""sse-starlette, with the queue per subscriber that it leaves to the application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from asgi_control import control
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

listeners: set[asyncio.Queue[ServerSentEvent]] = set()


def publish(data: str) -> None:
    event = ServerSentEvent(data)
    for listener in listeners:
        listener.put_nowait(event)


async def follow() -> AsyncIterator[ServerSentEvent]:
    events: asyncio.Queue[ServerSentEvent] = asyncio.Queue()
    listeners.add(events)
    try:
        yield ServerSentEvent(comment="hello")
        while True:
            yield await events.get()
    finally:
        listeners.discard(events)


async def stream(request: Request) -> EventSourceResponse:
    return EventSourceResponse(follow())


app = Starlette(routes=[Route("/stream", stream), control(publish)])

"""The route /publish of control.py, for Starlette and FastAPI."""

from __future__ import annotations

from collections.abc import Callable

from stamped import stamped
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def control(publish: Callable[[str], object]) -> Route:
    """Return the route that calls `publish` with each event's data."""

    async def publish_batch(request: Request) -> JSONResponse:
        first = int(request.query_params["first"])
        count = int(request.query_params["count"])
        for seq in range(first, first + count):
            publish(stamped(seq))
        return JSONResponse({"published": count})

    return Route("/publish", publish_batch, methods=["POST"])

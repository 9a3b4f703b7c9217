"""A model's tokens with nothing between them and the server: this costs what the
server, the pause and the kernel cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from stamped import token

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    query = parse_qs(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return frames(int(query["count"][0]), float(query["pause"][0]))


def frames(count: int, pause: float) -> Iterator[bytes]:
    for number in range(count):
        time.sleep(pause)
        yield f"data: {token(number)}\n\n".encode()

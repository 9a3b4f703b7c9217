"""The way to the providers themselves, with the operator's key.

Each event that a provider sends is sent on. The generator opens the provider's stream
when its first event is wanted: while the provider thinks, ``EventStream`` keeps the
connection alive, and a refusal is answered with the provider's own status and text.
When the client leaves, the generator is closed, and the provider stops.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from http.client import HTTPResponse
from typing import NamedTuple

from flask import Response, current_app, request
from werkzeug.exceptions import BadGateway, HTTPException

from flask_sse_lite import Event, EventStream

from .exchange import ErrorBody, body, named, told
from .model import Block, Closed, Ended, Opened, Piece, Said

#: Seconds of silence after which a provider counts as gone.
TIMEOUT = 600

READ_SIZE = 64 * 1024

#: What clients tell the providers in headers, and what they are told.
REQUEST_HEADERS = ("anthropic-", "openai-")
RESPONSE_HEADERS = ("content-type", "request-id", "retry-after", "x-request-id")


class Provider(NamedTuple):
    url: str
    headers: dict[str, str]


def openai() -> Provider | None:
    config = current_app.config
    if not (key := config["OPENAI_API_KEY"]):
        return None
    return Provider(config["OPENAI_BASE_URL"], {"Authorization": f"Bearer {key}"})


def anthropic() -> Provider | None:
    config = current_app.config
    if not (key := config["ANTHROPIC_API_KEY"]):
        return None
    return Provider(config["ANTHROPIC_BASE_URL"], {"x-api-key": key})


def relayed(provider: Provider, path: str, error_body: ErrorBody) -> Response:
    """The provider's own answer to the current request."""
    is_stream = bool(body().get("stream"))
    given = {
        name: value
        for name, value in request.headers.items()
        if name.lower().startswith(REQUEST_HEADERS)
    }
    asked = asking(provider, path, request.get_data(), given)
    if is_stream:
        return EventStream(
            events(asked), own_events=False, on_error=failure(error_body)
        )
    with closing(opened(asked)) as upstream:
        return sent_on(upstream)


def asking(
    provider: Provider, path: str, data: bytes, headers: dict[str, str]
) -> urllib.request.Request:
    headers = {"Content-Type": "application/json", **headers, **provider.headers}
    url = provider.url.rstrip("/") + path
    return urllib.request.Request(url, data, headers, method="POST")


def opened(asked: urllib.request.Request) -> HTTPResponse:
    """The head of the provider's answer.

    :raises HTTPException: when the provider refuses; its answer is the response.
    """
    try:
        response: HTTPResponse = urllib.request.urlopen(asked, timeout=TIMEOUT)
        return response
    except urllib.error.HTTPError as refusal:
        with refusal:
            raise HTTPException(response=sent_on(refusal)) from None
    except OSError as error:
        raise BadGateway("The provider cannot be reached.") from error


def sent_on(upstream: HTTPResponse | urllib.error.HTTPError) -> Response:
    headers = {
        name: value
        for name, value in upstream.headers.items()
        if name.lower() in RESPONSE_HEADERS
    }
    return Response(upstream.read(), upstream.status, headers)


def events(asked: urllib.request.Request) -> Generator[Event, None, None]:
    """The provider's events, as it sends them."""
    upstream = opened(asked)
    try:
        yield from decoded(lines(upstream))
    finally:
        # Also when the client has left: the provider can stop then.
        upstream.close()


def lines(upstream: HTTPResponse) -> Iterator[bytes]:
    """The answer's lines. (``HTTPResponse.readline`` takes a lost connection for the
    end.)

    :raises http.client.IncompleteRead: if the rest is lost.
    """
    rest = b""
    while piece := upstream.read1(READ_SIZE):
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def decoded(given: Iterable[bytes]) -> Iterator[Event]:
    """The events of these lines. Comments are left out, as ``EventStream`` sends its
    own. Ids are left out, as nobody resumes from them."""
    kind, data = None, []
    for line in given:
        name, _, value = line.decode().rstrip("\r").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif line in (b"", b"\r"):
            if data:
                yield Event("\n".join(data), kind)
            kind, data = None, []


def failure(error_body: ErrorBody) -> Callable[[Exception], Event]:
    """What a client is told of an error in mid-stream: the provider's own text, if the
    provider refused."""

    def words(error: Exception) -> Event:
        said = None
        if isinstance(error, HTTPException) and isinstance(error.response, Response):
            said = error.response.get_json(force=True, silent=True)
        if not isinstance(said, dict):
            said = told(error, error_body)
        return named(said)

    return words


def spoken(provider: Provider, messages: list[dict[str, str]]) -> Iterator[Piece]:
    """The text of a chat completion, as our own model would say it."""
    model = current_app.config["OPENAI_MODEL"]
    wanted = {"model": model, "messages": messages, "stream": True}
    asked = asking(provider, "/chat/completions", json.dumps(wanted).encode(), {})
    block, count, reason = Block(0), 0, "stop"
    with closing(events(asked)) as chunks:
        for event in chunks:
            if event.data == "[DONE]":
                break
            chunk = event.json
            if chunk.get("error"):
                raise RuntimeError(f"The provider failed: {chunk['error']}")
            for choice in chunk["choices"]:
                if text := choice["delta"].get("content"):
                    if not block.text:
                        yield Opened(block)
                    count += 1
                    block.text += text
                    yield Said(block, text)
                if choice.get("finish_reason") == "length":
                    reason = "length"
    if block.text:
        yield Closed(block)
    yield Ended(reason, count)

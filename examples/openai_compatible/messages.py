"""Anthropic's messages: ``/v1/messages``."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Blueprint
from flask.typing import ResponseReturnValue

from flask_sse_lite import Event, EventStream

from . import exchange, relay
from .model import Block, Closed, Ended, Opened, Piece, Question, Said

blueprint = Blueprint("messages", __name__)

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool": "tool_use"}

ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def error_body(status: int, message: str) -> dict[str, Any]:
    usual = "invalid_request_error" if status < 500 else "api_error"
    error = {"type": ERROR_TYPES.get(status, usual), "message": message}
    return {"type": "error", "error": error}


exchange.answer_errors(blueprint, error_body)


@blueprint.post("/v1/messages")
def messages() -> ResponseReturnValue:
    if provider := relay.anthropic():
        return relay.relayed(provider, "/v1/messages", error_body)
    body = exchange.body()
    question = read(body)
    message = Message(question)
    pieces = exchange.pieces(question)
    if not body.get("stream"):
        return message.whole(pieces)
    return EventStream(
        (exchange.named(event) for event in message.events(pieces)),
        own_events=False,
        on_error=failure,
    )


def failure(error: Exception) -> Event:
    return exchange.named(exchange.told(error, error_body))


def read(body: dict[str, Any]) -> Question:
    messages = exchange.required(body, "messages", list)
    offered = {
        tool["name"]: tool.get("input_schema") or {} for tool in body.get("tools") or []
    }
    tools, must_call = exchange.tools_for(body.get("tool_choice"), offered)
    return Question(
        exchange.required(body, "model", str),
        exchange.prompt_of(messages),
        exchange.count(messages),
        exchange.required(body, "max_tokens", int),
        tools,
        must_call,
    )


class Message:
    def __init__(self, question: Question) -> None:
        self.start: dict[str, Any] = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": question.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": question.input_tokens, "output_tokens": 0},
        }
        self.is_started = False

    def events(self, pieces: Iterable[Piece]) -> Iterator[dict[str, Any]]:
        for piece in pieces:
            if not self.is_started:
                self.is_started = True
                yield {"type": "message_start", "message": self.start}
            match piece:
                case Opened(block):
                    yield block_event("start", block, content_block=content(block, ""))
                case Said(Block(tool="") as block, text):
                    delta = {"type": "text_delta", "text": text}
                    yield block_event("delta", block, delta=delta)
                case Said(block, text):
                    delta = {"type": "input_json_delta", "partial_json": text}
                    yield block_event("delta", block, delta=delta)
                case Closed(block):
                    yield block_event("stop", block)
                case Ended(reason, tokens):
                    yield {
                        "type": "message_delta",
                        "delta": stop(reason),
                        "usage": {"output_tokens": tokens},
                    }
                    yield {"type": "message_stop"}

    def whole(self, pieces: Iterable[Piece]) -> dict[str, Any]:
        message = self.start
        for piece in pieces:
            match piece:
                case Closed(block):
                    message["content"].append(content(block, block.text))
                case Ended(reason, tokens):
                    message |= stop(reason)
                    message["usage"]["output_tokens"] = tokens
        return message


def block_event(verb: str, block: Block, **fields: Any) -> dict[str, Any]:
    return {"type": f"content_block_{verb}", "index": block.index, **fields}


def content(block: Block, text: str) -> dict[str, Any]:
    if not block.tool:
        return {"type": "text", "text": text}
    use = {"id": f"toolu_{block.id}", "name": block.tool}
    return {"type": "tool_use", **use, "input": json.loads(text or "{}")}


def stop(reason: str) -> dict[str, Any]:
    return {"stop_reason": STOP_REASONS[reason], "stop_sequence": None}

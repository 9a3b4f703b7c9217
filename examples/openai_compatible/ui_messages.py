"""The UI message stream of Vercel's AI SDK: ``/api/chat``."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Blueprint
from flask.typing import ResponseReturnValue

from flask_sse_lite import EventStream

from . import exchange, relay
from .model import Block, Closed, Ended, Opened, Piece, Question, Said

blueprint = Blueprint("ui_messages", __name__)

HEADER = {"x-vercel-ai-ui-message-stream": "v1"}

FINISH_REASONS = {"stop": "stop", "length": "length", "tool": "tool-calls"}


def error_body(status: int, message: str) -> dict[str, Any]:
    return {"type": "error", "errorText": message}


exchange.answer_errors(blueprint, error_body)


@blueprint.post("/api/chat")
def chat() -> ResponseReturnValue:
    body = exchange.body()
    question = read(body)
    if provider := relay.openai():
        pieces: Iterable[Piece] = relay.spoken(provider, conversation(body))
    else:
        pieces = exchange.pieces(question)
    response = EventStream(
        chunks(pieces),
        own_events=False,
        final="[DONE]",
        on_error=lambda error: exchange.told(error, error_body),
    )
    response.headers.update(HEADER)
    return response


@blueprint.get("/api/chat/<chat>/stream")
def come_back(chat: str) -> ResponseReturnValue:
    """There is nothing to come back to: here, an answer ends with its connection. (With
    ``sse.run`` it would go on.)"""
    return "", 204


def read(body: dict[str, Any]) -> Question:
    """The client can offer its own functions as ``tools``: names, and schemas of
    arguments. (``useChat`` sends what its transport's ``body`` says.)"""
    messages = exchange.required(body, "messages", list)
    return Question(
        body.get("model", ""),
        exchange.prompt_of(messages, "parts"),
        exchange.count(messages),
        tools=body.get("tools") or {},
    )


def conversation(body: dict[str, Any]) -> list[dict[str, str]]:
    """A conversation's text, as chat completions have it."""
    return [
        {"role": message["role"], "content": exchange.text_of(message.get("parts"))}
        for message in body["messages"]
    ]


def chunks(pieces: Iterable[Piece]) -> Iterator[dict[str, Any]]:
    is_started = False
    for piece in pieces:
        if not is_started:
            is_started = True
            yield {"type": "start", "messageId": secrets.token_hex(12)}
            yield {"type": "start-step"}
        match piece:
            case Opened(Block(tool="", id=id)):
                yield {"type": "text-start", "id": id}
            case Said(Block(tool="", id=id), text):
                yield {"type": "text-delta", "id": id, "delta": text}
            case Closed(Block(tool="", id=id)):
                yield {"type": "text-end", "id": id}
            case Opened(block):
                yield call("start", block)
            case Said(block, text):
                yield {
                    "type": "tool-input-delta",
                    "toolCallId": block.id,
                    "inputTextDelta": text,
                }
            case Closed(block):
                yield call("available", block) | {"input": json.loads(block.text)}
            case Ended(reason):
                yield {"type": "finish-step"}
                yield {"type": "finish", "finishReason": FINISH_REASONS[reason]}


def call(state: str, block: Block) -> dict[str, Any]:
    return {
        "type": f"tool-input-{state}",
        "toolCallId": block.id,
        "toolName": block.tool,
    }

"""OpenAI's chat completions: ``/v1/chat/completions``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Blueprint
from flask.typing import ResponseReturnValue

from flask_sse_lite import EventStream

from . import exchange, relay
from .model import Block, Closed, Ended, Opened, Piece, Question, Said

blueprint = Blueprint("chat_completions", __name__)

FINISH_REASONS = {"stop": "stop", "length": "length", "tool": "tool_calls"}


def error_body(status: int, message: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": None}
    return {"error": error}


exchange.answer_errors(blueprint, error_body)


@blueprint.post("/v1/chat/completions")
def chat_completions() -> ResponseReturnValue:
    if provider := relay.openai():
        return relay.relayed(provider, "/chat/completions", error_body)
    body = exchange.body()
    question = read(body)
    completion = Completion(question.model)
    pieces = exchange.pieces(question)
    if not body.get("stream"):
        return completion.whole(question, pieces)
    options = body.get("stream_options") or {}
    return EventStream(
        completion.chunks(question, pieces, bool(options.get("include_usage"))),
        own_events=False,
        final="[DONE]",
        on_error=lambda error: exchange.told(error, error_body),
    )


def read(body: dict[str, Any]) -> Question:
    messages = exchange.required(body, "messages", list)
    offered = body.get("tools") or []
    functions = [tool["function"] for tool in offered if tool.get("function")]
    schemas = {each["name"]: each.get("parameters") or {} for each in functions}
    tools, must_call = exchange.tools_for(body.get("tool_choice"), schemas)
    return Question(
        exchange.required(body, "model", str),
        exchange.prompt_of(messages),
        exchange.count(messages),
        body.get("max_completion_tokens") or body.get("max_tokens"),
        tools,
        must_call,
    )


class Completion:
    def __init__(self, model: str) -> None:
        self.head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def chunks(
        self, question: Question, pieces: Iterable[Piece], with_usage: bool
    ) -> Iterator[dict[str, Any]]:
        role: dict[str, Any] = {"role": "assistant"}
        for piece in pieces:
            match piece:
                case Opened(Block(tool="")):
                    yield self.chunk(role | {"content": ""})
                case Opened(block):
                    call = {"index": block.index, **tool_call(block)}
                    yield self.chunk(role | {"tool_calls": [call]})
                case Said(Block(tool=""), text):
                    yield self.chunk({"content": text})
                case Said(block, text):
                    said = {"index": block.index, "function": {"arguments": text}}
                    yield self.chunk({"tool_calls": [said]})
                case Ended(reason):
                    yield self.chunk({}, FINISH_REASONS[reason])
                    if with_usage:
                        yield self.chunk(None) | {"usage": usage(question, piece)}

    def chunk(
        self, delta: dict[str, Any] | None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        choices = [] if delta is None else [choice]
        return {**self.head, "object": "chat.completion.chunk", "choices": choices}

    def whole(self, question: Question, pieces: Iterable[Piece]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        choice = {"index": 0, "message": message}
        completion: dict[str, Any] = {**self.head, "object": "chat.completion"}
        for piece in pieces:
            match piece:
                case Closed(Block(tool="", text=text)):
                    message["content"] = text
                case Closed(block):
                    message.setdefault("tool_calls", []).append(tool_call(block))
                case Ended(reason):
                    choice["finish_reason"] = FINISH_REASONS[reason]
                    completion["usage"] = usage(question, piece)
        return completion | {"choices": [choice]}


def tool_call(block: Block) -> dict[str, Any]:
    function = {"name": block.tool, "arguments": block.text}
    return {"id": f"call_{block.id}", "type": "function", "function": function}


def usage(question: Question, end: Ended) -> dict[str, int]:
    return {
        "prompt_tokens": question.input_tokens,
        "completion_tokens": end.output_tokens,
        "total_tokens": question.input_tokens + end.output_tokens,
    }

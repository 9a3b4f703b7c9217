"""OpenAI's responses: ``/v1/responses``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Blueprint
from flask.typing import ResponseReturnValue

from flask_sse_lite import Event, EventStream

from . import exchange, relay
from .chat_completions import error_body
from .model import Block, Closed, Ended, Opened, Piece, Question, Said

blueprint = Blueprint("responses", __name__)
exchange.answer_errors(blueprint, error_body)


@blueprint.post("/v1/responses")
def responses() -> ResponseReturnValue:
    if provider := relay.openai():
        return relay.relayed(provider, "/responses", error_body)
    body = exchange.body()
    question = read(body)
    response = Response(question)
    pieces = exchange.pieces(question)
    if not body.get("stream"):
        for _ in response.events(pieces):
            pass
        return response.state
    return EventStream(
        (exchange.named(event) for event in response.events(pieces)),
        own_events=False,
        on_error=response.failure,
    )


def read(body: dict[str, Any]) -> Question:
    given = body.get("input")
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(messages, list):
        messages = exchange.required(body, "input", list)
    functions = [tool for tool in body.get("tools") or [] if tool.get("name")]
    schemas = {each["name"]: each.get("parameters") or {} for each in functions}
    tools, must_call = exchange.tools_for(body.get("tool_choice"), schemas)
    return Question(
        exchange.required(body, "model", str),
        exchange.prompt_of(messages),
        exchange.count(messages),
        body.get("max_output_tokens"),
        tools,
        must_call,
    )


class Response:
    """A response in the making."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.sequence_number = 0
        self.state: dict[str, Any] = {
            "id": f"resp_{secrets.token_hex(12)}",
            "object": "response",
            "created_at": int(time.time()),
            "model": question.model,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "output": [],
            "parallel_tool_calls": True,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "usage": None,
        }

    def event(self, kind: str, **fields: Any) -> dict[str, Any]:
        number = self.sequence_number
        self.sequence_number += 1
        return {"type": kind, "sequence_number": number, **fields}

    def events(self, pieces: Iterable[Piece]) -> Iterator[dict[str, Any]]:
        for piece in pieces:
            if not self.sequence_number:
                yield self.event("response.created", response=dict(self.state))
            match piece:
                case Opened(block):
                    yield from self.opened(block)
                case Said(block, text):
                    kind = "function_call_arguments" if block.tool else "output_text"
                    where = place(block) | ({} if block.tool else {"logprobs": []})
                    yield self.event(f"response.{kind}.delta", **where, delta=text)
                case Closed(block):
                    yield from self.closed(block)
                case Ended():
                    yield self.ended(piece)

    def opened(self, block: Block) -> Iterator[dict[str, Any]]:
        yield self.event(
            "response.output_item.added",
            output_index=block.index,
            item=item(block, "in_progress"),
        )
        if not block.tool:
            where = place(block)
            yield self.event("response.content_part.added", **where, part=part(""))

    def closed(self, block: Block) -> Iterator[dict[str, Any]]:
        where = place(block)
        if block.tool:
            where |= {"name": block.tool, "arguments": block.text}
            yield self.event("response.function_call_arguments.done", **where)
        else:
            said = {"text": block.text, "logprobs": []}
            yield self.event("response.output_text.done", **where, **said)
            yield self.event(
                "response.content_part.done", **where, part=part(block.text)
            )
        self.state["output"].append(item(block, "completed"))
        yield self.event(
            "response.output_item.done",
            output_index=block.index,
            item=item(block, "completed"),
        )

    def ended(self, end: Ended) -> dict[str, Any]:
        read, said = self.question.input_tokens, end.output_tokens
        status = "incomplete" if end.reason == "length" else "completed"
        self.state["status"] = status
        if status == "incomplete":
            self.state["incomplete_details"] = {"reason": "max_output_tokens"}
        self.state["usage"] = {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + said,
        }
        return self.event(f"response.{status}", response=self.state)

    def failure(self, error: Exception) -> Event:
        """What a client is told of an error in mid-stream."""
        fields = exchange.told(error, error_body)["error"]
        told = {"code": fields["type"], "message": fields["message"], "param": None}
        return exchange.named(self.event("error", **told))


def place(block: Block) -> dict[str, Any]:
    """Where an event belongs."""
    index = block.index
    if block.tool:
        return {"item_id": f"fc_{block.id}", "output_index": index}
    return {"item_id": f"msg_{block.id}", "output_index": index, "content_index": 0}


def part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def item(block: Block, status: str) -> dict[str, Any]:
    if block.tool:
        return {
            "type": "function_call",
            "id": f"fc_{block.id}",
            "call_id": f"call_{block.id}",
            "name": block.tool,
            "arguments": block.text,
            "status": status,
        }
    return {
        "type": "message",
        "id": f"msg_{block.id}",
        "role": "assistant",
        "content": [part(block.text)] if status == "completed" else [],
        "status": status,
    }

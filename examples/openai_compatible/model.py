"""A model of our own: words from ``markov.py``, and calls of tools that a prompt names.

Here lives what a model is asked and what it answers, in no provider's format. The same
prompt always gets the same answer.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from markov import speech
from werkzeug.exceptions import ServiceUnavailable

#: Models that show what a client makes of errors: one is always busy, one breaks off.
BUSY = "river-busy"
BROKEN = "river-broken"

#: Tokens that the broken model says before it fails.
TOKENS_BEFORE_FAILURE = 5

#: Tokens after which an answer ends, even in mid-sentence.
MAX_TOKENS = 500


@dataclass(frozen=True)
class Question:
    """What a request asks for, whichever format it came in.

    :param model: the name that the client chose.
    :param prompt: what the user said last; empty if it is not the user's turn.
    :param input_tokens: the length of the whole conversation.
    :param limit: how many tokens the text of the answer can have.
    :param tools: the tools that can be called: names, and JSON schemas of arguments.
    :param must_call: whether one of them must be called.
    """

    model: str
    prompt: str
    input_tokens: int
    limit: int | None = None
    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    must_call: bool = False


@dataclass
class Block:
    """A stretch of an answer: text, or the call of a tool."""

    index: int
    #: The tool that is called; empty for text.
    tool: str = ""
    #: The text so far; for a call, its arguments as JSON.
    text: str = ""
    id: str = field(default_factory=lambda: secrets.token_hex(12))


# The pieces that an answer comes in.


class Opened(NamedTuple):
    block: Block


class Said(NamedTuple):
    block: Block
    text: str


class Closed(NamedTuple):
    block: Block


class Ended(NamedTuple):
    """The last piece.

    :param reason: ``"stop"``, ``"length"`` or ``"tool"``.
    """

    reason: str
    output_tokens: int


Piece = Opened | Said | Closed | Ended


def answer(question: Question, tokens_per_second: float) -> Iterator[Piece]:
    """Answer token by token, at this pace.

    :raises ServiceUnavailable: at the first step, if the model is the busy one.
    """
    if question.model == BUSY:
        raise ServiceUnavailable("The model is busy. Try again later.")
    tool = called_tool(question)
    block = Block(0, tool)
    tokens = call(question) if tool else speech(question.prompt)
    limit = MAX_TOKENS if tool or question.limit is None else question.limit
    count = 0
    yield Opened(block)
    for token in islice(tokens, limit):
        time.sleep(1 / tokens_per_second)
        if question.model == BROKEN and count == TOKENS_BEFORE_FAILURE:
            raise RuntimeError("The river has run dry")
        count += 1
        block.text += token
        yield Said(block, token)
    yield Closed(block)
    is_whole = next(tokens, None) is None
    yield Ended("length" if not is_whole else "tool" if tool else "stop", count)


def called_tool(question: Question) -> str:
    """The tool that the prompt names: ``get_weather``, or in words "get weather"."""
    for name in question.tools:
        pattern = re.escape(name).replace("_", "[_ ]")
        if re.search(rf"\b{pattern}\b", question.prompt, re.IGNORECASE):
            return name
    return next(iter(question.tools), "") if question.must_call else ""


def call(question: Question) -> Iterator[str]:
    """The arguments of a call, as JSON, piece by piece."""
    properties = question.tools[called_tool(question)].get("properties", {})
    arguments = {
        name: argument(schema, question.prompt) for name, schema in properties.items()
    }
    yield from re.findall(r".[^ ]*", json.dumps(arguments))


def argument(schema: Mapping[str, Any], prompt: str) -> Any:
    """What the prompt might mean: a number in it, or its last word."""
    if choices := schema.get("enum"):
        return next((choice for choice in choices if str(choice) in prompt), choices[0])
    numbers = re.findall(r"-?\d+", prompt) or ["0"]
    words = re.findall(r"\w+", prompt) or [""]
    made = {"integer": int(numbers[0]), "number": float(numbers[0]), "boolean": True}
    return made.get(schema.get("type", ""), words[-1])

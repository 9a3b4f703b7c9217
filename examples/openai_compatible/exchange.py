"""What all the formats have in common: how requests are read, and errors told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from flask import Blueprint, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest, HTTPException

from flask_sse_lite import Event

from .model import Piece, Question, answer

#: Makes the body of an error from its status and message.
ErrorBody = Callable[[int, str], dict[str, Any]]


def body() -> dict[str, Any]:
    """The request's body."""
    found = request.get_json()
    if not isinstance(found, dict):
        raise BadRequest("The body is to be a JSON object.")
    return found


def required(found: Mapping[str, Any], name: str, kind: type) -> Any:
    """A parameter that a request must have."""
    value = found.get(name)
    if not isinstance(value, kind):
        raise BadRequest(f"Missing or malformed parameter: {name!r}.")
    return value


def text_of(content: Any) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        return " ".join(str(part["text"]) for part in parts if part.get("text"))
    return content if isinstance(content, str) else ""


def prompt_of(messages: Iterable[Any], content: str = "content") -> str:
    """The text of the last message, if it is the user's. It is empty for a tool's
    result, which is a part without text."""
    last = list(messages)[-1:]
    if not last or not isinstance(last[0], dict) or last[0].get("role") != "user":
        return ""
    return text_of(last[0].get(content))


def count(messages: Iterable[Any]) -> int:
    """The tokens of a conversation, as our model counts them."""
    return len(str(list(messages)).split())


def tools_for(choice: Any, tools: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The tools that can be called, and whether one must be called.

    :param choice: the request's ``tool_choice``.
    """
    if isinstance(choice, dict):
        name = choice.get("name") or choice.get("function", {}).get("name")
        if name in tools:
            return {name: tools[name]}, True
        choice = choice.get("type")
    return {} if choice == "none" else dict(tools), choice in ("any", "required")


def pieces(question: Question) -> Iterator[Piece]:
    """Our own model's answer."""
    return answer(question, current_app.config["TOKENS_PER_SECOND"])


def named(data: dict[str, Any]) -> Event:
    """An event of the type that stands in its data."""
    return Event(current_app.json.dumps(data), data.get("type"))


def answer_errors(blueprint: Blueprint, error_body: ErrorBody) -> None:
    """Have a blueprint's errors answered in its own format: errors of its views, and
    errors of a stream's generator before its first item."""

    @blueprint.errorhandler(HTTPException)
    def answered(error: HTTPException) -> ResponseReturnValue:
        status = error.code or 500
        return error_body(status, error.description or error.name), status


def told(error: Exception, error_body: ErrorBody) -> dict[str, Any]:
    """What a client is told of an error in mid-stream. The log has the details."""
    if isinstance(error, HTTPException) and error.code:
        return error_body(error.code, error.description or error.name)
    return error_body(500, "The answer broke off: the model failed.")

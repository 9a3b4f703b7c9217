"""Answered: what is done once the current request's response was sent.

Here lives how a call waits for that, and where its failure is told. What the call does
is unknown here.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, after_this_request, has_request_context

from .errors import BrokerUnavailable, InvalidValue
from .log_messages import Message


def once_answered(do: Callable[[], object], message: Message) -> None:
    """Call a function once the server has sent the current request's response: its
    last byte, and so the cookies of its head.

    :param message: what is logged where the broker cannot be reached. The client has
        its answer by then, and nobody else can be told.
    :raises InvalidValue: outside a request.
    """
    if not has_request_context():
        raise InvalidValue(
            "after_response=True is for a view. No request is being answered here"
        )

    def call() -> None:
        try:
            do()
        except BrokerUnavailable as error:
            message.log(error)

    @after_this_request
    def wait(response: Response) -> Response:
        response.call_on_close(call)
        return response

"""The names of Flask-SSE, for applications that were written for it.

Here live those names, and nothing else.
"""

from __future__ import annotations

from typing import Any

import flask

from .event import Event, to_text
from .extension import SSE
from .names import Name, counted, worded, worded_id

#: What Flask-SSE calls its blueprint.
ServerSentEventsBlueprint = SSE


class Message(Event):
    """An event as Flask-SSE makes it, of any data that the application's JSON provider
    takes::

        message = Message({"name": "Ann"}, type="joined", retry="1000")
        sse.publish(message)
    """

    __slots__ = ()

    def __init__(
        self,
        data: Any,
        type: Name | None = None,
        id: Name | None = None,
        retry: int | str | None = None,
    ) -> None:
        super().__init__(
            to_text(data, flask.json.dumps), worded(type), worded_id(id), counted(retry)
        )

    def to_dict(self) -> dict[str, Any]:
        """The message's fields, as Flask-SSE has them. Those that are None are left
        out::

            Message("hello", type="said").to_dict()  # {"data": "hello", "type": "said"}
        """
        fields = {"type": self.type, "id": self.id, "retry": self.retry}
        return {"data": self.data} | {
            name: value for name, value in fields.items() if value is not None
        }

"""Server-Sent Events for Flask.

Here stand the names that an application imports, and nothing else::

    from flask import Flask
    from flask_sse_lite import sse

    app = Flask(__name__)
    sse.init_app(app)  # GET /stream
    sse.publish("hello")

Each is defined in a room of its own. ``flask_sse_lite.testing`` and
``flask_sse_lite.sqlalchemy`` are imported by themselves.
"""

from __future__ import annotations

from .browser_module import static_folder
from .errors import (
    BrokerUnavailable,
    EventTooLarge,
    InvalidType,
    InvalidValue,
    NoApplication,
    Reentered,
    SetupError,
    SSEError,
    Unsupported,
    UnsupportedServer,
)
from .event import Event
from .extension import SSE
from .from_flask_sse import Message, ServerSentEventsBlueprint
from .hub.counts import OpenStreams, Stats
from .permission import Authorizer, AuthorizerAnswer
from .publisher import Publisher
from .response import EventStream
from .servers.server import Reason

__version__ = "0.1.0"

__all__ = [
    "SSE",
    "Authorizer",
    "AuthorizerAnswer",
    "BrokerUnavailable",
    "Event",
    "EventStream",
    "EventTooLarge",
    "InvalidType",
    "InvalidValue",
    "Message",
    "NoApplication",
    "OpenStreams",
    "Publisher",
    "Reason",
    "Reentered",
    "SSEError",
    "ServerSentEventsBlueprint",
    "SetupError",
    "Stats",
    "Unsupported",
    "UnsupportedServer",
    "sse",
    "static_folder",
]

#: The ready-made SSE. Most applications need no other.
sse = SSE()

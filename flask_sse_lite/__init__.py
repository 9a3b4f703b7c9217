"""Server-Sent Events for Flask."""

from __future__ import annotations

from .errors import (
    BrokerUnavailable,
    InvalidType,
    InvalidValue,
    NoApplication,
    Reentered,
    SetupError,
    SSEError,
    UnsupportedServer,
)
from .event import Event
from .extension import SSE
from .from_flask_sse import Message, ServerSentEventsBlueprint
from .publisher import Publisher
from .response import EventStream

__version__ = "0.1.0"

__all__ = [
    "SSE",
    "BrokerUnavailable",
    "Event",
    "EventStream",
    "InvalidType",
    "InvalidValue",
    "Message",
    "NoApplication",
    "Publisher",
    "Reentered",
    "SSEError",
    "ServerSentEventsBlueprint",
    "SetupError",
    "UnsupportedServer",
    "sse",
]

#: An SSE that is ready to be registered: enough for most applications.
sse = SSE()

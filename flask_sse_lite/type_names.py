"""The types of events that a browser uses for events of its own.

Here lives the warning about them, and nothing else. An event of such a type is never
refused or changed: other clients, and the formats of AI providers, use these types.
"""

from __future__ import annotations

from .log_messages import BROWSERS_TYPE

#: By type: the handler of ``EventSource`` that a browser calls for such an event too.
HANDLERS = {"error": "onerror", "open": "onopen"}

_warned: set[str] = set()


def warn_of_type(type: str) -> None:
    """Tell the developer, once in the life of the process, that a page cannot tell an
    event of this type from the connection's own."""
    if type in HANDLERS and type not in _warned:
        _warned.add(type)
        BROWSERS_TYPE.log(type, HANDLERS[type], type, type=type)

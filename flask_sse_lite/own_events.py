"""The events that this extension sends of its own accord, and what stands in them.

Their types, their data and the reasons of an error live here, and nowhere else. When
one of them is sent is decided by the module that sends it. ``docs/in-the-page.rst``
explains each type and each reason to the authors of pages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from .event import RESERVED_TYPE_PREFIX, Event, good_event, to_text

#: The first event of every stream: its id says where the client stands.
OPEN = f"{RESERVED_TYPE_PREFIX}open"

#: A silent stream tells its client how far the log has moved on.
POSITION = f"{RESERVED_TYPE_PREFIX}position"

#: Events were lost.
GAP = f"{RESERVED_TYPE_PREFIX}gap"

#: A generator did not come to its end. The data says why.
ERROR = f"{RESERVED_TYPE_PREFIX}error"

#: Nothing follows: all channels of the stream are closed, or a generator has ended.
END = f"{RESERVED_TYPE_PREFIX}end"

#: An identity has come to a channel, or has left it: see ``SSE_PRESENCE``.
JOIN = f"{RESERVED_TYPE_PREFIX}join"
LEAVE = f"{RESERVED_TYPE_PREFIX}leave"

TYPES = (OPEN, POSITION, GAP, ERROR, END, JOIN, LEAVE)

#: These only tell a client where it stands. Every stream has them, and no test of an
#: application waits for one.
BOOKKEEPING = (OPEN, POSITION)

#: The id of the end of an ``EventStream``. A client that comes back with it has seen
#: everything.
END_ID = END


class Reason(Enum):
    """Why a generator did not come to its end, as the data of an error says it."""

    #: The generator raised, or what it gave cannot be sent.
    FAILED = "error"

    #: The server stops.
    SHUTDOWN = "shutdown"

    #: Nobody listened to the run any more.
    ABANDONED = "abandoned"

    #: The process of the run died, could not reach its broker, or the store forgot it.
    LOST = "lost"


def opening(id: str, retry: int) -> Event:
    """The event that a stream begins with.

    :param id: where the client stands.
    :param retry: milliseconds that the client waits before it reconnects.
    """
    return good_event("", OPEN, id, retry, None)


def position(id: str) -> Event:
    """How far a silent stream has read."""
    return good_event("", POSITION, id, None, None)


def gap(
    since: str, channels: Iterable[str], id: str, channel: str | None = None
) -> Event:
    """Events were lost.

    :param since: the id behind which they stood.
    :param channels: the channels that lost something.
    :param id: where the client stands, now that it was told.
    :param channel: the channel that the gap stands in, where it has a place in one.
    """
    data = json.dumps({"since": since, "channels": list(channels)})
    return good_event(data, GAP, id, None, channel)


def error(reason: Reason) -> Event:
    """A generator did not come to its end."""
    return good_event(json.dumps({"reason": reason.value}), ERROR, None, None, None)


def failure(message: Any, dumps: Callable[[Any], str]) -> Event:
    """A generator failed, and the application has something to say of it.

    :param message: what the application tells the client; anything but None.
    :param dumps: the application's way to JSON.
    :raises InvalidType: for a message that cannot be made JSON.
    """
    told = {"reason": Reason.FAILED.value, "message": message}
    return good_event(to_text(told, dumps), ERROR, None, None, None)


def end(id: str) -> Event:
    """Nothing follows.

    :param id: a client that comes back with it has seen everything.
    """
    return good_event("", END, id, None, None)


def joined(identity: str, channel: str) -> Event:
    """An identity has its first stream of a channel. The channel stands in the data,
    because ``EventSource`` does not tell a page which channel an event is of."""
    return _of(JOIN, identity, channel)


def left(identity: str, channel: str) -> Event:
    """An identity has no stream of a channel any more, and did not come back."""
    return _of(LEAVE, identity, channel)


def _of(type: str, identity: str, channel: str) -> Event:
    data = json.dumps({"identity": identity, "channel": channel})
    return good_event(data, type, None, None, None)


FAILED = error(Reason.FAILED)
SHUTDOWN = error(Reason.SHUTDOWN)
ABANDONED = error(Reason.ABANDONED)
LOST = error(Reason.LOST)

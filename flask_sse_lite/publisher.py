"""Publishing from outside: a worker of a task queue, a cron job, a script.

Here lives what an application does for ``sse.publish``, for who has none: where events
go is a URL, and how data becomes JSON is Flask's own way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from flask.json.provider import DefaultJSONProvider

from .channels import DEFAULT_CHANNEL, Channels
from .errors import InvalidValue
from .event import Event
from .settings import Settings
from .wording import Name


class Publisher:
    """A way to an application's channels from a process that has no application. It
    publishes only, and starts no thread.

    Make one with ``Publisher.from_url``, and keep it: it connects when it first
    publishes, and the connection stays. Any thread or greenlet may call any method, and
    a forked child may go on with its parent's: it gets a connection of its own.

    With ``with``, the connection is let go of at the end of the block.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 5.0) -> Publisher:
        """A publisher to the broker that applications name in ``SSE_URL``. Nothing is
        reached for yet.

        How much of a channel is kept is the store's affair; only a URL that says both
        ``history`` and ``age`` has a say in it.

        :param url: ``redis://…``, or ``sqlite:////an/absolute/path.db``: of a relative
            path, only the application knows where it begins.
        :param timeout: seconds after which a broker that does not answer is away.
        :raises InvalidValue: for a URL that leads to no broker, or to one that is a
            single process's own (``memory://``).
        """
        settings = Settings.of_guest(url, timeout)
        channels = Channels({}, _to_json, settings=settings)
        if not channels.broker.is_shared:
            raise InvalidValue(
                "A Publisher cannot publish to memory://, which is one process's own: "
                "no browser would ever see its events. Have the application's SSE_URL "
                "name a broker that processes share, such as sqlite:////srv/events.db, "
                "and use the same here."
            )
        return cls(channels)

    def publish(
        self,
        data: Any,
        type: Name | None = None,
        id: Name | None = None,
        retry: int | str | None = None,
        channel: Name | Iterable[Name] = DEFAULT_CHANNEL,
    ) -> Event:
        """Send an event to everyone who listens to a channel: see ``SSE.publish``.

        :param data: text, or bytes of UTF-8, or an ``Event``, or anything that Flask's
            JSON takes: dates, UUIDs, decimals and dataclasses, too.
        :returns: the event as it was sent, with its id; of several, the last.
        :raises InvalidValue: when it cannot be sent. Nothing was, then.
        :raises BrokerUnavailable: when the broker cannot be reached.
        """
        return self._channels.publish(data, type, id, retry, channel)

    def close(self, channel: Name = DEFAULT_CHANNEL) -> None:
        """End a channel: see ``SSE.close``. (Not the publisher: see ``disconnect``.)

        :raises BrokerUnavailable: when the broker cannot be reached.
        """
        self._channels.end(channel)

    def position(self) -> str:
        """Where the newest event stands: see ``SSE.position``.

        :raises BrokerUnavailable: when the broker cannot be reached.
        """
        return self._channels.broker.position()

    def disconnect(self) -> None:
        """Let go of the connection, for good."""
        self._channels.close()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.disconnect()


def _to_json(data: Any) -> str:
    """As Flask's own provider has it, which is to be had with an application only."""
    provider = DefaultJSONProvider
    return json.dumps(
        data,
        default=provider.default,
        ensure_ascii=provider.ensure_ascii,
        sort_keys=provider.sort_keys,
    )

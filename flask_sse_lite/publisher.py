"""Publishing from outside: a worker of a task queue, a cron job, a script.

Here lives what stands in for the application where a process has none: a URL says where
events go, and Flask's default provider turns data into JSON. Nothing here reads
events.
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
from .names import Name
from .settings import Settings


class Publisher:
    """A way to an application's channels from a process that has no application::

        publisher = Publisher.from_url("redis://localhost")
        publisher.publish({"progress": 40}, channel="job.7")

    It reads no events, and starts no thread. Make one and keep it: it connects when it
    first publishes, and the connection stays. Any thread or greenlet can call any
    method. A forked child can use its parent's publisher: it gets a connection of its
    own. In a ``with`` statement, the end of the block closes the connection.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    @classmethod
    def from_url(
        cls, url: str, *, timeout: float = 5.0, max_event_bytes: int | None = None
    ) -> Publisher:
        """A publisher to the broker that applications name in ``SSE_URL``. It does not
        connect yet::

            with Publisher.from_url("redis://localhost", timeout=1) as publisher:
                publisher.publish("tick", channel="clock")

        The store knows how much of a channel is kept; only a URL with both ``history``
        and ``age`` changes that.

        :param url: ``redis://…``, or ``sqlite:////an/absolute/path.db``. Only the
            application knows where a relative path begins.
        :param timeout: seconds after which a broker that does not answer is away.
        :param max_event_bytes: bytes that one event can have; by default as many as
            ``SSE_MAX_EVENT_BYTES`` has by default.
        :raises InvalidValue: for a URL that leads to no broker, or to one that is a
            single process's own (``memory://``).
        """
        settings = Settings.of_guest(url, timeout, max_event_bytes)
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
        """Send an event to every client that listens to a channel: see
        ``SSE.publish``::

            event = publisher.publish("hello", type="said", channel="room.1")
            print(event.id)

        :param data: text, or bytes of UTF-8, or an ``Event``, or anything that Flask's
            JSON takes: dates, UUIDs, decimals and dataclasses, too.
        :returns: the event as it was sent, with its id; of several, the last.
        :raises InvalidValue: when the event cannot be sent; then nothing was sent.
        :raises BrokerUnavailable: when the broker cannot be reached.
        """
        return self._channels.publish(data, type, id, retry, channel)

    def close(self, channel: Name = DEFAULT_CHANNEL) -> None:
        """End a channel: see ``SSE.close``. (``shutdown`` ends the publisher.) ::

            publisher.publish("done", channel="job.7")
            publisher.close("job.7")

        :raises BrokerUnavailable: when the broker cannot be reached.
        """
        self._channels.end(channel)

    def position(self) -> str:
        """Where the newest event stands: see ``SSE.position``::

            before = publisher.position()

        :raises BrokerUnavailable: when the broker cannot be reached.
        """
        return self._channels.broker.position()

    def disconnect(
        self,
        identity: Name | None = None,
        channel: Name | None = None,
        *,
        hold_off: float = 0.0,
    ) -> None:
        """End the streams of clients, who come back: see ``SSE.disconnect``::

            publisher.disconnect(identity="ann")

        :raises InvalidValue: where neither is given, or one that cannot be.
        :raises BrokerUnavailable: when the broker cannot be reached.
        """
        self._channels.disconnect(identity, channel, hold_off)

    def present(self, channel: Name = DEFAULT_CHANNEL) -> dict[str, int]:
        """Who listens to a channel, each with the number of its streams: see
        ``SSE.present``::

            if "ann" not in publisher.present("user.ann"):
                print("Ann gets a mail.")

        :raises BrokerUnavailable: when the broker cannot be reached.
        :raises Unsupported: where the broker does not know it.
        """
        return self._channels.present(channel)

    def shutdown(self) -> None:
        """Close the publisher's connection, for good. What is published later fails,
        where the broker had one::

            publisher.shutdown()
        """
        self._channels.close()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()


def channels_of_publisher(publisher: Publisher) -> Channels:
    """The channels that a publisher publishes to."""
    return publisher._channels


def _to_json(data: Any) -> str:
    """The JSON that Flask's default provider makes, which needs an application."""
    provider = DefaultJSONProvider
    return json.dumps(
        data,
        default=provider.default,
        ensure_ascii=provider.ensure_ascii,
        sort_keys=provider.sort_keys,
    )

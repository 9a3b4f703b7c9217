"""Brokers over a Redis that loses something: how they are opened, and what is lost."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from flask_sse_lite import BrokerUnavailable
from flask_sse_lite.brokers import connect
from flask_sse_lite.brokers.shared import SharedBroker
from flask_sse_lite.settings import Settings
from flask_sse_lite.testing.broker_suite import Reader, publish

from .redis_servers import RedisServer
from .servers import until

#: Events that most tests keep: more than they publish.
HISTORY = 1000


class Opener:
    """Opens brokers, as several processes would, and closes them at the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(self, url: str, **config: Any) -> SharedBroker:
        settings = Settings.read({"SSE_URL": url, "SSE_HISTORY": HISTORY, **config})
        broker = connect(settings)
        assert isinstance(broker, SharedBroker)
        self._stack.callback(broker.close)
        return broker


def publish_at_last(broker: SharedBroker, channel: str, text: str) -> str:
    """Publish as soon as Redis can be reached."""

    def id() -> str:
        try:
            return publish(broker, channel, text)[0]
        except BrokerUnavailable:
            return ""

    return until(id)


def is_gone(reader: Reader) -> bool:
    """Whether the id from which a new reader resumes is no longer known."""
    reader.read()
    return bool(reader.gaps)


def go_back(server: RedisServer, broker: SharedBroker) -> list[str]:
    """Have a Redis keep three of six events over a restart."""
    ids = publish(broker, "a", *"123")
    server.ask("SAVE")
    ids += publish(broker, "a", *"456")
    return ids

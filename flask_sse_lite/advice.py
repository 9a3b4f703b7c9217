"""What an application's operator is told, once in the life of a process.

Here lives the wording of each warning about a configuration, a broker or a refusal, and
the memory of what was said. Whether there is a reason for a warning, its caller knows.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from .settings import Settings

logger = logging.getLogger("flask_sse_lite")


class Advice:
    """The warnings of one application. Any thread may give one; two threads at once can
    give it twice."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def on_unread_keys(self, config: Mapping[str, Any]) -> None:
        """``SSE_…`` keys that nobody reads."""
        for key, known in Settings.misspelt(config).items():
            meant = f"; is {known} meant?" if known else ""
            self._give(f"The configuration has the key {key}, which is not read{meant}")

    def on_unread_urls(self, config: Mapping[str, Any]) -> None:
        """A broker's URL that stands where nobody reads it."""
        if config.get("SSE_URL") or config.get("SSE_REDIS_URL"):
            return
        if config.get("REDIS_URL"):
            self._give(
                "REDIS_URL is set, but not read here. Set SSE_URL to publish "
                "through a broker; without it, events stay in one process."
            )
        elif os.environ.get("SSE_URL"):
            self._give(
                "SSE_URL is set in the environment, but read from app.config "
                'alone: app.config["SSE_URL"] = os.environ["SSE_URL"], or '
                "app.config.from_prefixed_env() and FLASK_SSE_URL."
            )

    def on_siblings(self, processes: int | None) -> None:
        """Several processes, and a broker that they do not share.

        :param processes: how many; None where the server alone knows.
        """
        advice = (
            'Set app.config["SSE_URL"] to a broker that processes share, such as '
            "sqlite:///events.db, or run one worker (gunicorn -k gevent -w 1)."
        )
        if processes is None:
            self._give(
                "The server says that it may run several processes, and SSE_URL is "
                "memory://, which is one process's own. If there is one process, all "
                "is well (adapters of ASGI say so in any case). If there are more, a "
                "browser sees only what the process that it is connected to "
                f"publishes. {advice}"
            )
        else:
            self._give(
                f"The server runs several worker processes ({processes}), and "
                "SSE_URL is memory://, which is one process's own: a browser sees only "
                f"what the worker that it is connected to publishes. {advice}"
            )

    def on_silence(self) -> None:
        """A process publishes that serves nobody, and its broker is its own."""
        self._give(
            "An event was published by a process that has served no request so "
            "far, and SSE_URL is memory://, which is one process's own: unless "
            "this is the web server itself, no browser will ever see its events. "
            'Publish from the web application, or set app.config["SSE_URL"] to a '
            "broker that processes share, such as sqlite:///events.db."
        )

    def on_refusal(self, names: tuple[str, ...]) -> None:
        """Strangers get 403. It is said once for all names, as clients can invent as
        many as they like."""
        self._give(
            f"A client asked for {', '.join(map(repr, names))}, and got 403: there is "
            "no authorizer, and SSE_PUBLIC_CHANNELS does not allow that. (Others are "
            "told of at the level DEBUG.)",
            once_for="a refusal",
        )

    def _give(self, message: str, once_for: str = "") -> None:
        """:param once_for: what the warning is given once for; without it, for its
        message."""
        key = once_for or message
        if key not in self._given:
            self._given.add(key)
            logger.warning(message)

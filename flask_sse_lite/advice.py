"""What an application's operator is told, once in the life of a process.

Here lives when a configuration, a broker or a refusal is worth a warning, and the
memory of what was said. ``log_messages`` has the words of each warning. The caller
knows whether there is a reason for one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .log_messages import (
    ENVIRONMENT_UNREAD,
    PERHAPS_SIBLINGS,
    REDIS_URL_UNREAD,
    SIBLINGS,
    SILENCE,
    STRANGERS_REFUSED,
    UNREAD_KEY,
    Message,
)
from .settings import Settings


class Advice:
    """The warnings of one application. Any thread can give one; two threads at once can
    give it twice."""

    def __init__(self) -> None:
        self._given: set[tuple[str, tuple[object, ...]]] = set()

    def on_unread_keys(self, config: Mapping[str, Any]) -> None:
        """``SSE_…`` keys that nobody reads."""
        for key, known in Settings.misspelt(config).items():
            self._give(UNREAD_KEY, key, f"; is {known} meant?" if known else "")

    def on_unread_urls(self, config: Mapping[str, Any]) -> None:
        """A broker's URL that stands where nobody reads it."""
        if config.get("SSE_URL") or config.get("SSE_REDIS_URL"):
            return
        if config.get("REDIS_URL"):
            self._give(REDIS_URL_UNREAD)
        elif os.environ.get("SSE_URL"):
            self._give(ENVIRONMENT_UNREAD)

    def on_siblings(self, processes: int | None) -> None:
        """Several processes, and a broker that they do not share.

        :param processes: how many; None where the server alone knows.
        """
        if processes is None:
            self._give(PERHAPS_SIBLINGS)
        else:
            self._give(SIBLINGS, processes)

    def on_silence(self) -> None:
        """A process publishes that serves nobody, and its broker is its own."""
        self._give(SILENCE)

    def on_refusal(self, names: tuple[str, ...]) -> None:
        """Strangers get 403. It is said once for all names, as clients can invent as
        many as they like."""
        if STRANGERS_REFUSED.code not in {code for code, _ in self._given}:
            self._give(STRANGERS_REFUSED, ", ".join(map(repr, names)))

    def _give(self, message: Message, *words: object) -> None:
        """Log a warning of these words, once."""
        if (message.code, words) not in self._given:
            self._given.add((message.code, words))
            message.log(*words)

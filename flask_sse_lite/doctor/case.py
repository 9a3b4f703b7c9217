"""The case: what a doctor is asked to look at, and with which means.

Only what the checks of a running server share lives here.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Flask

from ..channels import Channels
from ..event import RESERVED_CHANNEL_PREFIX
from .report import Report

#: The doctor's own channels begin with this.
CHANNEL_PREFIX = f"{RESERVED_CHANNEL_PREFIX}doctor."

#: Heartbeats for which the doctor listens to a silent stream: after two, a time-out
#: that is shorter than a heartbeat has shown, and so has one a little longer.
HEARTBEATS = 2.2

#: Seconds for which a part of an answer can be on its way. What takes longer, in any
#: usual network, is held.
PATIENCE = 5.0


@dataclass(frozen=True)
class Wanted:
    """What the operator asks for.

    :param url: the address of a stream, or of the application.
    :param headers: more headers of each request, for what needs a login.
    :param wait: seconds for which to listen to a silent stream; None for what the
        heartbeat asks for.
    :param patience: seconds for which an answer can be on its way.
    :param is_verified: whether the server's certificate must be good.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float | None = None
    patience: float = PATIENCE
    is_verified: bool = True


@dataclass
class Case:
    """A running server, and what is known of it."""

    app: Flask
    channels: Channels
    wanted: Wanted
    report: Report
    #: The doctor's own channels, which cannot be guessed: that of the stream whose
    #: events are measured, and that of its other streams.
    channel: str = field(default_factory=lambda: _new_channel())
    channel_of_others: str = field(default_factory=lambda: _new_channel())
    #: The address that was found to be the stream's.
    url: str = ""
    #: The proxy that answers, where it says its name.
    proxy: str = ""
    #: What the server has told of itself last; None where it has told nothing.
    told: Mapping[str, Any] | None = None
    #: The epochs of the positions that the server's answers named.
    epochs: set[str] = field(default_factory=set)

    @property
    def patience(self) -> float:
        """Seconds for which an answer can be on its way."""
        return self.wanted.patience


def _new_channel() -> str:
    return CHANNEL_PREFIX + secrets.token_urlsafe(16)

"""Positions: the ids that this extension gives to events, written and read.

A position is ``epoch-sequence``. The epoch names one life of a log, in 16 hexadecimal
digits; the sequence counts the events of all channels in that life. In the channel of a
run alone the name of the run follows: ``epoch-sequence-name``.

The grammar of these ids lives here, both ways, and so does what hides a run's name in
texts for people. No other module puts such an id together or takes one apart. What
stands at a position is unknown here.
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

from .event import BLANKS, RESERVED_CHANNEL_PREFIX

#: The sequence before every event. A reader of whom nothing is known begins there.
BEGINNING = 0

#: The epoch of a reader whose id means nothing to the log. No log has it.
UNKNOWN_EPOCH = ""

#: The channel of one run alone begins with this; the run's name follows.
RUN_PREFIX = f"{RESERVED_CHANNEL_PREFIX}run."

#: Logs show this in the place of a run's name.
HIDDEN = "(hidden)"

_EPOCH = "[0-9a-f]{16}"
_NAME = "[A-Za-z0-9_-]{22}"

#: A store counts in 64 bits: 19 digits.
_POSITION = re.compile(f"({_EPOCH})-(0|[1-9][0-9]{{0,18}})(?:-({_NAME}))?")

# A run's name, behind what precedes it in a channel, an address and an id. A query can
# have these encoded, and in either case.
_RUN_NAME = re.compile(
    f"(run(?:[./]|%2F)|{_EPOCH}(?:-|%2D)[0-9]{{1,19}}(?:-|%2D)){_NAME}"
    "(?![A-Za-z0-9_-])",
    re.IGNORECASE,
)


class Position(NamedTuple):
    """An id, taken apart. ``run`` is the name of the run that it names, if it does."""

    epoch: str
    sequence: int
    run: str | None


def new_epoch() -> str:
    """A name for another life of a log. Two lives never share one."""
    return secrets.token_hex(8)


def position_id(epoch: str, sequence: int, channel: str) -> str:
    """A position as an ``id:`` carries it. In a run's own channel the id names the run:
    a browser that comes back to the view that began the run is known by that."""
    if channel.startswith(RUN_PREFIX):
        return f"{epoch}-{sequence}-{channel.removeprefix(RUN_PREFIX)}"
    return f"{epoch}-{sequence}"


def parse_position(id: str) -> Position | None:
    """An id that a client sends, taken apart; None where no log gave it. Blanks around
    it do not count, since HTTP takes them away."""
    match = _POSITION.fullmatch(id.strip(BLANKS))
    return Position(match[1], int(match[2]), match[3]) if match else None


def is_position(id: str | None) -> bool:
    """Whether an event's id is one that a log gave."""
    return id is not None and _POSITION.fullmatch(id) is not None


def new_run_channel() -> str:
    """A channel for one run alone. Its name cannot be guessed: 128 random bits."""
    return RUN_PREFIX + secrets.token_urlsafe(16)


def run_channel(id: str) -> str | None:
    """The channel of the run that an id names; None where the id names no run."""
    position = parse_position(id)
    return RUN_PREFIX + position.run if position and position.run else None


def without_run_names(text: str) -> str:
    """A text for a log: every client that knows a run's name can read the run."""
    return _RUN_NAME.sub(rf"\1{HIDDEN}", text)

"""Entries: the form of an entry in Redis, both ways.

Here lives how an entry is written and read, and what stands for an entry that cannot be
read, because another program or a later release has written it. Nothing here asks
Redis.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ...event import Event, stored_event
from ...history.records import Record, unreadable
from ...position import position_id
from ...settings import MOST
from ...traced import checked_trace, trace_of, traced
from ..view import View

#: A position, or a time in milliseconds, as Redis keeps it.
_DIGITS = re.compile(rb"[0-9]{1,19}")


def packed(event: Event | None) -> bytes:
    """An event as it stands in Redis; empty for the end of a channel."""
    if event is None:
        return b""
    fields = [event.data, event.type, event.id, event.retry]
    if trace := trace_of(event):
        fields.append(trace)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def records(
    view: View, channel: str, entries: list[Any], epoch: str, now: int
) -> Iterator[Record]:
    """The records of a channel's entries, in order.

    :param now: Redis's time in milliseconds.
    """
    previous = None
    for entry in entries:
        position, fields = _position(entry[0]), _fields(entry[1])
        age = (now - number(fields.get(b"t"), now)) / 1000
        if previous is not None and (missing := before(entry)) > previous:
            # Somebody has deleted the entry before this one from the stream.
            yield unreadable(epoch, missing, age, channel)
        previous = position
        yield record(view, epoch, position, age, channel, fields.get(b"b"))


def record(
    view: View, epoch: str, sequence: int, age: float, channel: str, body: bytes | None
) -> Record:
    """The record of an entry; a gap if the entry cannot be read."""
    try:
        return _read(epoch, sequence, age, channel, body)
    except (ValueError, TypeError, RecursionError) as error:
        return view.cannot_read(epoch, sequence, age, channel, error)


def _read(
    epoch: str, sequence: int, age: float, channel: str, body: bytes | None
) -> Record:
    """Read an entry's body. Items after those that this release knows are ignored.

    :raises ValueError: (or another error) for a body that this release does not write.
    """
    if body is None:
        raise ValueError("The entry has no body")
    if not body:
        return Record(sequence, age, channel, None)
    fields = json.loads(body)
    if isinstance(fields, int):
        return Record(sequence, age, channel, None, budget=_budget(fields))
    if not isinstance(fields, list):
        raise TypeError("The body is no list")
    data, type, id, retry, *more = fields
    position = position_id(epoch, sequence, channel)
    event = stored_event(data, type, id, retry, channel, position)
    if more:
        event = traced(event, checked_trace(more[0]))
    return Record(sequence, age, channel, event)


def _budget(number: int) -> int:
    if isinstance(number, bool) or not 0 < number <= MOST:
        raise ValueError("A run's budget is a number of bytes")
    return number


def names_of(found: Collection[bytes]) -> list[str]:
    """Names of channels. A name that is not UTF-8 comes from another program, and is
    left out."""
    names = []
    for name in found:
        with suppress(UnicodeDecodeError):
            names.append(name.decode())
    return names


def _position(id: bytes) -> int:
    return int(id.partition(b"-")[0])


def _fields(words: Sequence[bytes]) -> dict[bytes, bytes]:
    """An entry's fields by their names. Some can be a later release's."""
    return dict(zip(words[::2], words[1::2], strict=False))


def number(text: bytes | None, otherwise: int) -> int:
    """A number as Redis keeps it; ``otherwise`` for what is no number."""
    return int(text) if text and _DIGITS.fullmatch(text) else otherwise


def before(entry: Any) -> int:
    """The position of the entry that stood before this one in its channel. If this one
    does not say it, all before it counts as lost."""
    id, words = entry
    position = _position(id)
    return min(number(_fields(words).get(b"p"), position - 1), position - 1)

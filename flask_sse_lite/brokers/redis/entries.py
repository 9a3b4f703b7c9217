"""Entries: how an entry stands in Redis, both ways.

Here lives what the fields of one entry say, and what is made of an entry that another
program, or a later release, has written. Nothing here speaks to Redis.
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
from ..view import View

#: A position, or a time in milliseconds, as Redis keeps it.
_DIGITS = re.compile(rb"[0-9]{1,19}")


def packed(event: Event | None) -> bytes:
    """An event as it stands in Redis; nothing for the end of a channel."""
    if event is None:
        return b""
    fields = [event.data, event.type, event.id, event.retry]
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
            # Somebody took out of the stream what stood there.
            yield unreadable(epoch, missing, age, channel)
        previous = position
        yield record(view, epoch, position, age, channel, fields.get(b"b"))


def record(
    view: View, epoch: str, sequence: int, age: float, channel: str, body: bytes | None
) -> Record:
    """The record of an entry, or what stands for one that cannot be read."""
    try:
        return _read(epoch, sequence, age, channel, body)
    except (ValueError, TypeError, RecursionError) as error:
        return view.cannot_read(epoch, sequence, age, channel, error)


def _read(
    epoch: str, sequence: int, age: float, channel: str, body: bytes | None
) -> Record:
    """:raises ValueError: (or what else comes of it) for what this release does not
    write. It passes over fields behind those that it knows."""
    if body is None:
        raise ValueError("The entry has no body")
    if not body:
        return Record(sequence, age, channel, None)
    fields = json.loads(body)
    if isinstance(fields, int):
        return Record(sequence, age, channel, None, budget=_budget(fields))
    if not isinstance(fields, list):
        raise TypeError("The body is no list")
    data, type, id, retry, *_ = fields
    position = position_id(epoch, sequence, channel)
    event = stored_event(data, type, id, retry, channel, position)
    return Record(sequence, age, channel, event)


def _budget(number: int) -> int:
    if isinstance(number, bool) or not 0 < number <= MOST:
        raise ValueError("A run's budget is a number of bytes")
    return number


def names_of(found: Collection[bytes]) -> list[str]:
    """Names of channels. A name that is no text is passed over: another program has put
    it there."""
    names = []
    for name in found:
        with suppress(UnicodeDecodeError):
            names.append(name.decode())
    return names


def _position(id: bytes) -> int:
    return int(id.partition(b"-")[0])


def _fields(words: Sequence[bytes]) -> dict[bytes, bytes]:
    """An entry's fields by their names. A release passes over those that it does not
    know."""
    return dict(zip(words[::2], words[1::2], strict=False))


def number(text: bytes | None, otherwise: int) -> int:
    """A number as Redis keeps it; ``otherwise`` for what is none."""
    return int(text) if text and _DIGITS.fullmatch(text) else otherwise


def before(entry: Any) -> int:
    """The position of what stood before an entry in its channel. Where the entry does
    not say it, all before it counts as lost."""
    id, words = entry
    position = _position(id)
    return min(number(_fields(words).get(b"p"), position - 1), position - 1)

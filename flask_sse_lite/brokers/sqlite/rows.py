"""Rows: the form of an entry in an SQLite file, both ways.

Here lives how a row is written and read, and what stands for a row that cannot be read,
because another program or a later release has written it. Nothing here uses a file.
"""

from __future__ import annotations

from typing import Any

from ...event import Event, stored_event
from ...history.records import Record
from ...position import position_id
from ...settings import MOST
from ...traced import checked_trace, trace_of, traced
from ..view import View

#: The type of an entry where a run begins. Its ``retry`` is the run's budget.
BEGINS = "begin"


def columns(event: Event | None) -> tuple[str | None, ...]:
    if event is None:
        return (None, None, None, None, None)
    retry = None if event.retry is None else str(event.retry)
    return (event.data, event.type, event.id, retry, trace_of(event))


def age_at(at: object, now: float) -> float:
    """Seconds since a time; 0 where that is no number."""
    return now - at if isinstance(at, (int, float)) else 0.0


def record(view: View, epoch: str, row: Any, now: float) -> Record:
    """The record of a row; a gap if the row cannot be read."""
    sequence, at, channel, *columns = row
    age = age_at(at, now)
    try:
        return _read(epoch, sequence, age, channel, *columns)
    except (ValueError, TypeError, OverflowError) as error:
        return view.cannot_read(epoch, sequence, age, channel, error)


def _read(
    epoch: str,
    sequence: int,
    age: float,
    channel: str,
    data: object,
    type: object,
    id: object,
    retry: Any,
    trace: object,
) -> Record:
    """:raises ValueError: (or another error) for a row that this release does not
    write."""
    retry = None if retry is None else int(retry)
    if data is None:
        budget = retry if type == BEGINS else 0
        if type not in (None, BEGINS) or not (type is None or 0 < budget <= MOST):
            raise ValueError("It is neither an end nor a beginning")
        return Record(sequence, age, channel, None, budget)
    position = position_id(epoch, sequence, channel)
    event = stored_event(data, type, id, retry, channel, position)
    if trace is not None:
        event = traced(event, checked_trace(trace))
    return Record(sequence, age, channel, event)

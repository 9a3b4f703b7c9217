"""Leaving: whether the application notices that a client has left.

Here lives how long a doctor waits for that. A proxy notices a client that left only
when it next sends to it, which is at a heartbeat, and the processes tell each other
their counts only now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import BrokerUnavailable
from . import asking, buffers
from .case import Case

#: Heartbeats within which a client that left must be noticed, also behind proxies that
#: find out by sending.
HEARTBEATS = 2.5

#: Seconds between two looks at the count.
LOOK = 0.5


def is_counted(case: Case) -> bool:
    """Whether the doctor's stream comes to be counted: only then can it be missed."""
    # Behind a proxy that hides that clients leave, the one that came back counts, too.
    if case.told is not None and _wait_for(case, lambda count: count > 0):
        return True
    why = "the server does not tell how many streams it has."
    case.report.unknown("leaving", why)
    return False


def examine(case: Case) -> None:
    """See whether the doctor's own stream, which was left just now, counts no more."""
    report = case.report
    began = time.monotonic()
    if _wait_for(case, lambda count: count == 0):
        seconds = time.monotonic() - began
        report.ok("leaving", f"A client that left was missed within {seconds:.1f} s.")
        return
    buffers.end_streams(case)
    report.wrong(
        "leaving",
        "The application does not notice that a client has left: each one that ever "
        "came counts and costs on.",
        f"{time.monotonic() - began:.0f} s after the doctor had left its stream, "
        "sse.subscribers() still counted it.",
        by=case.proxy,
    )


def _wait_for(case: Case, is_right: Callable[[int], bool]) -> bool:
    """Whether the count of streams of the doctor's channel becomes right in time."""
    heartbeat = float(case.told["heartbeat"]) if case.told else 0.0
    takes = case.channels.broker.counting_takes
    deadline = time.monotonic() + HEARTBEATS * heartbeat + 2 * takes + case.patience
    while (found := _count(case)) is not None and not is_right(found):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK)
    return found is not None


def _count(case: Case) -> int | None:
    """How many streams listen to the doctor's channel; None where nobody says it."""
    broker = case.channels.broker
    if not broker.is_shared:
        with asking.short_stream(case) as other:
            other.wait(lambda: other.head, case.patience)
        asking.note(case, other)
        found: int | None = case.told["subscribers"] if case.told else None
        return found
    try:
        return broker.subscribers(case.channel)
    except BrokerUnavailable:
        return None

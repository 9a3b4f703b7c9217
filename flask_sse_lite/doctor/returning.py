"""Returning: clients that come back, and what reaches the application of what they say.

Here lives what is seen of short streams beside the first one: an id that no log gave
must be answered by ``stream-gap``, and the id of the first stream's opening by the
events that came behind it.
"""

from __future__ import annotations

from urllib.parse import urlencode

from ..own_events import GAP, OPEN
from ..response import LAST_ID_PARAMETER
from . import arrival, asking, held_worker, passage
from .case import Case
from .wire import Answer

#: An id of a life that no log has had: all zeros are not drawn.
OF_NO_LOG = "0000000000000000-1"


def examine(case: Case, stream: Answer) -> None:
    """Come back in three ways."""
    if not _judge_header(case, stream):
        return
    _judge_query(case)
    _judge_resuming(case, stream)
    _judge_epochs(case)


def _judge_header(case: Case, stream: Answer) -> bool:
    """:returns: whether the server has answered."""
    with asking.short_stream(case, headers={"Last-Event-ID": OF_NO_LOG}) as other:
        has_gap = _has_gap(case, other)
    if _is_turned_away(case, other):
        return False
    if other.head is None or held_worker.is_late(stream, other):
        is_held = held_worker.judge(case, stream)
        if is_held or other.head is None:
            return False
    case.report.ok("held-worker", "The server answers while a stream is open.")
    if has_gap:
        case.report.ok("last-event-id", "Last-Event-ID reaches the application.")
        return True
    if _is_silent(case, other, "last-event-id"):
        return False
    case.report.wrong(
        "last-event-id",
        "Last-Event-ID does not reach the application: a browser that comes back "
        "misses what was published meanwhile, and is not told.",
        _how(case, "last_event_id", "The header"),
        by=case.proxy,
    )
    return True


def _judge_query(case: Case) -> None:
    query = urlencode({LAST_ID_PARAMETER: OF_NO_LOG})
    with asking.short_stream(case, query=query) as other:
        if _has_gap(case, other):
            case.report.ok("query", "The query reaches the application.")
            return
    if _is_turned_away(case, other) or _is_silent(case, other, "query"):
        return
    case.report.wrong(
        "query",
        "The query does not reach the application: neither the channels that a page "
        "asks for, nor where it goes on.",
        _how(case, "query", "The parameter"),
        by=case.proxy,
    )


def _has_gap(case: Case, other: Answer) -> bool:
    other.wait(lambda: other.head, case.patience)
    other.wait(lambda: other.event(OPEN), case.patience)
    other.wait(lambda: other.event(GAP), case.patience)
    asking.note(case, other)
    gap = other.event(GAP)
    passage.note_epoch(case, gap)
    return gap is not None


def _is_turned_away(case: Case, other: Answer) -> bool:
    """Whether a short stream was told to come back later, so that it shows nothing of
    what it came with: the application has room for few streams."""
    is_one = bool(other.head and other.end and not other.event(OPEN))
    if is_one and arrival.COMES_BACK.search(other.body):
        arrival.blame_end(case, other)
        return True
    return False


def _is_silent(case: Case, other: Answer, code: str) -> bool:
    """Whether a short stream did not begin, so that it shows nothing of what it came
    with, though another one did: the server is busy."""
    is_silent = not other.event(OPEN)
    if is_silent:
        case.report.unknown(
            code,
            f"a stream did not begin within {case.patience:g} s. Try again, with a "
            "larger --patience.",
        )
    return is_silent


def _how(case: Case, key: str, what: str) -> str:
    how = "An id that no log has given was not answered by stream-gap."
    if case.told is not None and not case.told.get(key):
        how += f" {what} had not arrived, as the application says."
    return how


def _judge_resuming(case: Case, stream: Answer) -> None:
    opening = stream.event(OPEN)
    if opening is None or opening.event.id is None:
        return
    missed = [heard for heard in stream.heard if heard.event.type == "doctor"]
    headers = {"Last-Event-ID": opening.event.id}
    with asking.short_stream(case, headers=headers, is_same=True) as other:
        other.wait(lambda: other.event(OPEN), case.patience)
        if missed:
            other.wait(lambda: other.event("doctor") or other.event(GAP), case.patience)
        got, gap = other.event("doctor"), other.event(GAP)
    passage.note_epoch(case, gap)
    if _is_turned_away(case, other):
        return
    if (got or not missed) and not gap:
        case.report.ok("resuming", "Who comes back gets what it has missed.")
        return
    if case.report.says("last-event-id", "wrong"):
        return  # That is why.
    case.report.wrong(
        "resuming",
        "A client that comes back does not get what it has missed.",
        "It came back with the id of the opening, and got "
        f"{GAP if gap else 'none of the events behind it'}.",
    )


def _judge_epochs(case: Case) -> None:
    """Judge whether all answers were of one log."""
    if len(case.epochs) > 1 and not case.channels.broker.is_shared:
        passage.judge_several(case)

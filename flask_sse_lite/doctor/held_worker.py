"""Held workers: whether a server answers while a stream is open.

Here lives what tells a held server from a busy one. A request that waits for nothing is
*bare*: how long it takes says how busy the server, the network and this machine are. A
server is held if bare requests are answered without a stream, and twice not beside one.
"""

from __future__ import annotations

from . import asking
from .case import Case
from .wire import Answer

#: Heartbeats within which a server that is held notices that the stream's client has
#: left: it notices when it next sends to it.
HEARTBEATS = 2.5

#: How many times longer than without a stream a request can take beside one, where the
#: operator's patience is less.
TIMES = 10


def bare(case: Case) -> Answer:
    """A request that waits for nothing."""
    return asking.whether_it_answers(case, case.url)


def is_late(stream: Answer, other: Answer) -> bool:
    """Whether a request that was asked beside a stream had to wait for its end."""
    stream.wait(lambda: False, 0)
    return bool(stream.end and other.head) and (
        other.began < stream.ended_at <= other.head_at
    )


def judge(case: Case, stream: Answer) -> bool:
    """Judge a server that did not answer a request beside a stream in time, or only
    when the stream had ended. The stream is left, unless it has ended.

    :returns: whether the server is held.
    """
    if not stream.end:
        stream.leave()
    heartbeat = case.told["heartbeat"] if case.told else None
    heartbeat = heartbeat or case.channels.settings.heartbeat
    with bare(case) as alone:
        alone.wait(lambda: alone.head, HEARTBEATS * heartbeat + case.patience)
    took = alone.head_at - alone.began
    if alone.head and _is_answered_again(case, max(case.patience, TIMES * took)):
        case.report.unknown(
            "held-worker",
            f"beside a stream, one request got no answer within {case.patience:g} s "
            "and another one did: the server or this machine is busy. Try again, with "
            "a larger --patience.",
        )
        return False
    without = f"was answered after {took:.2f} s" if alone.head else "got none, either"
    case.report.wrong(
        "held-worker",
        "While a stream is open, the server answers nobody else.",
        f"A request beside a stream got no answer within {case.patience:g} s, or only "
        f"when the stream had ended. One after the stream was left {without}.",
    )
    return True


def _is_answered_again(case: Case, seconds: float) -> bool:
    """Whether a request beside another stream is answered before that ends."""
    with asking.stream(case, case.url) as stream:
        stream.wait(lambda: stream.beats, seconds)
        with bare(case) as other:
            other.wait(lambda: other.head, seconds)
        return bool(other.head) and not is_late(stream, other)

"""Buffers: what did not come in time, and whether it comes when the stream ends.

Here lives the proof of a buffer on the way. A doctor that waits in vain has the
application end the doctor's own stream: what was held then comes, all at once. Where a
bare request is slow as well, nothing is proven.
"""

from __future__ import annotations

from ..errors import BrokerUnavailable
from ..history.revocations import REVOCATIONS, Revocation
from . import asking, held_worker
from .case import Case
from .wire import Answer

#: The share of the patience within which a bare request must be answered, so that an
#: event which does not come is taken for one that is held back. (A held worker, which
#: answers no request, is told apart.)
QUICK = 0.5


def judge(case: Case, stream: Answer, what: str) -> None:
    """Note that something did not come. The stream has ended then.

    :param what: the subject of the sentence.
    """
    with held_worker.bare(case) as bare:
        bare.wait(lambda: bare.head, case.patience)
    how = f"{what} did not come within {case.patience:g} s"
    how += _seen_at_its_end(case, stream)
    if not bare.head:
        is_busy = not held_worker.judge(case, stream)
    else:
        is_busy = bare.head_at - bare.began > QUICK * case.patience
    if is_busy:
        case.report.unknown(
            "buffering",
            f"{how[0].lower()}{how[1:]} A bare request was slow as well: the server "
            "or this machine is busy. Try again, with a larger --patience.",
        )
        return
    case.report.wrong(
        "buffering",
        "Events are held back on their way, so that clients get them late or never.",
        how,
        by=case.proxy,
    )


def _seen_at_its_end(case: Case, stream: Answer) -> str:
    """What comes when the stream ends, as the rest of a sentence."""
    before = len(stream.beats), stream.head
    if end_streams(case) and stream.wait(
        lambda: (len(stream.beats), stream.head) != before, case.patience
    ):
        at = stream.beats[-1] if stream.beats else stream.head_at
        asking.note(case, stream)
        return (
            ". It came when the application had ended the stream, after "
            f"{at - stream.began:.1f} s."
        )
    return f", and then the stream ended: {stream.end}." if stream.end else "."


def end_streams(case: Case) -> bool:
    """Have the application end the doctor's own streams, if this command can.

    :returns: whether it could be told.
    """
    broker = case.channels.broker
    if not broker.is_shared:
        return False
    try:
        for channel in (case.channel, case.channel_of_others):
            broker.publish(REVOCATIONS, Revocation(None, channel).to_event())
    except BrokerUnavailable:
        return False
    return True

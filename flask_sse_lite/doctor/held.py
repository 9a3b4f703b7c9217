"""Held: what did not come in time, and whether it comes when the stream ends.

Here lives the proof of a buffer on the way. A doctor that waits in vain has the
application end the doctor's own stream: what was held then comes, all at once.
"""

from __future__ import annotations

from ..errors import BrokerUnavailable
from ..history.revocations import REVOCATIONS, Revocation
from . import asking
from .case import Case
from .wire import Answer


def judge(case: Case, stream: Answer, what: str) -> None:
    """Note that something did not come.

    :param what: the subject of the sentence.
    """
    waited = f"{what} did not come within {case.patience:g} s"
    before = len(stream.beats), stream.head
    if end_streams(case) and stream.wait(
        lambda: (len(stream.beats), stream.head) != before, case.patience
    ):
        at = stream.beats[-1] if stream.beats else stream.head_at
        how = (
            f"{waited}. It came when the application had ended the stream, after "
            f"{at - stream.began:.1f} s."
        )
        asking.note(case, stream)
    elif stream.end:
        how = f"{waited}, and then the stream ended: {stream.end}."
    else:
        how = f"{waited}."
    if not _answers_beside(case):
        case.report.wrong(
            "held-worker",
            "While a stream is open, the server answers nobody else.",
            f"A request beside the stream got no answer within {case.patience:g} s.",
        )
    case.report.wrong(
        "buffering",
        "Events are held back on their way, so that clients get them late or never.",
        how,
        by=case.proxy,
    )


def _answers_beside(case: Case) -> bool:
    with asking.whether_it_answers(case, case.url) as answer:
        return answer.wait(lambda: answer.head, case.patience)


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

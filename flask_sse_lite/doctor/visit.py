"""The visit: a running server is looked at from outside, as a browser sees it.

Here lives the order of the visit, and what every request of it brings along. Each check
lives in a module of its own: ``arrival`` finds the stream, ``passage`` looks at how its
events come through, ``returning`` at clients that come back, ``leaving`` at clients
that left for good. ``buffers`` proves that something on the way holds events back, and
``held_worker`` that a stream occupies its worker. ``account_findings`` judges what the
server says of itself.
"""

from __future__ import annotations

from . import account_findings, arrival, buffers, leaving, passage, returning
from .case import Case


def examine(case: Case) -> None:
    """Ask a server, and note what is wrong.

    :raises InvalidValue: for an address that cannot be one.
    """
    stream = arrival.find_stream(case)
    if stream is None:
        return
    with stream:
        if not passage.begins(case, stream):
            return
        passage.judge_head(case, stream)
        account_findings.judge(case)
        if account_findings.is_unfit(case):
            # No thread of such a server comes back: it gets no other stream.
            buffers.end_streams(case)
            return
        if not passage.measure(case, stream):
            return
        if not case.report.says("held-worker", "wrong"):
            returning.examine(case, stream)
        account_findings.judge(case)
        if stream.is_left:
            return  # held_worker has left it, to tell a held server from a busy one.
        passage.listen(case, stream)
        is_counted = not stream.end and leaving.is_counted(case)
    if is_counted:
        leaving.examine(case)

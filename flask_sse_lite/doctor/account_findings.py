"""Account findings: what a server says of itself, judged.

Here lives what follows from an account. How the account is had, and its form, live in
``account``.
"""

from __future__ import annotations

from ..servers.surroundings import ASGI_ADAPTERS
from .case import Case

#: The reasons, of those for which a server keeps streams, that an operator can remove.
#: docs/deployment.rst explains each.
AVOIDABLE = (
    *("unsupported-server", "forking-server", "content-encoding", "nothing-sent"),
    *("body-changed", "body-taken", "middleware-iterates", "middleware-hides"),
    "no-descriptors",
)

HOW = "The server says so."


def is_unfit(case: Case) -> bool:
    """Whether the server is one under which streams fail."""
    return bool(case.told and case.told["unfit"])


def judge(case: Case) -> None:
    """Judge the newest account."""
    if case.told is None:
        return
    _judge_server(case)
    _judge_workers(case)
    _judge_room(case)
    _judge_reasons(case)


def _judge_server(case: Case) -> None:
    assert case.told
    if name := str(case.told["unfit"]):
        if name in ASGI_ADAPTERS:
            case.report.wrong(
                "asgi-adapter",
                f"An adapter of ASGI ({name}) serves the application. It never tells "
                "that a client has left: each stream holds one of its threads, and "
                "when all are held, nothing is answered any more.",
                HOW,
            )
        else:
            case.report.wrong(
                "collecting-server",
                f"{name} collects a whole response before it sends any of it.",
                HOW,
            )
    else:
        case.report.ok("asgi-adapter", "A WSGI server serves the application.")
    if hazards := str(case.told["hazards"]):
        case.report.warning("server-options", hazards, HOW)
    else:
        case.report.ok("server-options", "The server has no option that harms streams.")


def _judge_workers(case: Case) -> None:
    assert case.told
    count = case.told["workers"]
    if case.channels.broker.is_shared or count == 1:
        case.report.ok("workers", "All processes share the broker, or there is one.")
    elif count is None:
        case.report.unknown(
            "workers",
            "the server says only that there can be several processes; with memory:// "
            "there must be one.",
        )
    else:
        case.report.wrong(
            "workers",
            f"The server runs several worker processes ({count}), and SSE_URL is "
            "memory://, which is one process's own: a browser sees only what its own "
            "worker publishes.",
            HOW,
        )


def _judge_room(case: Case) -> None:
    assert case.told
    most, room = case.told["most"], case.told["room"]
    if most is not None and most > room:
        case.report.wrong(
            "open-files",
            f"SSE_MAX_CONNECTIONS is {most}, and the server's process has file "
            f"descriptors for {room} streams.",
            HOW,
        )
    else:
        case.report.ok("open-files", f"A process has room for {most or room} streams.")


def _judge_reasons(case: Case) -> None:
    assert case.told
    reasons = case.told["reasons"]
    if "no-threads" in reasons:
        case.report.warning(
            "uwsgi-threads",
            "uWSGI runs without --enable-threads: its interpreter stands still between "
            "two requests, and each stream holds a worker.",
            HOW,
        )
    if avoidable := sorted(set(reasons).intersection(AVOIDABLE)):
        case.report.warning(
            "kept-streams",
            "Streams are not taken over from the server, so that each holds one of its "
            f"threads or greenlets: {', '.join(avoidable)}.",
            f"{HOW} It counts by reason: {reasons}.",
        )
    elif not reasons:
        case.report.ok("kept-streams", "Streams are taken over from the server.")

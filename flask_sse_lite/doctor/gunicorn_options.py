"""gunicorn's options: what follows for streams from those that a gunicorn has.

Here lives which options truly matter, and nothing of the others: a worker that answers
no request for its ``timeout`` is hung with or without streams. How the options are read
is unknown here.
"""

from __future__ import annotations

import os
from contextlib import suppress

from ..channels import Channels
from .gunicorn_settings import OPTIONS, UNREAD
from .own_threads import own_threads
from .report import Report
from .running import Running, options

#: gunicorn's worker classes under which no stream works, as words in their names: those
#: that speak ASGI, one that collects a response, and one that the hub refuses.
ASGI_WORKERS = ("asgi", "uvicorn", "uvloop")
COLLECTING_WORKER, REFUSED_WORKER = "tornado", "eventlet"

#: Seconds of gunicorn's graceful_timeout that let streams end properly. Their ends are
#: sent at once, but with less gunicorn kills the worker before.
LEAST_GRACE = 1.0

#: What gunicorn has by default: seconds after which it kills a worker that is held, and
#: connections of a worker.
DEFAULT_TIMEOUT, DEFAULT_CONNECTIONS = "30", "1000"


#: The values by which an option that is a switch is off.
OFF = ("", "False", "0", UNREAD)


def judge(server: Running, channels: Channels, report: Report) -> None:
    """Judge the options of a gunicorn."""
    settings = channels.settings
    _judge_unread(server, report)
    _judge_class(server, report)
    _judge_grace(server, report)
    _judge_environment(server, report)
    if not channels.broker.is_shared and not other_broker(server):
        _judge_preload(server, report)
    if settings.handoff is False:
        _judge_held(server, settings.max_connections, "SSE_HANDOFF is False", report)
    elif server.option("--certfile") not in OFF:
        most = settings.max_connections
        _judge_held(server, most, "gunicorn itself speaks TLS (certfile)", report)


def other_broker(server: Running) -> str:
    """The variable by which gunicorn gives an application a broker's URL that this
    command does not have; empty where it gives none."""
    for variable in options(server.words, "--env", "-e"):
        name, _, value = variable.partition("=")
        if name.endswith("SSE_URL") and os.environ.get(name) != value:
            return name
    return ""


def _class(server: Running) -> str:
    """The name of gunicorn's worker class. With several threads, sync is gthread."""
    said = server.option("--worker-class", "-k") or "sync"
    threads = server.option("--threads")
    return "gthread" if said == "sync" and threads not in ("", "1") else said


def _judge_unread(server: Running, report: Report) -> None:
    """Note which settings are made by code. A running server tells a visit of them."""
    unread = [
        name for name, option in OPTIONS.items() if server.option(option) == UNREAD
    ]
    if unread:
        report.unknown(
            "server-options",
            f"{' and '.join(server.sources)} can make {', '.join(unread)} by code, "
            "which the doctor does not run. With --url, the server tells what harms "
            "streams.",
        )


def _judge_class(server: Running, report: Report) -> None:
    name = _class(server).lower()
    if any(word in name for word in ASGI_WORKERS):
        report.wrong(
            "asgi-adapter",
            f"gunicorn's worker class is {name}, which serves ASGI. An adapter of ASGI "
            "never tells a WSGI application that a client has left.",
            server.how,
        )
    elif COLLECTING_WORKER in name:
        report.wrong(
            "collecting-server",
            f"gunicorn's worker class is {name}, which collects a whole response "
            "before it sends any of it.",
            server.how,
        )
    elif REFUSED_WORKER in name:
        report.wrong(
            "server-options",
            f"gunicorn's worker class is {name}, under which each stream is answered "
            "by an error.",
            server.how,
        )


def _judge_grace(server: Running, report: Report) -> None:
    with suppress(ValueError):
        grace = float(server.option("--graceful-timeout"))
        if grace < LEAST_GRACE:
            report.warning(
                "server-options",
                f"gunicorn's graceful_timeout is {grace:g}: at each restart a worker "
                "can be killed before its streams have ended, and answers of "
                "generators are cut.",
                server.how,
            )


def _judge_environment(server: Running, report: Report) -> None:
    if name := other_broker(server):
        report.wrong(
            "same-broker",
            f"gunicorn gives the application a {name} (raw_env or --env), which this "
            "command does not have: it reads another configuration.",
            server.how,
        )


def _judge_preload(server: Running, report: Report) -> None:
    """Judge threads of the application under ``memory://``. Where a store is shared,
    it is well that one process publishes, and not each worker."""
    if server.option("--preload") not in OFF and (names := own_threads()):
        report.warning(
            "server-options",
            "gunicorn loads the application before it forks (preload_app), and the "
            f"application starts threads when it is loaded ({', '.join(names)}). They "
            "run in gunicorn's master alone. SSE_URL is memory://: what they publish "
            "reaches nobody.",
            server.how,
        )


def _judge_held(
    server: Running, most: int | None, because: str, report: Report
) -> None:
    """Judge a server that keeps all streams."""
    name = _class(server)
    if name == "sync":
        timeout = server.option("--timeout", "-t") or DEFAULT_TIMEOUT
        report.wrong(
            "held-worker",
            f"{because}, and gunicorn's worker is sync, with one thread: a "
            "stream holds it, so that nobody else is answered, until gunicorn kills it "
            f"after its timeout ({timeout} s).",
            server.how,
        )
        return
    names = ("--threads",) if name == "gthread" else ("--worker-connections",)
    room = server.option(*names) or DEFAULT_CONNECTIONS
    if most is not None and room.isdecimal() and most > int(room):
        report.warning(
            "kept-streams",
            f"{because}, so that each stream holds a place of the worker. A "
            f"worker has {room} ({names[0]}), and SSE_MAX_CONNECTIONS is {most}: when "
            "all are held, nobody else is answered.",
            server.how,
        )

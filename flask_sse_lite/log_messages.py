"""Log messages: every warning and every error that this package logs, with its code.

Here live the texts and codes, and how one is logged; when one is, the module that logs
it decides. ``docs/log-messages.rst`` explains each code to operators, and a test
compares the two. What is logged at the levels INFO and DEBUG has no code, and stands
where it is logged.

A code never changes its meaning, and the code of a message that is gone is not given
again: filters and runbooks name codes.
"""

from __future__ import annotations

import logging
import traceback
from contextlib import suppress
from typing import Any

logger = logging.getLogger("flask_sse_lite")

_levels = {"W": logging.WARNING, "E": logging.ERROR}


class Message:
    """One message.

    :param code: such as ``"SSE-W07"``: a warning has a W, an error an E.
    :param text: with the places of its words, as ``logging`` fills them.
    """

    __slots__ = ("code", "level", "text")

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        self.text = text
        self.level = _levels[code[4]]

    def log(
        self,
        *words: object,
        error: BaseException | bool | None = None,
        to: logging.Logger = logger,
        level: int | None = None,
        **extra: Any,
    ) -> None:
        """Log the message, with its code in front. The record has the code as
        ``sse_code``. What a handler or a filter of the application's raises ends
        nothing of ours: it goes to the standard error, as from logging's own handlers.

        :param error: an exception whose traceback is logged; True for the one that is
            being handled.
        :param to: the application's logger, for what went wrong in a request.
        :param level: another level than the code's.
        :param extra: what else the record has, each under its name behind ``sse_``.
            Never an identity, a token or the name of a run.
        """
        try:
            to.log(
                self.level if level is None else level,
                f"{self.code}: {self.text}",
                *words,
                exc_info=error,
                extra={
                    "sse_code": self.code,
                    **{f"sse_{name}": value for name, value in extra.items()},
                },
                stacklevel=2,
            )
        except Exception:
            with suppress(Exception):
                traceback.print_exc()


# What an operator can do something about

UNREAD_KEY = Message("SSE-W01", "The configuration has the key %s, which is not read%s")

REDIS_URL_UNREAD = Message(
    "SSE-W02",
    "REDIS_URL is set, but not read here. Set SSE_URL to publish through a broker; "
    "without it, events stay in one process.",
)

ENVIRONMENT_UNREAD = Message(
    "SSE-W03",
    "SSE_URL is set in the environment, but read from app.config alone: "
    'app.config["SSE_URL"] = os.environ["SSE_URL"], or app.config.from_prefixed_env() '
    "and FLASK_SSE_URL.",
)

_SHARE = (
    'Set app.config["SSE_URL"] to a broker that processes share, such as '
    "sqlite:///events.db, or run one worker (gunicorn -k gevent -w 1)."
)

PERHAPS_SIBLINGS = Message(
    "SSE-W04",
    "The server says that it may run several processes, and SSE_URL is memory://, "
    "which is one process's own. If there is one process, all is well (adapters of "
    "ASGI say so in any case). If there are more, a browser sees only what the process "
    f"that it is connected to publishes. {_SHARE}",
)

SIBLINGS = Message(
    "SSE-W05",
    "The server runs several worker processes (%s), and SSE_URL is memory://, which is "
    "one process's own: a browser sees only what the worker that it is connected to "
    f"publishes. {_SHARE}",
)

SILENCE = Message(
    "SSE-W06",
    "An event was published by a process that has served no request so far, and "
    "SSE_URL is memory://, which is one process's own: unless this is the web server "
    "itself, no browser will ever see its events. Publish from the web application, or "
    'set app.config["SSE_URL"] to a broker that processes share, such as '
    "sqlite:///events.db.",
)

STRANGERS_REFUSED = Message(
    "SSE-W07",
    "A client asked for %s, and got 403: there is no authorizer, and "
    "SSE_PUBLIC_CHANNELS does not allow that. (Others are told of at the level DEBUG.)",
)

SHARED_FUNCTION = Message("SSE-W08", "The application %r %s. %s")

BROWSERS_TYPE = Message(
    "SSE-W09",
    "An event has the type %r: a browser also calls source.%s and "
    'addEventListener("%s") for the state of its connection, and a page takes one for '
    "the other. Use another type.",
)

NOT_HANDED_OFF = Message(
    "SSE-W10",
    "Event streams cannot be handed off, and each holds a thread or a greenlet of the "
    "server: %s",
)

ASGI_ADAPTER = Message(
    "SSE-W11",
    "An adapter of ASGI (%s) serves event streams. Such an adapter never tells an "
    "application that a client has left: each stream holds one of the adapter's "
    "threads until it ends by itself, and when all are held, nothing is answered any "
    "more. Serve the application by a WSGI server (gunicorn), or set "
    'app.config["SSE_MAX_AGE"], after which streams end and browsers come back, and '
    "give the adapter more threads than there are streams.",
)

COLLECTED_BY_SERVER = Message(
    "SSE-W12",
    "Event streams do not reach their clients: the server (%s) collects a whole "
    "response before it sends any of it, and a stream has no end. Serve the "
    "application by a WSGI server that sends what it gets (gunicorn).",
)

NOT_AS_IT_IS = Message(
    "SSE-W13", "An EventStream does not reach its client as it is: %s"
)

SERVER_OPTION = Message("SSE-W14", "%s")

STORE_AWAY = Message("SSE-W15", "%s. Open streams wait for it")

REDIS_POLICY = Message(
    "SSE-W16",
    "%s has the maxmemory-policy %s: when it is full, it deletes keys that hold "
    "events, runs and positions. Set it to %s, under which a publish fails instead.",
)

REDIS_LIFE_UNTOLD = Message(
    "SSE-W17",
    "%s does not tell which of its lives this is (%s). If a restart loses events, "
    "clients are told only if some process still knows a newer position. Allow its "
    "user the command INFO, or SCRIPT.",
)

REDIS_KEEPS_SCRIPTS = Message(
    "SSE-W18",
    "%s does not allow INFO, and is older than Redis %s: the mark of its life can "
    "outlive lost events. Clients are then told of the loss only if some process still "
    "knows a newer position. Allow its user the command INFO.",
)

REDIS_FORMAT = Message(
    "SSE-W19",
    "%s has a store of the format %s, which a later release has made; this one knows "
    "the format %s. What it cannot read is a stream-gap.",
)

NO_BELL = Message(
    "SSE-W20",
    "No socket can be made in %s (%s), so this process looks for news every %s s",
)

NO_WITNESS = Message(
    "SSE-W21",
    "%s has no witness beside it (%s). If it is put back to an earlier state, clients "
    "are not told",
)

UNREADABLE_ENTRY = Message(
    "SSE-W22",
    "%s has an entry in %s that this release cannot read (%s). Readers of that channel "
    "get a stream-gap in its place. Another program, or a later release, has written "
    "it.",
)

BAD_REQUEST = Message(
    "SSE-W23",
    "A request for the endpoint %r is answered by 400, as the client %s: %s",
)

SIGNALS_DROPPED = Message(
    "SSE-W24",
    "Signals are dropped, the first of them %s: their receivers take longer than what "
    "they are told of",
)

SIGNALS_AGAIN = Message("SSE-W25", "Signals are sent again. Until now %s were dropped")

REDIS_SIZES_UNTOLD = Message(
    "SSE-W26",
    "%s does not say how large a key is, so SSE_HISTORY_BYTES cannot hold there. Allow "
    "its user the command MEMORY USAGE.",
)

# What has failed

HUB_FAILED = Message("SSE-E01", "The hub failed; it goes on in %s s")

HUB_FAILED_TWICE = Message("SSE-E02", "The hub has failed twice at once")

HUB_STUMBLED = Message("SSE-E03", "The hub could not go on with %r")

NOT_CLOSED = Message("SSE-E04", "A stream's connection could not be closed")

NOT_STOPPED = Message("SSE-E05", "The hub could not stop %r")

NO_TIME_TOLD = Message("SSE-E06", "The hub's regular look at %r failed")

FOLLOWING_FAILED = Message("SSE-E07", "Following %s failed")

RUN_CONTEXT_FAILED = Message("SSE-E08", "A run's application context failed")

RUN_BROKEN_OFF = Message("SSE-E09", "A run is broken off: %s")

RUN_FAILED = Message("SSE-E10", "A run could not go on")

RUN_NOT_CLOSED = Message("SSE-E11", "A run's generator failed at its close")

RUN_END_UNTOLD = Message(
    "SSE-E12",
    "The end of a run could not be told: %s. Whoever reads the run is told that it is "
    "lost, when the broker is back",
)

RUN_END_FAILED = Message("SSE-E13", "The end of a run could not be told")

ITERABLE_NOT_CLOSED = Message(
    "SSE-E14", "An event stream's iterable failed at its close"
)

ITERABLE_FAILED = Message("SSE-E15", "An event stream's iterable failed")

ON_ERROR_FAILED = Message("SSE-E16", "What a client is told of an error failed too")

LAST_WORDS_FAILED = Message(
    "SSE-E17", "What a client is told of its server's stop failed"
)

NOT_PUBLISHED = Message("SSE-E18", "Not published after a commit: %r")

UNSUPPORTED_SERVER = Message("SSE-E19", "A stream could not begin: %s")

BROKER_UNAVAILABLE = Message("SSE-E20", "A stream could not begin: %s")

RECEIVER_FAILED = Message("SSE-E21", "A receiver of the signal %s failed: %r")

SIGNAL_CONTEXT_FAILED = Message(
    "SSE-E22", "The application's context of the signal %s failed"
)

LOOK_FAILED = Message("SSE-E23", "Metrics could not be brought up to date: %r")

PRESENCE_FAILED = Message("SSE-E24", "It could not be told who comes and leaves")

WEIGHING_FAILED = Message("SSE-E25", "Weighing %s failed")

RUN_UNASKED = Message("SSE-E26", "It could not be asked whether anybody reads a run")

#: All messages, by code.
MESSAGES = {
    message.code: message
    for message in list(globals().values())
    if isinstance(message, Message)
}

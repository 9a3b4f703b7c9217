"""The access log's line for a request whose connection was taken over.

Most servers write a line of their own, as if the client had left at once. gunicorn
before 21 writes none, and the line of ``gevent.pywsgi`` shows an odd size: see
``SSE_ACCESS_LOG``. Who can listen is decided in ``permission``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from ..position import HIDDEN, RUN_PREFIX, without_run_names
from ..settings import TOKEN_PARAMETER

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("flask_sse_lite.access")


def log_request(environ: WSGIEnvironment, channels: Iterable[str] = ()) -> None:
    """Write the line, in the Common Log Format. Its size is ``-``, because nobody knows
    yet how much will be sent.

    :param channels: what is streamed. The name of a run is hidden, because everybody
        who knows it can read that run. A token is hidden for the same reason.
    """
    target = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    if query := environ.get("QUERY_STRING"):
        target += f"?{_without_token(query)}"
    for channel in channels:
        if channel.startswith(RUN_PREFIX):
            # A route of the application's own can have the name anywhere.
            target = target.replace(channel.removeprefix(RUN_PREFIX), HIDDEN)
    target = without_run_names(target)
    logger.info(
        '%s - %s [%s] "%s %s %s" 200 -',
        environ.get("REMOTE_ADDR") or "-",
        environ.get("REMOTE_USER") or "-",
        time.strftime("%d/%b/%Y:%H:%M:%S %z"),
        environ["REQUEST_METHOD"],
        # The path is decoded, and can contain a newline.
        target.encode("unicode_escape").decode(),
        environ["SERVER_PROTOCOL"],
    )


def _without_token(query: str) -> str:
    """A query whose ``token`` is hidden, however the client has encoded the name."""
    pairs = [pair.partition("=") for pair in query.split("&")]
    return "&".join(
        f"{name}={HIDDEN}"
        if unquote_plus(name) == TOKEN_PARAMETER
        else f"{name}{sign}{value}"
        for name, sign, value in pairs
    )

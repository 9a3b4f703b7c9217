"""The access log's line of a request whose connection was taken over.

Here lives only that. Most servers write their own, as if the client had left at once;
some write none, or one with an odd status (``SSE_ACCESS_LOG``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..position import HIDDEN, RUN_PREFIX, without_run_names

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("flask_sse_lite.access")


def log_request(environ: WSGIEnvironment, channels: Iterable[str] = ()) -> None:
    """Write the line, in the Common Log Format; how much will be sent is not known.

    :param channels: what is streamed. The name of a run is hidden, for it is all that
        one needs to read that run.
    """
    target = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    if query := environ.get("QUERY_STRING"):
        target += f"?{query}"
    for channel in channels:
        if channel.startswith(RUN_PREFIX):
            # Whatever route of the application's own it stands in.
            target = target.replace(channel.removeprefix(RUN_PREFIX), HIDDEN)
    target = without_run_names(target)
    logger.info(
        '%s - %s [%s] "%s %s %s" 200 -',
        environ.get("REMOTE_ADDR") or "-",
        environ.get("REMOTE_USER") or "-",
        time.strftime("%d/%b/%Y:%H:%M:%S %z"),
        environ["REQUEST_METHOD"],
        # A path is decoded, and may hold what would begin another line.
        target.encode("unicode_escape").decode(),
        environ["SERVER_PROTOCOL"],
    )

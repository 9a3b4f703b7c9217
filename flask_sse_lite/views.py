"""What the views answer: a stream, or why there is none.

Here lives the way from a request to its response: which channels it asks for, whether
strangers may have them, whether there is room, and where the stream begins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NoReturn

from flask import Response, abort, current_app, request
from werkzeug.exceptions import InternalServerError, ServiceUnavailable

from .application import current_channels
from .channels import DEFAULT_CHANNEL, Channels
from .errors import BrokerUnavailable, InvalidValue, UnsupportedServer
from .event import check_channel
from .generators.items import Items
from .generators.runs import TooManyRuns, new_channel
from .history.cursor import Cursor
from .hub import current_hub
from .hub.frames import RETRY_WHEN_FULL, come_back, spread_retry
from .position import run_channel
from .response import HEADERS, MIMETYPE, NOSNIFF, EventStream, last_event_id
from .servers.surroundings import keeps_location

#: Channels in one stream. Each costs a look at every wake.
MAX_CHANNELS = 64

NO_ROOM = "There is no room for an event stream now."

logger = logging.getLogger("flask_sse_lite")


def requested_channels() -> tuple[str, ...]:
    """What the query asks for."""
    names = request.args.getlist("channel") or [DEFAULT_CHANNEL]
    if len(names) > MAX_CHANNELS:
        abort(400, f"A stream has at most {MAX_CHANNELS} channels, not {len(names)}.")
    try:
        for name in names:
            check_channel(name)
    except InvalidValue as error:
        abort(400, f"{error}.")
    return tuple(dict.fromkeys(names))


def refusal_of_strangers(names: tuple[str, ...]) -> str | None:
    """Why these are not served where no authorizer decides, if they are not."""
    settings = current_channels().settings
    if len(names) == 1:
        if settings.is_public(names[0]):
            return None
        return (
            f"the channel {names[0]!r} is not listed in SSE_PUBLIC_CHANNELS, and there "
            "is no authorizer (@sse.authorizer)"
        )
    # Guards that were written for one channel look at the first of several.
    unlisted = [name for name in names if name not in settings.public_channels]
    if not unlisted:
        return None
    return (
        "several channels in one request need an authorizer (@sse.authorizer), or each "
        f"of them by its full name in SSE_PUBLIC_CHANNELS; not there: {unlisted}"
    )


def forbid(reason: str) -> NoReturn:
    """403. The reason is for the developer: it tells strangers what there is."""
    logger.debug("A client got 403: %s", reason)
    abort(403, f"Not served: {reason}." if current_app.debug else None)


def stream(names: tuple[str, ...], replay: int | None) -> Response:
    """Of some channels, from where the request resumes."""
    return _admit(lambda channels: channels.subscribe(names, last_event_id(), replay))


def run(
    items: Items,
    channel: str | None,
    linger: float,
    address: Callable[[str], str | None],
) -> Response:
    """Of what an application's iterable says, which goes on without its client. Where
    that is known already, the iterable is not touched.

    :param address: of a run's channel, where it can be resumed.
    """
    since = last_event_id()
    name = channel or run_channel(since)
    if name is None:
        name = new_channel()
    elif channel is None:
        items.close()
        return resume(name)

    is_taken = False

    def begin(channels: Channels) -> Cursor:
        nonlocal is_taken
        cursor = channels.attend(name, since)
        if cursor is None:
            context = current_app.app_context
            cursor = channels.begin_run(name, since, items, linger, context)
            is_taken = True
        return cursor

    if request.method == "HEAD":
        items.close()
        return EventStream(())
    try:
        response = _admit(begin)
    finally:
        if not is_taken:
            items.close()
    if isinstance(response, EventStream) and (location := address(name)):
        response.content_location = location
        if not keeps_location(request.environ):
            response.location = location
    return response


def resume(channel: str) -> Response:
    """Of a run that began earlier, from its first event or where the request
    resumes."""

    def attend(channels: Channels) -> Cursor:
        cursor = channels.attend(channel, last_event_id())
        if cursor is None:
            abort(404, "Nothing is known of this run: it is over, or it never began.")
        return cursor

    return _admit(attend)


def _admit(find: Callable[[Channels], Cursor]) -> Response:
    """A stream from a cursor, if there is room.

    :param find: where it begins. It is called only if there is.
    """
    channels = current_channels()
    channels.warn_of_siblings()
    try:
        hub = current_hub()
    except UnsupportedServer as error:
        # Logged by Flask, it would come with a traceback that says less.
        current_app.logger.error("A stream could not begin: %s", error)
        raise InternalServerError from None
    if hub.is_stopping:
        return _come_back(channels.settings.retry, "The server is about to stop.")
    if hub.is_full(channels.settings):
        # Those that arrive at this very moment are counted when they begin.
        return _come_back(RETRY_WHEN_FULL, NO_ROOM)
    try:
        with channels.broker.within_timeout():
            cursor = find(channels)
    except TooManyRuns:
        return _come_back(RETRY_WHEN_FULL, NO_ROOM)
    except BrokerUnavailable as error:
        current_app.logger.error("A stream could not begin: %s", error)
        return _come_back(channels.settings.retry, "Events cannot be had now.")
    if channels.log.is_finished(cursor):
        return Response(status=204, headers=NOSNIFF)
    return EventStream(channels.stream(cursor))


def _come_back(milliseconds: int, why: str) -> Response:
    """An answer for who cannot be served now. Those who want an event stream get one
    that says when to come back, others the status that says it."""
    retry = spread_retry(milliseconds)
    if any(mimetype == MIMETYPE for mimetype, _ in request.accept_mimetypes):
        return Response(come_back(retry), mimetype=MIMETYPE, headers=HEADERS)
    raise ServiceUnavailable(why, retry_after=-(-retry // 1000))

"""What the views answer: a stream, or why there is none.

Here lives how a request becomes a response: which channels it asks for, whether there
is room for a stream, and where in the log the stream begins. ``permission`` decides who
is allowed to listen: without a ``Permit`` nothing here begins a stream.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, abort, current_app, request
from werkzeug.exceptions import InternalServerError, ServiceUnavailable

from .application import began, current_channels
from .arguments import MAX_CHANNELS
from .channels import Channels
from .client_faults import query
from .doctor import account
from .errors import BrokerUnavailable, InvalidValue, UnsupportedServer
from .event import check_channel
from .generators.items import Items
from .generators.runs import TooManyRuns
from .history.cursor import Cursor
from .hub import current_hub
from .hub.client import Client
from .hub.frames import RETRY_WHEN_FULL, come_back, spread_retry
from .log_messages import BROKER_UNAVAILABLE, UNSUPPORTED_SERVER
from .permission import Permit, for_run, may_begin_run
from .position import new_run_channel, run_channel
from .response import AWAY, HEADERS, MIMETYPE, EventStream, last_event_id
from .servers.surroundings import keeps_location
from .signals import RefusalReason

NO_ROOM = "There is no room for an event stream now."


def requested_channels() -> tuple[str, ...]:
    """The channels that the query names; none where it names none."""
    names = query().getlist("channel")
    if len(names) > MAX_CHANNELS:
        abort(400, f"A stream has at most {MAX_CHANNELS} channels, not {len(names)}.")
    try:
        for name in names:
            check_channel(name)
    except InvalidValue as error:
        abort(400, f"{error}.")
    return tuple(dict.fromkeys(names))


def stream(
    permit: Permit, replay: int | None, *, is_onlooker: bool = False
) -> Response:
    """A stream of the channels of a permit, from where the request resumes.

    :param replay: how many events of each channel a newcomer gets; None for
        ``SSE_REPLAY``.
    :param is_onlooker: see ``Client``.
    """
    asked = current_channels()
    names, question = permit.channels, account.question_of(asked, request.environ)
    if question:
        # A doctor, which has signed its question, listens to its own channel as well.
        names = (*names, question.channel)
        permit = permit._replace(identity=None)  # It is nobody who comes or leaves.
        if question.publishes and question.noted:
            account.publish(asked, question)
    response = _admit(
        asked,
        lambda channels: channels.subscribe(names, last_event_id(), replay),
        permit,
        shareable=not asked.replayed(replay),
        is_onlooker=is_onlooker,
    )
    if question:
        told = account.account(asked, request.environ, question)
        response.headers[account.HEADER] = told
    return response


def run(
    items: Items,
    permit: Permit | None,
    identity: str | None,
    linger: float,
    address: Callable[[str], str | None],
) -> Response:
    """A stream of a run: an iterable of the application's that goes on without its
    client. Where the request resumes a run that has begun already, the iterable is not
    iterated.

    :param permit: the permit for the run's channel; None for a channel of its own.
    :param identity: who the client is, for a channel of the run's own.
    :param address: returns the address at which a channel's run can be resumed, if
        there is one.
    """
    since = last_event_id()
    if permit is None:
        if known := run_channel(since):
            items.close()
            return resume(for_run(known, identity))
        permit = for_run(new_run_channel(), identity)
    (name,) = permit.channels

    is_taken = False

    def begin(channels: Channels) -> Cursor:
        nonlocal is_taken
        cursor = channels.attend(name, since)
        if cursor is None:
            may_begin_run(permit)
            context = current_app.app_context
            cursor = channels.begin_run(name, since, items, linger, context)
            is_taken = True
        return cursor

    if request.method == "HEAD":
        items.close()
        return EventStream(())
    try:
        response = _admit(current_channels(), begin, permit)
    finally:
        if not is_taken:
            items.close()
    if isinstance(response, EventStream) and (location := address(name)):
        response.content_location = location
        if not keeps_location(request.environ):
            response.location = location
    return response


def resume(permit: Permit) -> Response:
    """A stream of a run that began earlier, from its first event or from where the
    request resumes."""
    (channel,) = permit.channels

    def attend(channels: Channels) -> Cursor:
        cursor = channels.attend(channel, last_event_id())
        if cursor is None:
            abort(404, "Nothing is known of this run: it is over, or it never began.")
        return cursor

    return _admit(current_channels(), attend, permit)


def _admit(
    channels: Channels,
    find: Callable[[Channels], Cursor],
    permit: Permit,
    *,
    shareable: bool = False,
    is_onlooker: bool = False,
) -> Response:
    """A stream, if there is room for one.

    :param channels: the application's.
    :param find: finds the cursor from which the stream begins. It is called only where
        there is room.
    :param permit: whom the request lets in.
    :param shareable: see ``Subscription``. A run is not: a newcomer gets it from its
        first event.
    :param is_onlooker: see ``Client``.
    """
    settings = channels.settings
    channels.warn_of_siblings()
    try:
        hub = current_hub()
    except UnsupportedServer as error:
        # Flask would log a traceback, which says less than the message.
        UNSUPPORTED_SERVER.log(error, to=current_app.logger)
        channels.tell_refused("unsupported-server", *permit)
        raise InternalServerError from None
    if hub.is_stopping:
        channels.tell_refused("stopping", *permit)
        return _come_back(settings.retry, "The server is about to stop.")
    # The address is looked for only where it is counted by.
    is_counted = settings.max_per_client is not None
    address = request.remote_addr if is_counted else None
    client = Client(permit.identity, address, began(request.environ), is_onlooker)
    log = channels.log
    has_room = log.has_room(permit.channels, settings.max_channels)
    if not has_room or hub.is_full(settings, client):
        # When the stream begins, the hub counts again: several can arrive at once.
        is_for_all = hub.is_full(settings)
        full: RefusalReason = "full" if is_for_all else "client-full"
        channels.tell_refused(full if has_room else "channels-full", *permit)
        return _come_back(RETRY_WHEN_FULL, NO_ROOM)
    try:
        with channels.broker.within_timeout():
            if channels.before_stream:
                channels.before_stream()
            cursor = find(channels)
    except TooManyRuns:
        channels.tell_refused("runs-full", *permit)
        return _come_back(RETRY_WHEN_FULL, NO_ROOM)
    except BrokerUnavailable as error:
        BROKER_UNAVAILABLE.log(error, to=current_app.logger)
        channels.tell_refused("broker-unavailable", *permit)
        return _come_back(settings.retry, "Events cannot be had now.")
    if log.is_finished(cursor):
        return Response(status=204, headers=AWAY)
    return EventStream(channels.stream(cursor, client, shareable=shareable))


def _come_back(milliseconds: int, why: str) -> Response:
    """The answer to a client that cannot be served now. A client that accepts an event
    stream gets one that only says when to come back. Any other client gets 503 with
    ``Retry-After``.

    :param milliseconds: when to come back. It is spread, so that not all clients come
        back at once.
    """
    retry = spread_retry(milliseconds)
    if any(mimetype == MIMETYPE for mimetype, _ in request.accept_mimetypes):
        return Response(come_back(retry), mimetype=MIMETYPE, headers=HEADERS)
    raise ServiceUnavailable(why, retry_after=-(-retry // 1000))

"""SSE: the blueprint that an application registers.

Here lives what Flask sees: registration, the view with its permission and limits, and
the public verbs, each of which is done elsewhere.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

import flask
from flask import Blueprint, Flask, abort, current_app, has_app_context, request
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.wrappers import Response

from .channels import Channels, check_own
from .errors import InvalidType, InvalidValue, NoApplication
from .event import RESERVED_CHANNEL_PREFIX, Event, check_channel, to_text
from .hub import current_hub
from .response import HEADERS, MIMETYPE, EventStream, last_event_id
from .stream import RETRY_WHEN_FULL, come_back, spread_retry

#: Channels in one stream. Each costs a look at every wake.
MAX_CHANNELS = 64

DEFAULT_CHANNEL = "sse"
DEFAULT_URL_PREFIX = "/stream"

Authorizer = Callable[[str], "bool | Response | None"]
A = TypeVar("A", bound=Authorizer)


class SSE(Blueprint):
    """Server-Sent Events for a Flask application.

    Register it, and it serves ``GET /stream?channel=a&channel=b``; publish from any
    request handler. The channels belong to the application: several instances on one
    application share them, and one instance serves several applications.

    All its verbs may be called from any thread.

    :param name: the blueprint's name, as in ``url_for("sse.stream")``.
    :param import_name: the module it belongs to.
    :param options: what every ``flask.Blueprint`` takes.
    """

    def __init__(
        self, name: str = "sse", import_name: str = __name__, **options: Any
    ) -> None:
        options.setdefault("url_prefix", DEFAULT_URL_PREFIX)
        super().__init__(name, import_name, **options)
        self._authorize: Authorizer | None = None
        self.add_url_rule("", "stream", self._view)

    # Registration

    def init_app(self, app: Flask, url_prefix: str | None = None) -> None:
        """Set an application up.

        :param url_prefix: where to serve streams, such as ``"/stream"``; None registers
            no routes: the application's own views then return ``sse.stream(…)``.
        """
        if url_prefix is None:
            _set_up(app)
        else:
            app.register_blueprint(self, url_prefix=url_prefix)

    def register(self, app: Flask, options: dict[str, Any]) -> None:  # type: ignore[override]
        """Flask calls this for ``app.register_blueprint(sse)``."""
        _set_up(app)
        super().register(app, options)

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        """As for any blueprint. ``sse.stream`` as a view means the blueprint's own, as
        applications of Flask-SSE write it."""
        if getattr(view_func, "__func__", None) is SSE.stream:
            view_func = self._view
        super().add_url_rule(
            rule, endpoint, view_func, provide_automatic_options, **options
        )

    def authorizer(self, function: A) -> A:
        """Register who may listen: a function from a channel's name to True (yes),
        False or None (403), or a response that is sent instead. It runs in the
        request, for each channel asked for; one refusal refuses all.

        It guards the blueprint's view. A view of the application's own that returns
        ``sse.stream(…)`` has decided for itself.
        """
        self._authorize = function
        return function

    # Verbs

    def publish(
        self,
        data: Any,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        channel: str | Iterable[str] = DEFAULT_CHANNEL,
    ) -> Event:
        """Send an event to everyone who listens to a channel.

        :param data: text, or bytes of UTF-8, or an ``Event``, or anything that the
            application's JSON provider takes.
        :param type: what ``addEventListener`` listens to; ``"message"`` by default.
        :param id: an id of the application's own, instead of the event's position. Do
            not give one to several channels at once: a client of two of them that is
            cut between the copies comes back behind both.
        :param retry: milliseconds that clients shall wait before they reconnect.
        :param channel: a channel, or several: then each gets an event of its own.
        :returns: the event as it was sent, with its id; of several, the last.
        :raises InvalidValue: when it cannot be sent. Nothing was, then.
        :raises NoApplication: outside an application context, when it is unclear
            which application is meant.
        """
        return current_channels().publish(data, type, id, retry, channel)

    def stream(self, *channels: str, replay: int | None = None) -> Response:
        """The response that streams channels to the current request's client, from a
        view that has decided that it may listen.

        It goes on behind ``Last-Event-ID`` (or the query's ``last_event_id``) where
        the request brings one.

        :param replay: how many of each channel's last events a newcomer gets; None for
            ``SSE_REPLAY``.
        :raises InvalidValue: for no channels, more than ``MAX_CHANNELS``, or a name
            that cannot be a channel's.
        """
        names = check_own(*channels)
        if len(names) > MAX_CHANNELS:
            raise InvalidValue(
                f"A stream has at most {MAX_CHANNELS} channels, not {len(names)}"
            )
        if replay is not None and (type(replay) is not int or replay < 0):
            raise InvalidValue(f"replay is a whole number from 0 up, not {replay!r}")
        return _stream(names, replay)

    def position(self) -> str:
        """Where the log stands now. Take it before reading the data that a page shows,
        and have the page subscribe with ``last_event_id=`` that: it misses nothing."""
        return current_channels().broker.position()

    def messages(
        self,
        channel: str = DEFAULT_CHANNEL,
        since: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[Event]:
        """A channel's events, on the server itself. It subscribes now, not when it is
        first iterated; it ends with the channel.

        :param since: an event's id, or a position: what came behind it is given first.
            Where some of that is lost, an event ``stream-gap`` says so.
        :param timeout: seconds without an event after which to end; None for never.
        """
        return current_channels().messages(channel, since, timeout)

    def close(self, channel: str = DEFAULT_CHANNEL) -> None:
        """End a channel: its clients get what they missed, then ``stream-end``, and
        stay away when they reconnect (204). An event that is published later opens it
        again."""
        current_channels().end(channel)

    def stats(self) -> dict[str, Any]:
        """How this process's streams are delivered: how many are open now, handed off
        or iterated, and how many there were since it began, by server or reason."""
        return current_hub().stats()

    # The view

    def _view(self) -> Response:
        names = _requested_channels()
        refusal = self._refusal(names)
        if isinstance(refusal, Response):
            return refusal
        if refusal:
            _forbid(refusal)
        return _stream(names, None)

    def _refusal(self, names: tuple[str, ...]) -> str | Response | None:
        """Why these channels are not served to this client, if they are not."""
        for name in names:
            if name.startswith(RESERVED_CHANNEL_PREFIX):
                return (
                    f"channels that begin with {RESERVED_CHANNEL_PREFIX!r} are closed"
                )
        if self._authorize is None:
            return _refusal_of_strangers(names)
        for name in names:
            answer = self._authorize(name)
            if isinstance(answer, Response):
                return answer
            if answer is False or answer is None:
                return f"the authorizer refuses the channel {name!r}"
            if answer is not True:
                raise InvalidType(
                    "An authorizer returns True, False, None or a response; for the "
                    f"channel {name!r} it returned {answer!r}"
                )
        return None


class Message(Event):
    """An event as Flask-SSE makes it, of any data."""

    __slots__ = ()

    def __init__(
        self,
        data: Any,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
    ) -> None:
        super().__init__(to_text(data, flask.json.dumps), type, id, retry)

    def to_dict(self) -> dict[str, Any]:
        """Its fields, but for those that it does without."""
        fields = {"type": self.type, "id": self.id, "retry": self.retry}
        return {"data": self.data} | {
            name: value for name, value in fields.items() if value is not None
        }


#: What Flask-SSE calls its blueprint.
ServerSentEventsBlueprint = SSE


# Which application is meant, outside an application context: the only one there ever
# was, if so. Two are enough to know that there are several.
_registered: list[weakref.ref[Flask]] = []


def _set_up(app: Flask) -> None:
    """Give an application its channels, unless it has them."""
    if "sse" in app.extensions:
        return
    channels = Channels(app.config, lambda data: app.json.dumps(data))
    app.extensions["sse"] = channels
    if len(_registered) < 2:
        _registered.append(weakref.ref(app))

    @app.before_request
    def note_request() -> None:
        if not channels.has_served:
            channels.has_served = True
            channels.has_siblings = bool(request.environ.get("wsgi.multiprocess"))


def current_channels() -> Channels:
    """The channels of the application that is meant."""
    if has_app_context():
        app: Flask | None = current_app._get_current_object()  # type: ignore[attr-defined]
    else:
        app = _registered[0]() if len(_registered) == 1 else None
    if app is None:
        raise NoApplication(
            "Outside a request, say which application is meant: with app.app_context()"
        )
    if "sse" not in app.extensions:
        raise NoApplication(
            f"The application {app.name!r} has no channels: call "
            "app.register_blueprint(sse), or sse.init_app(app), when you make it"
        )
    channels: Channels = app.extensions["sse"]
    return channels


def _requested_channels() -> tuple[str, ...]:
    names = request.args.getlist("channel") or [DEFAULT_CHANNEL]
    if len(names) > MAX_CHANNELS:
        abort(400, f"A stream has at most {MAX_CHANNELS} channels, not {len(names)}.")
    try:
        for name in names:
            check_channel(name)
    except InvalidValue as error:
        abort(400, f"{error}.")
    return tuple(dict.fromkeys(names))


def _refusal_of_strangers(names: tuple[str, ...]) -> str | None:
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


def _forbid(reason: str) -> NoReturn:
    """403. The reason is for the developer: it tells strangers what there is."""
    abort(403, f"Not served: {reason}." if current_app.debug else None)


def _stream(names: tuple[str, ...], replay: int | None) -> Response:
    channels = current_channels()
    channels.warn_of_siblings()
    hub = current_hub()
    if hub.is_stopping:
        return _come_back(channels.settings.retry)
    if len(hub) >= hub.limit(channels.settings):
        # Those that arrive at this very moment are counted when they begin.
        return _come_back(RETRY_WHEN_FULL)
    cursor = channels.subscribe(names, last_event_id(), replay)
    if channels.log.is_finished(cursor):
        return flask.Response(status=204)
    return EventStream(channels.stream(cursor))


def _come_back(milliseconds: int) -> Response:
    """An answer for who cannot be served now. Those who want an event stream get one
    that says when to come back, others the status that says it."""
    retry = spread_retry(milliseconds)
    if any(mimetype == MIMETYPE for mimetype, _ in request.accept_mimetypes):
        return flask.Response(come_back(retry), mimetype=MIMETYPE, headers=HEADERS)
    raise ServiceUnavailable(
        "There is no room for an event stream now.", retry_after=-(-retry // 1000)
    )

"""SSE: the blueprint that an application registers.

Here lives what Flask sees: registration, the blueprint's views, and the public verbs.
Each verb checks what it is given and has another room do the work. Every public method
shows an example, which the tests run.

It has more than 400 lines, and its class more than 20 methods: they are the whole of
what an application calls, and most of the lines say what a verb promises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import flask
from flask import Flask, current_app
from werkzeug.wrappers import Response

from . import browser_module, permission, routes, signals, tokens, views
from .application import current_channels, set_up
from .arguments import (
    MAX_CHANNELS,
    blamed_for_publish,
    check_linger,
    check_max_age,
    check_replay,
    check_since,
    check_timeout,
    checked_identity,
    checked_names,
)
from .channels import DEFAULT_CHANNEL
from .client_faults import require
from .errors import InvalidType, InvalidValue
from .event import Event, check_channel
from .generators.items import Items, check_type
from .hub import current_hub
from .hub.counts import Stats
from .inspector import pages as inspector
from .names import Name, worded
from .own_functions import OneEach, SharedBlueprint
from .permission import Authorizer, Guard, Identify
from .position import RUN_PREFIX
from .routes import DEFAULT_URL_PREFIX, Prefix

#: Seconds that ``end_streams`` waits at most. The hub needs some milliseconds.
END_PATIENCE = 2.0

A = TypeVar("A", bound=Authorizer)
W = TypeVar("W", bound=Identify)
G = TypeVar("G", bound=Guard)


class SSE(SharedBlueprint):
    """Server-Sent Events for a Flask application: set it up, publish from any request
    handler, and every client of ``GET /stream`` gets the event::

        sse = SSE(app)

        @app.post("/say")
        def say():
            sse.publish(request.form["text"])
            return "", 204

    The channels belong to the application: several instances on one application share
    them, and one instance serves several applications. Any thread can call any verb.

    :param app: an application to set up, as by ``init_app``; or the blueprint's name,
        as in ``url_for("sse.stream")``.
    :param import_name: the module that the blueprint belongs to.
    :param name: the blueprint's name, where ``app`` is an application.
    :param options: what every ``flask.Blueprint`` takes. ``url_prefix`` is where
        streams are served by default; None registers no routes.
    :raises InvalidType: for what is neither an application nor a name.
    """

    #: Signals, each the same object as in ``signals``: docs/signals.rst explains them.
    connected = signals.connected
    disconnected = signals.disconnected
    published = signals.published
    gap = signals.gap
    refused = signals.refused
    run_started = signals.run_started
    run_ended = signals.run_ended

    def __init__(
        self,
        app: Flask | str | None = None,
        import_name: str = __name__,
        *,
        name: str = "sse",
        **options: Any,
    ) -> None:
        if isinstance(app, str):
            name = app
        elif not isinstance(app, Flask | None):
            raise InvalidType(
                "SSE takes an application or a blueprint's name: SSE(app), SSE(), "
                f'SSE("events"), not {app!r}'
            )
        options.setdefault("url_prefix", DEFAULT_URL_PREFIX)
        super().__init__(name, import_name, **options)
        self._authorizers = OneEach("authorizer")
        self._identities = OneEach("identity function")
        self._guards = OneEach("inspector_guard")
        self.add_url_rule("", "stream", self._view)
        self.add_url_rule("/run/<string(length=22):run>", "run", self._view_run)
        self.add_url_rule("/sse.js", "client", browser_module.serve_module)
        self.add_url_rule("/inspector", "inspector", self._view_inspector)
        for rule, endpoint, view, method in (
            ("/inspector/stream", "inspector_stream", self._inspector_stream, "GET"),
            ("/inspector/<name>", "inspector_file", self._inspector_file, "GET"),
            ("/inspector/<action>", "inspector_act", self._inspector_act, "POST"),
        ):
            self.add_url_rule(rule, endpoint, view, methods=[method])
        self.url_defaults(browser_module.add_version)
        if isinstance(app, Flask):
            self.init_app(app)

    # Registration

    def init_app(
        self, app: Flask, url_prefix: str | Prefix | None = Prefix.DEFAULT
    ) -> None:
        """Set an application up, and register the routes, unless it has them::

            def create_app():
                app = Flask(__name__)
                sse.init_app(app)  # GET /stream
                return app

        :param url_prefix: where to serve streams, such as ``"/events"``; without it, at
            the instance's own prefix, which is ``"/stream"``. None registers no routes:
            the application's own views then return ``sse.stream(…)``.
        :raises InvalidValue: for what the application has configured wrongly.
        :raises SetupError: where another SSE has the place, or the name.
        """
        if not isinstance(url_prefix, Prefix | None):
            app.register_blueprint(self, url_prefix=url_prefix)
        elif url_prefix is None or self.url_prefix is None:
            with self._registering(app):
                set_up(app)
        elif not routes.is_served(app, self):
            routes.check_default(app, self)
            app.register_blueprint(self)
            routes.note_default(app, self)

    def register(self, app: Flask, options: dict[str, Any]) -> None:  # type: ignore[override]
        """Flask calls this for ``register_blueprint``::

            app.register_blueprint(sse, url_prefix="/events")

        :raises InvalidValue: for what the application has configured wrongly.
        :raises SetupError: where it cannot be told whose a hook or an authorizer is, or
            whether the routes that ``init_app`` has registered elsewhere are to stay.
        """
        if routes.is_repeated(app, self, options):
            return
        with self._registering(app):
            self._hooks.registered(app)
            set_up(app)
            inspector.set_up(app)
            super().register(app, options)
        browser_module.add_to_templates(app, self._view, self.position)

    @contextmanager
    def _registering(self, app: Flask) -> Iterator[None]:
        """The functions that hold for an application learn that its registration
        begins, and, if it does not fail, that it is registered."""
        kinds = self._authorizers, self._identities, self._guards
        for functions in kinds:
            functions.begin(app)
        yield
        for functions in kinds:
            functions.registered(app)

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        """As for any blueprint. ``sse.stream`` as a view means the blueprint's own, as
        applications of Flask-SSE write it::

            sse = SSE("sse", __name__)
            sse.add_url_rule("/again", endpoint="again", view_func=sse.stream)
        """
        if getattr(view_func, "__func__", None) is SSE.stream:
            view_func = self._view
        super().add_url_rule(
            rule, endpoint, view_func, provide_automatic_options, **options
        )

    def authorizer(self, function: A) -> A:
        """Register who may listen: a function from a channel's name to True (yes),
        False or None (403), or a response that is sent instead::

            @sse.authorizer
            def may_listen(channel):
                return channel == f"user.{session.get('user')}"

        It runs in the request, for each channel that the client asks for; one refusal
        refuses all. It guards the blueprint's view. A view of the application's own
        that returns ``sse.stream(…)`` has decided for itself.

        It holds for the applications that are registered with this SSE. A factory that
        defines an authorizer at each call gives each application its own. Any other
        authorizer needs an ``SSE()`` of its own.

        :raises SetupError: where an application would lose the authorizer that it has.
        """
        self._authorizers.give(function)
        return function

    def identity(self, function: W) -> W:
        """Register who the current request's client is: a function of nothing that
        returns a text, a number or a UUID; None for nobody in particular. (With
        Flask-Login, it returns ``current_user.get_id()``.) ::

            @sse.identity
            def who():
                return session.get("user")

        ``disconnect`` ends the streams of an identity, and ``SSE_MAX_PER_CLIENT``
        counts by it. ``present`` says who is there. No client is sent it, except on the
        channels of ``SSE_PRESENCE``. The function runs for each stream of the
        application, of its other SSEs too; except where a view gives ``identity=`` or a
        token says who brings it.

        :raises SetupError: where an application would lose the function that it has.
        """
        self._identities.give(function)
        return function

    def inspector_guard(self, function: G) -> G:
        """Register who can use the inspector, which ``SSE_INSPECTOR`` switches on: a
        function of nothing that returns True (yes), False or None (403), or a response
        that is sent instead::

            @sse.inspector_guard
            def can_inspect():
                return session.get("user") == "admin"

        Whoever can inspect reads the events of all channels, publishes, and disconnects
        clients. Without a guard, the inspector answers in Flask's debug mode only. The
        function holds for applications as an authorizer does.

        :raises SetupError: where an application would lose the function that it has.
        """
        self._guards.give(function)
        return function

    # Verbs

    def publish(
        self,
        data: Any,
        type: Name | None = None,
        id: Name | None = None,
        retry: int | str | None = None,
        channel: Name | Iterable[Name] = DEFAULT_CHANNEL,
    ) -> Event:
        """Send an event to every client that listens to a channel::

            sse.publish("hello")
            sse.publish({"name": "Ann"}, type="joined", channel="room.1")
            sse.publish("closed", channel=["room.1", "room.2"])

        A number or a UUID as type, id or channel stands for its text, and a text as
        retry for its number.

        :param data: text, or bytes of UTF-8, or an ``Event``, or anything that the
            application's JSON provider takes.
        :param type: what ``addEventListener`` listens to; ``"message"`` by default.
        :param id: an id of the application's own, instead of the event's position. Do
            not give one id to several channels at once: a client of two of them that is
            cut between the copies comes back behind both.
        :param retry: milliseconds that clients shall wait before they reconnect.
        :param channel: a channel, or several: then each gets an event of its own.
        :returns: the event as it was sent, with its id; of several, the last.
        :raises InvalidValue: when the event cannot be sent; then nothing was sent. For
            a value that the current request has brought, Flask answers 400. All verbs
            do so.
        :raises EventTooLarge: (an ``InvalidValue`` too) for an event with more bytes
            than ``SSE_MAX_EVENT_BYTES``.
        :raises NoApplication: outside an application context, when it is unclear
            which application is meant.
        """
        if not isinstance(channel, str) and isinstance(channel, Iterator):
            channel = tuple(channel)  # It is looked at again where it is refused.
        try:
            return current_channels().publish(data, type, id, retry, channel)
        except InvalidValue as error:
            raise blamed_for_publish(error, data, type, id, retry, channel) from None

    def stream(
        self,
        *channels: Name,
        replay: int | None = None,
        identity: Name | None = None,
    ) -> flask.Response:
        """The response that streams channels to the current request's client, from a
        view that has decided that the client may listen::

            @app.get("/rooms/<room>/events")
            def events(room):
                if "user" not in session:
                    abort(401)
                return sse.stream(f"room.{room}", f"user.{session['user']}")

        The stream goes on behind ``Last-Event-ID`` (or the query's ``last_event_id``)
        where the request brings one.

        :param replay: how many of each channel's last events a newcomer gets; None for
            ``SSE_REPLAY``.
        :param identity: who the client is; None for what ``@sse.identity`` says, if
            there is such a function.
        :raises InvalidValue: for no channels, more than ``MAX_CHANNELS``, or a name
            that cannot be a channel's.
        """
        names = checked_names(channels, MAX_CHANNELS)
        require(check_replay, replay)
        who = self._identity(identity)
        return views.stream(permission.for_own_view(names, who), replay)

    def run(
        self,
        iterable: Iterable[Any],
        *,
        channel: Name | None = None,
        linger: float = 30,
        type: str | None = None,
        on_error: Callable[[Exception], Any] | None = None,
        identity: Name | None = None,
    ) -> flask.Response:
        """The response that streams an iterable's items, as ``EventStream`` does; but
        the iterable outlives the connection::

            @app.get("/answer")
            def answer():
                return sse.run(tokens_of(request.args.get("question", "")))

        The iterable runs in a thread or greenlet of its own, in an application context.
        Its items go to a channel, from which the response is streamed.

        A browser that was cut comes back to the same view with an id that names the
        run, and goes on where it was: the iterable of that second call is closed, and
        never iterated. A client that sent a POST goes on at ``Content-Location``, an
        address of the blueprint's that serves this run to whoever knows it.
        (``Location`` says the same, where the web server does not keep it to itself.)

        :param channel: a channel of the application's own, whose readers are let in as
            to any other. While a run goes on there, no other begins: the client gets
            that run, from its first event.
        :param linger: seconds without any client after which the iterable is closed.
        :param type: the type of items that are no ``Event``.
        :param on_error: what to tell clients of an exception: see ``EventStream``.
        :param identity: who the client is: see ``stream``.
        :raises InvalidValue: for a channel that cannot be one, or a negative number.
        """
        require(check_linger, linger)
        permit, who = None, self._identity(identity)
        if channel is not None:
            permit = permission.for_own_view(checked_names((channel,)), who)
        require(check_type, type)
        items = Items(iterable, type, on_error=on_error)
        return views.run(items, permit, who, linger, self._address)

    def sign(
        self,
        *channels: Name,
        max_age: float = tokens.DEFAULT_MAX_AGE,
        identity: Name | None = None,
    ) -> str:
        """A token that lets whoever brings it listen to some channels, through the
        blueprint's view. Native applications and pages of other origins use it, which
        have no cookie of the application's::

            @app.get("/token")
            def token():
                return {"token": sse.sign("room.7", max_age=60)}

        The client sends it as ``Authorization: Bearer …``, or as the cookie
        ``sse_token``. ``SSE_TOKEN_IN_QUERY`` allows ``?token=…``, too: do that only for
        clients that can set no header, because addresses end up in logs.

        :param max_age: seconds that the token lets clients connect. A stream that has
            begun goes on: ``SSE_MAX_AGE`` ends it.
        :param identity: who brings the token: see ``disconnect``, after which the token
            lets its client in again, until it expires.
        :raises InvalidValue: for no channels, more than ``MAX_CHANNELS``, a name that
            cannot be a channel's, or an application without ``SECRET_KEY``.
        """
        names = checked_names(channels, MAX_CHANNELS)
        require(check_max_age, max_age)
        who = require(checked_identity, identity)
        return tokens.sign(names, max_age, who)

    def position(self) -> str:
        """Where the log stands now. A view takes it before it reads the data that a
        page shows; a page that subscribes from there misses nothing::

            position = sse.position()
            page = render_template_string("{{ stock }}", stock=stock())
            url = url_for("sse.stream", last_event_id=position)

        In templates, ``sse_url`` goes on from the first position of its request.
        """
        position = current_channels().broker.position()
        browser_module.note_position(position)
        return position

    def messages(
        self,
        channel: Name = DEFAULT_CHANNEL,
        since: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[Event]:
        """A channel's events, on the server itself::

            for event in sse.messages("orders", timeout=0.1):
                print(event.type, event.data)

        The subscription begins with the call, not with the first step of iterating. It
        ends with the channel.

        :param since: an event's id, or a position: what came behind it is given first.
            Where some of that is lost, an event ``stream-gap`` says so.
        :param timeout: seconds without an event after which to end; None for never.
        """
        names = checked_names((channel,))
        require(check_since, since)
        require(check_timeout, timeout)
        return current_channels().messages(names, since, timeout)

    def close(self, channel: Name = DEFAULT_CHANNEL) -> None:
        """End a channel, and the run that feeds it::

            sse.publish("done", channel="job.7")
            sse.close("job.7")

        The channel's clients get what they missed, then ``stream-end``, and stay away
        when they reconnect (204). An event that is published later opens it again.
        """
        current_channels().end(*checked_names((channel,)))

    def disconnect(
        self,
        identity: Name | None = None,
        channel: Name | None = None,
        *,
        hold_off: float = 0.0,
    ) -> None:
        """End streams, on all workers and machines, so that the view decides anew about
        their clients: all streams of an identity, all of a channel, or (where both are
        given) those of the identity that listen to the channel::

            @app.post("/logout")
            def logout():
                user = session.pop("user")
                sse.disconnect(identity=user, hold_off=5)
                return "", 204

        What is published after this has returned reaches none of these clients before a
        view has let it in: a request that began before counts as let in before. The
        streams end as at a deployment, so that browsers come back and the view is
        asked. A token that is still good lets its client in again, and so does the
        address of a run. A run goes on; if nobody else reads it, its ``linger`` begins.
        An ``EventStream`` goes on.

        :param hold_off: seconds, up to 60, in which the streams of these clients end at
            once, though a view lets them in. A logout takes a cookie away, such as
            Flask's session, and the browser learns that from the response. A stream
            that comes back sooner has the old cookie, and the view lets it in. A client
            that is still logged in elsewhere comes back until the time is over, and
            misses nothing.
        :raises InvalidValue: where neither is given, or one that cannot be.
        :raises BrokerUnavailable: when the broker cannot be reached: nothing has ended
            then.
        """
        require(checked_identity, identity)
        if channel is not None:
            checked_names((channel,))
        current_channels().disconnect(identity, channel, hold_off)

    def end_streams(self) -> None:
        """End all of the application's streams in this process properly; their clients
        come back, and streams that begin later are served::

            server.stop()
            with app.app_context():
                sse.end_streams()

        Call it when a server is stopped and its process goes on, where the extension
        does not notice that by itself, and before an application is replaced. A
        response of ``EventStream`` ends at its next item, with ``stream-error`` and
        ``{"reason": "shutdown"}``. A run goes on: its clients come back to it, and
        without any it ends after its ``linger``.

        The call returns when the streams have ended, after two seconds at most. A
        signal handler that has interrupted a ``publish`` can hold the streams' end up,
        and waits for two seconds then. In gevent's hub, and in the thread that serves
        the streams, the call does not wait.

        :raises Reentered: where it has interrupted the begin of a stream.
        """
        current_hub().end_streams(current_channels().settings, END_PATIENCE)

    def subscribers(self, channel: Name = DEFAULT_CHANNEL) -> int:
        """How many streams of a channel are open now, over all workers and machines::

            if sse.subscribers("room.1"):
                sse.publish("hello", channel="room.1")

        The number includes another process's streams some two seconds after they
        begin, and those of a process that was killed for some six seconds more.

        :raises BrokerUnavailable: when the broker cannot be reached.
        """
        name = worded(channel)
        require(check_channel, name)
        return current_channels().subscribers(name)

    def present(self, channel: Name = DEFAULT_CHANNEL) -> dict[str, int]:
        """Who listens to a channel now, over all workers and machines: the identities
        (see ``identity``), each with the number of its streams::

            names = sorted(sse.present("room.1"))

        Streams without an identity are left out. Another process's streams are in it
        some two seconds after they begin, and those of a process that was killed for
        some six seconds more. On a channel of ``SSE_PRESENCE``, an identity whose last
        stream has ended stays with the number 0 until its ``stream-leave`` is told.

        :raises BrokerUnavailable: when the broker cannot be reached.
        :raises Unsupported: with a broker of the application's own that does not know
            whose streams there are.
        """
        name = worded(channel)
        require(check_channel, name)
        return current_channels().present(name)

    def stats(self) -> Stats:
        """How this process's streams are delivered: how many are open now, handed off
        or iterated, and how many there were since the process began, by server or
        reason. A view can return it, as JSON::

            app.add_url_rule("/stats", view_func=sse.stats)

        Its ``"reasons"`` have short codes that never change, for dashboards; the same
        reasons stand under ``"iterated"`` in words, for people.
        """
        return current_hub().stats()

    # The blueprint's views

    def _view(self) -> Response:
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        names = views.requested_channels()
        answer = permission.for_query(
            names, self._authorizers.of(app), self._identities.of_any(app)
        )
        if isinstance(answer, Response):
            return answer
        return views.stream(answer, None)

    def _guard(self) -> Guard | None:
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        return self._guards.of_any(app)

    def _view_inspector(self) -> Response:
        return inspector.page(self._guard(), self._view_inspector, self._inspector_file)

    def _inspector_stream(self) -> Response:
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        return inspector.stream(self._guard(), self._identities.of_any(app))

    def _inspector_file(self, name: str) -> Response:
        return inspector.file(self._guard(), name)

    def _inspector_act(self, action: str) -> Response:
        return inspector.act(self._guard(), action)

    def _view_run(self, run: str) -> Response:
        who = self._identity(None)
        return views.resume(permission.for_run(RUN_PREFIX + run, who))

    def _identity(self, given: Name | None) -> str | None:
        """Who the current request's client is.

        :param given: who a view says it is.
        """
        if given is not None:
            return require(checked_identity, given)
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        return permission.identity_by(self._identities.of_any(app))

    def _address(self, channel: str) -> str | None:
        """Where the blueprint's routes serve a channel, if it has them here."""
        name = channel.removeprefix(RUN_PREFIX)
        if name != channel:
            return routes.address(current_app, self._view_run, run=name)
        return routes.address(current_app, self._view, channel=name)

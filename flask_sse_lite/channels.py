"""The channels of one application, and what can be done with them.

Here lives what every ``SSE`` instance of an application shares: one configuration, and
in each process one broker with its log. Requests, routes and permission are unknown
here: a caller asks ``permission`` first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from .advice import Advice
from .arguments import (
    check_hold_off,
    check_own,
    check_since,
    check_timeout,
    checked_identity,
    own_names,
)
from .brokers import Broker, connect
from .errors import InvalidType, InvalidValue
from .event import Event, check_channel, check_size, to_text
from .generators.items import Items
from .generators.runs import Runs
from .history.cursor import Cursor
from .history.log import Log
from .history.revocations import REVOCATIONS, Revocation
from .hub import current_hub
from .hub.client import Client
from .hub.frames import BATCH_BYTES
from .hub.subscription import Subscription
from .names import Name, counted, worded, worded_id
from .position import BEGINNING, RUN_PREFIX, is_position, position_id, run_channel
from .settings import Settings
from .signals import RefusalReason, published
from .signals.courier import Courier
from .signals.story import story_of, tell_refused
from .system.locks import Alarm
from .traced import Tracing
from .type_names import warn_of_type

#: The channel of a publish or a stream that names none.
DEFAULT_CHANNEL = "sse"


class Channels:
    """The channels of one application. Thread-safe.

    :param config: the application's configuration; the channels read it at first use.
    :param dumps: the application's way to JSON.
    :param folder: the application's instance folder, which need not exist.
    :param settings: the configuration, where a caller has read it already.
    :param courier: brings signals to the application's receivers; None where there is
        no application.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        dumps: Callable[[Any], str],
        folder: str | None = None,
        settings: Settings | None = None,
        courier: Courier | None = None,
    ) -> None:
        self._config = config
        self._dumps = dumps
        self._folder = folder
        self._settings = settings
        self.courier = courier
        #: What traces publishes and runs; None where nobody does.
        self.tracing: Tracing | None = None
        # By process id: a forked child must not use its parent's log and epoch.
        self._brokers: dict[int, Broker] = {}
        self._runs: dict[int, Runs] = {}
        #: What the operator is told.
        self.advice = Advice()
        #: Whether this process serves requests, so that it can have subscribers.
        self.has_served = False
        #: How many processes of this kind the server runs; None where the server alone
        #: knows, and there can be several.
        self.processes: int | None = 1
        #: Called before a stream of this process begins; None where nobody inspects
        #: streams.
        self.before_stream: Callable[[], None] | None = None
        #: Each is called with every event that this process has published. A recorder
        #: must not raise: the publisher would take its event for not sent.
        self.recorders: list[Callable[[Event], None]] = []

    @property
    def settings(self) -> Settings:
        """The configuration as it was at first use.

        :raises InvalidValue: for what cannot be configured.
        """
        if self._settings is None:
            self.advice.on_unread_keys(self._config)
            self.advice.on_unread_urls(self._config)
            self._settings = Settings.read(self._config)
        return self._settings

    @property
    def secret_keys(self) -> list[str]:
        """The application's keys, the one that signs last; none where it has none.

        :raises InvalidValue: for fallbacks that are one text: each letter would be a
            key.
        """
        key = self._config.get("SECRET_KEY")
        fallbacks = self._config.get("SECRET_KEY_FALLBACKS") or ()
        if isinstance(fallbacks, (str, bytes)):
            raise InvalidValue("SECRET_KEY_FALLBACKS is a list of keys, not one text")
        # Whoever knows that a key is empty can sign with it.
        return [*filter(None, fallbacks), key] if key else []

    def check_configuration(self) -> None:
        """Refuse now what the first use would refuse. The configuration can still
        change until then, and nothing connects to a store here.

        :raises InvalidValue: for what cannot be configured.
        """
        self.advice.on_unread_keys(self._config)
        connect(Settings.read(self._config), self._folder)

    @property
    def broker(self) -> Broker:
        """This process's broker."""
        pid = os.getpid()
        try:
            return self._brokers[pid]
        except KeyError:
            # Two threads at once make a broker each. Both go on with the same one; the
            # other has not connected to anything.
            broker = connect(self.settings, self._folder)
            broker.listeners = lambda: current_hub().counts(broker.log)
            broker.identities = lambda: current_hub().identities(broker.log)
            return self._brokers.setdefault(pid, broker)

    @property
    def runs(self) -> Runs:
        """This process's runs."""
        return self._runs.setdefault(os.getpid(), Runs())

    @property
    def log(self) -> Log:
        return self.broker.log

    def publish(
        self,
        data: Any,
        type: Name | None,
        id: Name | None,
        retry: int | str | None,
        channel: Name | Iterable[Name],
    ) -> Event:
        """See ``SSE.publish``."""
        began = time.monotonic() if published.receivers else 0.0
        names, event = self.prepare(data, type, id, retry, channel)
        broker = self.broker
        if self.processes != 1:
            self.warn_of_siblings()
        elif not (self.has_served or self.recorders or broker.is_shared):
            self.advice.on_silence()
        if self.tracing is None:
            return self._send(broker, names, event, began)
        within = broker.within_timeout()
        event, within = self.tracing.publishing(names, event, within)
        with within:
            sent = self._send(broker, names, event, began)
            self.tracing.note_published(sent)
        return sent

    def _send(
        self, broker: Broker, names: tuple[str, ...], event: Event, began: float
    ) -> Event:
        """Publish to one channel or several, and tell of each.

        :returns: the event as it stands in the last of them.
        """
        if len(names) == 1:
            sent = broker.publish(names[0], event)
            self._note_published(sent, began)
            return sent
        with broker.within_timeout():
            for sent in broker.publish_to_all(names, event):
                self._note_published(sent, began)
        return sent

    def _note_published(self, event: Event, began: float) -> None:
        for record in self.recorders:
            record(event)
        if published.receivers and self.courier:
            seconds = time.monotonic() - began if began else 0.0
            self.courier.tell(published, len(event.data), event=event, seconds=seconds)

    def tell_refused(
        self,
        reason: RefusalReason,
        channels: tuple[str, ...],
        identity: str | None = None,
    ) -> None:
        """Tell receivers that a client was given no stream."""
        if self.courier:
            tell_refused(self.courier, reason, channels, identity)

    def prepare(
        self,
        data: Any,
        type: Name | None,
        id: Name | None,
        retry: int | str | None,
        channel: Name | Iterable[Name],
    ) -> tuple[tuple[str, ...], Event]:
        """The channels and the event of a ``publish``, checked; nothing is published.

        :raises InvalidValue: when it cannot be sent.
        """
        names = own_names(channel)
        event = self._event(data, type, id, retry)
        check_size(event, self.settings.max_event_bytes)
        if event.type is not None:
            warn_of_type(event.type)
        return names, event

    def _event(
        self,
        data: Any,
        type: Name | None,
        id: Name | None,
        retry: int | str | None,
    ) -> Event:
        if not isinstance(data, Event):
            text = to_text(data, self._dumps)
            if type is None and id is None and retry is None:
                return Event(text)
            return Event(text, worded(type), worded_id(id), counted(retry))
        if type is not None or id is not None or retry is not None:
            raise InvalidType(
                "An Event has its own type, id and retry: publish it without others"
            )
        if data.channel is not None and is_position(data.id):
            # The event was published before, and its id is its position of then.
            return Event(data.data, data.type, None, data.retry)
        return data

    def subscribe(
        self, channels: Iterable[str], since: str = "", replay: int | None = None
    ) -> Cursor:
        """Where a new subscriber begins.

        :param since: the id that the subscriber resumes from; empty for a newcomer.
        :param replay: events of each channel that a newcomer gets; None for the
            configuration's number.
        """
        names, broker = tuple(channels), self.broker
        broker.want(names, since)
        return broker.log.cursor(names, since, self.replayed(replay))

    def attend(self, channel: str, since: str) -> Cursor | None:
        """Where a reader of a run begins: behind an id, or at its first event.

        :returns: None where the channel has neither a run nor what a run has left.
        """
        broker, log = self.broker, self.log
        broker.want((channel,), since)
        if channel.startswith(RUN_PREFIX):
            if not log.remembers(channel):
                # Another process can have begun it a moment ago.
                broker.want((channel,), fresh=True)
            if not log.remembers(channel):
                return None
            if run_channel(since) not in (channel, None):
                since = ""
            return self._reader(channel, since)
        if log.is_running(channel):
            # The run can be over in another process. A client that has just ended it
            # must not be sent its events again.
            broker.want((channel,), fresh=True)
        if not log.is_running(channel):
            is_left = log.knows((channel,), since) and log.remembers(channel)
            if not (since and is_left):
                return None
        return self._reader(channel, since)

    def _reader(self, channel: str, since: str) -> Cursor:
        start = self.log.run_start(channel)
        first = position_id(self.log.epoch, start or BEGINNING, channel)
        return self.log.cursor((channel,), since or first)

    def begin_run(
        self,
        channel: str,
        since: str,
        items: Items,
        linger: float,
        context: Callable[[], AbstractContextManager[object]],
    ) -> Cursor:
        """Have a run feed a channel, unless one feeds it already: then the items are
        closed.

        :param context: what the iterable runs in.
        :returns: where a reader of the run begins. (The run can be over by now.)
        :raises TooManyRuns: when there is no room for another.
        """
        items.max_bytes = self.settings.max_event_bytes
        if self.tracing is not None:
            context = self.tracing.run_context(channel, items, context)
        self.runs.begin(
            channel,
            self.broker,
            items,
            linger=linger,
            budget=min(self.settings.run_bytes, self.settings.runs_bytes),
            limit=self.settings.max_runs,
            context=context,
            courier=self.courier,
        )
        return self._reader(channel, since)

    def stream(
        self, cursor: Cursor, client: Client, *, shareable: bool
    ) -> Subscription:
        """See ``Subscription``."""
        return Subscription(
            self.log,
            cursor,
            self.settings,
            client,
            shareable=shareable,
            story=story_of(
                self.courier, cursor.channels, client.identity, cursor.since
            ),
        )

    def replayed(self, replay: int | None) -> int:
        """How many events of each channel a newcomer gets.

        :param replay: what a view asks for; None for the configuration's number.
        """
        return self.settings.replay if replay is None else replay

    def messages(
        self, channels: Iterable[Name], since: str | None, timeout: float | None
    ) -> Iterator[Event]:
        """See ``SSE.messages``: here for several channels, in one order."""
        names = check_own(*channels)
        check_since(since)
        check_timeout(timeout)
        self.broker.want(names, since or "")
        cursor = self.log.cursor(names, since or "")
        if self.log.is_finished(cursor):
            return iter(())
        return _messages(self.log, cursor, timeout)

    def end(self, channel: Name) -> None:
        """See ``SSE.close``."""
        (name,) = check_own(channel)
        self.broker.end(name)

    def disconnect(
        self, identity: Name | None, channel: Name | None, hold_off: float = 0.0
    ) -> None:
        """See ``SSE.disconnect``."""
        check_hold_off(hold_off)
        who = checked_identity(identity)
        where = None if channel is None else check_own(channel)[0]
        if who is None and where is None:
            raise InvalidValue("Name the identity, the channel, or both")
        revocation = Revocation(who, where).to_event(hold_off)
        self.broker.publish(REVOCATIONS, revocation)

    def subscribers(self, channel: Name) -> int:
        """See ``SSE.subscribers``."""
        name = worded(channel)
        check_channel(name)
        return self.broker.subscribers(name)

    def present(self, channel: Name) -> dict[str, int]:
        """See ``SSE.present``."""
        name = worded(channel)
        check_channel(name)
        return self.broker.present(name)

    def close(self) -> None:
        """Close what this process's broker holds. Behind this, a broker that had
        anything open refuses what is published."""
        if broker := self._brokers.get(os.getpid()):
            broker.close()

    def warn_of_siblings(self) -> None:
        """Tell the operator, once, what several processes mean for a broker that they
        do not share."""
        if self.processes != 1 and not self.broker.is_shared:
            self.advice.on_siblings(self.processes)


def _messages(log: Log, cursor: Cursor, timeout: float | None) -> Iterator[Event]:
    news = Alarm()
    log.watch(cursor.channels, news.set)
    try:
        while True:
            batch = log.read(cursor, BATCH_BYTES)
            if batch.gap:
                yield batch.gap
            yield from (entry.event for entry in batch.entries if entry.event)
            if batch.ended:
                return
            if not (batch.gap or batch.entries) and not news.wait(timeout):
                return
    finally:
        log.unwatch(cursor.channels, news.set)

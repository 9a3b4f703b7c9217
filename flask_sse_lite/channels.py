"""The channels of one application, and what can be done with them.

Here lives what every ``SSE`` instance of an application shares: one configuration, and
in each process one broker with its log. Requests, routes and permission are unknown
here: who calls has been let in.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from .arguments import check_own, check_since, check_timeout, listed
from .brokers import Broker, connect
from .errors import InvalidType
from .event import Event, check_channel, to_text
from .generators.items import Items
from .generators.runs import Runs
from .history.cursor import BEGINNING, RUN_PREFIX, Cursor, position_id
from .history.log import Log, is_position, run_channel
from .hub import current_hub
from .hub.frames import BATCH_BYTES
from .hub.subscription import Subscription
from .settings import Settings
from .system.locks import Alarm
from .type_names import warn_of_type
from .wording import Name, counted, worded, worded_id

#: Where no channel is named.
DEFAULT_CHANNEL = "sse"

logger = logging.getLogger("flask_sse_lite")


class Channels:
    """The channels of one application. Thread-safe.

    :param config: the application's configuration; it is read at first use.
    :param dumps: the application's way to JSON.
    :param folder: where files of its own lie, which need not be there.
    :param settings: the configuration, where it was read already.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        dumps: Callable[[Any], str],
        folder: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._config = config
        self._dumps = dumps
        self._folder = folder
        self._settings = settings
        # By process id: a log and its epoch may not be shared by processes that were
        # forked from one another.
        self._brokers: dict[int, Broker] = {}
        self._runs: dict[int, Runs] = {}
        self._warned: set[str] = set()
        #: Whether this process serves requests, so that it can have subscribers.
        self.has_served = False
        #: How many processes like it its server runs; None for one or several, where
        #: nobody has counted them.
        self.processes: int | None = 1
        #: Called with every event published here, after it was. They may not raise.
        self.recorders: list[Callable[[Event], None]] = []

    @property
    def settings(self) -> Settings:
        """The configuration as it was at first use.

        :raises InvalidValue: for what cannot be configured.
        """
        if self._settings is None:
            self._warn_of_configuration()
            self._settings = Settings.read(self._config)
        return self._settings

    def check_configuration(self) -> None:
        """Refuse now what would be refused at first use. Nothing is kept of it: what is
        configured until then still counts. Nothing is reached for.

        :raises InvalidValue: for what cannot be configured.
        """
        self._warn_of_misspelt_keys()
        connect(Settings.read(self._config), self._folder)

    def _warn_of_misspelt_keys(self) -> None:
        for key, known in Settings.misspelt(self._config).items():
            meant = f"; is {known} meant?" if known else ""
            self._warn(f"The configuration has the key {key}, which is not read{meant}")

    def _warn_of_configuration(self) -> None:
        self._warn_of_misspelt_keys()
        if not (self._config.get("SSE_URL") or self._config.get("SSE_REDIS_URL")):
            if self._config.get("REDIS_URL"):
                self._warn(
                    "REDIS_URL is set, but not read here. Set SSE_URL to publish "
                    "through a broker; without it, events stay in one process."
                )
            elif os.environ.get("SSE_URL"):
                self._warn(
                    "SSE_URL is set in the environment, but read from app.config "
                    'alone: app.config["SSE_URL"] = os.environ["SSE_URL"], or '
                    "app.config.from_prefixed_env() and FLASK_SSE_URL."
                )

    @property
    def broker(self) -> Broker:
        """This process's broker."""
        pid = os.getpid()
        try:
            return self._brokers[pid]
        except KeyError:
            # Of two threads that come here at once, both go on with one of the two;
            # the other has reached for nothing yet.
            broker = connect(self.settings, self._folder)
            broker.listeners = lambda: current_hub().counts(broker.log)
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
        names, event = self.prepare(data, type, id, retry, channel)
        broker = self.broker
        if self.processes != 1:
            self.warn_of_siblings()
        elif not self.has_served and not self.recorders:
            self._warn_of_silence()
        with broker.within_timeout():
            for name in names:
                published = broker.publish(name, event)
                for record in self.recorders:
                    record(published)
        return published

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
        names = check_own(*listed(channel))
        event = self._event(data, type, id, retry)
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
            return Event(
                to_text(data, self._dumps), worded(type), worded_id(id), counted(retry)
            )
        if type is not None or id is not None or retry is not None:
            raise InvalidType(
                "An Event has its own type, id and retry: publish it without others"
            )
        if data.channel is not None and is_position(data.id):
            # It was published before, and its id says where it stood then.
            return Event(data.data, data.type, None, data.retry)
        return data

    def subscribe(
        self, channels: Iterable[str], since: str = "", replay: int | None = None
    ) -> Cursor:
        """Where a new subscriber begins.

        :param since: the id it resumes from; empty for a newcomer.
        :param replay: events of each channel that a newcomer gets; None for the
            configuration's number.
        """
        names, broker = tuple(channels), self.broker
        last = self.settings.replay if replay is None else replay
        broker.want(names, since)
        return broker.log.cursor(names, since, last)

    def attend(self, channel: str, since: str) -> Cursor | None:
        """Where a reader of a run begins: behind an id, or at its first event.

        :returns: None where there is no run in this channel, nor what one has left.
        """
        broker, log = self.broker, self.log
        broker.want((channel,), since)
        if channel.startswith(RUN_PREFIX):
            if not log.remembers(channel):
                # It may have begun elsewhere a moment ago.
                broker.want((channel,), fresh=True)
            if not log.remembers(channel):
                return None
            if run_channel(since) not in (channel, None):
                since = ""
            return self._reader(channel, since)
        if log.is_running(channel):
            # It may be over elsewhere, and what it said is not to be said again to who
            # has just ended it.
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
        """Have a run feed a channel, unless one does: then its items are closed.

        :param context: what its iterable runs in.
        :returns: where a reader of it begins. (It may be over by now.)
        :raises TooManyRuns: when there is no room for another.
        """
        self.runs.begin(
            channel,
            self.broker,
            items,
            linger=linger,
            budget=min(self.settings.run_bytes, self.settings.runs_bytes),
            limit=self.settings.max_runs,
            context=context,
        )
        return self._reader(channel, since)

    def stream(self, cursor: Cursor) -> Subscription:
        return Subscription(self.log, cursor, self.settings)

    def messages(
        self, channels: Iterable[Name], since: str | None, timeout: float | None
    ) -> Iterator[Event]:
        """See ``SSE.messages``: the same of several channels, in one order."""
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

    def subscribers(self, channel: Name) -> int:
        """See ``SSE.subscribers``."""
        name = worded(channel)
        check_channel(name)
        return self.broker.subscribers(name)

    def close(self) -> None:
        """Let go of what this process's broker holds. What is published later fails,
        where it is a broker that holds anything."""
        if broker := self._brokers.get(os.getpid()):
            broker.close()

    def warn_of_siblings(self) -> None:
        """Tell the operator, once, what several processes mean for a broker that is
        not shared."""
        if self.processes == 1 or self.broker.is_shared:
            return
        advice = (
            'Set app.config["SSE_URL"] to a broker that processes share, such as '
            "sqlite:///events.db, or run one worker (gunicorn -k gevent -w 1)."
        )
        if self.processes is None:
            self._warn(
                "The server says that it may run several processes, and SSE_URL is "
                "memory://, which is one process's own. If there is one process, all "
                "is well (adapters of ASGI say so in any case). If there are more, a "
                "browser sees only what the process that it is connected to "
                f"publishes. {advice}"
            )
        else:
            self._warn(
                f"The server runs several worker processes ({self.processes}), and "
                "SSE_URL is memory://, which is one process's own: a browser sees only "
                f"what the worker that it is connected to publishes. {advice}"
            )

    def _warn_of_silence(self) -> None:
        if not self.broker.is_shared:
            self._warn(
                "An event was published by a process that has served no request so "
                "far, and SSE_URL is memory://, which is one process's own: unless "
                "this is the web server itself, no browser will ever see its events. "
                'Publish from the web application, or set app.config["SSE_URL"] to a '
                "broker that processes share, such as sqlite:///events.db."
            )

    def _warn(self, message: str) -> None:
        """Say something once in the life of the process."""
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message)


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

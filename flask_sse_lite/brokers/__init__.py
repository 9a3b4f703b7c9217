"""The brokers: what carries published events to every process's log.

Here stands the contract, once, and which URL means which broker: those of this package,
and those that applications register. A broker knows nothing of Flask, nor of who
listens: it fills a log, and readers read that.
"""

from __future__ import annotations

# A broker's module is imported at first use, which can be behind the main thread's end.
# The clients of some stores import this, and Python refuses its first import by then.
import concurrent.futures.thread  # noqa: F401
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module

from ..errors import InvalidType, InvalidValue
from ..event import Event
from ..history.log import Log
from ..settings import Settings

#: The schemes of this package's own brokers. Each stands for the module beside this one
#: that has the broker's ``connect``; a module is imported when a URL first names it.
BROKERS = {
    "memory": "memory",
    "sqlite": "sqlite",
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
}


class Claim:
    """The right of one run to feed a channel, until it is over.

    ``began`` is the epoch and the position where it began: where the log stood before
    its first event. A store that lost what it had gets the run anew, at another, unless
    it ``is_over``. Of a run that ``is_broken``, something could not be said.
    """

    __slots__ = ("began", "budget", "channel", "is_broken", "is_over", "token")

    def __init__(
        self, channel: str, budget: int, began: tuple[str, int] = ("", 0)
    ) -> None:
        self.channel = channel
        self.budget = budget
        self.began = began
        self.is_broken = self.is_over = False
        self.token = secrets.token_hex(8)


class Broker(ABC):
    """One process's way to the events of an application.

    Any thread or greenlet may call any method. A broker is made in the process that
    uses it. It costs nothing before its first use; what it holds then (connections,
    files, a thread) it lets go of at ``close``, and in a forked child.

    All but ``close`` raise ``BrokerUnavailable`` where a store that they need cannot be
    reached, within ``SSE_BROKER_TIMEOUT``: whatever a call waits for counts.
    """

    #: What this process remembers, and what its readers read.
    log: Log

    #: Whether what one process publishes arrives in all of them.
    is_shared: bool

    #: How many streams of each channel this process serves. To be set by who knows.
    listeners: Callable[[], Mapping[str, int]] = staticmethod(dict)

    #: Seconds until ``subscribers`` knows of all who came, or left, up to now.
    counting_takes: float = 0.0

    def within_timeout(self) -> AbstractContextManager[object]:
        """Have all calls of a block end within the time that one of them has."""
        return nullcontext()

    @abstractmethod
    def publish(self, channel: str, event: Event) -> Event:
        """Put an event at the next position of all, and see to it that it comes into
        the log of every process that listens to its channel, in that order.

        :returns: the event as it stands in its channel, with its id.
        """

    @abstractmethod
    def end(self, channel: str) -> None:
        """Put a channel's end at the next position, in the same way."""

    @abstractmethod
    def position(self) -> str:
        """Where the newest event of any process stands: not behind what anyone has
        published before this is called."""

    @abstractmethod
    def want(
        self, channels: Collection[str], since: str = "", *, fresh: bool = False
    ) -> None:
        """Have the log hold what is retained of some channels, and from here on what
        is published to them: to be called before a cursor is taken. This is not to
        cost the store anything where others listen to them already.

        :param since: the id that the cursor will resume from. Where it is known to the
            store it is known to the log when this returns.
        :param fresh: whether the log is to have all that was published before this.
        """

    @abstractmethod
    def begin_run(self, channel: str, budget: int) -> Claim | None:
        """Have a run feed a channel from here on, unless one does, in whatever process.
        That opens the channel, and what the run says is kept, whatever its age, until
        as long after its end as other events are kept. A run ends with its channel,
        whoever ends that; and where its process is gone for some seconds, its readers
        get a ``stream-error`` that says so, and the end.

        :param budget: bytes that are kept of it.
        :returns: the run's claim, with what it says in this process's log from here on;
            None where another goes on: then its beginning is known to the log.
        """

    @abstractmethod
    def say(self, claim: Claim, event: Event) -> Event | None:
        """As ``publish``, for a run.

        :returns: None where the run is over. Nothing was published, then.
        """

    @abstractmethod
    def end_run(self, claim: Claim, reason: Event | None = None) -> None:
        """As ``end``, for a run, unless it is over. The process says nothing more of
        the run, even where this fails: where the store cannot be told, the run's
        readers get a ``stream-error`` that says so, and the end, some seconds later.

        :param reason: why the run ends before all was said. The readers get the reason
            and the end, or neither. A run whose ``say`` has failed never ends without
            a reason.
        """

    def limit_runs(self, size: int) -> None:
        """Have the log hold no more than so many bytes of the output of all runs
        together. How much a store keeps is not changed by that."""
        self.log.limit_runs(size)

    @abstractmethod
    def subscribers(self, channel: str) -> int:
        """How many streams of a channel there are, in all processes together."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections, files and threads. The log stays readable."""


#: Makes a process's broker of a configuration, and of the folder where the relative
#: path of a URL begins: see ``connect``.
Factory = Callable[[Settings, "str | None"], Broker]

#: What a URL's scheme looks like. URLs are read in any case; schemes are registered in
#: lower case.
SCHEME = re.compile("[a-z][a-z0-9+.-]*")

#: The factories of applications, by scheme.
_registered: dict[str, Factory] = {}


def register(scheme: str, factory: Factory) -> None:
    """Have URLs with a scheme of your own name a broker of your own.

    An application calls this before it is set up, in each of its processes: where its
    factory is defined is the right place. The same definition can be registered again,
    by a module that is loaded anew or an application factory that is called again: the
    latest counts. For example::

        register("shelf", connect_to_shelf)
        app.config["SSE_URL"] = "shelf:///var/lib/shop"

    :param scheme: what stands before the URL's first colon: lower-case ASCII letters,
        digits, ``+``, ``.`` and ``-``, beginning with a letter.
    :param factory: called with the settings and the application's instance folder (None
        where there is no application), once in each process, and once more when an
        application is set up, so that a wrong URL is refused then. It reaches for
        nothing, and returns a ``Broker``. It raises ``InvalidValue`` for a URL that it
        cannot use.
    :raises InvalidValue: for a scheme that cannot stand in a URL, or that names another
        broker.
    """
    if not isinstance(scheme, str) or not SCHEME.fullmatch(scheme):
        raise InvalidValue(
            f"A broker's scheme cannot be {scheme!r}: it has lower-case ASCII letters, "
            'digits, "+", "." and "-", and begins with a letter'
        )
    if not callable(factory):
        raise InvalidValue(
            f"The factory of {scheme}:// must be a function of the settings and a "
            f"folder, not {factory!r}"
        )
    known = _registered.get(scheme)
    is_other = known is not None and not _is_same_definition(known, factory)
    if scheme in BROKERS or is_other:
        whose = "by another factory" if is_other else "by flask_sse_lite itself"
        raise InvalidValue(
            f"The scheme {scheme!r} is taken {whose}. Register yours under another"
        )
    _registered[scheme] = factory


def _is_same_definition(one: Factory, other: Factory) -> bool:
    """Whether two factories are one, or come of one ``def`` that was run twice."""
    names = [
        (getattr(factory, "__module__", None), getattr(factory, "__qualname__", None))
        for factory in (one, other)
    ]
    return one == other or (names[0] == names[1] and None not in names[0])


def connect(settings: Settings, folder: str | None = None) -> Broker:
    """The broker that a configuration's URL names, for this process. Nothing is
    reached for yet.

    :param folder: where the relative path of a URL begins; where it is left out, such
        a path is refused.
    :raises InvalidValue: for a URL that there is no broker for. (Never memory instead:
        that would work on one worker, and lose events on two.)
    """
    scheme = settings.url.partition(":")[0].lower() if ":" in settings.url else ""
    broker = _factory_of(scheme, settings.url_key)(settings, folder)
    if not isinstance(broker, Broker):
        raise InvalidType(f"The factory of {scheme}:// made no Broker, but {broker!r}")
    broker.limit_runs(settings.runs_bytes)
    return broker


def _factory_of(scheme: str, url_key: str) -> Factory:
    if scheme in _registered:
        return _registered[scheme]
    if scheme in BROKERS:
        factory: Factory = import_module(f".{BROKERS[scheme]}", __name__).connect
        return factory
    # Only a scheme is shown: the rest of the URL can have a password in it.
    shown = scheme if SCHEME.fullmatch(scheme) else ""
    known = ", ".join(f"{name}://" for name in (*BROKERS, *_registered))
    raise InvalidValue(
        f"{url_key} has the scheme {shown!r}, for which this version of "
        f"flask_sse_lite has no broker, and the application has registered none. Set "
        f"it to one of: {known}"
    )

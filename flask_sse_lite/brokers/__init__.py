"""The brokers: what carries published events to every process's log.

Here lives which URL means which broker: those of this package, and those that
applications register. A broker knows neither Flask nor the clients: it fills a log, and
readers read the log.
"""

from __future__ import annotations

# Imported now, because some stores' clients need it. A broker's module is imported at
# its first use. If the main thread has ended by then, Python refuses this import.
import concurrent.futures.thread  # noqa: F401
import re
from collections.abc import Callable
from importlib import import_module

from ..errors import InvalidType, InvalidValue
from ..settings import Settings
from .contract import Broker as Broker
from .contract import Claim as Claim
from .presence import TOLD_AT_ONCE, Wish
from .shared import SharedBroker
from .store import Store

#: The schemes of this package's own brokers, each with the module beside this one that
#: has the broker's ``connect``. A module is imported when a URL first names it.
BROKERS = {
    "memory": "memory",
    "sqlite": "sqlite",
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
}


#: Makes a process's broker from the settings and the folder in which a URL's relative
#: path begins: see ``connect``. ``SharedBroker`` makes a broker of a store.
Factory = Callable[[Settings, "str | None"], "Broker | Store"]

#: What a URL's scheme looks like. Schemes are registered in lower case; in a URL the
#: case does not matter.
SCHEME = re.compile("[a-z][a-z0-9+.-]*")

#: The factories of applications, by scheme.
_registered: dict[str, Factory] = {}


def register(scheme: str, factory: Factory) -> None:
    """Register a broker of your own for URLs with a scheme of your own.

    An application calls this in each of its processes, before it is set up. The right
    place is where the factory is defined. The same definition can be registered again,
    by a module that is reloaded or an application factory that is called again: the
    latest counts. For example::

        register("shelf", connect_to_shelf)
        app.config["SSE_URL"] = "shelf:///var/lib/shop"

    :param scheme: what stands before the URL's first colon: lower-case ASCII letters,
        digits, ``+``, ``.`` and ``-``, beginning with a letter.
    :param factory: called with the settings and the application's instance folder (None
        where there is no application), once in each process, and once more when an
        application is set up, so that a wrong URL is refused then. It must connect to
        nothing, and return a ``Store`` or a whole ``Broker``. It must raise
        ``InvalidValue`` for a URL that it cannot use.
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
    """The broker that a configuration's URL names, for this process. It connects to
    nothing yet.

    :param folder: where the relative path of a URL begins. Without it, such a path is
        refused.
    :raises Unsupported: for an ``SSE_PRESENCE`` that the broker cannot do.
    :raises InvalidValue: where no broker exists for the URL. (Memory would be a bad
        substitute: it works on one worker, and loses events on two.)
    """
    scheme = settings.url.partition(":")[0].lower() if ":" in settings.url else ""
    made = _factory_of(scheme, settings.url_key)(settings, folder)
    broker = SharedBroker(made) if isinstance(made, Store) else made
    if not isinstance(broker, Broker):
        raise InvalidType(
            f"The factory of {scheme}:// made neither a Store nor a Broker, but "
            f"{broker!r}"
        )
    broker.limit(settings.history_bytes, settings.runs_bytes)
    if settings.presence:
        broker.tell_presence(_wish(settings))
    return broker


def _wish(settings: Settings) -> Wish:
    # A reader that falls behind by all that is kept gets a gap instead of who came.
    at_once = max(1, min(TOLD_AT_ONCE, settings.history // 2))
    return Wish(settings.tells_presence, settings.leave_after, at_once)


def _factory_of(scheme: str, url_key: str) -> Factory:
    if scheme in _registered:
        return _registered[scheme]
    if scheme in BROKERS:
        factory: Factory = import_module(f".{BROKERS[scheme]}", __name__).connect
        return factory
    # Only the scheme is shown, because the rest of the URL can contain a password.
    shown = scheme if SCHEME.fullmatch(scheme) else ""
    known = ", ".join(f"{name}://" for name in (*BROKERS, *_registered))
    raise InvalidValue(
        f"{url_key} has the scheme {shown!r}, for which this version of "
        f"flask_sse_lite has no broker, and the application has registered none. Set "
        f"it to one of: {known}"
    )

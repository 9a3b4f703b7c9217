"""What a broker's URL says besides where the store is.

Here lives what all stores have in common: how much they keep, and the prefix that lets
several applications use one of them.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qsl

from ..errors import InvalidValue
from ..settings import LONGEST, MOST, Settings
from .store import Retention

DEFAULT_PREFIX = "sse"


class Options(NamedTuple):
    """What is to be kept with the store, under its ``prefix``; None for what the store
    says itself. ``others`` is what is the broker's own."""

    retention: Retention | None
    prefix: str
    others: dict[str, str]


def read_options(settings: Settings, query: str) -> Options:
    """What a URL's query says, and where it does not, the configuration. A guest, who
    does not know what the application has configured, has no say unless it says all.

    :raises InvalidValue: naming the option. (Not the URL: there can be a password.)
    """
    others = dict(parse_qsl(query, keep_blank_values=True))
    history, age = settings.history, settings.history_age
    has_say = not settings.is_guest or {"history", "age"} <= others.keys()
    prefix = others.pop("prefix", DEFAULT_PREFIX)
    try:
        if "history" in others:
            history = int(others.pop("history"))
        if "age" in others:
            age = float(others.pop("age"))
    except ValueError:
        history = 0
    # Written so that "nan" is refused too.
    if not (1 <= history <= MOST and 0 < age <= LONGEST and prefix):
        raise InvalidValue(
            f"{settings.url_key} has an option that is wrong: history is a whole "
            "number from 1 up, age a number of seconds above 0, and a prefix is not "
            "empty"
        )
    return Options(Retention(history, age) if has_say else None, prefix, others)

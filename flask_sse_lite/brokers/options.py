"""The options that a broker's URL can have, besides the place of the store.

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
    """``retention`` is what the store must keep of each channel under ``prefix``, and
    ``history_bytes`` of all together; None leaves that as the store has it. ``others``
    are the options of that kind of broker."""

    retention: Retention | None
    history_bytes: int | None
    prefix: str
    others: dict[str, str]


def read_options(settings: Settings, query: str) -> Options:
    """The options of a URL's query; the configuration has those that it leaves out. A
    guest does not know the application's configuration, so its retention counts only
    if its URL has both the history and the age.

    :raises InvalidValue: for a wrong option. The message does not show the URL, which
        can contain a password.
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
    # These comparisons refuse "nan" too.
    if not (1 <= history <= MOST and 0 < age <= LONGEST and prefix):
        raise InvalidValue(
            f"{settings.url_key} has an option that is wrong: history is a whole "
            "number from 1 up, age a number of seconds above 0, and a prefix is not "
            "empty"
        )
    size = None if settings.is_guest else settings.history_bytes
    kept = Retention(history, age) if has_say else None
    return Options(kept, size, prefix, others)

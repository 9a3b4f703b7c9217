"""What the verbs are given: what each argument must be, and who is told of a bad one.

Here lives every check of an argument that is neither an event's field nor an item of a
generator. What is done with an argument lives in ``channels``; whether a client has
chosen it, ``client_faults`` tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from .client_faults import blamed, blamed_for_number, blamed_for_size
from .errors import EventTooLarge, InvalidType, InvalidValue
from .event import RESERVED_CHANNEL_PREFIX, Event, check_channel, encode_text, to_text
from .history.revocations import LONGEST_HOLD_OFF
from .names import Name, counted, worded, worded_id
from .position import without_run_names
from .settings import LONGEST, not_seconds

#: Channels in one stream. The hub looks at each of them whenever there is news.
MAX_CHANNELS = 64


def check_own(*channels: Name) -> tuple[str, ...]:
    """The names of an application's channels, without doubles.

    :raises InvalidValue: when there are none, or one cannot be an application's.
    """
    names = tuple(map(worded, channels))
    for name in names:
        check_channel(name)
        if name.startswith(RESERVED_CHANNEL_PREFIX):
            raise InvalidValue(
                f"Channels that begin with {RESERVED_CHANNEL_PREFIX!r} are this "
                f"extension's own: {without_run_names(name)!r}"
            )
    if not names:
        raise InvalidValue("Name at least one channel")
    return tuple(dict.fromkeys(names))


def own_names(channel: Name | Iterable[Name]) -> tuple[str, ...]:
    """The names of the channels of a ``publish``: see ``check_own``."""
    if type(channel) is str:
        return _own_name(channel)
    return check_own(*listed(channel))


#: Most publishes name one of few channels. A name that is refused is not remembered.
_own_name = lru_cache(maxsize=1024)(check_own)


def listed(channel: Name | Iterable[Name]) -> Iterable[Name]:
    """A channel, or several, as several."""
    if isinstance(name := worded(channel), str):
        return (name,)
    if isinstance(channel, Iterable) and not isinstance(channel, (bytes, Mapping)):
        return channel
    raise InvalidType(
        f"channel is a name or several, not {type(channel).__name__!r}: {channel!r}"
    )


def check_since(since: Any) -> None:
    """:raises InvalidType: for what is neither an id nor None."""
    if since is not None and not isinstance(since, str):
        raise InvalidType(f"since is the text of an id, not {since!r}")


def check_timeout(timeout: Any) -> None:
    """:raises InvalidValue: for what is neither a number of seconds nor None."""
    if timeout is None:
        return
    if not isinstance(timeout, (int, float)) or not 0 <= timeout <= LONGEST:
        raise InvalidValue(
            f"timeout is None, or up to {LONGEST} seconds, not {timeout!r}"
        )


def checked_names(
    channels: tuple[Name, ...], most: int | None = None
) -> tuple[str, ...]:
    """The names of an application's channels, as a view gives them, without doubles.

    :param most: how many there can be.
    :raises InvalidValue: see ``check_own``. Where the client is to blame, Flask answers
        it by 400.
    """
    try:
        names = check_own(*channels)
    except InvalidValue as error:
        raise _blamed_for_names(error, channels) from None
    if most is not None and len(names) > most:
        raise blamed_for_number(
            InvalidValue(f"A stream has at most {most} channels, not {len(names)}"),
            names,
            most,
        )
    return names


def _blamed_for_names(error: InvalidValue, names: Sequence[Any]) -> InvalidValue:
    if not names:
        return blamed_for_number(error, names, MAX_CHANNELS)
    return blamed(error, [(name, check_own) for name in names])


def blamed_for_publish(
    error: InvalidValue, data: Any, type: Any, id: Any, retry: Any, channel: Any
) -> InvalidValue:
    """The error to raise where a ``publish`` was refused: see ``blamed``."""
    if isinstance(error, EventTooLarge):
        return blamed_for_size(error)
    try:
        names = list(listed(channel))
    except InvalidValue:
        return blamed(error, [(channel, listed)])
    if not names:
        return _blamed_for_names(error, names)
    fields = [
        (data, _check_data),
        (type, lambda value: Event("", worded(value))),
        (id, lambda value: Event("", id=worded_id(value))),
        (retry, lambda value: Event("", retry=counted(value))),
    ]
    return blamed(error, [*((name, check_own) for name in names), *fields])


def _check_data(data: Any) -> None:
    if isinstance(data, (str, bytes, bytearray)):
        encode_text(to_text(data, str), None)


def check_replay(replay: Any) -> None:
    """:raises InvalidValue: for what is neither a number of events nor None."""
    if replay is not None and (type(replay) is not int or replay < 0):
        raise InvalidValue(f"replay is a whole number from 0 up, not {replay!r}")


def check_linger(linger: Any) -> None:
    """:raises InvalidValue: for what is no number of seconds."""
    if not isinstance(linger, (int, float)) or not linger >= 0:
        raise InvalidValue(f"linger is a number of seconds from 0, not {linger!r}")


#: Characters of an identity: those of a user's id or address, and no document.
MAX_IDENTITY = 512


def checked_identity(identity: Name | None) -> str | None:
    """Who a client is, as text.

    :raises InvalidValue: for a text that is empty or too long, or no text.
    """
    text = worded(identity)
    if text is None:
        return None
    if not isinstance(text, str) or not 0 < len(text) <= MAX_IDENTITY:
        raise InvalidValue(
            "An identity is None, or a text (or a number, or a UUID) of 1 to "
            f"{MAX_IDENTITY} characters, not {identity!r}"
        )
    return text


def check_hold_off(hold_off: Any) -> None:
    """:raises InvalidValue: for what is no number of seconds, or too many."""
    if not isinstance(hold_off, (int, float)) or not 0 <= hold_off <= LONGEST_HOLD_OFF:
        raise InvalidValue(
            f"hold_off is up to {LONGEST_HOLD_OFF:.0f} seconds, not {hold_off!r}"
        )


def check_max_age(max_age: Any) -> None:
    """:raises InvalidValue: for what is no number of seconds above 0."""
    if problem := not_seconds(max_age):
        raise InvalidValue(f"max_age is {problem}, not {max_age!r}")

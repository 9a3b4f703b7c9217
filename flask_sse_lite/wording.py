"""The wording of values: what a number or a UUID is called where a name is meant.

Here lives how ``publish`` and its like read what applications give them for a channel,
a type, an id or a retry. Flask-SSE wrote whatever it was given, and applications count
on that. What has no wording is returned as it is, and whoever checks it refuses it by
name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from numbers import Number
from typing import Any
from uuid import UUID

from .errors import InvalidValue

#: What type checkers let through as a name. More is taken when the program runs.
Name = str | int | UUID

#: The text of a number of milliseconds, short enough for any clock.
_WHOLE_NUMBER = re.compile("-?[0-9]{1,20}")


def worded(value: Any) -> Any:
    """The text of a number, a UUID, a date, a member of an enumeration: of whatever has
    a text of its own.

    A truth value, bytes, a collection, a function and a plain object have none: where
    they stand for a name, the caller has mistaken one thing for another.

    :raises InvalidValue: for a number that is too long to be written.
    """
    # Nearly all values are the first two, and a publish asks for four.
    if value is None or isinstance(value, str) or not _has_text(value):
        return value
    try:
        return format(value)
    except ValueError:
        raise InvalidValue("A number is too long to be a name") from None


def worded_id(value: Any) -> Any:
    """The same for an id, which may be a number already."""
    return value if isinstance(value, int) else worded(value)


def counted(value: Any) -> Any:
    """The number that a text is the text of: a ``retry`` of a configuration, say."""
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value.strip()):
        return int(value)
    return value


def _has_text(value: object) -> bool:
    if isinstance(value, Number):
        return not isinstance(value, bool)
    if isinstance(value, (Iterable, BaseException, type)) or callable(value):
        return False
    return type(value).__str__ is not object.__str__

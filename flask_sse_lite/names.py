"""Names: the text of a value, such as a number or a UUID, where a name is meant.

Here lives how ``publish``, ``stream`` and ``Message`` read what an application gives
them as a channel, a type, an id or a retry. Flask-SSE wrote any value as text, and
applications count on that. A value without a text is returned as it is: this module
never refuses one. The code that checks the value refuses it, and names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from numbers import Number
from typing import Any
from uuid import UUID

from .errors import InvalidValue

#: What type checkers accept as a name. At runtime ``worded`` takes more types.
Name = str | int | UUID

#: The text of a number of milliseconds, short enough for any clock.
_WHOLE_NUMBER = re.compile("-?[0-9]{1,20}")


def worded(value: Any) -> Any:
    """The text of any value that has a text of its own: a number, a UUID, a date, a
    member of an enumeration.

    A bool, bytes, a collection, a function and a plain object have no such text, and
    are returned as they are: where one stands for a name, the caller has made a
    mistake.

    :raises InvalidValue: for a number that is too long to be written.
    """
    # A publish calls this for several values, and nearly all are None or a str.
    if value is None or isinstance(value, str) or not _has_text(value):
        return value
    try:
        return format(value)
    except ValueError:
        raise InvalidValue("A number is too long to be a name") from None


def worded_id(value: Any) -> Any:
    """``worded`` for an id. An int stays an int, which an id can be."""
    return value if isinstance(value, int) else worded(value)


def counted(value: Any) -> Any:
    """The number that a text stands for, as in a ``retry`` read from a configuration.
    Any other value is returned as it is."""
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value.strip()):
        return int(value)
    return value


def _has_text(value: object) -> bool:
    if isinstance(value, Number):
        return not isinstance(value, bool)
    if isinstance(value, (Iterable, BaseException, type)) or callable(value):
        return False
    return type(value).__str__ is not object.__str__

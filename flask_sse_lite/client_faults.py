"""Whose fault a bad value is: the client's that sent it, or the application's.

Here lives how a refusal of this package's becomes an answer 400. A view can pass on
what its client says, as in ``sse.stream(f"job.{job}")``; what a client can choose must
not fill the error log. A value that the application chose stays an error of the
application's. The application's log says why a request was refused.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, islice
from typing import Any, TypeVar

from flask import current_app, has_request_context, request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from .errors import EventTooLarge, InvalidType, InvalidValue
from .log_messages import BAD_REQUEST

T = TypeVar("T")

#: Bytes of a request's body that are searched for a value. A bad value that a view
#: takes out of a larger body is an ordinary error.
MAX_BODY = 64 * 1024

#: Texts of a request, and values of a call, that are compared with one another. They
#: bound the time that a client's request can take here.
MAX_TEXTS = 1000
MAX_VALUES = 256

#: What stands between the names of a list that is one text.
_BETWEEN = re.compile(r"[\s,;|]+")

_SCALARS = (str, int, float)

#: Characters that JSON writes for one, at most: a backslash, a u, and four digits.
LONGEST_ESCAPE = 6

#: Where an application keeps the endpoints whose missing values were warned of.
_WARNED = "sse.endpoints_without_values"

#: What is checked in place of a value of which every part was the client's.
_ANYTHING = "x"


class BadClientValue(InvalidValue, BadRequest):
    """A value that cannot stand where it was given, and that a client has chosen: Flask
    answers it by 400."""

    def __init__(self, message: str) -> None:
        BadRequest.__init__(self, f"{message}.")

    def __str__(self) -> str:
        return self.description or ""


class BadClientType(BadClientValue, InvalidType):
    """The same, for a value whose type alone is wrong already."""


class ClientEventTooLarge(EventTooLarge, RequestEntityTooLarge):
    """An event that is too large because of what a client has sent: Flask answers it by
    413."""

    def __init__(self, error: EventTooLarge) -> None:
        RequestEntityTooLarge.__init__(self, f"{error}.")
        self.size = error.size

    def __str__(self) -> str:
        return self.description or ""


def require(check: Callable[[Any], T], value: Any) -> T:
    """Have a value checked.

    :returns: what the check returns.
    :raises InvalidValue: what the check raises; for a client's value, an error that
        Flask answers by 400.
    """
    try:
        return check(value)
    except InvalidValue as error:
        raise blamed(error, [(value, check)]) from None


def query() -> MultiDict[str, str]:
    """The parameters of the current request's query.

    :raises BadRequest: for bytes that are not UTF-8. (Werkzeug leaves their error to
        Flask, which would log it as one of the application's.)
    """
    try:
        return request.args
    except UnicodeDecodeError:
        raise BadRequest("The query is not UTF-8.") from None


def blamed(
    error: InvalidValue, values: Iterable[tuple[Any, Callable[[Any], Any]]]
) -> InvalidValue:
    """The error to raise for a refusal.

    :param error: the refusal.
    :param values: what a verb was given, each value with its check, which raises
        ``InvalidValue`` for a bad value.
    :returns: the refusal itself; or, where each bad value is the client's, an error
        that Flask answers by 400.
    """
    if not has_request_context() or isinstance(error, BadClientValue):
        return error
    bad = [(value, check) for value, check in values if not _passes(check, value)]
    bad = bad[:MAX_VALUES]
    said = _Said()
    if bad and all(said.is_to_blame_for(value, check) for value, check in bad):
        is_missing = any(value is None for value, _ in bad)
        return _answer(error, is_missing=is_missing)
    return error


def blamed_for_size(error: EventTooLarge) -> EventTooLarge:
    """The error to raise for an event that is too large. The client is to blame where
    its request, written as JSON, can be as large."""
    if not has_request_context() or isinstance(error, ClientEventTooLarge):
        return error
    if LONGEST_ESCAPE * (request.content_length or 0) < error.size:
        return error
    return ClientEventTooLarge(error)


def blamed_for_number(
    error: InvalidValue, names: Collection[Any], most: int
) -> InvalidValue:
    """The error to raise where the number of names is too large, or 0. The client is to
    blame where the application's own names alone are not too many. It is to blame for
    no name at all, too: what a client leaves out must not fill the error log.

    :param names: what a verb was given.
    :param most: how many there can be.
    """
    if not has_request_context():
        return error
    said = _Said()
    looked_at = islice(names, MAX_VALUES)
    own = sum(not said.has_part_in(str(name)) for name in looked_at)
    return _answer(error, is_missing=not names) if own <= most else error


def _answer(error: InvalidValue, *, is_missing: bool) -> InvalidValue:
    _log(error, is_missing=is_missing)
    kind = BadClientType if isinstance(error, InvalidType) else BadClientValue
    return kind(str(error))


def _log(error: InvalidValue, *, is_missing: bool) -> None:
    """Tell the developer why a request is answered by 400. Clients must not fill a log
    with it, so it is a warning in debug mode only. Where a value is missing, the view
    can be wrong as well as the client: each view is warned of once."""
    is_warning = current_app.debug
    if is_missing:
        warned = current_app.extensions.setdefault(_WARNED, set())
        is_warning = is_warning or request.endpoint not in warned
        warned.add(request.endpoint)
    BAD_REQUEST.log(
        request.endpoint,
        "left a value out, or the view gave none" if is_missing else "sent a bad value",
        error,
        to=current_app.logger,
        level=logging.WARNING if is_warning else logging.INFO,
        endpoint=request.endpoint,
    )


class _Said:
    """What the client of the current request has said, in any part of the request.

    Texts are compared without regard to case, which views often change.
    """

    def __init__(self) -> None:
        self._json = list(_values_in(_json_of_request()))
        scalars = (str(v) for v in self._json if isinstance(v, _SCALARS))
        texts = set()
        for text in islice(chain(_texts_of_request(), scalars), MAX_TEXTS):
            texts.add(text.casefold())
            texts.update(_BETWEEN.split(text.casefold(), MAX_TEXTS))
        self._is_empty_there = "" in texts
        # The longest first: a short text can be a part of a long one.
        self._texts = sorted(texts - {""}, key=len, reverse=True)[:MAX_TEXTS]

    def has_part_in(self, text: str) -> bool:
        """Whether a text contains what the client said, or is contained in it."""
        folded = text.casefold()
        return any(said in folded or folded in said for said in self._texts)

    def is_to_blame_for(self, value: Any, check: Callable[[Any], Any]) -> bool:
        """Whether a bad value would be good without what the client said. A view has
        None for what the client left out."""
        if value is None:
            return True
        if isinstance(value, (bytes, bytearray)):
            return bytes(value) in _body()
        if isinstance(value, bool) or not isinstance(value, _SCALARS):
            return any(type(v) is type(value) and v == value for v in self._json)
        if not isinstance(value, str):
            return any(_is_number(said, value) for said in self._texts)
        folded = value.casefold()
        if not folded:
            return self._is_empty_there
        if any(folded in said for said in self._texts):
            return True
        rest = folded
        for said in self._texts:
            rest = rest.replace(said, "")
        # A view that trims or cuts a value can leave its unprintable characters behind.
        letters = {c for said in self._texts for c in said if not c.isprintable()}
        rest = "".join(c for c in rest if c not in letters)
        return rest != folded and _passes(check, rest or _ANYTHING)


def _is_number(text: str, value: float) -> bool:
    """Whether a text is the text of a number. It must be all of the text: the version
    of a browser, say, contains many numbers."""
    if text == str(value):
        return True
    try:
        number = float(text)
    except ValueError:
        return False
    return number == value or (math.isnan(number) and value != value)


def _passes(check: Callable[[Any], Any], value: Any) -> bool:
    try:
        check(value)
    except InvalidValue:
        return False
    return True


def _texts_of_request() -> Iterator[str]:
    yield from map(str, (request.view_args or {}).values())
    try:
        asked = query()
    except BadRequest:
        asked = MultiDict()
    for values in (asked, request.form):
        yield from (value for _, value in values.items(multi=True))
    yield from (value for _, value in request.headers)
    yield from request.cookies.values()
    if request.authorization and request.authorization.username:
        yield request.authorization.username


def _has_small_body() -> bool:
    length = request.content_length
    return length is not None and length <= MAX_BODY


def _body() -> bytes:
    return request.get_data() if _has_small_body() else b""


def _json_of_request() -> Any:
    if request.is_json and _has_small_body():
        return request.get_json(silent=True)
    return None


def _values_in(data: Any) -> Iterator[Any]:
    """All values that JSON data contains. The search is no recursion: a client can nest
    JSON deeper than Python can call."""
    waiting = [data]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value

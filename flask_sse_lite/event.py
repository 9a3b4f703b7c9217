"""Events, and their bytes in an event stream (WHATWG HTML, section 9.2).

What an event *is* lives here: its fields, the checks on them, and its bytes. The way
back, from bytes to events, lives in decoder.py. Nothing here waits, does I/O, or knows
Flask.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from .errors import EventTooLarge, InvalidType, InvalidValue

#: The types of our own events begin with this. An application's types must not.
RESERVED_TYPE_PREFIX = "stream-"

#: The names of our own channels begin with this. An application's must not.
RESERVED_CHANNEL_PREFIX = "$"

#: Characters of a channel's name. Names travel in query strings, up to 64 of them in
#: one, and proxies and servers take query strings of some 4 to 8 kB.
MAX_CHANNEL_LENGTH = 255

#: HTTP takes these away around a header's value, and so around a Last-Event-ID.
BLANKS = " \t"

#: A comment, which keeps a silent connection alive. The blank line makes it a block of
#: its own: without it, clients that split a stream at blank lines and look at how each
#: block begins would lose the event that follows.
HEARTBEAT = b":\n\n"

#: A line ends with one of these, and with nothing else.
LINE_END = re.compile("\r\n|\n|\r")
_BREAKS_A_LINE = re.compile("[\r\n\0]")
_NOT_IN_A_CHANNEL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, init=False)
class Event:
    """One event: checked when it is made, so that encoding it cannot fail.

    An event cannot be changed, so threads can share it::

        event = Event("hello", type="said")
        sse.publish(event, channel="room.1")

    :param data: the text that the client gets. Line breaks (CR LF, LF, CR) arrive as
        LF, as the format has it; everything else arrives as it is.
    :param type: the name that a browser's ``addEventListener`` listens to; without a
        type, browsers take ``"message"``. It must not begin with ``stream-``.
    :param id: the client sends it back as ``Last-Event-ID``; text or int. Where it is
        left out, ``publish`` fills in the event's position: that makes resuming exact.
    :param retry: milliseconds that the client waits before it reconnects.
    :param channel: the channel that the event belongs to; ``publish`` fills it in.
    :raises InvalidValue: for a value that cannot be sent: CR, LF or NUL in the type or
        the id, an empty id, a negative retry, text that is not Unicode.
    :raises InvalidType: (an ``InvalidValue`` too) for data that is no text, and so on.
    """

    data: str
    type: str | None
    id: str | None
    retry: int | None
    channel: str | None
    #: The lines in front of ``id:``; and the whole frame, from the first call of
    #: ``encode`` on.
    _body: bytes = field(init=False, repr=False, compare=False)
    _frame: bytes | None = field(init=False, repr=False, compare=False)

    def __init__(
        self,
        data: str,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        *,
        channel: str | None = None,
    ) -> None:
        if type is not None:
            type = _checked_line("type", type)
            if type.startswith(RESERVED_TYPE_PREFIX):
                raise InvalidValue(
                    f"An event's type must not begin with {RESERVED_TYPE_PREFIX!r}, "
                    f"which marks this extension's own events: {type!r}"
                )
        if retry is not None:
            retry = _checked_retry(retry)
        if channel is not None:
            check_channel(channel)
        text = None if id is None else _checked_id(id)
        data = _checked_data(data)
        self._set(data, type, text, retry, channel, _encode_body(data, type))

    def _set(
        self,
        data: str,
        type: str | None,
        id: str | None,
        retry: int | None,
        channel: str | None,
        body: bytes,
    ) -> Event:
        """Fill in this event. The caller has checked the values."""
        fill = object.__setattr__
        fill(self, "data", data)
        fill(self, "type", type)
        fill(self, "id", id)
        fill(self, "retry", retry)
        fill(self, "channel", channel)
        fill(self, "_body", body)
        fill(self, "_frame", None)
        return self

    def published(self, channel: str, position: str) -> Event:
        """This event as it stands in a channel. The position becomes its id, unless
        the application gave it one. The data is not encoded again."""
        id = position if self.id is None else self.id
        event: Event = object.__new__(Event)
        return event._set(self.data, self.type, id, self.retry, channel, self._body)

    def encode(self) -> bytes:
        """The event as a frame. The first call makes the frame, and every stream that
        sends the event shares it::

            Event("hello", type="said").encode()  # b"event: said\\ndata: hello\\n\\n"
        """
        frame = self._frame
        if frame is None:
            # Two threads can come here at once: each then makes the same frame.
            frame = _encode_frame(self._body, self.id, self.retry)
            object.__setattr__(self, "_frame", frame)
        return frame

    @property
    def size(self) -> int:
        """Bytes of the frame::

            assert Event("hello").size == len(b"data: hello\\n\\n")

        The frame is not made for this.
        """
        if self._frame is not None:
            return len(self._frame)
        size = len(self._body) + 1
        if self.id is not None:
            size += 5 + (len(self.id) if self.id.isascii() else len(self.id.encode()))
        return size if self.retry is None else size + 8 + len(str(self.retry))

    @property
    def json(self) -> Any:
        """The data read as JSON::

            assert Event('{"name": "Ann"}').json == {"name": "Ann"}

        :raises ValueError: when it is not JSON (``json.JSONDecodeError``).
        """
        return json.loads(self.data)

    def __str__(self) -> str:
        return self.encode().decode()


def check_size(event: Event, most: int) -> None:
    """Refuse an event whose data, type and id together have more bytes than a number.

    :raises EventTooLarge: naming both.
    """
    # The body holds the data and the type. An id's character has up to four bytes.
    if len(event._body) + (4 * len(event.id) if event.id else 0) <= most:
        return
    texts = (event.data, event.type, event.id)
    size = sum(len(t) if t.isascii() else len(t.encode()) for t in texts if t)
    if size > most:
        raise EventTooLarge(
            f"An event of {size} bytes is larger than SSE_MAX_EVENT_BYTES (or "
            f"SSE_HISTORY_BYTES), which is {most}: publish where its data can be had, "
            "or raise the setting",
            size,
        )


def good_event(
    data: str, type: str | None, id: str | None, retry: int | None, channel: str | None
) -> Event:
    """An event of values that the caller has checked. Its type can be one of ours."""
    event: Event = object.__new__(Event)
    return event._set(data, type, id, retry, channel, _encode_body(data, type))


def stored_event(
    data: object, type: object, id: object, retry: object, channel: str, position: str
) -> Event:
    """An event as it stands in a store. Any release of this extension, and any other
    program, can have written it. Its type can be one of ours.

    :param position: the event's id, where the store has no other.
    :raises InvalidValue: for values that no event can have.
    """
    return good_event(
        _checked_data(data),
        None if type is None else _checked_line("type", type),
        position if id is None else _checked_id(id),
        None if retry is None else _checked_retry(retry),
        channel,
    )


def encode_text(data: str, type: str | None) -> bytes:
    """The frame of an event of this data, without making the event.

    :param type: the event's type, which the caller has checked.
    :raises InvalidValue: as ``Event`` does.
    """
    return _encode_frame(_encode_body(_checked_data(data), type), None, None)


def to_text(data: Any, dumps: Callable[[Any], str]) -> str:
    """The text that stands for this data in an event: text as it is, bytes as UTF-8,
    anything else as JSON.

    :param dumps: the application's way to JSON.
    :raises InvalidType: for what cannot be made JSON.
    :raises InvalidValue: for bytes that are not UTF-8.
    """
    if isinstance(data, str):
        return data
    if isinstance(data, (bytes, bytearray)):
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise InvalidValue(f"Bytes as data must be UTF-8: {error}") from error
    try:
        return dumps(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidType(
            f"Data of type {type(data).__name__!r} cannot be made JSON: {error}. "
            "Give text, or what the application's JSON provider takes."
        ) from error


def check_channel(name: str) -> None:
    """Refuse what cannot be a channel's name.

    :raises InvalidType: for what is no text (a list of names, say).
    :raises InvalidValue: for a name that is empty, is longer than
        ``MAX_CHANNEL_LENGTH`` characters, or has a control character.
    """
    if not isinstance(name, str):
        raise InvalidType(
            f"A channel's name is text, not {type(name).__name__!r}: {name!r}"
        )
    if not 0 < len(name) <= MAX_CHANNEL_LENGTH:
        raise InvalidValue(
            f"A channel's name has 1 to {MAX_CHANNEL_LENGTH} characters, "
            f"not {len(name)}"
        )
    if _NOT_IN_A_CHANNEL.search(name):
        raise InvalidValue(f"A channel's name has no control characters: {name!r}")


@lru_cache(maxsize=1024)
def channel_line(name: str) -> bytes:
    """The line that names an event's channel, on a stream of several channels. Our
    decoder reads it; every other client ignores it, as the format has it for an unknown
    field."""
    return f"channel: {name}\n".encode()


def is_sendable_id(text: str) -> bool:
    """Whether an ``id:`` line can carry this."""
    return bool(text) and not _BREAKS_A_LINE.search(text) and _is_unicode(text)


def _checked_data(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidType(
            f"An event's data is text, not {type(value).__name__!r}: publish() and "
            "EventStream make JSON of anything else"
        )
    return _plain(value)


def _checked_line(name: str, value: object) -> str:
    """The text, if it stays within its line."""
    if not isinstance(value, str):
        raise InvalidType(
            f"An event's {name} is text, not {type(value).__name__!r}: {value!r}"
        )
    if _BREAKS_A_LINE.search(value):
        raise InvalidValue(f"An event's {name} has no CR, LF or NUL: {value!r}")
    if not _is_unicode(value):
        raise InvalidValue(f"An event's {name} has a lone surrogate: {value!r}")
    return _plain(value)


def _checked_id(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return _written("id", int(value))
    text = _checked_line("id", value)
    if not text.strip(BLANKS):
        # Such an id would come back as an empty header, and so mean a newcomer.
        raise InvalidValue("An event's id is not empty or blank: leave it out instead")
    return text


def _checked_retry(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidType(
            "An event's retry is a whole number of milliseconds, "
            f"not {type(value).__name__!r}: {value!r}"
        )
    written = _written("retry", int(value))
    if value < 0:
        raise InvalidValue(f"An event's retry is not negative: {written}")
    return int(value)


def _written(name: str, number: int) -> str:
    try:
        return str(number)
    except ValueError as error:
        raise InvalidValue(f"An event's {name} is too long a number") from error


def _plain(text: str) -> str:
    """The text itself. Formatting a member of an enumeration of texts would write the
    member's name."""
    return str.__str__(text)


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _encode_body(data: str, type: str | None) -> bytes:
    """The lines that stand before ``id:``."""
    head = f"event: {type}\n" if type else ""
    if "\n" in data or "\r" in data:
        # Not splitlines(): it also splits at U+2028, FF and others, and drops an empty
        # last line. Data would be lost.
        data = "\ndata: ".join(LINE_END.split(data))
    try:
        return f"{head}data: {data}\n".encode()
    except UnicodeEncodeError as error:
        raise InvalidValue(f"An event's data has a lone surrogate: {error}") from error


def _encode_frame(body: bytes, id: str | None, retry: int | None) -> bytes:
    tail = "" if id is None else f"id: {id}\n"
    if retry is not None:
        tail += f"retry: {retry}\n"
    return b"%b%b\n" % (body, tail.encode())

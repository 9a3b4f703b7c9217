"""The wire format of an event stream, both ways (WHATWG HTML, section 9.2).

Here lives what an event *is*: its fields, the checks on them, its bytes, and the
way back from bytes to events. Nothing here waits, does I/O, or knows of Flask.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from .errors import InvalidType, InvalidValue

#: The types of our own events begin with this; an application's may not.
RESERVED_TYPE_PREFIX = "stream-"

#: Channels of our own begin with this; an application's may not.
RESERVED_CHANNEL_PREFIX = "$"

#: Characters of a channel's name. It travels in query strings, of which proxies
#: and servers take some 4 to 8 kB, and up to 64 names may stand in one.
MAX_CHANNEL_LENGTH = 255

#: What HTTP takes away around a header's value, and so around a Last-Event-ID.
BLANKS = " \t"

#: A comment, which keeps a silent connection alive. Its blank line keeps it a block
#: of its own: clients that split a stream at blank lines and look at how each block
#: begins would otherwise lose the event that follows.
HEARTBEAT = b":\n\n"

_LINE_END = re.compile("\r\n|\n|\r")
_BREAKS_A_LINE = re.compile("[\r\n\0]")
_NOT_IN_A_CHANNEL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: Python refuses to read more digits than these.
_DIGITS = re.compile("[0-9]{1,4300}")


@dataclass(frozen=True, slots=True, init=False)
class Event:
    """One event: checked when it is made, so that encoding it cannot fail.

    Immutable, and so free to be shared between threads::

        event = Event("hello", type="said")
        sse.publish(event, channel="room.1")

    :param data: the text that the client gets. Line breaks (CR LF, LF, CR) arrive as
        LF, as the format has it; everything else arrives as it is.
    :param type: what a browser's ``addEventListener`` listens to; without it, that is
        ``"message"``. It may not begin with ``stream-``.
    :param id: what a client sends back as ``Last-Event-ID``; text or int. ``publish``
        fills it in where it is left out, and that is what makes resuming exact.
    :param retry: how long the client shall wait before it reconnects, in milliseconds.
    :param channel: the channel that the event belongs to; ``publish`` fills it in.
    :raises InvalidValue: where a value cannot be sent: CR, LF or NUL in the type or
        the id, an empty id, a negative retry, text that is not Unicode.
    :raises InvalidType: (an ``InvalidValue`` too) where data is not text, and so on.
    """

    data: str
    type: str | None
    id: str | None
    retry: int | None
    channel: str | None
    #: The lines in front of ``id:``, and all of them, once somebody has asked.
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
                    f"An event's type may not begin with {RESERVED_TYPE_PREFIX!r}, "
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
        """Fill in an event, of values that are known to be good."""
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
        """This event as it stands in a channel: the position is its id, unless the
        application gave it one. The data is not encoded again."""
        id = position if self.id is None else self.id
        event: Event = object.__new__(Event)
        return event._set(self.data, self.type, id, self.retry, channel, self._body)

    def encode(self) -> bytes:
        """The event as a frame. It is made at the first call, and kept for all who
        send it::

            Event("hello", type="said").encode()  # b"event: said\\ndata: hello\\n\\n"
        """
        frame = self._frame
        if frame is None:
            # Of two threads that come here at once, each makes the same.
            frame = _encode_frame(self._body, self.id, self.retry)
            object.__setattr__(self, "_frame", frame)
        return frame

    @property
    def json(self) -> Any:
        """The data read as JSON::

            assert Event('{"name": "Ann"}').json == {"name": "Ann"}

        :raises ValueError: when it is not JSON (``json.JSONDecodeError``).
        """
        return json.loads(self.data)

    def __str__(self) -> str:
        return self.encode().decode()


def own_event(
    name: str,
    data: str = "",
    *,
    id: str | None = None,
    retry: int | None = None,
    channel: str | None = None,
) -> Event:
    """One of this extension's own events, whose types begin with ``stream-``."""
    return good_event(data, RESERVED_TYPE_PREFIX + name, id, retry, channel)


def good_event(
    data: str, type: str | None, id: str | None, retry: int | None, channel: str | None
) -> Event:
    """An event of values that are known to be good; of ours, its type may be."""
    event: Event = object.__new__(Event)
    return event._set(data, type, id, retry, channel, _encode_body(data, type))


def stored_event(
    data: object, type: object, id: object, retry: object, channel: str, position: str
) -> Event:
    """An event as it stands in a store, which any release of this extension, and any
    other program, can have written. Types of our own are good there.

    :param position: its id, where it has no other.
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
    """What an event of this data encodes to, without the event.

    :param type: one that is known to be good.
    :raises InvalidValue: as ``Event``.
    """
    return _encode_frame(_encode_body(_checked_data(data), type), None, None)


def to_text(data: Any, dumps: Callable[[Any], str]) -> str:
    """What an event of this data says: text as it is, bytes as UTF-8, anything else
    as JSON.

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

    :raises InvalidType: when it is no text (a list of names, say).
    :raises InvalidValue: when it is empty, longer than ``MAX_CHANNEL_LENGTH``
        characters, or has a control character.
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
    """The line that names an event's channel on a stream of several. To every other
    client it is an unknown field, which the format has it ignore."""
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
    """Text that stays within its line."""
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
        # As a header's value it would come back empty, as a newcomer's does.
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
    """The text itself, where it is a member of an enumeration, say: formatting would
    write that member's name."""
    return str.__str__(text)


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _encode_body(data: str, type: str | None) -> bytes:
    """The lines that stand before ``id:``."""
    head = f"event: {type}\n" if type else ""
    if "\n" in data or "\r" in data:
        # Not splitlines(): that splits at U+2028, FF and others too, and drops an
        # empty last line. All of that would be data lost.
        data = "\ndata: ".join(_LINE_END.split(data))
    try:
        return f"{head}data: {data}\n".encode()
    except UnicodeEncodeError as error:
        raise InvalidValue(f"An event's data has a lone surrogate: {error}") from error


def _encode_frame(body: bytes, id: str | None, retry: int | None) -> bytes:
    tail = "" if id is None else f"id: {id}\n"
    if retry is not None:
        tail += f"retry: {retry}\n"
    return b"%b%b\n" % (body, tail.encode())


class Decoder:
    """From the bytes of an event stream to its events, chunk by chunk.

    As WHATWG HTML 9.2.6 has it: one leading BOM is dropped, lines end with CR LF, LF
    or CR, wherever the chunks break; comments and unknown fields are ignored; an id
    with a NUL is ignored, a retry that is not all digits too; an event without data is
    not dispatched; bytes that are not UTF-8 become U+FFFD. One field more is read: the
    ``channel`` of streams of several channels.

    Not thread-safe: one stream, one decoder, one reader.
    """

    def __init__(self) -> None:
        #: The id to resume from; it outlives the events that follow without one.
        self.last_event_id = ""
        #: Milliseconds to wait before reconnecting, once the stream has said so.
        self.retry: int | None = None
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = True
        self._after_cr = False
        self._line: list[str] = []
        self._id = ""
        self._begin_block()

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the stream's next bytes, as many as there are.

        :returns: the events that are complete now. What the end of a stream leaves
            incomplete is never one.
        """
        text = self._utf8.decode(chunk)
        if text and self._at_start:
            self._at_start = False
            text = text.removeprefix("\ufeff")
        if text and self._after_cr:
            self._after_cr = False
            text = text.removeprefix("\n")
        self._after_cr = self._after_cr or text.endswith("\r")
        *ended, rest = _LINE_END.split(text)
        events = []
        for part in ended:
            self._line.append(part)
            line = "".join(self._line)
            self._line.clear()
            if event := self._take_line(line):
                events.append(event)
        if rest:
            self._line.append(rest)
        return events

    def _begin_block(self) -> None:
        self._data: list[str] = []
        self._type = ""
        self._block_retry: int | None = None
        self._channel: str | None = None

    def _take_line(self, line: str) -> Event | None:
        if not line:
            return self._end_block()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and _DIGITS.fullmatch(value):
            self.retry = self._block_retry = int(value)
        elif name == "channel":
            self._channel = value
        return None

    def _end_block(self) -> Event | None:
        event = None
        self.last_event_id = self._id
        if self._data:
            event = good_event(
                "\n".join(self._data),
                self._type or None,
                self.last_event_id or None,
                self._block_retry,
                self._channel,
            )
        self._begin_block()
        return event

"""The way back from the bytes of an event stream to its events (WHATWG HTML, 9.2.6).

How a client reads a stream lives here, for the command line and for tests. Where the
bytes come from is unknown here: nothing waits, and nothing does I/O. What an event is,
and how it is written, lives in event.py.
"""

from __future__ import annotations

import codecs
import re

from .event import LINE_END, Event, good_event

#: Python refuses to read a number of more digits than these.
_DIGITS = re.compile("[0-9]{1,4300}")


class Decoder:
    """From the bytes of an event stream to its events, chunk by chunk.

    It does as WHATWG HTML 9.2.6 has it: one leading BOM is dropped; lines end with CR
    LF, LF or CR, wherever the chunks break; comments and unknown fields are ignored; an
    id with a NUL is ignored, and so is a retry that is not all digits; an event without
    data is not dispatched; bytes that are not UTF-8 become U+FFFD. One field more is
    read: the ``channel`` of streams of several channels.

    Not thread-safe: one stream, one decoder, one reader.
    """

    def __init__(self) -> None:
        #: The id to resume from. An event without an id leaves it as it is.
        self.last_event_id = ""
        #: Milliseconds to wait before reconnecting; None until the stream says it.
        self.retry: int | None = None
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = True
        self._after_cr = False
        self._line: list[str] = []
        self._id = ""
        self._begin_block()

    def feed(self, chunk: bytes) -> list[Event]:
        """Take the stream's next bytes, however many.

        :returns: the events that these bytes complete. What the end of a stream leaves
            incomplete never becomes an event.
        """
        text = self._utf8.decode(chunk)
        if text and self._at_start:
            self._at_start = False
            text = text.removeprefix("\ufeff")
        if text and self._after_cr:
            self._after_cr = False
            text = text.removeprefix("\n")
        self._after_cr = self._after_cr or text.endswith("\r")
        *ended, rest = LINE_END.split(text)
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

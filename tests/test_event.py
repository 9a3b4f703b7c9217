"""Events are checked when they are made, and come back from their bytes unchanged."""

from __future__ import annotations

import codecs
import copy
import dataclasses
import json
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from enum import Enum
from typing import Any, NamedTuple

import httpx
import pytest
import sseclient
from httpx_sse import EventSource
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flask_sse_lite import Event, InvalidType, InvalidValue, SSEError
from flask_sse_lite.event import (
    HEARTBEAT,
    MAX_CHANNEL_LENGTH,
    Decoder,
    channel_line,
    check_channel,
    is_sendable_id,
    to_text,
)


class Kind(str, Enum):  # StrEnum came with Python 3.11.
    """As applications name their types."""

    TICK = "tick"


class Wait(int, Enum):
    SHORT = 100


# What is refused


@pytest.mark.parametrize("field", ["type", "id"])
@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\r\nb", "a\0b", "\n", "a\n"])
def test_what_breaks_a_line_is_refused(field: str, value: str) -> None:
    with pytest.raises(InvalidValue, match=f"{field} has no CR, LF or NUL") as caught:
        Event("data", **{field: value})  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)
    assert not isinstance(caught.value, TypeError)


@pytest.mark.parametrize("field", ["type", "id", "data"])
@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", "\ud83d \ude00"])
def test_a_lone_surrogate_is_refused(field: str, value: str) -> None:
    fields: dict[str, Any] = {"data": "data", field: value}
    with pytest.raises(InvalidValue, match=f"{field} has a lone surrogate") as caught:
        Event(**fields)
    assert "\\ud" in str(caught.value)


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(InvalidValue, match="id is not empty"):
        Event("data", id="")


@pytest.mark.parametrize("value", [" ", "\t", "  \t "])
def test_an_id_of_blanks_alone_is_refused(value: str) -> None:
    # As a header's value it arrives empty, and its client would be a newcomer: what
    # it missed would be lost in silence.
    with pytest.raises(InvalidValue, match="id"):
        Event("data", id=value)


@pytest.mark.parametrize("value", ["stream-", "stream-open", "stream-anything"])
def test_a_type_of_our_own_is_refused(value: str) -> None:
    with pytest.raises(InvalidValue, match="may not begin with 'stream-'") as caught:
        Event("data", type=value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["stream", "streaming", "Stream-x", "x-stream-"])
def test_a_type_that_only_resembles_ours_is_taken(value: str) -> None:
    assert Event("data", type=value).encode().startswith(f"event: {value}\n".encode())


@pytest.mark.parametrize("value", [True, False, 1.0, "3000", b"3", [1], object])
def test_a_retry_that_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(InvalidType, match="retry is a whole number") as caught:
        Event("data", retry=value)
    assert repr(value) in str(caught.value)
    assert repr(type(value).__name__) in str(caught.value)


def test_a_negative_retry_is_refused() -> None:
    with pytest.raises(InvalidValue, match="retry is not negative: -1"):
        Event("data", retry=-1)


@pytest.mark.parametrize("field", ["retry", "id"])
def test_a_number_too_long_for_python_to_write_is_refused(field: str) -> None:
    with pytest.raises(InvalidValue, match=field):
        Event("data", **{field: 10**5000})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, b"bytes", 1, True, {"a": 1}, ["x"], 1.5])
def test_data_that_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InvalidType, match="data is text") as caught:
        Event(value)
    assert repr(type(value).__name__) in str(caught.value)


@pytest.mark.parametrize("value", [b"tick", 1, True, ["tick"]])
def test_a_type_that_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InvalidType, match="type is text") as caught:
        Event("data", type=value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [b"1", True, False, 1.0, ["1"]])
def test_an_id_that_is_neither_text_nor_int_is_refused(value: Any) -> None:
    with pytest.raises(InvalidType, match="id is text") as caught:
        Event("data", id=value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [["a", "b"], ("a",), b"a", 1, {"a"}])
def test_a_channel_that_is_no_name_is_refused(value: Any) -> None:
    with pytest.raises(InvalidType, match="channel's name is text") as caught:
        Event("data", channel=value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("length", [1, 255])
def test_a_channel_name_of_a_legal_length_is_taken(length: int) -> None:
    check_channel("n" * length)
    assert Event("data", channel="é" * length).channel == "é" * length


@pytest.mark.parametrize("length", [0, 256, 5000])
def test_a_channel_name_of_another_length_is_refused(length: int) -> None:
    assert MAX_CHANNEL_LENGTH == 255
    with pytest.raises(InvalidValue, match=f"1 to 255 characters, not {length}"):
        Event("data", channel="n" * length)


@pytest.mark.parametrize(
    "character", ["\0", "\t", "\n", "\r", "\x1f", "\x7f", "\x80", "\x85", "\x9f"]
)
def test_a_channel_name_with_a_control_character_is_refused(character: str) -> None:
    name = f"a{character}b"
    with pytest.raises(InvalidValue, match="no control characters") as caught:
        check_channel(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("code", [0xD800, 0xDFFF])
def test_a_channel_name_with_a_lone_surrogate_is_refused(code: int) -> None:
    with pytest.raises(InvalidValue, match="channel's name"):
        check_channel(f"a{chr(code)}")


@pytest.mark.parametrize("name", [" ", "a b", "$ours", "*", "ä/ö?ü&x=y", "😀", "~\xa0"])
def test_any_other_channel_name_is_taken(name: str) -> None:
    check_channel(name)
    assert channel_line(name) == b"channel: " + name.encode() + b"\n"


def test_a_refusal_is_an_error_of_ours_and_a_value_error() -> None:
    assert issubclass(InvalidValue, SSEError)
    assert issubclass(InvalidValue, ValueError)
    assert not issubclass(InvalidValue, TypeError)


def test_a_refusal_of_a_type_is_a_type_error_as_well() -> None:
    assert issubclass(InvalidType, InvalidValue)
    assert issubclass(InvalidType, TypeError)


@pytest.mark.parametrize(
    ("text", "sendable"),
    [("1", True), ("ä ", True), ("", False), ("a\n", False), ("a\0", False)],
)
def test_an_id_is_sendable_when_a_line_can_carry_it(text: str, sendable: bool) -> None:
    assert is_sendable_id(text) is sendable
    assert is_sendable_id(f"{text}\udc80") is False


# What an event is


def test_an_id_may_be_a_number_and_becomes_text() -> None:
    assert Event("data", id=0).id == "0"
    assert Event("data", id=-7) == Event("data", id="-7")


@pytest.mark.parametrize("field", list(Event.__dataclass_fields__))
def test_an_event_cannot_be_changed(field: str) -> None:
    event = Event("data", "type", "id", 1, channel="channel")
    before = getattr(event, field)
    with pytest.raises(FrozenInstanceError):
        setattr(event, field, "other")
    with pytest.raises(FrozenInstanceError):
        delattr(event, field)
    assert getattr(event, field) is before


def test_an_event_takes_no_further_attributes() -> None:
    with pytest.raises((FrozenInstanceError, TypeError)):
        Event("data").note = "other"  # type: ignore[attr-defined]


def test_events_of_the_same_fields_are_equal_and_hash_alike() -> None:
    one, other = (Event("data", "type", 1, 2, channel="c") for _ in range(2))
    assert one == other
    assert one is not other
    assert hash(one) == hash(other)
    assert {one: "found"}[other] == "found"


@pytest.mark.parametrize(
    "other",
    [
        Event("other", "type", "id", 1, channel="c"),
        Event("data", "other", "id", 1, channel="c"),
        Event("data", "type", "other", 1, channel="c"),
        Event("data", "type", "id", 2, channel="c"),
        Event("data", "type", "id", 1, channel="other"),
        "data",
    ],
)
def test_events_that_differ_in_a_field_are_not_equal(other: object) -> None:
    assert Event("data", "type", "id", 1, channel="c") != other


@pytest.mark.parametrize("event", [Event("ä\nb", "t", 1, 2, channel="c"), Event("")])
def test_an_event_survives_pickling_and_copying(event: Event) -> None:
    pickled = [pickle.loads(pickle.dumps(event, n)) for n in range(2, 6)]
    for other in [*pickled, copy.copy(event), copy.deepcopy(event)]:
        assert other == event
        assert other.encode() == event.encode()
        assert other.published("d", "9").encode() == event.published("d", "9").encode()


def test_an_event_as_text_is_its_wire_form() -> None:
    event = Event("ä\nb", "type", "id", 1)
    assert str(event) == "event: type\ndata: ä\ndata: b\nid: id\nretry: 1\n\n"


def test_the_representation_shows_the_fields_alone() -> None:
    assert repr(Event("d", "t", 1, 2, channel="c")) == (
        "Event(data='d', type='t', id='1', retry=2, channel='c')"
    )


def test_json_reads_the_data_back() -> None:
    value = {"text": "a\nb\u2028", "list": [1, None, True, 1.5]}
    assert Event(json.dumps(value)).json == value


def test_data_that_is_no_json_is_a_value_error_when_it_is_read() -> None:
    with pytest.raises(json.JSONDecodeError):
        _ = Event("no json").json


def test_every_encoding_is_the_same_object() -> None:
    event = Event("data", "type", "id")
    assert all(event.encode() is event.encode() for _ in range(3))


def test_threads_share_one_encoding() -> None:
    event = Event("data" * 1000, "type", "id")
    with ThreadPoolExecutor(8) as threads:
        frames = list(threads.map(lambda _: event.encode(), range(800)))
    assert len(frames) == 800
    assert all(frame == event.encode() for frame in frames)
    # Those that began at once may each have made it.
    assert len({id(frame) for frame in frames}) <= 8


def test_a_published_event_gets_its_position_as_its_id() -> None:
    event = Event("data", "type", retry=5)
    published = event.published("channel", "epoch-1")
    assert published == Event("data", "type", "epoch-1", 5, channel="channel")
    assert published.encode() == Event("data", "type", "epoch-1", 5).encode()
    assert (event.id, event.channel) == (None, None)


def test_a_published_event_keeps_the_id_that_the_application_gave_it() -> None:
    published = Event("data", id="own").published("channel", "epoch-1")
    assert published == Event("data", id="own", channel="channel")


# The wire format, byte for byte


@pytest.mark.parametrize(
    ("event", "frame"),
    [
        (Event("x"), b"data: x\n\n"),
        (Event(""), b"data: \n\n"),
        (Event("", "t"), b"event: t\ndata: \n\n"),
        (Event("x", ""), b"data: x\n\n"),
        (Event(" x "), b"data:  x \n\n"),
        (Event(":x"), b"data: :x\n\n"),
        (Event("a\nb"), b"data: a\ndata: b\n\n"),
        (Event("a\rb"), b"data: a\ndata: b\n\n"),
        (Event("a\r\nb"), b"data: a\ndata: b\n\n"),
        (Event("a\n\rb"), b"data: a\ndata: \ndata: b\n\n"),
        (Event("a\n"), b"data: a\ndata: \n\n"),
        (Event("\n"), b"data: \ndata: \n\n"),
        (Event("\r\n\r\n"), b"data: \ndata: \ndata: \n\n"),
        (
            Event("a\u2028b\x85c\x0cd\x0be"),
            "data: a\u2028b\x85c\x0cd\x0be\n\n".encode(),
        ),
        (Event("\ufeffx\0y"), b"data: \xef\xbb\xbfx\0y\n\n"),
        (Event("x", "tick"), b"event: tick\ndata: x\n\n"),
        (Event("x", id="1"), b"data: x\nid: 1\n\n"),
        (Event("x", id=1), b"data: x\nid: 1\n\n"),
        (Event("x", id=" ä: "), b"data: x\nid:  \xc3\xa4: \n\n"),
        (Event("x", retry=0), b"data: x\nretry: 0\n\n"),
        (
            Event("a\nb", "t", "i", 3000, channel="c"),
            b"event: t\ndata: a\ndata: b\nid: i\nretry: 3000\n\n",
        ),
    ],
)
def test_the_wire_form_is_this(event: Event, frame: bytes) -> None:
    assert event.encode() == frame


def test_a_heartbeat_is_a_comment_in_a_block_of_its_own() -> None:
    assert HEARTBEAT == b":\n\n"


@pytest.mark.parametrize("field", ["data", "type", "id"])
def test_a_member_of_an_enumeration_of_texts_is_sent_as_its_value(field: str) -> None:
    fields: dict[str, Any] = {"data": "data", field: Kind.TICK}
    event = Event(**fields)
    assert b": tick\n" in event.encode()
    assert getattr(event, field) == "tick"


@pytest.mark.parametrize("field", ["id", "retry"])
def test_a_member_of_an_enumeration_of_numbers_is_sent_as_its_value(field: str) -> None:
    event = Event("data", **{field: Wait.SHORT})  # type: ignore[arg-type]
    assert f"{field}: 100\n" in str(event)


def test_an_event_is_made_from_another_with_changes() -> None:
    event = dataclasses.replace(Event("data", "type", "1", 5), data="other")
    assert event == Event("other", "type", "1", 5)
    assert event.encode() == Event("other", "type", "1", 5).encode()


# Data of any kind as text


def test_text_is_sent_as_it_is() -> None:
    assert to_text("1 ä", json.dumps) == "1 ä"


@pytest.mark.parametrize("data", ["ä".encode(), bytearray("ä".encode())])
def test_bytes_are_sent_as_the_text_they_encode(data: bytes | bytearray) -> None:
    assert to_text(data, json.dumps) == "ä"


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(InvalidValue, match="must be UTF-8"):
        to_text(b"\xff", json.dumps)


@pytest.mark.parametrize("data", [{"a": [1]}, None, 0, False, ["ä"]])
def test_anything_else_is_sent_as_json(data: object) -> None:
    assert json.loads(to_text(data, json.dumps)) == data


def test_what_cannot_be_made_json_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    for data in ({1, 2}, object(), circle):
        with pytest.raises(InvalidType, match=type(data).__name__):
            to_text(data, json.dumps)


# There and back


class Got(NamedTuple):
    """An event as a client shows it."""

    data: str
    type: str
    id: str
    retry: int | None


def sent(event: Event) -> Got:
    """What a client shall show of an event."""
    data = event.data.replace("\r\n", "\n").replace("\r", "\n")
    return Got(data, event.type or "message", event.id or "", event.retry)


class Stream(httpx.SyncByteStream):
    """A response's body that comes in pieces."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.chunks)


def read_by_decoder(chunks: Sequence[bytes]) -> list[Got]:
    decoder = Decoder()
    return [
        Got(event.data, event.type or "message", event.id or "", event.retry)
        for chunk in chunks
        for event in decoder.feed(chunk)
    ]


def read_by_httpx_sse(chunks: Sequence[bytes]) -> list[Got]:
    headers = {"content-type": "text/event-stream; charset=utf-8"}
    response = httpx.Response(200, headers=headers, stream=Stream(chunks))
    return [
        Got(event.data, event.event, event.id, event.retry)
        for event in EventSource(response).iter_sse()
    ]


def read_by_sseclient(chunks: Sequence[bytes]) -> list[Got]:
    return [
        Got(
            event.data,
            event.event,
            event.id or "",
            None if event.retry is None else int(event.retry),
        )
        for event in sseclient.SSEClient(iter(chunks)).events()
    ]


Reader = Callable[[Sequence[bytes]], list[Got]]

READERS = pytest.mark.parametrize(
    "read", [read_by_decoder, read_by_httpx_sse, read_by_sseclient]
)


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """A stream in pieces; none is empty, as none comes from a socket."""
    borders = sorted({place % (len(stream) + 1) for place in places} - {0})
    starts = [0, *borders]
    pieces = [stream[a:b] for a, b in zip(starts, [*borders, None], strict=True)]
    return [piece for piece in pieces if piece]


def cuts(stream: bytes, places: Iterable[int]) -> list[list[bytes]]:
    """A stream whole, byte by byte, and cut at some places."""
    return [[stream], cut(stream, range(len(stream))), cut(stream, places)]


#: What line splitters, decoders and parsers stumble over.
BREAKS = st.sampled_from(
    ["\r", "\n", "\r\n", "\n\n", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"]
)
SIGNS = st.sampled_from(
    ["\0", "\ufeff", " ", "  ", "\t", ":", ": ", "data: x", "id: 1", "event: x"]
)
LETTERS = st.sampled_from(["x", "é", "😀", "\ud7ff", "\ue000", "\uffff", "\U0010ffff"])
UNICODE = st.text(st.characters(codec="utf-8"), max_size=12)
TEXTS = st.lists(BREAKS | SIGNS | LETTERS | UNICODE, max_size=8).map("".join)
LINES = TEXTS.map(lambda text: re.sub("[\r\n\0]", "", text))
TYPES = st.none() | LINES.filter(lambda text: not text.startswith("stream-"))
IDS = st.none() | st.integers() | LINES.filter(lambda text: bool(text.strip()))
RETRIES = st.none() | st.integers(0, 10**20)
EVENTS = st.builds(Event, TEXTS, TYPES, IDS, RETRIES)
PLACES = st.lists(st.integers(0, 2**16), max_size=12)


@READERS
@settings(max_examples=250, deadline=None)
@given(event=EVENTS, places=PLACES)
@example(event=Event("\ufeff\ufeff", "\ufeff", "\ufeff"), places=[1, 2, 7])
@example(event=Event("", " ", " a "), places=[])
@example(event=Event("\r\r\n\n", "a:b", ": "), places=[5])
def test_what_is_encoded_is_decoded_to_the_same(
    read: Reader, event: Event, places: list[int]
) -> None:
    for chunks in cuts(event.encode(), places):
        assert read(chunks) == [sent(event)]


#: Several events and heartbeats (None) in a row.
SEQUENCES = st.lists(EVENTS | st.none(), max_size=6)


def on_the_wire(sequence: Iterable[Event | None]) -> bytes:
    return b"".join(event.encode() if event else HEARTBEAT for event in sequence)


def with_lasting_ids(sequence: Iterable[Event | None]) -> list[Got]:
    """An id outlives the events behind it that have none (WHATWG HTML, 9.2.6)."""
    shown, id = [], ""
    for event in filter(None, sequence):
        id = event.id or id
        shown.append(sent(event)._replace(id=id))
    return shown


@settings(max_examples=150, deadline=None)
@given(sequence=SEQUENCES, places=PLACES)
def test_a_sequence_with_heartbeats_is_decoded_to_the_same(
    sequence: list[Event | None], places: list[int]
) -> None:
    for chunks in cuts(on_the_wire(sequence), places):
        assert read_by_decoder(chunks) == with_lasting_ids(sequence)


@settings(max_examples=150, deadline=None)
@given(sequence=SEQUENCES, places=PLACES)
def test_sseclient_reads_a_sequence_with_heartbeats(
    sequence: list[Event | None], places: list[int]
) -> None:
    # sseclient-py shows the id of the event itself only.
    expected = [sent(event) for event in sequence if event]
    for chunks in cuts(on_the_wire(sequence), places):
        assert read_by_sseclient(chunks) == expected


@settings(max_examples=150, deadline=None)
@given(sequence=SEQUENCES, places=PLACES)
def test_httpx_sse_reads_a_sequence_with_heartbeats(
    sequence: list[Event | None], places: list[int]
) -> None:
    def is_empty(got: Got) -> bool:
        return (got.data, got.type, got.retry) == ("", "message", None)

    # Once an id has come, httpx-sse makes an empty message of every block, of a
    # heartbeat's too. So empty messages are left out, where it can have made one.
    made = None in sequence
    for chunks in cuts(on_the_wire(sequence), places):
        assert [
            got for got in read_by_httpx_sse(chunks) if not (made and is_empty(got))
        ] == [got for got in with_lasting_ids(sequence) if not (made and is_empty(got))]


@READERS
def test_a_heartbeat_alone_is_no_event(read: Reader) -> None:
    for chunks in cuts(HEARTBEAT * 3, [4]):
        assert read(chunks) == []


@READERS
def test_a_channel_line_disturbs_no_client(read: Reader) -> None:
    event = Event("data", "type", "id", 1)
    for chunks in cuts(channel_line("ä: b") + event.encode(), [3]):
        assert read(chunks) == [sent(event)]


# The decoder, rule by rule (WHATWG HTML, 9.2.6)


def decoded(*chunks: bytes) -> list[Event]:
    decoder = Decoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def data_of(*chunks: bytes) -> list[str]:
    return [event.data for event in decoded(*chunks)]


def test_a_leading_bom_is_dropped() -> None:
    assert data_of(b"\xef\xbb\xbfdata: x\n\n") == ["x"]
    assert data_of(b"\xef", b"\xbb", b"\xbfdata: x\n\n") == ["x"]


def test_only_one_bom_is_dropped_and_only_at_the_start() -> None:
    assert data_of(b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n") == []
    assert data_of(b"\xef\xbb\xbf", b"\xef\xbb\xbfdata: x\n\n") == []
    assert data_of(b"data: x\n\n\xef\xbb\xbfdata: y\n\n") == ["x"]
    assert data_of(b"\n\xef\xbb\xbfdata: y\n\n") == []
    assert data_of(b"data: \xef\xbb\xbfx\n\n") == ["\ufeffx"]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_ends_a_line(end: bytes) -> None:
    stream = end.join([b"data: a", b"data: b", b"", b"data: c", b"", b""])
    assert data_of(stream) == ["a\nb", "c"]
    assert data_of(*cut(stream, range(len(stream)))) == ["a\nb", "c"]


def test_crlf_across_chunks_is_one_line_end() -> None:
    assert data_of(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == ["a\nb"]
    assert data_of(b"data: a\r", b"", b"\ndata: b\n\n") == ["a\nb"]


def test_a_cr_dispatches_without_waiting_for_what_follows() -> None:
    decoder = Decoder()
    assert [event.data for event in decoder.feed(b"data: a\r\r")] == ["a"]
    assert [event.data for event in decoder.feed(b"\ndata: b\n\n")] == ["b"]


def test_mixed_line_ends_are_counted_one_by_one() -> None:
    assert data_of(b"data: a\n\rdata: b\r\n\rdata: c\r\r\n") == ["a", "b", "c"]


def test_comments_and_unknown_fields_are_ignored() -> None:
    stream = b":\n:comment\n: data: no\nfoo: bar\nfoo\nDATA: no\n data: no\ndata: x\n\n"
    assert data_of(stream) == ["x"]


def test_a_field_without_a_colon_has_an_empty_value() -> None:
    assert data_of(b"data\n\n") == [""]
    assert data_of(b"data\ndata\n\n") == ["\n"]
    event = decoded(b"event: t\nid: 1\nretry: 5\nevent\nid\nretry\ndata\n\n")[0]
    assert (event.type, event.id, event.retry) == (None, None, 5)


def test_one_space_after_the_colon_is_dropped_and_no_more() -> None:
    assert data_of(b"data:x\ndata: x\ndata:  x\ndata:\tx\n\n") == ["x\nx\n x\n\tx"]


def test_only_the_first_colon_separates() -> None:
    assert data_of(b"data: a: b:\n\n") == ["a: b:"]


def test_the_last_type_of_a_block_counts() -> None:
    assert decoded(b"event: a\nevent: b\ndata\n\n")[0].type == "b"


def test_an_id_with_nul_is_ignored() -> None:
    decoder = Decoder()
    events = decoder.feed(b"id: 1\ndata\n\nid: 2\0\ndata\n\nid: \0\ndata\n\n")
    assert [event.id for event in events] == ["1", "1", "1"]
    assert decoder.last_event_id == "1"


def test_an_id_lasts_until_another_comes() -> None:
    events = decoded(b"data\n\nid: 1\ndata\n\ndata\n\nid: 2\ndata\n\n")
    assert [event.id for event in events] == [None, "1", "1", "2"]


@pytest.mark.parametrize("line", [b"id", b"id:", b"id: "])
def test_an_empty_id_resets_it(line: bytes) -> None:
    decoder = Decoder()
    events = decoder.feed(b"id: 1\ndata\n\n" + line + b"\ndata\n\ndata\n\n")
    assert [event.id for event in events] == ["1", None, None]
    assert decoder.last_event_id == ""


def test_an_event_without_data_is_not_dispatched_but_its_id_counts() -> None:
    decoder = Decoder()
    assert decoder.feed(b"event: t\nid: 7\nchannel: c\n\n") == []
    assert decoder.last_event_id == "7"
    (event,) = decoder.feed(b"data: x\n\n")
    assert (event.type, event.id, event.channel) == (None, "7", None)


def test_an_id_counts_only_once_its_block_has_ended() -> None:
    # Who resumes from it would lose the event that was cut.
    decoder = Decoder()
    decoder.feed(b"data: a\nid: 1\n\n")
    decoder.feed(b"data: b\nid: 2\n")
    assert decoder.last_event_id == "1"
    decoder.feed(b"\n")
    assert decoder.last_event_id == "2"


@pytest.mark.parametrize("value", [b"0", b"3000", b"007", b"9" * 30, b"1" * 4300])
def test_a_retry_of_digits_counts_at_once(value: bytes) -> None:
    decoder = Decoder()
    assert decoder.feed(b"retry: " + value + b"\n") == []
    assert decoder.retry == int(value)
    assert decoder.feed(b"data\n\n")[0].retry == int(value)


@pytest.mark.parametrize(
    "value",
    [
        *[b"", b"-1", b"+1", b"1.5", b"1e3", b"0x1", b" 1", b"1 ", b"1_0", b"soon"],
        *["٣".encode(), "²".encode(), b"1" * 4301, b"9" * 100_000],
    ],
    ids=lambda value: value[:8].decode(),
)
def test_a_retry_that_is_not_all_digits_or_endless_is_ignored(value: bytes) -> None:
    decoder = Decoder()
    decoder.feed(b"retry: 5\nretry: " + value + b"\n\n")
    assert decoder.retry == 5
    (event,) = decoder.feed(b"retry: " + value + b"\ndata\n\n")
    assert event.retry is None


def test_a_retry_lasts_for_the_stream_and_belongs_to_its_own_event() -> None:
    decoder = Decoder()
    one, other = decoder.feed(b"retry: 5\ndata\n\ndata\n\n")
    assert (one.retry, other.retry, decoder.retry) == (5, None, 5)


def test_bytes_that_are_not_utf8_become_replacement_characters() -> None:
    assert data_of(b"data: \xff\n\n") == ["\ufffd"]
    assert data_of(b"data: \xc3", b"\n\n") == ["\ufffd"]
    assert data_of(b"data: \xe2\x82", b"\xac\n\n") == ["€"]
    assert data_of(b"data: \xed\xa0\x80\n\n")[0].strip("\ufffd") == ""


@pytest.mark.parametrize(
    "rest", [b"data: y", b"data: y\n", b"data: y\nid: 9\n", b"event: t", b"\xe2\x82"]
)
def test_what_the_end_of_the_stream_leaves_incomplete_is_no_event(rest: bytes) -> None:
    assert data_of(b"data: x\n\n" + rest) == ["x"]


def test_the_channel_of_an_event_is_read_and_is_its_own() -> None:
    events = decoded(b"channel: a b\ndata: 1\n\ndata: 2\n\nchannel:c\ndata: 3\n\n")
    assert [event.channel for event in events] == ["a b", None, "c"]


def test_a_type_of_our_own_is_read() -> None:
    (event,) = decoded(b"event: stream-gap\ndata: {}\nid: 1\n\n")
    assert (event.type, event.json) == ("stream-gap", {})


def test_a_long_line_in_many_chunks_is_put_together_once() -> None:
    chunks = [b"data: ", *[b"x" * 64] * 20_000, b"\n\n"]
    assert data_of(*chunks) == ["x" * 64 * 20_000]


def by_the_standard(stream: bytes) -> tuple[list[Got], int | None]:
    """WHATWG HTML, 9.2.6, word for word and without a thought of speed.

    :returns: the events, and the reconnection time.
    """
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(stream)
    *lines, _ = re.split("\r\n|\r|\n", text.removeprefix("\ufeff"))
    events: list[Got] = []
    reconnection: int | None = None
    last_id = data = type = ""
    retry: int | None = None
    for line in lines:
        if line == "":
            if data != "":
                events.append(
                    Got(data.removesuffix("\n"), type or "message", last_id, retry)
                )
            data = type = ""
            retry = None
        elif line[0] != ":":
            field, _, value = line.partition(":")
            if value.startswith(" "):
                value = value[1:]
            if field == "event":
                type = value
            elif field == "data":
                data += value + "\n"
            elif field == "id":
                if "\0" not in value:
                    last_id = value
            elif field == "retry":
                if value and not value.strip("0123456789"):
                    reconnection = retry = int(value)
    return events, reconnection


ENDS = st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n"])
FIELDS = st.sampled_from(
    [b"data", b"data:", b"data: x", b"event: t", b"id", b"id: 1", b"id: 2\0"]
)
OTHERS = st.sampled_from(
    [b"retry: 1", b"retry: 1x", b"foo: x", b":", b": ", b" ", b"\0"]
)
BYTES = st.sampled_from([b"\xef\xbb\xbf", b"\xff", b"\xe2\x82\xac", b"\xe2"])
STREAMS = st.lists(ENDS | FIELDS | OTHERS | BYTES, max_size=25).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(stream=STREAMS, places=PLACES)
def test_any_bytes_are_decoded_by_the_standard_however_they_are_cut(
    stream: bytes, places: list[int]
) -> None:
    events, reconnection = by_the_standard(stream)
    for chunks in cuts(stream, places):
        assert read_by_decoder(chunks) == events
        decoder = Decoder()
        for chunk in chunks:
            decoder.feed(chunk)
        assert decoder.retry == reconnection

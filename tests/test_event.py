"""Events are checked when they are made, and come back from their bytes unchanged."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from enum import Enum
from typing import Any

import pytest

from flask_sse_lite import Event, EventTooLarge, InvalidType, InvalidValue, SSEError
from flask_sse_lite.event import (
    HEARTBEAT,
    MAX_CHANNEL_LENGTH,
    channel_line,
    check_channel,
    check_size,
    encode_text,
    good_event,
    is_sendable_id,
    stored_event,
    to_text,
)


class Kind(str, Enum):  # StrEnum came with Python 3.11.
    """Types, as applications name theirs."""

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
    # In a header it would arrive empty. Its client would count as a newcomer, and lose
    # in silence what it missed.
    with pytest.raises(InvalidValue, match="id"):
        Event("data", id=value)


@pytest.mark.parametrize("value", ["stream-", "stream-open", "stream-anything"])
def test_a_type_of_our_own_is_refused(value: str) -> None:
    with pytest.raises(InvalidValue, match="must not begin with 'stream-'") as caught:
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
    # Threads that began at the same time may each have encoded it.
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


# What it has of bytes

OF_ALL_SIZES = [
    Event("hello"),
    Event("h\u00e9llo\nworld"),
    Event("hello", type="greeting"),
    Event("hello", id="7"),
    Event("hello", id="\u00e9"),
    Event("hello", retry=0),
    Event("hello", type="greeting", id="\u00e9\u20ac", retry=1234),
]


@pytest.mark.parametrize("event", OF_ALL_SIZES)
def test_its_size_is_that_of_its_frame_whether_that_is_made_or_not(
    event: Event,
) -> None:
    unmade = copy.copy(event).published("a", "id") if event.id is None else event
    for each in (event, unmade):
        before = each.size
        assert before == len(each.encode())
        assert each.size == before


@pytest.mark.parametrize(
    ("event", "size"),
    [
        (Event("12345"), 5),
        (Event("\u00e9\u20ac"), 5),
        (Event("12", type="3", id="45", retry=1234), 5),
        (Event("", type="12345"), 5),
        (Event("", id="\u00e9\u20ac"), 5),
    ],
)
def test_an_event_of_more_bytes_than_allowed_is_refused(
    event: Event, size: int
) -> None:
    check_size(event, size)
    with pytest.raises(EventTooLarge, match=f"of {size} bytes") as caught:
        check_size(event, size - 1)
    assert caught.value.size == size


@pytest.mark.parametrize("type", [None, "greeting"])
def test_text_alone_makes_the_same_frame(type: str | None) -> None:
    for data in ("", "hello", "two\nlines\r\nthree"):
        assert encode_text(data, type) == Event(data, type).encode()
    with pytest.raises(InvalidValue):
        encode_text("\ud800", type)


def test_one_of_ours_has_a_type_that_is_kept_for_us() -> None:
    event = good_event("hello", "stream-end", "7", 5, "a")
    assert event.encode() == b"event: stream-end\ndata: hello\nid: 7\nretry: 5\n\n"
    assert event.channel == "a"


# What comes from a store


def test_what_a_store_has_of_an_event_makes_the_event() -> None:
    whole = stored_event("hello", "greeting", "7", 5, "a", "position")
    assert whole == Event("hello", "greeting", "7", 5, channel="a")
    bare = stored_event("hello", None, None, None, "a", "position")
    assert bare == Event("hello", id="position", channel="a")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((b"hello", None, None, None), "data"),
        (("hello", "two\nlines", None, None), "type"),
        (("hello", 7, None, None), "type"),
        (("hello", None, "two\nlines", None), "id"),
        (("hello", None, b"7", None), "id"),
        (("hello", None, None, -1), "retry"),
        (("hello", None, None, "5"), "retry"),
    ],
)
def test_what_no_event_can_have_is_refused_from_a_store(
    values: tuple[object, object, object, object], named: str
) -> None:
    with pytest.raises(InvalidValue, match=f"^An event's {named} "):
        stored_event(*values, "a", "position")


@pytest.mark.parametrize(
    ("fields", "named"), [({"type": "a\nb"}, "type"), ({"id": "a\nb"}, "id")]
)
def test_the_error_names_the_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidValue, match=f"^An event's {named} has no CR"):
        Event("hello", **fields)


@pytest.mark.parametrize(
    ("event", "frame"),
    [
        (Event(""), b"data: \n\n"),
        (Event("hello"), b"data: hello\n\n"),
        (Event("a\rb"), b"data: a\ndata: b\n\n"),
        (Event("a\r\nb\n"), b"data: a\ndata: b\ndata: \n\n"),
        (
            Event("a", type="b", id="c", retry=0),
            b"event: b\ndata: a\nid: c\nretry: 0\n\n",
        ),
    ],
)
def test_these_are_its_bytes(event: Event, frame: bytes) -> None:
    assert event.encode() == frame


@pytest.mark.parametrize("field", ["id", "retry"])
def test_a_number_that_python_does_not_write_is_refused(field: str) -> None:
    fields: dict[str, Any] = {field: 10**5000}
    with pytest.raises(InvalidValue, match=f"^An event's {field} is too long a number"):
        Event("hello", **fields)

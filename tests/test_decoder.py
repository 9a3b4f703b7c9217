"""The bytes of events are read as the events that were written, by every client."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import httpx
import pytest
import sseclient
from httpx_sse import EventSource
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flask_sse_lite import Event
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.event import (
    HEARTBEAT,
    channel_line,
)

# There and back


class Got(NamedTuple):
    """An event as a client shows it."""

    data: str
    type: str
    id: str
    retry: int | None


def sent(event: Event) -> Got:
    """What a client must show of an event."""
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
    """A stream in pieces. None is empty, as a socket gives no empty piece."""
    borders = sorted({place % (len(stream) + 1) for place in places} - {0})
    starts = [0, *borders]
    pieces = [stream[a:b] for a, b in zip(starts, [*borders, None], strict=True)]
    return [piece for piece in pieces if piece]


def cuts(stream: bytes, places: Iterable[int]) -> list[list[bytes]]:
    """A stream whole, byte by byte, and cut at some places."""
    return [[stream], cut(stream, range(len(stream))), cut(stream, places)]


#: Characters over which line splitters, decoders and parsers stumble.
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
@settings(max_examples=250)
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
    """An id also holds for the events after it that have none (WHATWG HTML, 9.2.6)."""
    shown, id = [], ""
    for event in filter(None, sequence):
        id = event.id or id
        shown.append(sent(event)._replace(id=id))
    return shown


@settings(max_examples=150)
@given(sequence=SEQUENCES, places=PLACES)
def test_a_sequence_with_heartbeats_is_decoded_to_the_same(
    sequence: list[Event | None], places: list[int]
) -> None:
    for chunks in cuts(on_the_wire(sequence), places):
        assert read_by_decoder(chunks) == with_lasting_ids(sequence)


@settings(max_examples=150)
@given(sequence=SEQUENCES, places=PLACES)
def test_sseclient_reads_a_sequence_with_heartbeats(
    sequence: list[Event | None], places: list[int]
) -> None:
    # sseclient-py shows the id of the event itself only.
    expected = [sent(event) for event in sequence if event]
    for chunks in cuts(on_the_wire(sequence), places):
        assert read_by_sseclient(chunks) == expected


@settings(max_examples=150)
@given(sequence=SEQUENCES, places=PLACES)
def test_httpx_sse_reads_a_sequence_with_heartbeats(
    sequence: list[Event | None], places: list[int]
) -> None:
    def is_empty(got: Got) -> bool:
        return (got.data, got.type, got.retry) == ("", "message", None)

    # Once an id has come, httpx-sse makes an empty message of every block, also of a
    # heartbeat. So empty messages are left out where it can have made one.
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
    # A client that resumes from it would lose the event that was cut.
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
    """WHATWG HTML, 9.2.6, word for word, without regard to speed.

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


@settings(max_examples=400)
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

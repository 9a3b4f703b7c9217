"""Coming back: by which id, what is replayed, which losses are told, and the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_sse_lite import SSE, Event
from flask_sse_lite.testing import read_events


@pytest.fixture(autouse=True)
def _context(app: Flask) -> Iterator[None]:
    app.config["SSE_HEARTBEAT"] = 0.4  # The hub ends sooner after the last stream.
    app.config["SSE_PUBLIC_CHANNELS"] = ["sse", "a", "b"]
    with app.app_context():
        yield


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def publish(sse: SSE, count: int, channel: str = "sse") -> list[Event]:
    """Publish "0", "1", … on a channel."""
    return [sse.publish(str(number), channel=channel) for number in range(count)]


def since(client: FlaskClient, id: str | None, url: str = "/stream") -> TestResponse:
    """The request of a browser that comes back."""
    assert id is not None
    return client.get(url, headers={"Last-Event-ID": id})


def what(events: list[Event]) -> list[str]:
    """Each event's data, or the type where it is one of ours."""
    return [
        event.type if event.type and event.type.startswith("stream-") else event.data
        for event in events
    ]


def test_strangers_who_name_many_channels_cost_nobody_what_was_missed(
    client: FlaskClient, sse: SSE, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_sse_lite.history.retention.MAX_IDLE_CHANNELS", 20)
    monkeypatch.setattr("flask_sse_lite.history.retention.MAX_QUIET_CHANNELS", 20)
    sse.authorizer(lambda channel: True)
    first, _ = publish(sse, 2, "a")
    for start in range(0, 100, 10):
        names = [f"nobody.{n}" for n in range(start, start + 10)]
        with client.get("/stream", query_string={"channel": names}) as response:
            next(response.iter_encoded())
    publish(sse, 1, "b")
    response = since(client, first.id, "/stream?channel=a")
    assert what(read_events(response, count=1)) == ["1"]


# Where the id comes from


def test_the_header_resumes_behind_its_event(client: FlaskClient, sse: SSE) -> None:
    events = publish(sse, 4)
    response = since(client, events[1].id)
    assert read_events(response, count=2) == [
        Event(event.data, id=event.id) for event in events[2:]
    ]


def test_the_query_resumes_too(client: FlaskClient, sse: SSE) -> None:
    events = publish(sse, 3)
    response = client.get(f"/stream?last_event_id={events[1].id}")
    assert what(read_events(response, count=1)) == ["2"]


def test_the_header_goes_before_the_query(client: FlaskClient, sse: SSE) -> None:
    events = publish(sse, 3)
    response = since(client, events[1].id, f"/stream?last_event_id={events[0].id}")
    assert what(read_events(response, count=1)) == ["2"]


#: Names under which clients that cannot set a header send the id in the query.
CLIENTS_NAMES = [
    *("lastEventId", "lastEventID", "Last-Event-ID", "Last-Event-Id", "last-event-id"),
    *("LastEventId", "last_event_ID", "evs_last_event_id", "lasteventid"),
]


@pytest.mark.parametrize("name", CLIENTS_NAMES)
def test_the_query_resumes_under_the_names_of_clients(
    app: Flask, client: FlaskClient, sse: SSE, name: str
) -> None:
    app.add_url_rule("/own", "own", lambda: sse.stream("sse"))
    events = publish(sse, 3)
    for path in ("/stream", "/own"):
        response = client.get(path, query_string={name: events[1].id})
        assert what(read_events(response, count=1)) == ["2"]


@pytest.mark.parametrize("name", CLIENTS_NAMES)
def test_a_run_is_resumed_under_the_names_of_clients(
    app: Flask, client: FlaskClient, sse: SSE, name: str
) -> None:
    app.add_url_rule("/run", "run", lambda: sse.run(iter("abc")))
    begun = client.get("/run")
    location = begun.location or ""
    (first,) = read_events(begun, count=1)
    back = client.get("/run", query_string={name: first.id})
    *rest, end = read_events(back)
    assert what(rest) == ["b", "c"]
    again = client.get(location, query_string={name: first.id})
    assert what(read_events(again)) == ["b", "c", "stream-end"]
    gone = client.get("/run", query_string={name: end.id})
    assert gone.status_code == 204


def test_the_client_s_id_goes_before_the_page_s(client: FlaskClient, sse: SSE) -> None:
    events = publish(sse, 4)
    ids = [event.id for event in events]
    for query in (
        f"last_event_id={ids[0]}&lastEventId={ids[2]}",
        f"lastEventId={ids[2]}&last_event_id={ids[0]}",
        # A client that appends its own id to the page's, under any name.
        f"last_event_id={ids[0]}&last_event_id={ids[2]}",
        f"lastEventID={ids[0]}&lastEventId={ids[2]}",
        f"lastEventId={ids[0]}&lastEventId={ids[2]}",
        # A client that has seen no id yet.
        f"last_event_id={ids[2]}&lastEventId=",
        f"last_event_id={ids[2]}&last_event_id=",
    ):
        assert what(read_events(client.get(f"/stream?{query}"), count=1)) == ["3"]


@pytest.mark.parametrize("name", CLIENTS_NAMES)
def test_the_header_goes_before_the_client_s_query(
    client: FlaskClient, sse: SSE, name: str
) -> None:
    events = publish(sse, 3)
    response = since(client, events[1].id, f"/stream?{name}={events[0].id}")
    assert what(read_events(response, count=1)) == ["2"]


@pytest.mark.parametrize("name", ["event_id", "since", "last_event", "lastEventIds"])
def test_other_names_mean_nothing(client: FlaskClient, sse: SSE, name: str) -> None:
    events = publish(sse, 3)
    response = client.get("/stream", query_string={name: events[0].id})
    sse.publish("new")
    assert what(read_events(response, count=1)) == ["new"]


def test_an_empty_header_is_none(client: FlaskClient, sse: SSE) -> None:
    events = publish(sse, 3)
    response = since(client, "", f"/stream?last_event_id={events[0].id}")
    assert what(read_events(response, count=2)) == ["1", "2"]


def test_whoever_is_cut_before_the_first_event_misses_nothing(
    client: FlaskClient, sse: SSE
) -> None:
    (opened,) = read_events(client.get("/stream"), count=1, bookkeeping=True)
    publish(sse, 2)
    assert what(read_events(since(client, opened.id), count=2)) == ["0", "1"]


def test_whoever_is_cut_again_before_the_replay_stands_where_it_stood(
    client: FlaskClient, sse: SSE
) -> None:
    events = publish(sse, 2)
    (again,) = read_events(since(client, events[0].id), count=1, bookkeeping=True)
    assert (again.type, again.id) == ("stream-open", events[0].id)


def test_one_id_resumes_several_channels(client: FlaskClient, sse: SSE) -> None:
    response = client.get("/stream?channel=a&channel=b")
    for number, name in enumerate("aabbxab"):
        sse.publish(str(number), channel=name)
    seen = read_events(response, count=3)
    response = since(client, seen[-1].id, "/stream?channel=a&channel=b")
    missed = read_events(response, count=3)
    assert what(seen + missed) == ["0", "1", "2", "3", "5", "6"]
    assert [event.channel for event in missed] == ["b", "a", "b"]


def test_the_replay_goes_on_with_what_comes(client: FlaskClient, sse: SSE) -> None:
    events = publish(sse, 3)
    response = since(client, events[0].id)
    sse.publish("3")
    assert what(read_events(response, count=3)) == ["1", "2", "3"]


# Ids of the application's own


def test_an_id_of_the_application_s_is_sent_and_found_again(
    client: FlaskClient, sse: SSE
) -> None:
    response = client.get("/stream")
    sse.publish("0", id="order 66")
    sse.publish("1", id=67)
    events = read_events(response, count=2)
    assert [event.id for event in events] == ["order 66", "67"]
    assert what(read_events(since(client, "order 66"), count=1)) == ["1"]


def test_of_two_events_with_one_id_the_newer_counts(
    client: FlaskClient, sse: SSE
) -> None:
    for number in range(4):
        sse.publish(str(number), id="same" if number in (0, 2) else None)
    assert what(read_events(since(client, "same"), count=1)) == ["3"]


def test_an_id_may_be_any_utf_8(client: FlaskClient, sse: SSE) -> None:
    id = "ключ-é-🔑"
    sse.publish("0", id=id)
    sse.publish("1")
    as_wsgi_shows_it = id.encode().decode("latin-1")
    response = client.get(
        "/stream", environ_overrides={"HTTP_LAST_EVENT_ID": as_wsgi_shows_it}
    )
    first, second = read_events(response, count=2, bookkeeping=True)
    assert (first.type, first.id) == ("stream-open", id)
    assert second.data == "1"
    response = client.get("/stream", query_string={"last_event_id": id})
    assert what(read_events(response, count=1)) == ["1"]


@pytest.mark.parametrize("id", ["ключ", "é"])
def test_a_test_client_may_send_an_id_as_it_is(
    client: FlaskClient, sse: SSE, id: str
) -> None:
    sse.publish("0", id=id)
    sse.publish("1")
    assert what(read_events(since(client, id), count=1)) == ["1"]


# Ids that mean nothing


UNKNOWN = {
    "garbage": "garbage",
    "empty epoch": "-1",
    "another epoch": "0123456789abcdef-1",
    "spaces": "a b",
    "huge": "0" * 16 + "-" + "9" * 5000,
    "mojibake": "\xff\xfe",
}


@pytest.mark.parametrize("id", UNKNOWN.values(), ids=UNKNOWN)
def test_an_unknown_id_is_told_as_a_gap(client: FlaskClient, sse: SSE, id: str) -> None:
    publish(sse, 2)
    gap, *rest = read_events(
        client.get("/stream", headers={"Last-Event-ID": id}), count=3
    )
    assert gap.type == "stream-gap"
    assert gap.json["channels"] == ["sse"]
    assert what(rest) == ["0", "1"]


def test_a_position_ahead_of_the_log_is_a_gap(client: FlaskClient, sse: SSE) -> None:
    epoch = sse.position().partition("-")[0]
    publish(sse, 1)
    gap, event = read_events(since(client, f"{epoch}-5000"), count=2)
    assert gap.json == {"since": f"{epoch}-5000", "channels": ["sse"]}
    assert event.data == "0"


def test_an_unknown_id_is_a_gap_even_where_nothing_was_published(
    client: FlaskClient,
) -> None:
    (gap,) = read_events(since(client, "garbage"), count=1)
    assert gap.json == {"since": "garbage", "channels": ["sse"]}


@pytest.mark.parametrize(
    "id", ["a%0Aevent:%20evil", "a%0D%0A%0D%0Ab", "a%00b", "%ED%A0%80", "%FF"]
)
def test_an_id_cannot_inject_anything(client: FlaskClient, id: str) -> None:
    response = client.get(f"/stream?last_event_id={id}")
    opened, gap = read_events(response, count=2, bookkeeping=True)
    assert (opened.type, gap.type) == ("stream-open", "stream-gap")
    assert opened.id
    assert opened.id.isprintable()


# Gaps


def test_what_was_evicted_is_told_as_a_gap(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.config["SSE_HISTORY"] = 2
    events = publish(sse, 5)
    gap, *rest = read_events(since(client, events[0].id), count=3)
    assert gap.type == "stream-gap"
    assert gap.json == {"since": events[0].id, "channels": ["sse"]}
    assert what(rest) == ["3", "4"]


def test_the_id_of_a_gap_resumes_behind_it(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.config["SSE_HISTORY"] = 2
    events = publish(sse, 5)
    (gap,) = read_events(since(client, events[0].id), count=1)
    assert what(read_events(since(client, gap.id), count=2)) == ["3", "4"]


def test_nothing_evicted_behind_the_id_is_no_gap(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.config["SSE_HISTORY"] = 2
    events = publish(sse, 5)
    assert what(read_events(since(client, events[2].id), count=2)) == ["3", "4"]


def test_a_gap_names_the_channels_that_lost_something(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.config["SSE_HISTORY"] = 2
    before = sse.position()
    publish(sse, 2, "a")
    publish(sse, 3, "b")
    gap, *rest = read_events(
        since(client, before, "/stream?channel=a&channel=b"), count=5
    )
    assert gap.json["channels"] == ["b"]
    assert [(event.channel, event.data) for event in rest] == [
        ("a", "0"),
        ("a", "1"),
        ("b", "1"),
        ("b", "2"),
    ]


def test_a_burst_that_outruns_its_reader_is_told_as_a_gap(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.config["SSE_HISTORY"] = 2
    response = client.get("/stream")
    publish(sse, 5)
    assert what(read_events(response, count=3)) == ["stream-gap", "3", "4"]


# Newcomers


def test_a_newcomer_gets_nothing_old(client: FlaskClient, sse: SSE) -> None:
    publish(sse, 3)
    response = client.get("/stream")
    sse.publish("new")
    assert what(read_events(response, count=1)) == ["new"]


def test_sse_replay_gives_a_newcomer_the_last_events(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.config["SSE_REPLAY"] = 2
    publish(sse, 5)
    response = client.get("/stream")
    sse.publish("new")
    assert what(read_events(response, count=3)) == ["3", "4", "new"]


def test_sse_replay_is_for_each_channel(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.config["SSE_REPLAY"] = 1
    publish(sse, 3, "a")
    publish(sse, 2, "b")
    response = client.get("/stream?channel=a&channel=b")
    events = read_events(response, count=2)
    assert [(event.channel, event.data) for event in events] == [("a", "2"), ("b", "1")]


def test_sse_replay_is_not_for_those_who_come_back(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.config["SSE_REPLAY"] = 5
    events = publish(sse, 3)
    assert what(read_events(since(client, events[1].id), count=1)) == ["2"]


# The end


def test_a_closed_channel_ends_its_streams(client: FlaskClient, sse: SSE) -> None:
    response = client.get("/stream")
    publish(sse, 1)
    sse.close()
    event, end = read_events(response)
    assert event.data == "0"
    assert str(end) == f"event: stream-end\ndata: \nid: {sse.position()}\n\n"


def test_whoever_saw_the_end_stays_away(client: FlaskClient, sse: SSE) -> None:
    response = client.get("/stream")
    sse.close()
    (end,) = read_events(response)
    back = since(client, end.id)
    assert (back.status_code, back.data) == (204, b"")


def test_whoever_missed_some_gets_that_and_the_end(
    client: FlaskClient, sse: SSE
) -> None:
    events = publish(sse, 3)
    sse.close()
    assert what(read_events(since(client, events[0].id))) == ["1", "2", "stream-end"]
    assert what(read_events(since(client, events[2].id))) == ["stream-end"]


def test_whoever_cannot_be_told_what_is_missing_is_told_so_and_the_end(
    client: FlaskClient, sse: SSE
) -> None:
    publish(sse, 1)
    sse.close()
    assert what(read_events(since(client, "unknown"))) == [
        "stream-gap",
        "0",
        "stream-end",
    ]


def test_a_newcomer_to_a_closed_channel_is_sent_away(
    client: FlaskClient, sse: SSE
) -> None:
    publish(sse, 1)
    sse.close()
    assert client.get("/stream").status_code == 204


def test_a_newcomer_to_a_closed_channel_gets_its_replay(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.config["SSE_REPLAY"] = 1
    publish(sse, 2)
    sse.close()
    assert what(read_events(client.get("/stream"))) == ["1", "stream-end"]


def test_publishing_opens_a_closed_channel_again(client: FlaskClient, sse: SSE) -> None:
    response = client.get("/stream")
    sse.close()
    (end,) = read_events(response)
    sse.publish("again")
    assert what(read_events(since(client, end.id), count=1)) == ["again"]
    with client.get("/stream") as newcomer:
        assert newcomer.status_code == 200


def test_several_channels_end_when_all_have_ended(
    client: FlaskClient, sse: SSE
) -> None:
    response = client.get("/stream?channel=a&channel=b")
    sse.close("a")
    sse.publish("goes on", channel="b")
    sse.close("b")
    sse.publish("too late", channel="b")
    assert what(read_events(response)) == ["goes on", "stream-end"]


def test_a_stream_goes_on_where_one_of_its_channels_opened_again(
    client: FlaskClient, sse: SSE
) -> None:
    response = client.get("/stream?channel=a&channel=b")
    sse.close("a")
    sse.publish("again", channel="a")
    sse.close("b")
    sse.publish("still", channel="a")
    sse.close("a")
    assert what(read_events(response)) == ["again", "still", "stream-end"]


def test_several_channels_are_204_when_nothing_is_left_of_any(
    client: FlaskClient, sse: SSE
) -> None:
    sse.close("a")
    with client.get("/stream?channel=a&channel=b") as response:
        assert response.status_code == 200
    sse.close("b")
    assert client.get("/stream?channel=a&channel=b").status_code == 204


def test_closing_twice_is_one_end(client: FlaskClient, sse: SSE) -> None:
    response = client.get("/stream")
    sse.close()
    sse.close()
    (end,) = read_events(response)
    assert what(read_events(since(client, end.id))) == ["stream-end"]

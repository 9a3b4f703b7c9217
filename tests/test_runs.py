"""Runs: generators that outlive the connection that asked for them. First in one
process, then on servers, where they are cut, stopped and killed, and where many run at
once."""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import h11
import pytest
from flask import Flask, abort, current_app, has_request_context, request
from flask.testing import FlaskClient
from sqlalchemy import QueuePool, create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker
from werkzeug.test import TestResponse

from flask_sse_lite import (
    SSE,
    BrokerUnavailable,
    Event,
    EventStream,
    InvalidType,
    InvalidValue,
)
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.generators.run import THREAD
from flask_sse_lite.generators.runs import MAX_RUNS_ON_THREADS, MAX_RUNS_UNDER_GEVENT
from flask_sse_lite.history.revocations import REVOCATIONS
from flask_sse_lite.hub import current_hub
from flask_sse_lite.settings import Settings
from flask_sse_lite.testing import read_events

from .crowd import Crowd
from .generating import (
    SERVERS,
    Generators,
    assert_nothing_is_left,
    await_silence,
    generators,
    lose_patience,
    stalled,
)
from .servers import GRACE, PATIENCE, Client, descriptor_limit, until

#: gunicorn's workers.
WORKERS = ["gunicorn gevent", "gunicorn gthread", "gunicorn sync"]

#: Longer than any test waits: no heartbeat hides a missing wake.
NEVER = 4 * PATIENCE

ACCEPT = {"Accept": "text/event-stream"}


class Answer:
    """An iterable that counts its steps and notes its close."""

    def __init__(self, *items: Any, gate: threading.Event | None = None) -> None:
        self.items = items
        self.gate = gate
        self.steps = 0
        #: How often it has waited at its gate, or waits there now.
        self.waits = 0
        self.is_closed = False

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            self.steps += 1
            yield item
            if self.gate:
                self.waits += 1
                assert self.gate.wait(PATIENCE)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What generators wait for; set at the test's end at the latest."""
    gate = threading.Event()
    yield gate
    gate.set()


def serve(app: Flask, sse: SSE, *answers: Iterable[Any], **options: Any) -> FlaskClient:
    """A client of an application whose /run answers with these iterables, one after the
    other."""
    left = iter(answers)

    def view() -> Any:
        given = request.args.to_dict()
        return sse.run(
            next(left, Answer("one too many")), channel=given.get("channel"), **options
        )

    app.add_url_rule("/run", view_func=view, methods=["GET", "POST"])
    return app.test_client()


def texts(response: TestResponse, **options: Any) -> list[str]:
    return [event.data for event in read_events(response, **options)]


def status(client: FlaskClient, location: str) -> int:
    with client.get(location) as response:
        return response.status_code


def runs(app: Flask) -> int:
    return len(app.extensions["sse"].runs)


def has_ended(app: Flask, channel: str) -> bool:
    """Whether the last word in a channel was its end."""
    log = app.extensions["sse"].log
    return channel in log.cursor([channel]).ended


def assert_all_gone(app: Flask) -> None:
    """Neither runs nor traces of them are left in the hub and the log."""
    until(lambda: runs(app) == 0)
    hub, log = current_hub(), app.extensions["sse"].log
    until(lambda: not (hub._audiences.timed or hub._listeners))
    log.unwatch((), str)  # Removes watchers that left meanwhile.
    channels = {k: c for k, c in log._channels.items() if k != REVOCATIONS}
    assert not any(channel.watchers for channel in channels.values())


# In one process


def test_items_are_events_with_ids_and_the_end_has_one_too(
    app: Flask, sse: SSE
) -> None:
    items = ["text", {"a": 1}, b"bytes", [1], Event("event", "greeting", retry=50)]
    response = serve(app, sse, items).get("/run")
    *events, end = read_events(response)
    assert [event.data for event in events] == [
        *("text", '{"a": 1}', "bytes", "[1]", "event")
    ]
    assert (events[4].type, events[4].retry) == ("greeting", 50)
    assert (end.type, end.data) == ("stream-end", "")
    assert len({event.id for event in [*events, end]}) == 6
    assert_all_gone(app)


def test_the_type_is_that_of_items_that_are_no_event(app: Flask, sse: SSE) -> None:
    client = serve(app, sse, ["a", Event("b", "note")], type="token")
    assert [event.type for event in read_events(client.get("/run"))] == [
        *("token", "note", "stream-end")
    ]


def test_it_runs_in_the_application_s_context_and_in_no_request(
    app: Flask, sse: SSE
) -> None:
    def answer() -> Iterator[Any]:
        yield [current_app.name, has_request_context()]

    told, _ = read_events(serve(app, sse, answer()).get("/run"))
    assert told.json == ["application", False]


def test_the_application_s_context_is_torn_down_at_its_end(
    app: Flask, sse: SSE
) -> None:
    happened = []
    app.teardown_appcontext(lambda error: happened.append("teardown"))

    def answer() -> Iterator[str]:
        try:
            yield "answer"
        finally:
            happened.append(f"closed in {current_app.name}")

    client = serve(app, sse, answer())
    read_events(client.get("/run"))
    until(lambda: len(happened) == 3)
    # One teardown is that of the request.
    assert sorted(happened) == ["closed in application", "teardown", "teardown"]
    assert happened[-1] == "teardown"


# Coming back


def test_whoever_comes_back_goes_on_and_nothing_is_stepped_twice(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    first, second = Answer("a", "b", gate=gate), Answer("other")
    client = serve(app, sse, first, second)
    (seen,) = read_events(client.get("/run"), count=1)
    gate.set()
    rest = read_events(client.get("/run", headers={"Last-Event-ID": seen.id or ""}))
    assert [event.data for event in rest] == ["b", ""]
    assert (second.steps, second.is_closed) == (0, True)
    assert (first.steps, first.is_closed) == (2, True)
    assert_all_gone(app)


def test_whoever_was_cut_before_the_first_item_does_so_too(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    first, second = Answer("a", gate=gate), Answer("other")
    client = serve(app, sse, first, second)
    (opening,) = read_events(client.get("/run"), count=1, bookkeeping=True)
    assert opening.type == "stream-open"
    back = client.get(f"/run?last_event_id={opening.id}")
    assert texts(back, count=1) == ["a"]
    assert (second.steps, second.is_closed) == (0, True)


def test_whoever_saw_the_end_gets_204(app: Flask, sse: SSE) -> None:
    again = Answer("other")
    client = serve(app, sse, ["a"], again)
    *_, end = read_events(client.get("/run"))
    back = client.get("/run", headers={"Last-Event-ID": end.id or ""})
    assert (back.status_code, back.data) == (204, b"")
    assert (again.steps, again.is_closed) == (0, True)


def test_ids_of_the_application_s_own_do_not_keep_it_from_being_found(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    again = Answer("other")
    items = Answer(Event("a", id="7"), Event("b", id="8"), gate=gate)
    client = serve(app, sse, items, again)
    (seen,) = read_events(client.get("/run"), count=1)
    gate.set()
    back = client.get("/run", headers={"Last-Event-ID": seen.id or ""})
    assert texts(back) == ["b", ""]
    assert again.steps == 0


def test_the_location_serves_the_whole_to_whoever_has_it(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    client = serve(app, sse, Answer("a", "b", gate=gate))
    response = client.post("/run")
    location = response.headers["Location"]
    assert re.fullmatch("/stream/run/[A-Za-z0-9_-]{22}", location)
    (seen,) = read_events(response, count=1)
    assert texts(client.get(location), count=1) == ["a"]
    gate.set()
    assert texts(client.get(location, headers={"Last-Event-ID": seen.id or ""})) == [
        *("b", "")
    ]
    # The same holds when the run is over.
    *_, end = read_events(client.get(location))
    assert texts(client.get(location)) == ["a", "b", ""]
    back = client.get(location, headers={"Last-Event-ID": end.id or ""})
    assert back.status_code == 204
    assert back.headers["X-Content-Type-Options"] == "nosniff"


#: What Apache tells an application that it speaks CGI or the like to.
APACHE = {"GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SOFTWARE": "Apache/2.4.57 (Debian)"}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("environ", "keeps_it"),
    [
        ({}, False),
        ({"SERVER_SOFTWARE": "gunicorn/27.0.1"}, False),
        # The development servers of the standard library and of others.
        (
            {"GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SOFTWARE": "WSGIServer/0.2"},
            False,
        ),
        ({**APACHE, "uwsgi.version": b"2.0"}, False),
        (APACHE, True),
    ],
)
def test_a_location_is_not_given_to_who_keeps_it_to_itself(
    app: Flask, sse: SSE, method: str, environ: dict[str, Any], keeps_it: bool
) -> None:
    client = serve(app, sse, ["a"])
    with client.open("/run", method=method, environ_overrides=environ) as response:
        assert re.fullmatch(
            "/stream/run/[A-Za-z0-9_-]{22}", response.headers["Content-Location"]
        )
        location = response.headers.get("Location")
        assert location == (None if keeps_it else response.headers["Content-Location"])
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_an_id_of_another_run_says_nothing_at_a_location(app: Flask, sse: SSE) -> None:
    client = serve(app, sse, ["a"], ["b"])
    (other, _) = read_events(client.get("/run"))
    response = client.get("/run")
    location = response.headers["Location"]
    read_events(response)
    back = client.get(location, headers={"Last-Event-ID": other.id or ""})
    assert texts(back) == ["b", ""]


def test_an_unknown_id_at_a_location_is_told_of_a_gap(app: Flask, sse: SSE) -> None:
    client = serve(app, sse, ["a"])
    location = (response := client.get("/run")).headers["Location"]
    read_events(response)
    gap, *rest = read_events(client.get(location, headers={"Last-Event-ID": "what"}))
    assert gap.type == "stream-gap"
    assert [event.data for event in rest] == ["a", ""]


def test_an_unknown_run_is_404(app: Flask, sse: SSE) -> None:
    client = serve(app, sse, answer := Answer("a"))
    name = "x" * 22
    assert client.get(f"/stream/run/{name}").status_code == 404
    id = f"{'0' * 16}-5-{name}"
    assert client.get(f"/run?last_event_id={id}").status_code == 404
    assert (answer.steps, answer.is_closed) == (0, True)
    assert client.get("/stream/run/short").status_code == 404


def test_its_channel_is_closed_to_the_blueprint_s_view(app: Flask, sse: SSE) -> None:
    app.config["SSE_PUBLIC_CHANNELS"] = ["*"]
    client = serve(app, sse, ["a"])
    response = client.get("/run")
    name = response.headers["Location"].rpartition("/")[2]
    read_events(response)
    assert client.get(f"/stream?channel=$run.{name}").status_code == 403


def test_of_a_long_one_the_beginning_is_dropped_and_that_is_told(
    app: Flask, sse: SSE
) -> None:
    app.config["SSE_RUN_BYTES"] = 10_000
    client = serve(app, sse, [f"{n} {'x' * 100}" for n in range(1000)])
    response = client.get("/run")
    location = response.headers["Location"]
    # A reader that follows misses nothing, however fast the run is.
    whole = [data.split()[0] for data in texts(response)[:-1]]
    assert whole == [str(n) for n in range(1000)]
    gap, *late, end = read_events(client.get(location))
    assert (gap.type, end.type) == ("stream-gap", "stream-end")
    kept = [int(event.data.split()[0]) for event in late]
    assert kept == list(range(1000 - len(kept), 1000))
    assert 9000 < sum(len(event.encode()) for event in late) <= 10_000


def test_it_is_kept_for_as_long_as_any_event(app: Flask, sse: SSE) -> None:
    app.config["SSE_HISTORY_AGE"] = 0.3
    client = serve(app, sse, ["a"], again := Answer("other"))
    response = client.get("/run")
    location = response.headers["Location"]
    *_, end = read_events(response)
    until(lambda: status(client, location) == 404)
    back = client.get("/run", headers={"Last-Event-ID": end.id or ""})
    assert back.status_code == 404
    assert again.steps == 0


def test_a_slow_one_is_kept_whole_however_old_its_beginning_is(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    app.config |= {"SSE_HISTORY_AGE": 0.05, "SSE_HISTORY": 1}
    client = serve(app, sse, ["b"], Answer("a", "b", "c", gate=gate))
    old = (response := client.get("/run")).headers["Location"]
    read_events(response)
    location = (response := client.get("/run")).headers["Location"]
    assert texts(response, count=1) == ["a"]
    until(lambda: status(client, old) == 404)
    assert texts(client.get(location), count=1) == ["a"]
    gate.set()
    assert texts(client.get(location)) == ["a", "b", "c", ""]


# In a channel of the application's


def test_in_a_channel_that_runs_nothing_else_begins(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    app.config["SSE_PUBLIC_CHANNELS"] = ["job.*"]
    first, second = Answer("a", "b", gate=gate), Answer("other")
    client = serve(app, sse, first, second)
    assert texts(client.get("/run?channel=job.7"), count=1) == ["a"]
    attached = client.get("/run?channel=job.7")
    assert attached.headers["Location"] == "/stream?channel=job.7"
    assert texts(attached, count=1) == ["a"]
    assert (second.steps, second.is_closed) == (0, True)
    assert runs(app) == 1


def test_what_is_over_begins_anew_for_whoever_has_not_seen_it(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    """Also where the new run is silent for a while: a reader must not take the end of
    the run before for its own."""
    silent = Answer("b")

    def slow() -> Iterator[str]:
        assert gate.wait(PATIENCE)
        yield from silent

    client = serve(app, sse, ["a"], slow(), Answer("never"))
    assert texts(client.get("/run?channel=job.7")) == ["a", ""]
    response = client.get("/run?channel=job.7")
    assert response.status_code == 200
    attached = client.get("/run?channel=job.7")
    assert attached.status_code == 200
    gate.set()
    assert texts(response) == ["b", ""]
    assert texts(attached) == ["b", ""]


def test_one_that_says_nothing_ends_behind_another_too(app: Flask, sse: SSE) -> None:
    client = serve(app, sse, ["a"], [])
    texts(client.get("/run?channel=job.7"))
    assert texts(client.get("/run?channel=job.7")) == [""]
    assert_all_gone(app)


def test_whoever_comes_back_after_the_end_of_a_channel_s_run_begins_no_other(
    app: Flask, sse: SSE
) -> None:
    again = [Answer("other"), Answer("other")]
    client = serve(app, sse, ["a", "b"], *again)
    seen, _, end = read_events(client.get("/run?channel=job.7"))
    back = client.get("/run?channel=job.7", headers={"Last-Event-ID": seen.id or ""})
    assert texts(back) == ["b", ""]
    back = client.get("/run?channel=job.7", headers={"Last-Event-ID": end.id or ""})
    assert back.status_code == 204
    assert [(answer.steps, answer.is_closed) for answer in again] == [(0, True)] * 2


def let_all_grow_old(app: Flask) -> None:
    """Set the log's clock forward, so that all that is kept is too old. (A short
    ``SSE_HISTORY_AGE`` instead would be over before a busy machine has read it.)"""
    log = app.extensions["sse"].log
    ahead = 2 * Settings.read(app.config).history_age
    log._clock = log._keeper._clock = lambda: time.monotonic() + ahead


def test_whoever_comes_back_when_it_is_forgotten_is_told_and_not_left_waiting(
    app: Flask, sse: SSE
) -> None:
    client = serve(app, sse, ["a", "b"], ["c"])
    location = "/run?channel=job.7"
    seen, _, _ = read_events(client.get(location))
    let_all_grow_old(app)
    until(lambda: not app.extensions["sse"].log.remembers("job.7"))
    back = client.get(location, headers={"Last-Event-ID": seen.id or ""})
    gap, *rest = read_events(back)
    assert gap.type == "stream-gap"
    assert [event.data for event in rest] == ["c", ""]


def test_a_run_that_is_over_at_once_is_streamed_all_the_same(
    app: Flask, sse: SSE
) -> None:
    client = serve(app, sse, *([str(n)] for n in range(50)))
    for n in range(50):
        response = client.get(f"/run?channel=job.{n}")
        assert response.status_code == 200
        assert texts(response) == [str(n), ""]


def test_two_starts_at_once_are_one(app: Flask, sse: SSE) -> None:
    answers: list[Answer] = []
    gates = [threading.Event() for _ in range(100)]
    lock = threading.Lock()

    def view(n: int) -> Any:
        with lock:
            answers.append(answer := Answer(str(n), gate=gates[n]))
        both.wait(PATIENCE)
        return sse.run(answer, channel=f"job.{n}")

    app.add_url_rule("/start/<int:n>", view_func=view)
    both = threading.Barrier(2)

    def click(n: int) -> list[str]:
        return texts(app.test_client().get(f"/start/{n}"), count=1)

    with ThreadPoolExecutor(2) as pool:
        for n, gate in enumerate(gates):
            clicks = [pool.submit(click, n) for _ in range(2)]
            assert [future.result() for future in clicks] == [[str(n)]] * 2
            gate.set()
            until(lambda: all(answer.is_closed for answer in answers))
            assert sorted(answer.steps for answer in answers) == [0, 1]
            answers.clear()
    assert_all_gone(app)


# Ends


def test_to_close_the_channel_stops_it(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    client = serve(app, sse, answer := Answer("a", "b", gate=gate))
    response = client.get("/run?channel=job.7")
    assert texts(client.get("/run?channel=job.7"), count=1) == ["a"]
    with app.app_context():
        sse.close("job.7")
    assert texts(response) == ["a", ""]
    gate.set()
    until(lambda: answer.is_closed)
    assert answer.steps <= 2
    assert_all_gone(app)


def test_to_close_the_channel_stops_one_that_never_pauses(app: Flask, sse: SSE) -> None:
    """However closing and appending interleave, the end comes last."""

    def endless() -> Iterator[str]:
        while True:
            yield "more"

    client = serve(app, sse, *(endless() for _ in range(50)), linger=1000)
    log = app.extensions["sse"].log
    for n in range(50):
        client.get(f"/run?channel=job.{n}").close()
        until(lambda n=n: log.remembers(f"job.{n}"))  # type: ignore[misc]
        with app.app_context():
            sse.close(f"job.{n}")
        assert_all_gone(app)
        assert has_ended(app, f"job.{n}")


def test_what_is_said_as_the_channel_is_closed_does_not_open_it_again(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    client = serve(app, sse, answer := Answer("a", "b", gate=gate))
    log = app.extensions["sse"].log

    def speak_late() -> None:
        """Append between the end and the moment at which the run is told, as a run's
        thread can."""
        if has_ended(app, "job.7"):
            log.append("job.7", Event("late"))

    log.watch(["job.7"], speak_late)
    response = client.get("/run?channel=job.7")
    assert texts(client.get("/run?channel=job.7"), count=1) == ["a"]
    with app.app_context():
        sse.close("job.7")
    log.unwatch(["job.7"], speak_late)
    assert texts(response) == ["a", ""]
    gate.set()
    assert_all_gone(app)
    assert answer.is_closed


def test_what_still_waits_says_nothing_into_its_successor(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    later = threading.Event()
    old = Answer("old 1", "old 2", "old 3", gate=gate)
    client = serve(app, sse, old, Answer("new 1", "new 2", gate=later))
    assert texts(client.get("/run?channel=job.7"), count=1) == ["old 1"]
    with app.app_context():
        sse.close("job.7")
    response = client.get("/run?channel=job.7")
    assert texts(client.get("/run?channel=job.7"), count=1) == ["new 1"]
    gate.set()
    until(lambda: old.is_closed)
    until(lambda: runs(app) == 1)
    assert not has_ended(app, "job.7")
    later.set()
    assert texts(response) == ["new 1", "new 2", ""]


def test_one_that_nobody_listens_to_is_closed(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    happened = []

    def answer() -> Iterator[str]:
        try:
            while not gate.wait(0.01):
                yield "more"
        finally:
            happened.append("closed")

    client = serve(app, sse, answer(), linger=0.1)
    response = client.get("/run")
    location = response.headers["Location"]
    with client.get(location):
        texts(response, count=1)
        texts(client.get(location), count=50)
        lose_patience()
    until(lambda: happened)
    assert_all_gone(app)
    assert texts(client.get(location))[-1] == ""


@pytest.mark.parametrize(
    ("fails", "error"),
    [
        ("thread", RuntimeError("can't start new thread")),
        ("thread", MemoryError()),
        ("store", BrokerUnavailable("The store is away")),
        ("store", MemoryError()),
    ],
    ids=repr,
)
def test_one_that_nobody_listens_to_is_closed_though_that_fails_at_first(
    app: Flask,
    sse: SSE,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gate: threading.Event,
    fails: str,
    error: Exception,
) -> None:
    """The hub's next look tries again."""
    unhandled: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", unhandled.append)
    client = serve(app, sse, Answer("a", "b", gate=gate), linger=0.1)
    response = client.get("/run")
    location = response.headers["Location"]
    channel = f"$run.{location.rpartition('/')[2]}"
    failures: list[object] = []
    broker = app.extensions["sse"].broker
    start, subscribers = threading.Thread.start, broker.subscribers

    def start_later(thread: threading.Thread) -> None:
        if thread.name == THREAD and len(failures) < 2:
            failures.append(thread)
            raise error
        start(thread)

    def tell_later(channel: str) -> int:
        if len(failures) < 2:
            failures.append(channel)
            raise error
        return int(subscribers(channel))

    if fails == "thread":
        monkeypatch.setattr(threading.Thread, "start", start_later)
    else:
        monkeypatch.setattr(broker, "subscribers", tell_later)
    assert texts(response, count=1) == ["a"]
    lose_patience()
    until(lambda: not broker.log.is_running(channel))
    assert len(failures) == 2
    gate.set()
    assert_all_gone(app)
    assert not unhandled
    is_told = fails == "store" and isinstance(error, MemoryError)
    assert caplog.text.count("SSE-E26") == (2 if is_told else 0)


def test_the_first_reader_has_time_to_come(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    client = serve(app, sse, Answer("a", "b", gate=gate), linger=0)
    hub = current_hub()
    response = client.get("/run?channel=job.7")
    for _ in range(3):
        looked_at = hub._looked_at
        until(lambda before=looked_at: hub._looked_at > before)  # type: ignore[misc]
    assert runs(app) == 1
    assert texts(response, count=1) == ["a"]


def test_whoever_comes_to_one_that_was_abandoned_is_told_that_it_is_not_whole(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    client = serve(app, sse, Answer("a", "b", gate=gate), linger=0.1)
    response = client.get("/run")
    assert texts(response, count=1) == ["a"]
    lose_patience()
    log = app.extensions["sse"].log
    channel = f"$run.{response.headers['Location'].rpartition('/')[2]}"
    until(lambda: not log.is_running(channel))
    gate.set()
    assert_all_gone(app)
    *_, reason, end = read_events(client.get(response.headers["Location"]))
    assert (reason.type, reason.json) == ("stream-error", {"reason": "abandoned"})
    assert end.type == "stream-end"


def test_one_of_which_nobody_took_anything_is_soon_given_up(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    """This holds however long its linger is. A run that was read lingers for the whole
    time."""
    app.config["SSE_HEARTBEAT"] = 1
    abandoned = [Answer("a", gate=gate) for _ in range(5)]
    taken = Answer("a", "b", gate=gate)
    all_have_left = threading.Event()

    def late(answer: Answer) -> Iterator[str]:
        """Says nothing that its client could take."""
        assert all_have_left.wait(PATIENCE)
        yield from answer

    client = serve(app, sse, taken, *map(late, abandoned), linger=1000)
    hub = current_hub()
    response = client.get("/run")
    stream = response.iter_encoded()
    assert any(b"data: a" in piece for piece in stream)
    # Wait until the hub has seen that it listens.
    for _ in range(3):
        looked_at = hub._looked_at
        until(lambda before=looked_at: hub._looked_at > before)  # type: ignore[misc]
    response.close()
    for _ in abandoned:
        client.get("/run").close()
    all_have_left.set()
    until(lambda: all(answer.waits for answer in abandoned))
    lose_patience()
    # They hold their threads until their generators say something.
    channels = app.extensions["sse"]
    names = [name for name in channels.log._channels if name.startswith("$run.")]
    until(lambda: sum(map(channels.log.is_running, names)) == 1)
    gate.set()
    until(lambda: runs(app) == 0)
    assert [answer.steps for answer in (taken, *abandoned)] == [2, 1, 1, 1, 1, 1]


def test_no_thread_nor_any_log_line_names_a_run(
    app: Flask, sse: SSE, caplog: pytest.LogCaptureFixture, gate: threading.Event
) -> None:
    caplog.set_level(logging.DEBUG)
    names: list[str] = []

    def answer() -> Iterator[str]:
        logging.getLogger("app").info("calling the model")
        yield "a"
        assert gate.wait(PATIENCE)
        raise RuntimeError("the model failed")

    response = serve(app, sse, answer()).get("/run")
    secret = response.headers["Location"].rpartition("/")[2]
    texts(response, count=1)
    names += [thread.name for thread in threading.enumerate()]
    gate.set()
    assert_all_gone(app)
    assert "flask_sse_lite.run" in names
    told = logging.Formatter("%(threadName)s %(message)s")
    lines = [told.format(record) for record in caplog.records]
    assert any("calling the model" in line for line in lines)
    assert any("the model failed" in line for line in lines)
    with app.app_context():
        shown = [*names, *lines, repr(sse.stats()), repr(app.extensions["sse"].runs)]
    assert [text for text in shown if secret in text] == []


def test_no_error_names_a_run(app: Flask, sse: SSE) -> None:
    name = f"$run.{'x' * 22}"
    with app.test_request_context():
        for use in (sse.stream, sse.close, lambda name: sse.run([], channel=name)):
            with pytest.raises(InvalidValue) as caught:
                use(name)
            assert "x" * 22 not in str(caught.value)


def test_an_error_is_told_without_its_details_and_logged(
    app: Flask, sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    def answer() -> Iterator[str]:
        yield "a"
        raise RuntimeError("password=geheim")

    response = serve(app, sse, answer()).get("/run")
    location = response.headers["Location"]
    for stream in (response, app.test_client().get(location)):
        answered, error, end = read_events(stream)
        assert (answered.data, error.type) == ("a", "stream-error")
        assert error.json == {"reason": "error"}
        assert end.type == "stream-end"
    (record,) = [record for record in caplog.records if record.exc_info]
    assert str(record.exc_info and record.exc_info[1]) == "password=geheim"
    assert_all_gone(app)


def test_an_error_at_the_start_is_told_like_any_other(app: Flask, sse: SSE) -> None:
    def answer() -> Iterator[str]:
        abort(404)
        yield "never"

    client = serve(app, sse, answer(), on_error=lambda error: {"sorry": str(error)[:3]})
    error, end = read_events(client.get("/run"))
    assert error.json == {"reason": "error", "message": {"sorry": "404"}}
    assert end.type == "stream-end"


def test_an_error_at_the_close_is_logged_and_harms_nobody(
    app: Flask,
    sse: SSE,
    caplog: pytest.LogCaptureFixture,
    gate: threading.Event,
) -> None:
    def answer() -> Iterator[str]:
        try:
            yield "a"
            gate.wait(PATIENCE)
            yield "b"
            yield "c"
        finally:
            raise RuntimeError("at the close")

    client = serve(app, sse, answer(), ["next"])
    response = client.get("/run?channel=job.7")
    assert texts(response, count=1) == ["a"]
    with app.app_context():
        sse.close("job.7")
    gate.set()
    assert_all_gone(app)
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        "SSE-E14: An event stream's iterable failed at its close"
    ]
    assert texts(client.get("/run?channel=job.7")) == ["next", ""]


class Timeout(BaseException):
    """Like gevent's: it is no ``Exception``."""


def test_whatever_ends_it_is_told(
    app: Flask, sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    def answer() -> Iterator[str]:
        yield "a"
        raise Timeout

    _, error, end = read_events(serve(app, sse, answer()).get("/run"))
    assert error.json == {"reason": "error"}
    assert end.type == "stream-end"
    assert_all_gone(app)


@pytest.mark.parametrize("error", [GeneratorExit, KeyboardInterrupt, SystemExit])
def test_whatever_breaks_it_off_is_told(
    app: Flask, sse: SSE, error: type[BaseException]
) -> None:
    def items() -> Iterator[str]:
        yield "a"
        raise error

    _, told, end = read_events(serve(app, sse, map(str, items())).get("/run"))
    assert told.json == {"reason": "error"}
    assert end.type == "stream-end"
    assert_all_gone(app)


def test_a_context_that_cannot_be_entered_ends_it(
    app: Flask, sse: SSE, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(app, sse, answer := Answer("a"))

    def fail(*args: Any) -> None:
        if threading.current_thread().name.startswith("flask_sse_lite.run"):
            raise RuntimeError("no context")

    monkeypatch.setattr("flask.ctx.AppContext.__enter__", fail)
    error, _ = read_events(client.get("/run"))
    assert error.json == {"reason": "error"}
    assert answer.is_closed
    assert_all_gone(app)


def test_a_generator_that_takes_no_notice_of_being_closed_is_over_all_the_same(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    def answer() -> Iterator[str]:
        while True:
            try:
                yield "more"
                gate.wait(PATIENCE)
            except GeneratorExit:
                yield "still more"
                return

    client = serve(app, sse, answer())
    response = client.get("/run?channel=job.7")
    assert texts(response, count=1) == ["more"]
    with app.app_context():
        sse.close("job.7")
    gate.set()
    assert_all_gone(app)
    assert has_ended(app, "job.7")


# Limits and mistakes


def test_there_is_a_limit_and_who_comes_next_is_told_when_to_come_back(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    app.config["SSE_MAX_RUNS"] = 2
    refused = [Answer("refused"), Answer("refused")]
    answers = [Answer("a", gate=gate), Answer("a", gate=gate), *refused]
    client = serve(app, sse, *answers, Answer("fits"))
    for _ in range(2):
        assert texts(client.get("/run"), count=1) == ["a"]
    answer = client.get("/run")
    assert answer.status_code == 503
    assert 24 <= int(answer.headers["Retry-After"]) <= 36
    answer = client.get("/run", headers=ACCEPT)
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    assert re.fullmatch(rb"retry: \d{5}\n\n", answer.data)
    assert [(answer.steps, answer.is_closed) for answer in refused] == [(0, True)] * 2
    gate.set()
    assert_all_gone(app)
    assert texts(client.get("/run")) == ["fits", ""]


def test_one_that_is_over_counts_as_long_as_it_holds_its_thread(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    app.config["SSE_MAX_RUNS"] = 1
    first = Answer("a", gate=gate)
    client = serve(app, sse, first, Answer("b"), Answer("c"))
    assert texts(client.get("/run?channel=job.7"), count=1) == ["a"]
    # Before that, it could end without its generator.
    until(lambda: first.waits)
    with app.app_context():
        sse.close("job.7")
    assert client.get("/run?channel=job.7").status_code == 503
    gate.set()
    assert_all_gone(app)
    assert texts(client.get("/run?channel=job.7")) == ["c", ""]


def test_where_no_thread_can_be_had_it_is_as_if_there_were_too_many(
    app: Flask, sse: SSE, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(app, sse, answer := Answer("a"), ["b"])
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name.startswith("flask_sse_lite.run"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert client.get("/run?channel=job.7").status_code == 503
    assert (answer.steps, answer.is_closed) == (0, True)
    assert_all_gone(app)
    assert texts(client.get("/run?channel=job.7")) == ["b", ""]


def test_a_full_server_begins_none(app: Flask, sse: SSE) -> None:
    app.config["SSE_MAX_CONNECTIONS"] = 1
    client = serve(app, sse, answer := Answer("a"))
    with client.get("/stream") as other:
        next(other.iter_encoded())
        assert client.get("/run").status_code == 503
    assert (answer.steps, answer.is_closed) == (0, True)


@pytest.mark.parametrize(
    ("headers", "begins"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://elsewhere.test"}, True),
        ({"Origin": "https://elsewhere.test"}, False),
        ({"Origin": "https://localhost.elsewhere.test"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({"Origin": "http://localhost"}, True),
        ({"Origin": "http://localhost:80"}, True),
        ({}, True),
    ],
    ids=str,
)
def test_another_site_s_page_begins_none_where_that_is_wished_for(
    app: Flask, sse: SSE, headers: dict[str, str], begins: bool
) -> None:
    app.config["SSE_SAME_SITE_RUNS"] = True
    client = serve(app, sse, answer := Answer("a"))
    response = client.get("/run", headers=headers)
    if begins:
        assert texts(response) == ["a", ""]
    else:
        assert response.status_code == 403
    assert_all_gone(app)
    assert (answer.steps > 0, answer.is_closed) == (begins, True)


def test_elsewhere_any_page_can_begin_one(app: Flask, sse: SSE) -> None:
    client = serve(app, sse, ["a"])
    response = client.get("/run", headers={"Sec-Fetch-Site": "cross-site"})
    assert texts(response) == ["a", ""]


def test_another_site_s_page_can_come_back_to_one_that_goes_on(
    app: Flask, sse: SSE, gate: threading.Event
) -> None:
    app.config["SSE_SAME_SITE_RUNS"] = True
    client = serve(app, sse, Answer("a", gate=gate), unused := Answer("b"))
    path, foreign = "/run?channel=job.7", {"Sec-Fetch-Site": "cross-site"}
    assert texts(client.get(path), count=1) == ["a"]
    assert texts(client.get(path, headers=foreign), count=1) == ["a"]
    assert (unused.steps, unused.is_closed) == (0, True)


def test_head_begins_none(app: Flask, sse: SSE) -> None:
    client = serve(app, sse, answer := Answer("a"))
    response = client.head("/run")
    assert (response.status_code, response.data) == (200, b"")
    assert response.mimetype == "text/event-stream"
    assert (answer.steps, answer.is_closed) == (0, True)
    assert runs(app) == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"linger": -1}, InvalidValue),
        ({"linger": "30"}, InvalidValue),
        ({"linger": float("nan")}, InvalidValue),
        ({"channel": "$run.mine"}, InvalidValue),
        ({"channel": ""}, InvalidValue),
        ({"channel": ["a"]}, InvalidType),
        ({"type": "stream-mine"}, InvalidValue),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_anything_begins(
    app: Flask, sse: SSE, options: dict[str, Any], error: type[Exception]
) -> None:
    with app.test_request_context(), pytest.raises(error):
        sse.run(["a"], **options)


@pytest.mark.parametrize("bad", ["text", b"bytes", {"a": 1}, None, 5], ids=repr)
def test_what_is_no_iterable_of_items_is_refused(
    app: Flask, sse: SSE, bad: Any
) -> None:
    with app.test_request_context(), pytest.raises(InvalidType):
        sse.run(bad)


def test_without_the_blueprint_s_routes_there_is_no_location(sse: SSE) -> None:
    app = Flask("application")
    app.config["TESTING"] = True
    sse.init_app(app, url_prefix=None)
    response = serve(app, sse, ["a"]).get("/run")
    assert "Location" not in response.headers
    assert texts(response) == ["a", ""]


# Databases


def test_neither_kind_of_stream_holds_the_request_s_session(
    app: Flask, sse: SSE, tmp_path: Path, gate: threading.Event
) -> None:
    """The views are as in the documentation, with a pool of one connection."""
    engine = create_engine(
        f"sqlite:///{tmp_path}/database",
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=PATIENCE,
    )
    session = scoped_session(sessionmaker(engine))
    app.teardown_appcontext(lambda error: session.remove())

    def query() -> int:
        answer: int = session.execute(text("SELECT 42")).scalar_one()
        return answer

    def answer() -> Iterator[str]:
        yield str(query())
        session.remove()
        assert gate.wait(PATIENCE)
        yield str(query())

    def streamed() -> Iterator[str]:
        question = query()
        session.close()
        yield str(question)
        assert gate.wait(PATIENCE)

    @app.get("/ask/<what>")
    def view(what: str) -> Any:
        query()
        return EventStream(streamed()) if what == "stream" else sse.run(answer())

    def open_one(what: str) -> TestResponse:
        response = app.test_client().get(f"/ask/{what}")
        assert b"42" in b"".join(decoded_until(response, "42"))
        return response

    with ExitStack() as stack:
        for what in ("run", "run", "stream"):
            stack.enter_context(open_one(what))
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        gate.set()
    assert_all_gone(app)
    session.remove()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    engine.dispose()


def decoded_until(response: TestResponse, data: str) -> Iterator[bytes]:
    """What a response sends, up to an event's data."""
    decoder = Decoder()
    for piece in response.iter_encoded():
        yield piece
        if any(event.data == data for event in decoder.feed(piece)):
            return


# On servers


@pytest.fixture(scope="module", params=SERVERS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Generators]:
    with generators(request.param, tmp_path_factory.mktemp("runs")) as served:
        yield served


@pytest.fixture(scope="module", params=WORKERS)
def worker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Generators]:
    with generators(request.param, tmp_path_factory.mktemp("runs")) as served:
        yield served


@pytest.fixture(scope="module")
def cooperative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generators]:
    with generators("gunicorn gevent", tmp_path_factory.mktemp("runs")) as served:
        yield served


def test_a_run_is_streamed_and_resumed(served: Generators) -> None:
    name = served.new()
    steps = f"one,wait:{name}.a,context"
    with served.ask(name, steps, "/run") as client:
        location = client.headers["location"]
        (seen,) = client.take(1)
        client.reset()
    served.open(f"{name}.a")
    with Client(served.server.port) as client:
        query = urlencode({"name": name, "steps": steps})
        client.request(f"/run?{query}", headers={"Last-Event-ID": seen.id or ""})
        told, end = client.take(2)
        assert told.data == "tests.applications.channels, no request"
        assert end.type == "stream-end"
    with Client(served.server.port) as client:
        client.request(location, headers={"Last-Event-ID": end.id or ""})
        assert client.status == 204
    assert served.happened(name).count("begin") == 1
    assert_nothing_is_left(served)


def test_a_client_that_posted_goes_on_at_the_location(served: Generators) -> None:
    name = served.new()
    with Client(served.server.port) as client:
        query = urlencode({"name": name, "steps": f"one,wait:{name}.a,two"})
        client.request(f"/run?{query}", "POST", {"Content-Length": "0"})
        location = client.headers["location"]
        (seen,) = client.take(1)
    served.open(f"{name}.a")
    for since, expected in ((seen.id or "", ["two", ""]), ("", ["one", "two", ""])):
        with Client(served.server.port) as client:
            client.request(location, headers={"Last-Event-ID": since} if since else {})
            assert [event.data for event in client.take(3)] == expected
    assert served.happened(name).count("begin") == 1


def test_wherever_and_however_often_it_is_cut_each_item_comes_once(
    worker: Generators,
) -> None:
    random_ = random.Random(20_260_101)
    for _ in range(20):
        name, cuts = worker.new(), 0
        query = urlencode({"name": name, "steps": "many:300,wait:" + name})
        seen: list[str] = []
        since = ""
        while len(seen) < 300:
            with Client(worker.server.port) as client:
                headers = {"Last-Event-ID": since} if since else {}
                client.request(f"/run?{query}", headers=headers)
                # Only whole events count as received.
                decoder = Decoder()
                left = random_.randrange(1, 12_000)
                # The first event carries the name of the run. Before it, the client has
                # no id to come back with.
                while len(seen) < 300 and (
                    left > 0 or not (since or decoder.last_event_id)
                ):
                    piece = client.read(max(1, min(left, random_.randrange(1, 900))))
                    assert piece
                    left -= len(piece)
                    events = decoder.feed(piece)
                    seen += [e.data for e in events if e.type is None]
                since = decoder.last_event_id or since
                getattr(client, random_.choice(["leave", "reset"]))()
                cuts += 1
        assert seen == [str(n) for n in range(300)], cuts
        assert worker.happened(name).count("begin") == 1
        worker.open(name)
        worker.await_(name, "closed")
    assert_nothing_is_left(worker)


def test_nobody_who_follows_misses_anything_however_fast_it_is(
    worker: Generators,
) -> None:
    """The run makes far more than is kept, and the client is slow."""
    name = worker.new()
    with Client(worker.server.port, receive_buffer=8192) as client:
        query = urlencode({"name": name, "steps": "crowd", "channel": name})
        client.request(f"/run?{query}")
        assert client.headers["location"] == f"/stream?channel={name}"
        client.take(1)
        # The run waits for the client, though the client has yet to read much of what
        # is kept.
        made = stalled(worker, name)
        assert made < 20_000
        for n, event in enumerate(client.take(10_000), 1):
            assert event.data.startswith(f"{n} ")
        worker.server.close(name)
        assert any(event.type == "stream-end" for event in client.events)
    worker.await_(name, "closed")
    assert_nothing_is_left(worker)


@pytest.mark.parametrize("what", ["event", "socket", "sleep"])
def test_under_gevent_to_close_it_interrupts_it(
    cooperative: Generators, what: str
) -> None:
    name = cooperative.new()
    with cooperative.ask(name, f"one,{what}", "/run", channel=name) as client:
        client.take(1)
        cooperative.server.close(name)
        assert [event.type for event in client.take(2)] == ["stream-end"]
    cooperative.await_(name, "closed")
    assert_nothing_is_left(cooperative)


@pytest.mark.parametrize("what", ["event", "socket", "sleep", "tick"])
def test_under_gevent_one_that_nobody_listens_to_is_interrupted(
    cooperative: Generators, what: str
) -> None:
    name = cooperative.new()
    with cooperative.ask(name, f"one,{what}", "/run", linger=0.5) as client:
        client.take(1)
        # By then the hub has seen the reader.
        await_silence(cooperative)
    cooperative.await_(name, "closed")
    assert_nothing_is_left(cooperative)


def test_under_gevent_it_may_take_its_time_to_clean_up(cooperative: Generators) -> None:
    name = cooperative.new()
    with cooperative.ask(name, "clean up", "/run", channel=name) as client:
        client.take(1)
        cooperative.server.close(name)
        cooperative.server.close(name)
        assert [event.type for event in client.take(1)] == ["stream-end"]
    assert "closed" not in cooperative.happened(name)
    cooperative.open(f"{name}.cleaned")
    cooperative.await_(name, "closed")
    assert cooperative.happened(name)[-2:] == ["cleaned up", "closed"]
    assert_nothing_is_left(cooperative)


def test_many_starts_of_one_channel_at_once_are_one(worker: Generators) -> None:
    for _ in range(20):
        name = worker.new()
        asked = {"path": "/run", "name": name, "steps": f"wait:{name},one"}
        with Crowd(worker.server.port) as crowd:
            members = crowd.join_all(8, name, **asked)
            worker.open(name)
            crowd.await_ends(members)
        for member in members:
            assert [event.data for event in member.events][:1] == ["one"]
        assert worker.happened(name).count("begin") == 1
    assert_nothing_is_left(worker)


def test_a_thousand_that_wait_hold_a_greenlet_each_and_nobody_up(
    cooperative: Generators,
) -> None:
    server = cooperative.server
    assert_nothing_is_left(cooperative)
    before = server.stats()
    name = cooperative.new()
    asked = {"path": "/run", "name": name, "steps": f"wait:{name},one"}
    with descriptor_limit(None), Crowd(server.port) as crowd:
        members = crowd.join_all(1000, **asked)
        until(lambda: cooperative.happened(name).count("begin") == 1000)
        during = server.stats()
        # That is the most that there can be.
        assert MAX_RUNS_UNDER_GEVENT == 1000
        asked_again = urlencode({"name": name, "steps": "one"})
        assert server.request("GET", f"/run?{asked_again}").status == 503
        assert server.request("GET", "/ping").status == 200
        assert 1000 <= during["greenlets"] - before["greenlets"] < 1050
        assert during["threads"] == before["threads"]
        cooperative.open(name)
        crowd.await_ends(members)
        for member in members:
            assert [event.data for event in member.events][:1] == ["one"]
    assert_nothing_is_left(cooperative)
    until(lambda: server.stats()["greenlets"] <= before["greenlets"])
    until(lambda: server.stats()["descriptors"] <= before["descriptors"])


def test_on_threads_there_is_a_bound(tmp_path: Path) -> None:
    with generators("gunicorn sync", tmp_path, SSE_HEARTBEAT=NEVER) as served:
        name = served.new()
        steps = f"wait:{name},one"
        query = urlencode({"name": name, "steps": steps})
        with Crowd(served.server.port) as crowd:
            members = crowd.join_all(
                MAX_RUNS_ON_THREADS, path="/run", name=name, steps=steps
            )
            with Client(served.server.port) as client:
                client.request(f"/run?{query}")
                assert client.status == 503
                assert int(client.headers["retry-after"]) > 0
            with Client(served.server.port) as client:
                client.request(f"/run?{query}", headers=ACCEPT)
                assert (client.status, client.read()[:7]) == (200, b"retry: ")
            served.open(name)
            crowd.await_ends(members)
        assert_nothing_is_left(served)


# Servers that stop


@pytest.mark.parametrize("kind", [*WORKERS, "gunicorn gevent_pywsgi"])
def test_a_server_that_stops_says_so_and_ends_its_runs(
    tmp_path: Path, kind: str
) -> None:
    with generators(kind, tmp_path, options=GRACE, SSE_HEARTBEAT=NEVER) as served:
        name = served.new()
        with served.ask(name, f"one,wait:{name}", "/run") as client:
            client.take(1)
            served.server.signal(signal.SIGTERM)
            error, end = client.take(2)
            assert (error.type, error.json) == ("stream-error", {"reason": "shutdown"})
            assert end.type == "stream-end"
            assert list(client.events) == []
        served.open(name)
        served.server.wait()
        if "gevent" in kind:
            assert served.happened(name)[-1] == "closed"


@pytest.mark.parametrize("kind", ["gunicorn gevent", "gunicorn gthread"])
def test_a_store_that_hangs_keeps_no_stream_from_its_proper_end(
    tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "events.db"
    with (
        generators(
            kind,
            tmp_path,
            options="--graceful-timeout 10",
            SSE_URL=f"sqlite:///{file}",
        ) as served,
        served.server.stream("room") as other,
        closing(sqlite3.connect(file)) as store,
    ):
        name = served.new()
        with served.ask(name, f"one,wait:{name}", "/run") as run:
            run.take(1)
            store.execute("BEGIN IMMEDIATE")
            served.server.signal(signal.SIGTERM)
            # A cut would be an error for the client.
            assert other.take(1) == []
            assert run.take(1) == []
        served.open(name)


@pytest.mark.parametrize("kind", WORKERS)
def test_a_run_whose_worker_was_killed_is_not_waited_for(
    tmp_path: Path, kind: str
) -> None:
    with generators(kind, tmp_path) as served:
        name = served.new()
        query = urlencode({"name": name, "steps": f"one,wait:{name}"})
        with Client(served.server.port) as client:
            client.request(f"/run?{query}")
            location = client.headers["location"]
            (seen,) = client.take(1)
            killed = served.server.stats()["process"]
            os.kill(killed, signal.SIGKILL)
            with pytest.raises((h11.RemoteProtocolError, ConnectionError)):
                client.take(1)
        until(lambda: served.server.is_served_by_another(killed))
        for target in (location, f"/run?{query}"):
            with Client(served.server.port) as client:
                client.request(target, headers={"Last-Event-ID": seen.id or ""})
                assert client.status == 404
        assert served.happened(name).count("begin") == 1


@pytest.mark.parametrize("kind", ["gunicorn gevent", "gunicorn gthread"])
def test_a_fork_beside_runs_changes_nothing(tmp_path: Path, kind: str) -> None:
    with generators(kind, tmp_path) as served:
        name = served.new()
        with served.ask(name, f"one,wait:{name},two", "/run") as client:
            client.take(1)
            # The child opens the gate, and lives for a while. Under gevent it has
            # copies of the greenlets.
            assert served.server.request("GET", f"/fork?gate={name}").body == b"0"
            assert [event.data for event in client.take(2)] == ["two", ""]
        served.await_(name, "closed")
        assert served.happened(name).count("closed") == 1
        assert_nothing_is_left(served)

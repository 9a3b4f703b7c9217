"""Places: how many streams there can be, and what each of their phases leads to."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from flask_sse_lite.history.log import Log
from flask_sse_lite.hub.client import NOBODY, Client
from flask_sse_lite.hub.connection import Connection
from flask_sse_lite.hub.loop import Hub
from flask_sse_lite.hub.places import SPARE, Phase, Place, Places
from flask_sse_lite.settings import Settings
from flask_sse_lite.system.poller import IS_SUPPORTED

from .patience import patient
from .servers import until

SETTINGS = Settings.read({"SSE_MAX_CONNECTIONS": 3})
OTHERS = Settings.read({"SSE_MAX_CONNECTIONS": 3})

ANN, BOB = Client("ann", None, 0.0), Client(None, "127.0.0.1", 0.0)


@pytest.fixture
def places() -> Places:
    return Places()


def taken(places: Places, settings: Settings = SETTINGS) -> Place:
    place = places.take(settings)
    assert place
    return place


def test_there_are_as_many_as_is_set(places: Places) -> None:
    first, *_ = [taken(places) for _ in range(3)]
    assert places.is_full(SETTINGS) is True
    assert places.take(SETTINGS) is None
    places.release(first)
    assert places.is_full(SETTINGS) is False
    assert places.take(SETTINGS)


def test_a_client_has_as_many_as_is_set_however_many_came_and_went(
    places: Places,
) -> None:
    settings = Settings.read({"SSE_MAX_PER_CLIENT": 3})
    stay = [places.take(settings, ANN), places.take(settings, ANN)]
    for _ in range(99):
        assert not places.is_full(settings, ANN)
        passing = places.take(settings, ANN)
        assert passing
        assert places.is_full(settings, ANN)
        assert places.take(settings, ANN) is None
        assert not places.is_full(settings, BOB)
        places.serve(passing)
        places.release(passing)
    assert all(stay)


def test_of_whom_nothing_is_known_there_can_be_any_number(places: Places) -> None:
    settings = Settings.read({"SSE_MAX_PER_CLIENT": 1})
    assert all(places.take(settings, NOBODY) for _ in range(3))
    assert not places._by_owner


def test_without_a_limit_for_each_nobody_s_places_are_remembered(
    places: Places,
) -> None:
    settings = Settings.read({})
    assert all(places.take(settings, ANN) for _ in range(3))
    assert not places._by_owner


def test_few_places_of_clients_are_remembered_that_were_given_back(
    places: Places,
) -> None:
    settings = Settings.read({"SSE_MAX_PER_CLIENT": 999})
    for number in range(2000):
        client = ANN if number % 2 else Client(str(number), None, 0.0)
        place = places.take(settings, client)
        assert place
        places.serve(place)
        places.release(place)
    assert sum(map(len, places._by_owner.values())) <= SPARE + 1


def test_they_are_looked_for_when_they_are_far_more_than_those_that_are_taken(
    places: Places,
) -> None:
    settings = Settings.read({"SSE_MAX_PER_CLIENT": 999})
    for _ in range(10):
        places.take(settings, NOBODY)
    remembered: list[int] = []
    most = 2 * 11 + SPARE
    for _ in range(most + 1):
        place = places.take(settings, ANN)
        assert place
        remembered.append(sum(map(len, places._by_owner.values())))
        places.release(place)
    assert remembered == [*range(1, most + 1), 1]


def test_where_nothing_is_set_there_are_as_many_as_the_process_has_descriptors_for(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[None] = []

    def room_for_streams(connections: int) -> int:
        asked.append(None)
        return 1

    monkeypatch.setattr("flask_sse_lite.hub.places.room_for_streams", room_for_streams)
    settings = Settings.read({})
    taken(places, settings)
    assert places.take(settings) is None
    assert len(asked) == 1  # The answer is believed for a while.


def test_a_stream_begins_is_served_and_ends(places: Places) -> None:
    place = taken(places)
    phases = [place.phase]
    assert places.serve(place) is False
    phases.append(place.phase)
    for _ in range(2):
        places.release(place)
        phases.append(place.phase)
        assert len(places) == 0
    assert phases == [
        *(Phase.OPENING, Phase.SERVED, Phase.RELEASED, Phase.RELEASED),
    ]


def test_only_the_streams_of_an_application_that_begin_are_doomed(
    places: Places,
) -> None:
    served, begins, released = (taken(places) for _ in range(3))
    places.release(released)
    other = taken(places, OTHERS)
    places.serve(served)
    places.doom(SETTINGS)
    assert [place.phase for place in (served, begins, released, other)] == [
        *(Phase.SERVED, Phase.DOOMED, Phase.RELEASED, Phase.OPENING),
    ]
    # Whoever serves it is told so once.
    assert [places.serve(place) for place in (begins, begins)] == [True, False]


def test_a_doomed_stream_can_end_before_anybody_serves_it(places: Places) -> None:
    place = taken(places)
    places.doom(SETTINGS)
    places.release(place)
    assert (place.phase, len(places)) == (Phase.RELEASED, 0)


def test_a_stream_that_is_closed_as_it_begins_counts_while_it_is_served(
    places: Places,
) -> None:
    place = taken(places)
    places.release(place)
    assert places.serve(place) is False
    assert len(places) == 1
    places.release(place)
    assert len(places) == 0


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.stop(patient(10))
    until(lambda: not hub.is_running, patient(10))
    hub.abandon()


@pytest.mark.skipif(not IS_SUPPORTED, reason="connections are taken over on Linux only")
def test_a_connection_whose_descriptor_is_another_s_by_now_holds_no_place(
    hub: Hub,
) -> None:
    log = Log(history=9, age=9)
    settings = Settings.read({"SSE_HEARTBEAT": 0.8})
    clients = []

    def adopt(descriptor: int) -> None:
        place = hub.arrive(settings)
        assert place
        cursor = log.cursor(["a"])
        hub.adopt(Connection(descriptor, cursor, log, settings, chunked=False), place)
        hub._wake()

    client, served = socket.socketpair()
    clients.append(client)
    descriptor = served.detach()
    os.set_blocking(descriptor, False)
    adopt(descriptor)
    until(lambda: descriptor in hub._fanout.connections, patient(10))
    other, later = socket.socketpair()
    clients.append(other)
    os.dup2(later.fileno(), descriptor)  # As when a library closes what is not its own.
    later.close()
    adopt(descriptor)
    until(lambda: not hub._fanout.newcomers and len(hub) == 1, patient(10))
    for one in clients:
        one.close()
    until(lambda: len(hub) == 0, patient(10))

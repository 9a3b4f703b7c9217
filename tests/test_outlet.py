"""The outlet of a response: what each of its phases leads to, under a stand-in."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_sse_lite.event import HEARTBEAT
from flask_sse_lite.hub import outlet
from flask_sse_lite.hub.outlet import Outlet, Phase
from flask_sse_lite.servers.server import Refusal
from flask_sse_lite.settings import Settings


class StandIn:
    """A server that sends at once what it is given."""

    name = "stand-in"
    hidden_by = ""
    lends_sockets = True

    def __init__(self) -> None:
        self.client, self._socket = socket.socketpair()
        self.checked: list[int] = []
        self.sent: list[bytes] = []
        #: What the checks raise.
        self.refusal: Refusal | None = None

    def socket(self) -> socket.socket:
        return self._socket

    def check_headers(self) -> None:
        """No header forbids anything."""

    def check_sent(self, sent: int) -> None:
        self.check(sent)

    def check(self, sent: int) -> None:
        self.checked.append(sent)
        if self.refusal:
            raise self.refusal

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.client.close()
        self._socket.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Every response is this server's."""
    server = StandIn()
    monkeypatch.setattr(outlet, "find_server", lambda *_: server)
    monkeypatch.setattr(outlet, "program_of", lambda _: None)
    monkeypatch.setattr(outlet, "check_request", lambda _: None)
    monkeypatch.setattr(outlet, "known_socket", lambda *_: None)
    yield server
    server.close()


@pytest.fixture
def shortcuts(
    monkeypatch: pytest.MonkeyPatch,
) -> list[StandIn]:
    """For which servers a shortcut was asked."""
    asked: list[Any] = []

    def shortcut(server: StandIn) -> Callable[[bytes], None]:
        asked.append(server)
        return server.send

    monkeypatch.setattr(outlet, "shortcut", shortcut)
    return asked


def make(start: Callable[[], Any] = lambda: print, **settings: object) -> Outlet:
    return Outlet({}, start, Settings.read(settings))


def phase_of(response: Outlet) -> Phase:
    """A function's answer, so that the type checker expects it to change."""
    return response.phase


def test_behind_the_first_item_the_way_of_the_rest_is_decided(
    server: StandIn, shortcuts: list[StandIn]
) -> None:
    response = make()
    assert phase_of(response) is Phase.UNBEGUN
    assert not response.is_begun
    response.begin()
    assert phase_of(response) is Phase.BEGUN
    assert response.is_begun
    response.note_given(5)
    for _ in range(2):
        response.decide()
        assert phase_of(response) is Phase.DECIDED
    assert (server.checked, shortcuts) == ([5], [server])
    assert response.send == server.send


def test_nothing_is_decided_before_something_was_given(
    server: StandIn, shortcuts: list[StandIn]
) -> None:
    response = make()
    response.begin()
    response.decide()
    assert phase_of(response) is Phase.BEGUN
    assert (server.checked, shortcuts) == ([], [])


def test_where_no_handoff_is_wanted_items_go_through_the_server(
    server: StandIn, shortcuts: list[StandIn]
) -> None:
    response = make(SSE_HANDOFF=False)
    response.begin()
    response.note_given(5)
    response.decide()
    assert (phase_of(response), response.send) == (Phase.DECIDED, None)
    assert shortcuts == []
    response.beat()
    assert server.sent == [HEARTBEAT]


def test_where_the_body_is_changed_nothing_goes_past_the_server(
    server: StandIn, shortcuts: list[StandIn]
) -> None:
    server.refusal = Refusal("a middleware changes the body", "body-changed")
    response = make()
    response.begin()
    response.note_given(5)
    response.decide()
    assert (phase_of(response), response.send) == (Phase.DECIDED, None)
    response.beat()
    assert (server.sent, shortcuts) == ([], [])


def test_the_hub_begins_a_response_with_a_sign_of_life(
    server: StandIn, shortcuts: list[StandIn]
) -> None:
    response = make()
    response.beat()
    assert phase_of(response) is Phase.BEGUN
    response.beat()
    assert phase_of(response) is Phase.CHECKED  # The first one arrived.
    assert server.checked == [len(HEARTBEAT)]
    assert server.sent == [HEARTBEAT] * 2
    response.note_given(5)
    response.decide()
    assert phase_of(response) is Phase.DECIDED
    assert server.checked == [len(HEARTBEAT)]
    assert shortcuts == [server]


def test_the_hub_tries_only_once_to_begin_a_response(server: StandIn) -> None:
    tries: list[None] = []

    def start() -> Any:
        tries.append(None)
        if len(tries) == 1:
            raise RuntimeError("It is another thread's")
        return print

    response = make(start)
    with pytest.raises(RuntimeError):
        response.beat()
    for _ in range(2):
        assert phase_of(response) is Phase.TRIED
        assert not response.is_begun
        response.beat()
    assert (len(tries), server.sent) == (1, [])
    response.begin()  # The request's own thread can.
    assert phase_of(response) is Phase.BEGUN


def test_a_client_that_left_is_seen(server: StandIn) -> None:
    response = make()
    assert not response.is_client_gone()
    response.begin()
    assert not response.is_client_gone()
    server.client.close()
    assert response.is_client_gone()


def test_a_sign_of_life_that_fails_is_the_last(server: StandIn) -> None:
    response = make()
    response.begin()
    response.send_no_more_beats()
    response.beat()
    assert server.sent == []
    assert not response.is_client_gone()

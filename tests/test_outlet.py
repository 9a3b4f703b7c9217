"""The outlet of a response: what each of its phases leads to, under a stand-in."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_sse_lite.event import HEARTBEAT
from flask_sse_lite.hub import outlet
from flask_sse_lite.hub.outlet import Outlet, Phase
from flask_sse_lite.log_messages import NOT_AS_IT_IS
from flask_sse_lite.servers.server import NothingSent, Refusal
from flask_sse_lite.settings import Settings

from .stand_ins import fill, is_bounded


class StandIn:
    """A server that sends at once what it is given."""

    name = "stand-in"
    hidden_by = ""
    lends_sockets = True

    def __init__(self) -> None:
        self.client, self._socket = socket.socketpair()
        self.checked: list[int] = []
        self.sent: list[bytes] = []
        #: Whether a header forbids anything.
        self.forbids = False
        #: What the other checks raise.
        self.refusal: Refusal | None = None

    def socket(self) -> socket.socket:
        return self._socket

    def check_headers(self) -> None:
        """A header can forbid that anything goes past the server."""
        if self.forbids:
            raise Refusal("the body is compressed", "body-changed")

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
    assert response.is_begun is False
    response.begin()
    assert phase_of(response) is Phase.BEGUN
    assert response.is_begun is True
    for size in (2, 3):
        response.note_given(size)
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
    assert response.is_client_gone() is False
    response.begin()
    assert response.is_client_gone() is False
    server.client.close()
    assert response.is_client_gone() is True


def test_a_sign_of_life_that_fails_is_the_last(server: StandIn) -> None:
    response = make()
    response.begin()
    response.send_no_more_beats()
    response.beat()
    assert server.sent == []
    assert not response.is_client_gone()


def test_a_client_that_has_no_room_is_sent_no_sign_of_life(server: StandIn) -> None:
    response = make()
    response.begin()
    server.socket().setblocking(False)
    with pytest.raises(BlockingIOError):
        fill(server.socket().send)
    response.beat()
    assert server.sent == []


# What is said of a response


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """What was logged until now."""
    with caplog.at_level(logging.DEBUG, "flask_sse_lite"):
        yield lambda: [record.getMessage() for record in caplog.records]


Said = Callable[[], list[str]]

TLS = Refusal("the connection is no plain socket", "tls")


def refuse(*_: object) -> Any:
    raise TLS


def beats_of(response: Outlet, server: StandIn) -> int:
    """How many signs of life are sent where one is due."""
    before = len(server.sent)
    response.beat()
    return len(server.sent) - before


@pytest.mark.parametrize("asked", ["find_server", "check_request"])
def test_a_request_that_is_refused_gets_no_signs_of_life(
    server: StandIn, said: Said, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr(outlet, asked, refuse)
    response = make()
    response.begin()
    assert beats_of(response, server) == 0
    assert said() == [
        "A stream gets no signs of life: the connection is no plain socket"
    ]


@pytest.mark.parametrize(
    ("hidden_by", "lends", "keeper"),
    [
        ("", False, "stand-in"),
        ("a proxy", True, "a proxy"),
        ("a proxy", False, "a proxy"),
    ],
)
def test_nothing_goes_past_a_server_that_keeps_its_sockets(
    server: StandIn, said: Said, hidden_by: str, lends: bool, keeper: str
) -> None:
    server.hidden_by, server.lends_sockets = hidden_by, lends
    response = make()
    response.begin()
    assert beats_of(response, server) == 0
    assert said() == [
        f"A stream gets no signs of life: nothing can be sent past {keeper}"
    ]


def test_nothing_goes_past_a_server_where_a_header_forbids_it(
    server: StandIn, said: Said
) -> None:
    server.forbids = True
    response = make()
    response.begin()
    assert beats_of(response, server) == 0
    assert said() == ["A stream gets no signs of life: the body is compressed"]


def test_a_body_that_is_changed_is_told_of(server: StandIn, said: Said) -> None:
    server.refusal = TLS
    response = make()
    response.beat()
    response.beat()
    assert server.sent == [HEARTBEAT]
    assert said() == [
        "A stream gets no signs of life: the connection is no plain socket"
    ]


def test_where_there_is_no_shortcut_items_go_through_the_server(
    server: StandIn, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlet, "shortcut", refuse)
    response = make()
    response.begin()
    response.note_given(5)
    response.decide()
    assert (phase_of(response), response.send) == (Phase.DECIDED, None)
    assert said() == ["Items go through the server: the connection is no plain socket"]


def test_a_sign_of_life_that_the_connection_refuses_is_told_of(
    server: StandIn, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(data: bytes) -> None:
        raise BrokenPipeError("gone")

    monkeypatch.setattr(server, "send", send)
    response = make()
    response.begin()
    response.beat()
    assert said() == ["No sign of life could be sent: BrokenPipeError('gone')"]


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is warned of: the code that iterates the body, and what it does."""
    warnings: list[object] = []
    monkeypatch.setattr(outlet, "warn_of_reader", lambda: warnings.append("reader"))
    monkeypatch.setattr(
        outlet, "warn_once", lambda message, told: warnings.append(message)
    )
    return warnings


@pytest.mark.parametrize(
    ("refusal", "expected", "lines"),
    [
        (None, ["reader"], 0),
        (TLS, ["reader"], 1),
        (NothingSent("a middleware"), ["reader", NOT_AS_IT_IS], 0),
    ],
)
def test_where_nothing_goes_past_the_server_it_is_seen_whether_it_sends(
    server: StandIn,
    warnings: list[object],
    said: Said,
    refusal: Refusal | None,
    expected: list[object],
    lines: int,
) -> None:
    server.forbids, server.refusal = True, refusal
    response = make()
    response.begin()
    response.note_given(5)
    response.decide()
    assert (server.checked, warnings) == ([5], expected)
    text = "Items go through the server: the connection is no plain socket"
    assert said()[1:] == [text] * lines


def test_of_a_server_that_nobody_knows_the_code_that_iterates_is_looked_at(
    server: StandIn, warnings: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlet, "find_server", refuse)
    response = make()
    response.begin()
    response.note_given(5)
    response.decide()
    assert (server.checked, warnings) == ([], ["reader"])


# The connection


def test_what_the_system_holds_is_bounded_until_the_response_has_ended(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock = server.socket()
    monkeypatch.setattr(outlet, "known_socket", lambda *_: sock)
    response = make()
    response.begin()
    assert is_bounded(sock)
    assert response.progress is not None
    response.close()
    assert not is_bounded(sock)
    assert response.progress is None


def test_where_no_socket_is_known_nothing_is_watched(server: StandIn) -> None:
    response = make()
    response.begin()
    assert response.progress is None
    response.close()

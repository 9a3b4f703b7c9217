"""Servers that are stopped while their process goes on: each is seen to stop, once."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from flask_sse_lite.servers.programs import Program, Programs, program_of
from flask_sse_lite.servers.pywsgi import GeventPywsgi
from flask_sse_lite.servers.server import DEFAULT_GRACE, Server

from .stand_ins import instance_of


class Listening:
    """A program of gevent.pywsgi's, which can be referred to weakly."""

    closed = False
    stop_timeout = 3

    def __init__(self) -> None:
        self.socket: object = object()


@pytest.fixture
def programs() -> Programs:
    return Programs()


def test_a_program_that_stops_is_told_once(programs: Programs) -> None:
    server, other = Listening(), Listening()
    program = programs.get(server, GeventPywsgi)
    programs.get(other, GeventPywsgi)
    assert program.grace == 3.0
    assert programs.take_stopped() == set()
    server.closed = True
    assert programs.take_stopped() == {program}
    assert program.is_stopped
    assert programs.take_stopped() == set()


def test_it_is_looked_up_once_while_it_runs(programs: Programs) -> None:
    server = Listening()
    program = programs.get(server, GeventPywsgi)
    assert programs.get(server, GeventPywsgi) is program


def test_one_that_is_started_again_is_another(programs: Programs) -> None:
    server = Listening()
    before = programs.get(server, GeventPywsgi)
    server.socket = object()
    after = programs.get(server, GeventPywsgi)
    assert after is not before
    assert programs.take_stopped() == {before}
    assert not after.look()


def test_one_that_is_gone_has_stopped(programs: Programs) -> None:
    server = Listening()
    program = programs.get(server, GeventPywsgi)
    del server
    gc.collect()
    assert programs.take_stopped() == {program}


def test_one_that_is_gone_need_not_have_had_a_socket() -> None:
    server = Listening()
    del server.socket
    program = Program(server, GeventPywsgi)
    assert not program.look()
    del server
    gc.collect()
    assert program.look()


def test_a_stopped_one_stays_stopped() -> None:
    server = Listening()
    program = Program(server, GeventPywsgi)
    server.closed = True
    assert program.look()
    server.closed = False
    assert program.look()


def test_a_release_that_does_not_tell_never_stops() -> None:
    class Untold(Listening):
        closed: Any = property(lambda self: self.missing)

    server = Untold()
    assert not Program(server, GeventPywsgi).look()


class Other:
    """A program without any of the attributes."""


class TestOfAServer:
    def test_a_server_that_cannot_be_stopped_has_none(self) -> None:
        server = Server({}, lambda data: None)
        assert program_of(server) is None
        assert not Server.has_stopped(object())
        assert Server.grace(object()) == DEFAULT_GRACE

    def test_all_its_responses_have_the_same(self) -> None:
        listening = Listening()

        def response() -> GeventPywsgi:
            owner = GeventPywsgi.owner
            behind = instance_of(owner, server=listening)
            return GeventPywsgi({}, behind.write)

        program = program_of(response())
        assert program
        assert program_of(response()) is program

    @pytest.mark.parametrize("listening", [Other(), {}])
    def test_a_release_whose_program_is_not_known_has_none(
        self, listening: object
    ) -> None:
        behind = instance_of(GeventPywsgi.owner, server=listening)
        assert program_of(GeventPywsgi({}, behind.write)) is None

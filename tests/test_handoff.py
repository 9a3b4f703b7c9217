"""How a connection is taken from its server: what the client and the server see of it,
and where the connection stays with the server."""

from __future__ import annotations

import _thread
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.wsgi import ClosingIterator

from flask_sse_lite.hub import handoff as module
from flask_sse_lite.hub.handoff import TRANSPARENT, check_readers, take_connection
from flask_sse_lite.servers import find_server
from flask_sse_lite.servers.server import NothingSent, Refusal, Server
from flask_sse_lite.system.open_files import first_descriptor
from flask_sse_lite.system.poller import IS_SUPPORTED

from .patience import patient
from .stand_ins import (
    body_of,
    code_of,
    connection,
    environ_of,
    gunicorn_response,
    iterate_in_gunicorn,
    read,
)

SOON = patient(10.0)

pytestmark = pytest.mark.skipif(
    not IS_SUPPORTED, reason="connections are taken over on Linux only"
)

#: Iterates what it is given, as a middleware does.
MIDDLEWARE = """
def run(body):
    for piece in body:
        yield piece
"""


@pytest.fixture(autouse=True, scope="module")
def dead_end() -> None:
    """A process keeps its dead end. It is made here, so that no test is blamed."""
    module._dead_end()


class Conversation:
    """A response of gunicorn's that has sent its head and the body ``first``."""

    def __init__(
        self,
        server: socket.socket,
        client: socket.socket,
        version: tuple[int, int] = (1, 1),
    ) -> None:
        self.theirs = server
        self.client = client
        self.response = gunicorn_response(server, version)
        self.response.start_response("200 OK", [])
        self.response.write(b"first")
        self.server = find_server(environ_of(server), self.response.write)
        while not self.heard().endswith(b"first" + b"\r\n" * (version > (1, 0))):
            pass

    _heard = b""

    def heard(self) -> bytes:
        self._heard += self.client.recv(4096)
        return self._heard

    def take(
        self,
        sent: int = 5,
        *,
        trusted: bool = False,
        behind: Callable[[Any], Any] = lambda body: body,
    ) -> tuple[int, bool]:
        """Take the connection, within the body's next piece.

        :param behind: puts something between the body and the server.
        """
        body = body_of(take_connection, self.server, sent, trusted=trusted)
        taken: tuple[int, bool] = iterate_in_gunicorn(behind(body))
        return taken

    def refusal(self, sent: int = 5, **more: Any) -> Refusal:
        """Why the connection stays with the server. It must be whole."""
        with pytest.raises(Refusal) as caught:
            self.take(sent, **more)
        if self.theirs.fileno() >= 0:
            self.theirs.sendall(b"whole")
            assert read(self.client, 5) == b"whole"
        return caught.value


@pytest.fixture
def conversation() -> Iterator[Conversation]:
    with connection() as (server, client):
        yield Conversation(server, client)


class TestTaking:
    def test_the_client_keeps_its_connection_and_the_server_has_a_dead_one(
        self, conversation: Conversation
    ) -> None:
        ours, _ = conversation.take()
        try:
            with pytest.raises(BrokenPipeError):
                conversation.theirs.send(b"lost")
            assert conversation.theirs.recv(1) == b""
            conversation.theirs.close()
            os.write(ours, b"more")
            assert conversation.client.recv(9) == b"more"
            conversation.client.sendall(b"hello")
            os.set_blocking(ours, True)
            assert os.read(ours, 9) == b"hello"
        finally:
            os.close(ours)
        assert conversation.client.recv(9) == b""

    def test_its_descriptor_is_high_never_waits_and_is_not_inherited(
        self, conversation: Conversation
    ) -> None:
        ours, _ = conversation.take()
        try:
            assert ours >= first_descriptor()
            assert not os.get_blocking(ours)
            assert not os.get_inheritable(ours)
            assert not os.get_inheritable(conversation.theirs.fileno())
        finally:
            os.close(ours)

    def test_gevent_forgets_the_servers_descriptor_before_it_is_a_dead_one(
        self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps: list[tuple[str, int]] = []

        def forget(descriptor: int) -> None:
            steps.append(("forget", descriptor))

        def dead_end() -> int:
            steps.append(("replace", conversation.theirs.fileno()))
            return real_dead_end()

        real_dead_end = module._dead_end
        monkeypatch.setattr(module, "forget_in_gevent", forget)
        monkeypatch.setattr(module, "_dead_end", dead_end)
        theirs = conversation.theirs.fileno()
        ours, _ = conversation.take()
        os.close(ours)
        assert steps == [("forget", theirs), ("replace", theirs)]

    def test_an_event_waits_for_no_acknowledgement(
        self, conversation: Conversation
    ) -> None:
        theirs = conversation.theirs
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        ours, _ = conversation.take()
        with socket.socket(fileno=ours) as taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    @pytest.mark.parametrize(
        ("version", "is_chunked"), [((1, 0), False), ((1, 1), True)]
    )
    def test_the_body_goes_on_in_the_framing_of_its_head(
        self, version: tuple[int, int], is_chunked: bool
    ) -> None:
        with connection() as (server, client):
            ours, found = Conversation(server, client, version).take()
            os.close(ours)
            assert found is is_chunked

    def test_a_unix_socket_is_taken_too(self) -> None:
        server, client = socket.socketpair()
        with server, client:
            ours, _ = Conversation(server, client).take()
            os.write(ours, b"more")
            os.close(ours)
            assert client.recv(9) == b"more"

    def test_a_server_can_show_only_the_descriptor(
        self, conversation: Conversation
    ) -> None:
        theirs = conversation.theirs
        conversation.response.sock = theirs.fileno()
        ours, _ = conversation.take()
        os.write(ours, b"more")
        os.close(ours)
        assert conversation.client.recv(9) == b"more"
        assert theirs.recv(1) == b""


class TestStaying:
    """Where a connection stays with its server, the server can go on with it."""

    def test_before_the_head_is_sent_it_stays(self, conversation: Conversation) -> None:
        conversation.response.headers_sent = False
        refusal = conversation.refusal()
        assert isinstance(refusal, NothingSent)
        assert "gunicorn.workers.sync.run" in refusal.reason

    def test_where_the_server_has_sent_something_else_it_stays(
        self, conversation: Conversation
    ) -> None:
        assert conversation.refusal(6).code == "body-changed"

    def test_behind_what_hides_the_server_it_stays_unless_the_application_vouches(
        self, conversation: Conversation
    ) -> None:
        conversation.server.hidden_by = "some.middleware"
        refusal = conversation.refusal()
        assert refusal.code == "middleware-hides"
        assert refusal.is_remediable
        assert "some.middleware" in refusal.reason
        ours, _ = conversation.take(trusted=True)
        os.close(ours)

    def test_behind_what_iterates_the_body_it_stays_unless_the_application_vouches(
        self, conversation: Conversation
    ) -> None:
        middleware = code_of("compressing.middleware", MIDDLEWARE)
        refusal = conversation.refusal(behind=middleware)
        assert refusal.code == "middleware-iterates"
        assert "compressing.middleware.run" in refusal.reason
        assert refusal.is_remediable
        ours, _ = conversation.take(trusted=True, behind=middleware)
        os.close(ours)

    def test_vouching_is_not_enough_where_the_server_does_not_know_what_it_sent(
        self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Server, "is_sure", False)
        middleware = code_of("compressing.middleware", MIDDLEWARE)
        refusal = conversation.refusal(trusted=True, behind=middleware)
        assert refusal.code == "middleware-iterates"

    def test_behind_what_has_no_frame_it_stays(
        self, conversation: Conversation
    ) -> None:
        refusal = conversation.refusal(behind=lambda body: map(bytes, body))
        assert refusal.code == "middleware-iterates"
        assert "builtins.map" in refusal.reason

    @pytest.mark.parametrize("package", TRANSPARENT)
    def test_behind_what_is_known_to_change_nothing_it_is_taken(
        self, conversation: Conversation, package: str
    ) -> None:
        reporter = code_of(f"{package}.wsgi", MIDDLEWARE)
        ours, _ = conversation.take(
            behind=lambda body: ClosingIterator(reporter(body), [])
        )
        os.close(ours)

    def test_a_name_that_only_begins_like_a_known_one_is_not_known(
        self, conversation: Conversation
    ) -> None:
        other = code_of("werkzeug_compressing", MIDDLEWARE)
        assert conversation.refusal(behind=other).code == "middleware-iterates"

    def test_a_socket_with_another_layer_stays(
        self, conversation: Conversation
    ) -> None:
        class Encrypting(socket.socket):
            pass

        theirs = conversation.theirs
        with Encrypting(fileno=os.dup(theirs.fileno())) as wrapped:
            conversation.response.sock = wrapped
            refusal = conversation.refusal()
        assert refusal.code == "tls"
        assert "Encrypting" in refusal.reason

    def test_a_connection_that_is_closed_stays(
        self, conversation: Conversation
    ) -> None:
        conversation.theirs.close()
        assert conversation.refusal().code == "connection-closed"

    def test_a_descriptor_that_is_none_stays(self, conversation: Conversation) -> None:
        conversation.response.sock = -1
        assert conversation.refusal().code == "tls"

    def test_without_a_descriptor_for_it_it_stays(
        self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A number above the limit, as if all below it were used.
        monkeypatch.setattr(module, "first_descriptor", lambda: 2**30)
        refusal = conversation.refusal()
        assert refusal.code == "no-descriptors"
        assert refusal.is_remediable

    def test_without_a_dead_end_for_the_server_it_stays(
        self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> int:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(module, "_dead_end", fail)
        assert conversation.refusal().code == "no-descriptors"


def test_a_server_whose_standard_input_is_closed_has_descriptor_0(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class First:
        def fileno(self) -> int:
            return 0

    monkeypatch.setattr(module, "is_plain", lambda sock: True)
    assert module._plain_descriptor(0) == 0
    assert module._plain_descriptor(First()) == 0


def test_where_no_python_code_is_below_the_application_nobody_is_suspected(
    conversation: Conversation,
) -> None:
    outcome: list[object] = []
    is_over = threading.Event()
    check = code_of(
        "flask_sse_lite.stand_in",
        """
def run(check, server, note, finish):
    try:
        note(check(server))
    except Exception as error:
        note(error)
    finally:
        finish()
""",
    )
    # Below a thread of threading's own are frames of threading.
    _thread.start_new_thread(
        check, (check_readers, conversation.server, outcome.append, is_over.set)
    )
    assert is_over.wait(SOON)
    assert outcome == [None]

"""What is known of gunicorn: by its own response, and by stand-ins for its worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_lite.servers import find_server, gunicorn
from flask_sse_lite.servers.server import ENOUGH_REQUESTS, NothingSent, Refusal, Server
from flask_sse_lite.system import open_files

from .stand_ins import Response, connection, environ_of, gunicorn_response


@pytest.fixture
def response() -> Iterator[Response]:
    with connection() as (server, _):
        yield gunicorn_response(server)


def started(response: Response, *headers: tuple[str, str]) -> Server:
    return find_server(environ_of(), response.start_response("200 OK", list(headers)))


class TestResponse:
    def test_its_connection_can_be_taken_when_it_has_sent_what_it_was_given(
        self, response: Response
    ) -> None:
        server = started(response)
        assert server.name == "gunicorn"
        assert server.socket() is response.sock
        assert server.is_chunked()
        with pytest.raises(NothingSent):
            server.check(0)
        server.send(b"first")
        server.check(5)
        with pytest.raises(Refusal) as caught:
            server.check(4)
        assert caught.value.code == "body-changed"

    def test_what_goes_past_it_is_counted_without_its_framing(
        self, response: Response
    ) -> None:
        server = started(response)
        server.send(b"first")
        server.note_sent(6, 11)
        server.check(11)
        assert response.sent == 11

    def test_a_body_of_another_encoding_is_not_for_us(self, response: Response) -> None:
        server = started(response, ("Content-Encoding", "gzip"))
        with pytest.raises(Refusal) as caught:
            server.check_headers()
        assert caught.value.code == "content-encoding"

    def test_with_a_length_the_body_goes_as_it_is(self, response: Response) -> None:
        assert not started(response, ("Content-Length", "5")).is_chunked()

    def test_it_can_be_told_to_close_the_connection(self, response: Response) -> None:
        server = started(response)
        assert not response.should_close()
        server.close_after()
        assert response.should_close()


@pytest.fixture
def run_worker(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make a worker's handler that of SIGTERM."""

    class Worker(SimpleNamespace):
        def handle_exit(self) -> None:
            """Stop."""

    def run_worker(**attributes: Any) -> Worker:
        worker = Worker(cfg=SimpleNamespace(**attributes))
        monkeypatch.setattr(signal, "getsignal", lambda _: worker.handle_exit)
        return worker

    return run_worker


class TestWorker:
    def test_it_owns_the_handler_of_sigterm(
        self, run_worker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)
        assert gunicorn.current_worker() is None
        worker = run_worker()
        assert gunicorn.current_worker() is worker

    def test_what_it_was_told_is_known(self, run_worker: Callable[..., Any]) -> None:
        run_worker(
            workers=3,
            graceful_timeout=7,
            worker_class_str="gthread",
            worker_connections=1000,
        )
        assert gunicorn.worker_processes() == 3
        assert gunicorn.graceful_timeout() == 7
        assert gunicorn.connections() == 1000
        run_worker(worker_class_str="sync", worker_connections=1000)
        assert gunicorn.connections() == 1

    def test_under_other_servers_nothing_is_known(self) -> None:
        assert gunicorn.worker_processes() == 0
        assert gunicorn.graceful_timeout() == gunicorn.DEFAULT_GRACE
        assert gunicorn.connections() == 0

    def test_a_count_that_is_no_number_is_no_count(
        self, run_worker: Callable[..., Any]
    ) -> None:
        run_worker(workers="many")
        assert gunicorn.worker_processes() == 0


class TestStopping:
    def test_a_worker_that_lives_does_not_stop(self) -> None:
        assert not gunicorn.is_stopping(SimpleNamespace(alive=True, ppid=os.getppid()))
        assert not gunicorn.is_stopping(None)

    def test_a_worker_that_was_told_stops(self) -> None:
        assert gunicorn.is_stopping(SimpleNamespace(alive=False))

    def test_a_worker_whose_arbiter_is_gone_stops(self) -> None:
        orphan = SimpleNamespace(alive=True, ppid=os.getppid() + 1)
        assert gunicorn.is_stopping(orphan)

    @pytest.mark.parametrize(
        ("waiting", "stops"),
        [
            (signal.SIGTERM, True),
            (signal.SIGQUIT, True),
            (signal.SIGUSR1, False),
            (signal.SIGCHLD, False),
        ],
    )
    def test_a_signal_that_waits_for_its_handler_counts(
        self, waiting: int, stops: bool
    ) -> None:
        read_end, write_end = os.pipe()
        try:
            worker = SimpleNamespace(alive=True, PIPE=[read_end, write_end])
            assert not gunicorn.is_stopping(worker)
            os.write(write_end, bytes([waiting]))
            assert gunicorn.is_stopping(worker) is stops
            assert os.read(read_end, 9) == bytes([waiting])  # It is the worker's.
        finally:
            os.close(read_end)
            os.close(write_end)

    @pytest.mark.parametrize("pipe", [[], None, ["a file", "another"]])
    def test_a_pipe_that_cannot_be_looked_into_tells_nothing(self, pipe: Any) -> None:
        assert not gunicorn.is_stopping(SimpleNamespace(alive=True, PIPE=pipe))


class TestHazards:
    @pytest.fixture(autouse=True)
    def limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(open_files, "_limit", lambda: 4096)

    @pytest.mark.parametrize(
        ("limit", "is_one"),
        [(0, False), (1, True), (ENOUGH_REQUESTS - 1, True), (ENOUGH_REQUESTS, False)],
    )
    def test_a_worker_that_is_replaced_soon_is_one(
        self, run_worker: Callable[..., Any], limit: int, is_one: bool
    ) -> None:
        run_worker(max_requests=limit)
        warnings = list(gunicorn.hazards())
        assert len(warnings) == is_one
        assert all(f"--max-requests is {limit}" in text for text in warnings)

    def test_a_worker_that_counts_no_requests_is_none(
        self, run_worker: Callable[..., Any]
    ) -> None:
        run_worker(max_requests=1).server_class = object
        assert list(gunicorn.hazards()) == []

    def test_more_connections_than_descriptors_for_them_is_one(
        self, run_worker: Callable[..., Any]
    ) -> None:
        run_worker(worker_class_str="gevent", worker_connections=10_000)
        (warning,) = gunicorn.hazards()
        lacking = open_files.descriptors_lacking(10_000)
        assert f"Raise it by {lacking} or more" in warning

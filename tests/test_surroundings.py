"""What is concluded from a flag or a name of what surrounds the application."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_lite.log_messages import SERVER_OPTION
from flask_sse_lite.servers import surroundings
from flask_sse_lite.servers.surroundings import (
    ASGI_ADAPTERS,
    COLLECTORS,
    keeps_location,
    warn_of_reader,
    warn_once,
    worker_processes,
)

from .stand_ins import body_of, code_of


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "_said", set())


class TestProcesses:
    def test_without_a_server_that_says_more_the_flag_decides(self) -> None:
        assert worker_processes({"wsgi.multiprocess": False}) == 1
        assert worker_processes({}) == 1
        assert worker_processes({"wsgi.multiprocess": True}) is None

    @pytest.mark.parametrize(("number", "count"), [(4, 4), ("many", 1)])
    def test_uwsgi_says_how_many(
        self, monkeypatch: pytest.MonkeyPatch, number: Any, count: int
    ) -> None:
        uwsgi: Any = SimpleNamespace(numproc=number)
        monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
        assert worker_processes({}) == count

    def test_gunicorn_says_how_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Worker:
            cfg = SimpleNamespace(workers=3)

            def stop(self) -> None:
                """Handle SIGTERM."""

        worker = Worker()
        monkeypatch.setattr(signal, "getsignal", lambda _: worker.stop)
        assert worker_processes({"wsgi.multiprocess": True}) == 3


@pytest.mark.parametrize(
    ("environ", "keeps"),
    [
        ({"GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SOFTWARE": "Apache/2.4"}, True),
        ({"GATEWAY_INTERFACE": "CGI/1.1", "SERVER_SOFTWARE": "nginx"}, False),
        ({"GATEWAY_INTERFACE": "CGI/1.1"}, False),
        ({"SERVER_SOFTWARE": "Apache/2.4"}, False),
        (
            {
                "GATEWAY_INTERFACE": "CGI/1.1",
                "SERVER_SOFTWARE": "Apache/2.4",
                "uwsgi.version": b"2",
            },
            False,
        ),
    ],
)
def test_apache_keeps_a_location_for_itself_where_it_speaks_as_cgi(
    environ: dict[str, Any], keeps: bool
) -> None:
    assert keeps_location(environ) is keeps


class TestWarnings:
    @staticmethod
    def iterate_in(module: str) -> None:
        iterate = code_of(module, "def run(body):\n    return next(body)")
        iterate(body_of(warn_of_reader))

    @pytest.mark.parametrize("package", ASGI_ADAPTERS)
    def test_an_adapter_of_asgi_is_warned_of(
        self, package: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(2):
            self.iterate_in(f"{package}.wsgi")
        (record,) = caplog.records
        assert f"({package}.wsgi.run)" in record.getMessage()
        assert "SSE_MAX_AGE" in record.getMessage()

    @pytest.mark.parametrize("package", COLLECTORS)
    def test_a_server_that_collects_a_response_is_warned_of(
        self, package: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.iterate_in(package)
        (record,) = caplog.records
        assert f"({package}.run) collects a whole response" in record.getMessage()

    def test_nobody_else_is_warned_of(self, caplog: pytest.LogCaptureFixture) -> None:
        self.iterate_in("gunicorn.workers.sync")
        assert caplog.records == []

    def test_a_warning_is_logged_once_in_each_process(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for word in ("one", "one", "another"):
            warn_once(SERVER_OPTION, word)
        assert [record.getMessage() for record in caplog.records] == [
            "SSE-W14: one",
            "SSE-W14: another",
        ]
        monkeypatch.setattr("os.getpid", lambda: -1)
        warn_once(SERVER_OPTION, "one")
        assert len(caplog.records) == 3

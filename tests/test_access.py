"""The access log: a line of ours, where it is asked for."""

from __future__ import annotations

import logging

import pytest
from werkzeug.test import EnvironBuilder

from flask_sse_lite.access import log_request

from .servers import serve, until


def test_a_request_that_was_handed_off_is_logged_once_if_asked_for() -> None:
    with (
        serve("gunicorn gevent_pywsgi", SSE_ACCESS_LOG=True) as server,
        server.stream("a room"),
    ):
        until(lambda: server.stats()["handed_off"] == 1)
        (ours,) = [text for text in server.log().splitlines() if ".access" in text]
        assert ": 127.0.0.1 - - [" in ours
        assert '"GET /stream?channel=a+room HTTP/1.1" 200 -' in ours


def test_unless_asked_for_there_is_none() -> None:
    with serve("gunicorn sync") as server, server.stream("room"):
        until(lambda: server.stats()["handed_off"] == 1)
        assert "flask_sse_lite.access" not in server.log()


@pytest.mark.parametrize("path", ["/a\nb", "/a\r\nb", '/a"b\x1b', "/ü"])
def test_a_line_stays_one_line(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log_request(EnvironBuilder(path="/").get_environ() | {"PATH_INFO": path})
    (record,) = caplog.records
    assert record.getMessage().isprintable()

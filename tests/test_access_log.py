"""The access log's line: what stands in it, and what is hidden."""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.test import EnvironBuilder

from flask_sse_lite.hub.access_log import log_request

ENVIRON: dict[str, Any] = {
    "REMOTE_ADDR": "192.0.2.1",
    "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SCRIPT_NAME": "/app",
    "PATH_INFO": "/stream",
}

TIME = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({}, r'192\.0\.2\.1 - - TIME "GET /app/stream HTTP/1\.1" 200 -'),
        ({"REMOTE_USER": "ann"}, r'192\.0\.2\.1 - ann TIME "GET .*" 200 -'),
        # A server behind a Unix socket knows no address.
        ({"REMOTE_ADDR": ""}, r'- - - TIME "GET .*" 200 -'),
        ({"QUERY_STRING": "channel=a"}, r'.* "GET /app/stream\?channel=a HTTP.*'),
        ({"SCRIPT_NAME": "", "PATH_INFO": "/x"}, r'.* "GET /x HTTP.*'),
    ],
)
def test_it_is_in_the_common_log_format(
    more: dict[str, str], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log_request(ENVIRON | more)
    (record,) = caplog.records
    assert re.fullmatch(line.replace("TIME", TIME), record.getMessage())


def test_a_gateway_can_leave_out_what_is_empty(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    needed = {name: ENVIRON[name] for name in ("REQUEST_METHOD", "SERVER_PROTOCOL")}
    log_request(needed)
    assert '"GET  HTTP/1.1"' in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("query", "logged"),
    [
        ("token=secret", "token=(hidden)"),
        ("channel=a&token=secret&b", "channel=a&token=(hidden)&b"),
        ("%74oken=secret", "%74oken=(hidden)"),
        ("a=token&token2=x&c=d=e", "a=token&token2=x&c=d=e"),
    ],
)
def test_a_token_is_hidden_however_its_name_is_encoded(
    query: str, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log_request(ENVIRON | {"QUERY_STRING": query})
    assert f'"GET /app/stream?{logged} HTTP' in caplog.records[0].getMessage()


@pytest.mark.parametrize("path", ["/a\nb", "/a\r\nb", '/a"b\x1b', "/ü"])
def test_a_line_stays_one_line(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log_request(EnvironBuilder(path="/").get_environ() | {"PATH_INFO": path})
    (record,) = caplog.records
    assert record.getMessage().isprintable()


NAME = "Hg2_-xQ0aZ9kL4mN7pR1sT"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (f"/stream/run/{NAME}", ""),
        (f"/prefix/answers/{NAME}", ""),
        (f"/stream/run/{NAME}", f"last_event_id=0123456789abcdef-7-{NAME}"),
        ("/answer", f"last_event_id=0123456789abcdef-17-{NAME}&question=a"),
        ("/answer", f"last_event_id=0123456789abcdef%2D17%2d{NAME}"),
        ("/stream", f"channel={quote('$run.' + NAME)}"),
    ],
)
def test_a_run_s_name_is_hidden_wherever_it_stands(
    path: str, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    environ = EnvironBuilder(path=path, query_string=query).get_environ()
    log_request(environ, [f"$run.{NAME}"])
    (record,) = caplog.records
    assert NAME not in record.getMessage()
    assert "(hidden)" in record.getMessage()
    assert path.partition(NAME)[0] in record.getMessage()


def test_what_names_no_run_is_not_hidden(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path, query = "/runs/of/the-rather-long-name-of-a-page", "last=0123456789abcdef-17"
    log_request(EnvironBuilder(path=path, query_string=query).get_environ(), ["a"])
    assert f'"GET {path}?{query} HTTP' in caplog.records[0].getMessage()

"""The access log: a line of ours, where it is asked for."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from textwrap import dedent
from urllib.parse import quote

import pytest
from werkzeug.test import EnvironBuilder

from flask_sse_lite.hub.access import log_request

from .documentation import PAGES
from .servers import Client, serve, until
from .test_generators import generators


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


@pytest.mark.parametrize("kind", ["gunicorn gevent", "gunicorn gthread"])
def test_no_log_names_a_run(tmp_path: Path, kind: str) -> None:
    """Neither does our log, nor gunicorn's as the documentation configures it."""
    config = tmp_path / "gunicorn.conf.py"
    block = re.search(r"^    # gunicorn\.conf\.py\n(?:    .*\n|\n)+", PAGES, re.M)
    assert block
    config.write_text(dedent(block[0]))
    with generators(
        kind,
        tmp_path,
        options=f"--config {config} --access-logfile -",
        SSE_ACCESS_LOG=True,
    ) as served:
        name = served.new()
        with served.ask(name, f"one,wait:{name}", "/run") as client:
            location = client.headers["location"]
            (seen,) = client.take(1)
            secret = location.rpartition("/")[2]
            for target in (location, f"{location}?last_event_id={seen.id}"):
                with Client(served.server.port) as other:
                    other.request(target, headers={"Referer": f"http://x{location}"})
                    assert other.status == 200
            assert secret in (seen.id or "")
        served.open(name)
        served.await_(name, "closed")

        def lines() -> list[str]:
            log = served.server.log().splitlines()
            return [line for line in log if "/stream/run/(hidden)" in line]

        # Two are ours, and two are gunicorn's.
        until(lambda: len(lines()) >= 4)
        assert secret not in served.server.log()

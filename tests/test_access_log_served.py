"""The access log of real servers: a line of ours where it is asked for, and no run's
name in any log."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from .documentation import PAGES
from .generating import generators
from .servers import Client, serve, until


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

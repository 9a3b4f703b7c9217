"""Task queues: real workers of Celery and RQ run the examples of
``docs/tasks-with-celery-and-rq.rst``, over a real Redis, and a client of a real server
gets what they publish."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from flask_sse_lite import Event
from flask_sse_lite.decoder import Decoder

from .documentation import blocks
from .redis_servers import RedisServer, redis_server
from .servers import PATIENCE, ROOT, Server, serve
from .task_queues import working

PAGE = (ROOT / "docs" / "tasks-with-celery-and-rq.rst").read_text("utf-8")

CELERY_WORKER, CELERY_APP, RQ_WORKER, RQ_APP = blocks(PAGE, "sh")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the page's files."""
    for block in blocks(PAGE, "python"):
        if name := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / name[1]).write_text(block, "utf-8")
    return tmp_path


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A Redis, which the examples find in their environment."""
    with redis_server() as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        yield server


def start(server: Server, body: bytes) -> str:
    """Start a job.

    :returns: where its events are.
    """
    with urlopen(f"{server.url}/jobs", body, PATIENCE) as answer:
        assert answer.status == 202
        events: str = json.load(answer)["events"]
        return server.url + events


def seen(stream: Any) -> list[Event]:
    """What comes on a stream from now on, up to its end."""
    decoder = Decoder()
    events: list[Event] = []
    # A silent stream has heartbeats, so each read ends.
    deadline = time.monotonic() + 4 * PATIENCE
    while chunk := stream.read1(65536):
        events += decoder.feed(chunk)
        assert time.monotonic() < deadline, events
    return [event for event in events if event.type != "stream-open"]


def test_a_worker_of_celery_tells_a_page_what_it_does(
    folder: Path, store: RedisServer
) -> None:
    assert CELERY_APP == "flask --app celery_app run\n"
    with serve("werkzeug", app="celery_app", folder=folder) as server:
        address = start(server, b"")
        # The task waits until a worker is there, so no event comes before the page.
        with (
            urlopen(address, timeout=PATIENCE) as stream,
            working(CELERY_WORKER, folder, store, folder / "worker.log"),
        ):
            *progress, end = seen(stream)
        with urlopen(address, timeout=PATIENCE) as late:
            *last, late_end = seen(late)
    assert [(event.type, event.json) for event in progress] == [
        ("progress", {"done": done, "of": 5}) for done in range(1, 6)
    ]
    assert end.type == "stream-end"
    # Who comes late gets the last event.
    assert [event.json for event in last] == [{"done": 5, "of": 5}]
    assert late_end.type == "stream-end"


def test_a_task_that_fails_is_told(folder: Path, store: RedisServer) -> None:
    tasks = folder / "celery_tasks.py"
    broken = tasks.read_text("utf-8").replace("...  # The work.", "1 / 0")
    tasks.write_text(broken, "utf-8")
    with (
        serve("werkzeug", app="celery_app", folder=folder) as server,
        urlopen(start(server, b""), timeout=PATIENCE) as stream,
        working(CELERY_WORKER, folder, store, folder / "worker.log"),
    ):
        failed, end = seen(stream)
    assert (failed.type, failed.data) == ("failed", "Try again later.")
    assert end.type == "stream-end"


def test_a_worker_of_rq_tells_a_page_what_it_does(
    folder: Path, store: RedisServer
) -> None:
    assert RQ_APP == "flask --app rq_app run\n"
    with serve("werkzeug", app="rq_app", folder=folder) as server:
        streams = [
            urlopen(start(server, b"text=one+two"), timeout=PATIENCE) for _ in range(2)
        ]
        # RQ forks a process for each job, so the second has a publisher of its own.
        with (
            streams[0],
            streams[1],
            working(RQ_WORKER, folder, store, folder / "worker.log"),
        ):
            found = [seen(stream) for stream in streams]
    for events in found:
        assert [(event.type, event.json) for event in events[:-1]] == [
            ("counted", {"word": "one"}),
            ("counted", {"word": "two"}),
            ("done", {"words": 2}),
        ]
        assert events[-1].type == "stream-end"

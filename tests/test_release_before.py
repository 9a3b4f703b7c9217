"""A release and the one before it work together on one store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .archives import unpack
from .redis_servers import redis_server
from .servers import PATIENCE

ROOT = Path(__file__).parent.parent

#: The release before this one. Each release sets it to the last one's tag.
BEFORE = "ba072c4"

#: A process of a release. It does what each line of its input says.
PROCESS = """
import json, sys, threading
from pathlib import Path
import flask_sse_lite
from flask import Flask
from flask_sse_lite import SSE

folder, url = sys.argv[1:]
assert Path(flask_sse_lite.__file__).is_relative_to(folder), flask_sse_lite.__file__
app, sse = Flask("application"), SSE()
app.config |= {"SSE_URL": url}
sse.init_app(app)
heard = {}
more = threading.Condition()

def listen(channel, since=None):
    events = heard[channel] = []
    messages = sse.messages(channel, since=since)
    def read():
        for event in messages:
            with more:
                events.append([event.type, event.data, event.id])
                more.notify_all()
        with more:
            events.append(["end", "", ""])
            more.notify_all()
    threading.Thread(target=read, daemon=True).start()

def hear(channel, count):
    with more:
        more.wait_for(lambda: len(heard[channel]) >= count, 20)
    return heard[channel]

def run(channel, *texts):
    with app.test_request_context("/"):
        sse.run(iter(texts), channel=channel).close()

do = {
    "listen": listen,
    "hear": hear,
    "run": run,
    "publish": lambda channel, text: sse.publish(text, channel=channel).id,
    "close": sse.close,
    "position": sse.position,
}
for line in sys.stdin:
    name, *words = json.loads(line)
    with app.app_context():
        print(json.dumps(do[name](*words)), flush=True)
"""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the release before."""
    folder = tmp_path_factory.mktemp("before")
    command = ["git", "-C", str(ROOT), "archive", BEFORE, "flask_sse_lite"]
    try:
        found = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"The history of the repository, with {BEFORE}, is not here.")
    unpack(found.stdout, folder)
    return folder


class Process:
    """A process of one release."""

    def __init__(self, folder: Path, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(folder), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env={"PYTHONPATH": str(folder)},
            text=True,
        )

    def __call__(self, *words: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate(timeout=PATIENCE)


@contextmanager
def store(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/events.db"
    else:
        with redis_server() as server:
            yield server.url


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with store(request.param, tmp_path) as url:
        yield url


@pytest.fixture(params=["the old one comes first", "the new one comes first"])
def pair(
    request: pytest.FixtureRequest, before: Path, url: str
) -> Iterator[tuple[Process, Process]]:
    """A process of each release. The first one has made the store."""
    folders = [before, ROOT]
    if request.param.startswith("the new"):
        folders.reverse()
    with ExitStack() as stack:
        processes = []
        for folder in folders:
            process = Process(folder, url)
            stack.callback(process.end)
            process("position")
            processes.append(process)
        yield processes[0], processes[1]


def test_two_releases_hear_each_other_in_one_order(
    pair: tuple[Process, Process],
) -> None:
    for process in pair:
        process("listen", "a")
    for number in range(20):
        pair[number % 2]("publish", "a", str(number))
    one, other = (process("hear", "a", 20) for process in pair)
    assert [data for _, data, _ in one] == [*map(str, range(20))]
    assert one == other


def test_what_one_release_published_is_resumed_from_in_the_other(
    pair: tuple[Process, Process],
) -> None:
    ids = [pair[n % 2]("publish", "a", str(n)) for n in range(10)]
    for number in (0, 1, 8):
        rest = [*map(str, range(number + 1, 10))]
        for process in pair:
            process("listen", "a", ids[number])
            heard = process("hear", "a", len(rest))
            assert [data for _, data, _ in heard] == rest
            assert [type for type, *_ in heard] == [None] * len(rest)


def test_what_one_release_closes_is_closed_in_the_other(
    pair: tuple[Process, Process],
) -> None:
    for number, process in enumerate(pair):
        for each in pair:
            each("listen", f"room.{number}")
        process("publish", f"room.{number}", "x")
        process("close", f"room.{number}")
        for each in pair:
            heard = each("hear", f"room.{number}", 2)
            assert [type for type, *_ in heard] == [None, "end"]


def test_a_run_of_one_release_is_read_in_the_other(
    pair: tuple[Process, Process],
) -> None:
    for number, process in enumerate(pair):
        since = process("position")
        for each in pair:
            each("listen", f"run.{number}", since)
        process("run", f"run.{number}", *"abc")
        for each in pair:
            heard = each("hear", f"run.{number}", 4)
            assert [data for _, data, _ in heard[:3]] == [*"abc"]
            assert heard[-1][0] == "end"

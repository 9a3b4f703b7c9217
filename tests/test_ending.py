"""An event that is published while the interpreter ends is published."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .redis_servers import redis_server
from .servers import PATIENCE

#: A program that first uses the package after the end of its main thread.
PROGRAM = """
import atexit, sys, threading
from flask import Flask
from flask_sse_lite import BrokerUnavailable, Publisher, sse

url, when, who = sys.argv[1:]
app = Flask("program")
app.config["SSE_URL"] = url
sse.init_app(app)

def work():
    if when == "thread":
        threading.main_thread().join()
    with app.app_context():
        if who == "application":
            print(sse.publish("done").data)
            sse.position(), sse.subscribers("sse"), sse.close("other")
            try:
                sse.messages("sse")
            except BrokerUnavailable as error:
                # From Python 3.12 on there is no thread to be had that listens.
                assert "cannot be listened to" in str(error)
        else:
            with Publisher.from_url(url) as publisher:
                print(publisher.publish("done").data)

if when == "atexit":
    atexit.register(work)
else:
    threading.Thread(target=work).start()
"""


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "redis":
        with redis_server() as server:
            # A host name must be looked up first.
            yield server.url.replace("127.0.0.1", "localhost")
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/events.db"
    else:
        yield "memory://"


@pytest.mark.parametrize("who", ["application", "Publisher"])
@pytest.mark.parametrize("when", ["thread", "atexit"])
def test_a_first_publish_behind_the_main_threads_end(
    url: str, when: str, who: str
) -> None:
    if url == "memory://" and who == "Publisher":
        who = "application"  # A Publisher cannot reach a process's memory.
    command = [sys.executable, "-c", PROGRAM, url, when, who]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "done\n", done.stderr
    assert "Traceback" not in done.stderr

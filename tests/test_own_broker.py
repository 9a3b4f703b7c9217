"""A broker of an application's own keeps what every broker promises: the toy of
shelf.py passes the suite."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_sse_lite.brokers import Broker, connect, register
from flask_sse_lite.settings import Settings
from flask_sse_lite.testing.broker_suite import *  # noqa: F403
from flask_sse_lite.testing.broker_suite import StoreUnderTest

from .servers import ROOT, until
from .shelf import connect_to_shelf, has_locked

register("shelf", connect_to_shelf)


class Shelf(StoreUnderTest):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        folder.mkdir()

    @property
    def url(self) -> str:
        return f"shelf://{self._folder}"

    def connect(self, **config: Any) -> Broker:
        return connect(Settings.read({"SSE_URL": self.url, **config}))

    def lose_everything(self) -> None:
        # In one step: what began in between would lose its first entry alone.
        with open(self._folder / "lock", "w") as lock:
            until(lambda: has_locked(lock))
            for file in [self._folder / "index", *self._folder.glob("0*")]:
                file.unlink(missing_ok=True)

    def go_away(self) -> None:
        self._folder.rename(self._folder.with_suffix(".away"))

    def come_back(self) -> None:
        self._folder.with_suffix(".away").rename(self._folder)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "shelf")
    yield shelf
    shelf.close()


#: A process with a run forks. Its child exits with 1 where it has kept the run alive.
PARENT = """
from gevent import monkey; monkey.patch_all()
import os, sys, time
from pathlib import Path
from flask_sse_lite.brokers import connect, register
from flask_sse_lite.brokers.store import Heard
from flask_sse_lite.settings import Settings
from tests.shelf import ShelfStore, connect_to_shelf

extended = []

class Quiet(ShelfStore):
    duty_interval = 0.05

    def wait(self, timeout):
        super().wait(timeout)
        return Heard(is_to_look=False)

    def extend(self, claims):
        extended.append(os.getpid())
        return super().extend(claims)

def quiet(settings, folder):
    shelf = connect_to_shelf(settings, folder)
    return Quiet(shelf._folder, shelf._keeps, shelf.timeout)

register("quiet", quiet)
broker = connect(Settings.read({"SSE_URL": f"quiet://{sys.argv[1]}"}))
assert broker.begin_run("run", 1000)
child = os.fork()
time.sleep(0.5)
if not child:
    os._exit(int(os.getpid() in extended))
_, status = os.waitpid(child, 0)
assert os.getpid() in extended
broker.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_keeps_no_run_of_its_parent_s_alive(tmp_path: Path) -> None:
    """A greenlet of the follower is copied into the child, and waits there for news as
    before. This store's waits never ask it to look."""
    subprocess.run([sys.executable, "-c", PARENT, str(tmp_path)], cwd=ROOT, check=True)

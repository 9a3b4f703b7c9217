"""A trial: tests that run on the copy, in a process of their own.

Here lives how the process is made and ended. It is a fork, which has the libraries of
the tests already, and neither a thread nor the package: so a trial takes no longer than
its tests. What was broken is unknown here.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

#: Bytes of memory that a trial can take: a loop that never ends must not take all.
MEMORY = 4 * 1024**3

#: Seconds between two looks at a trial that goes on.
LOOK = 0.02


class Seen(NamedTuple):
    """What a test did: how long it took, and at which lines the functions begin that it
    has called in the module."""

    test: str
    seconds: float
    lines: list[int]

    @property
    def file(self) -> str:
        return self.test.partition("::")[0].removeprefix("tests/")


class Chosen:
    """A plugin for pytest that runs some of the tests, in a given order, up to the
    first that fails."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._order = {test: at for at, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._order]
        items.sort(key=lambda item: self._order[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            # What a broken hub leaves behind would be waited for, test by test.
            os._exit(1)


class Watching:
    """A plugin for pytest that notes what each test does.

    :param module: the file of which it notes the functions that are called.
    """

    def __init__(self, module: Path, notes: Path) -> None:
        self._module = str(module)
        self._notes = notes
        self._seen: list[Seen] = []
        self._lines: set[int] = set()
        self._imported: set[int] = set()

    def _note(self, frame: Any, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename == self._module:
            self._lines.add(frame.f_code.co_firstlineno)

    def _watch(self) -> None:
        self._lines = set()
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def pytest_collection(self) -> None:
        self._watch()

    def pytest_collection_finish(self) -> None:
        # What a test file does when it is imported can be meant for each of its tests.
        self._imported = self._lines

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._watch()
        began = time.monotonic()
        result = yield
        seconds = time.monotonic() - began
        lines = self._lines | self._imported
        self._seen.append(Seen(item.nodeid, seconds, sorted(lines)))
        return result

    def pytest_sessionfinish(self) -> None:
        sys.setprofile(None)
        self._notes.write_text(json.dumps(self._seen))


def run(files: Sequence[str], plugin: object, limit: float, output: Path) -> int | None:
    """Run tests that need no server on the copy, which is the current folder.

    :param limit: seconds that they can take.
    :returns: what pytest exits with; None where the time was over.
    """
    child = os.fork()
    if not child:
        _be_trial(lambda: _pytest(files, plugin), limit, output)
    deadline = time.monotonic() + limit
    try:
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                ended, child = child, 0
                with suppress(ProcessLookupError):
                    os.killpg(ended, signal.SIGKILL)  # What a failed test has started.
                return os.waitstatus_to_exitcode(status)
            time.sleep(LOOK)
        return None
    finally:
        if child:
            _kill(child)


def _pytest(files: Sequence[str], plugin: object) -> int:
    options = ["-x", "-q", "-m", "quick", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # Libraries with a plugin are loaded already.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    paths = [f"tests/{file}" for file in files]
    return int(pytest.main([*options, *paths], plugins=[plugin]))


def _be_trial(work: Callable[[], int], limit: float, output: Path) -> None:
    """Do the work of the child, and end. It never returns."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        # A loop that never ends must not outlive the run, however that ends.
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 2))
        descriptor = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        code = work()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        # Threads that the change keeps from ending must not keep the process.
        os._exit(code)


def _kill(child: int) -> None:
    """End a trial, and what it has started."""
    process = psutil.Process(child)
    for other in [process, *process.children(recursive=True)]:
        try:
            other.kill()
        except psutil.NoSuchProcess:
            pass
    os.waitpid(child, 0)

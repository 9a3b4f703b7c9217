"""Builds, starts, pins and ends the processes of a benchmark, and the load generator.

Only processes started here are ended here, each by its own process group. Every wait
has a limit. What never lives here: what is measured, and what the figures mean.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent
BUILD = HERE / "build"

STOP_SECONDS = 10  # that a process has after SIGTERM; then it gets SIGKILL
ANSWER_SECONDS = 610  # for the load generator, which gives up by itself after 600
COMPILE_SECONDS = 120
# Beside one descriptor per subscriber: the extension keeps the numbers below 1024 free,
# and a server needs some of its own.
SPARE_DESCRIPTORS = 2048


class BenchmarkError(Exception):
    """A benchmark could not be carried out. The text says why."""


def raise_descriptor_limit(subscribers: int) -> None:
    """Raise the limit on open files of this process and its children to the hard one.

    :raises BenchmarkError: if `subscribers` do not fit below it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    room = hard - SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and subscribers > room:
        raise BenchmarkError(
            f"{subscribers} subscribers do not fit: the hard limit of open files "
            f"(ulimit -Hn) is {hard}, which leaves room for {max(room, 0)}"
        )


def cores() -> tuple[int, int] | tuple[None, None]:
    """Return the server's core and the load's; None where there is only one core, so
    that nothing is pinned."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[-1]) if len(usable) > 1 else (None, None)


def compile_c(name: str) -> None:
    """Compile `name`.c to a program of that name in `BUILD`."""
    BUILD.mkdir(exist_ok=True)
    source, program = HERE / f"{name}.c", BUILD / name
    command = [os.environ.get("CC", "cc"), "-O2", "-o", str(program), str(source)]
    try:
        subprocess.run(command, check=True, timeout=COMPILE_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchmarkError(f"cannot compile {source.name}: {error}") from error


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def environment() -> dict[str, str]:
    """Return our environment, with the package under test first on the path."""
    path = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise a BenchmarkError in a block that takes longer. For the main thread only."""

    def expire(*_: object) -> None:
        raise BenchmarkError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def process(
    command: Sequence[str],
    *,
    core: int | None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process in a group of its own, on one core. The group is ended at the
    exit."""
    started = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment(),
        start_new_session=True,
    )
    try:
        if core is not None:
            os.sched_setaffinity(started.pid, {core})
        yield started
    finally:
        end(started)


def end(started: subprocess.Popen[bytes]) -> None:
    """End a process, then what is left of the group that it leads."""
    for stream in filter(None, (started.stdin, started.stdout)):
        with contextlib.suppress(BrokenPipeError):
            stream.close()
    started.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        started.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait(STOP_SECONDS)


class Load:
    """The running load generator; its commands are described in load.c."""

    def __init__(self, started: subprocess.Popen[bytes]) -> None:
        assert started.stdin is not None
        assert started.stdout is not None
        self._commands, self._answers = started.stdin, started.stdout

    def ask(self, command: str) -> dict[str, Any]:
        self._commands.write(command.encode() + b"\n")
        self._commands.flush()
        ready, _, _ = select.select([self._answers], [], [], ANSWER_SECONDS)
        line = self._answers.readline() if ready else b""
        if not line:
            raise BenchmarkError(f"the load generator did not answer {command!r}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchmarkError(f"load generator: {answer['error']}")
        return answer


def output_of(command: Sequence[str], core: int | None) -> bytes:
    """Return what a program prints until it ends."""
    with process(command, core=core, stdout=subprocess.PIPE) as started:
        try:
            printed, _ = started.communicate(timeout=ANSWER_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"{command} did not end") from error
        if started.returncode:
            raise BenchmarkError(f"{command} failed")
    return printed


@contextmanager
def load(
    program: Path, port: int, paths: Sequence[str], core: int | None
) -> Iterator[Load]:
    command = [str(program), str(port), *paths]
    pipe = subprocess.PIPE
    with process(command, core=core, stdin=pipe, stdout=pipe) as started:
        yield Load(started)

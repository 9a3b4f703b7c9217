"""What subscribers cost that come and go: ``python benchmarks/leavers.py``.

It prints the server's CPU per subscriber that comes and goes on one gevent worker: by
itself, and beside idle connections that the worker keeps alive. With ``--endurance
200000``, that many come and go on each worker class instead, and it prints what they
leave behind: memory and file descriptors.

Every stream must begin properly. Otherwise there are no figures.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from contenders import STREAM, gunicorn
from processes import BenchmarkError, cores, free_port, raise_descriptor_limit
from server import Server, server

WORKERS = {
    "sync": ("--worker-class=sync",),
    "gthread": ("--worker-class=gthread", "--threads=4"),
    "gevent": ("--worker-class=gevent",),
}
IDLE = 3000  # connections that a worker keeps alive
LEAVERS = 1000  # subscribers that come and go in a round
ROUNDS = 3
TOGETHER = 50  # that come and leave at once in a long run, and in a warm-up
PAUSE = 0.002  # seconds before a client sends, so that gevent begins to wait for it
STEPS = 10  # of a long run; memory is read after each
MILLISECONDS_ALLOWED = 2.0
HTTP_SECONDS = 60

STREAM_REQUEST = f"GET {STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
PLAIN_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def running(worker: str, core: int | None) -> Iterator[Server]:
    command = gunicorn(
        "ours:app", *WORKERS[worker], "--worker-connections=10000", "--keep-alive=3600"
    )
    port = free_port()
    with server([[part.format(port=port) for part in command]], port, core) as started:
        yield started


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), HTTP_SECONDS)


def read_until(client: socket.socket, mark: bytes) -> None:
    received = b""
    while mark not in received:
        piece = client.recv(65536)
        if not piece:
            raise BenchmarkError(f"the server ended the connection after {received!r}")
        received += piece


def come_and_go(port: int, times: int, *, together: int) -> None:
    """Subscribe and leave so many times, ``together`` at once."""
    for _ in range(times // together):
        clients = [connect(port) for _ in range(together)]
        time.sleep(PAUSE)
        for client in clients:
            client.sendall(STREAM_REQUEST)
        for client in clients:
            read_until(client, b"event: stream-open\n")
        for client in clients:
            client.close()


def milliseconds_per_leaver(started: Server) -> float:
    """The median of some rounds."""
    found = []
    for _ in range(ROUNDS):
        before = started.usage().cpu_seconds
        come_and_go(started.port, LEAVERS, together=1)
        found.append((started.usage().cpu_seconds - before) / LEAVERS * 1000)
    return sorted(found)[ROUNDS // 2]


def idle_connection(port: int) -> socket.socket:
    """A connection that has had an answer, and that the server keeps alive."""
    client = connect(port)
    client.sendall(PLAIN_REQUEST)
    read_until(client, b"</p>")
    return client


def beside_idle(idle: int) -> bool:
    """Print what a leaver costs beside so many idle connections.

    :returns: whether it costs no more than is allowed.
    """
    core, load_core = cores()
    if load_core is not None:
        os.sched_setaffinity(0, {load_core})
    with running("gevent", core) as started, ExitStack() as stack:
        come_and_go(started.port, LEAVERS, together=TOGETHER)
        alone = milliseconds_per_leaver(started)
        for _ in range(idle):
            stack.enter_context(idle_connection(started.port))
        beside = milliseconds_per_leaver(started)
    print(f"alone: {alone:.2f} ms of CPU per subscriber that comes and goes")
    print(
        f"beside {idle} idle connections: {beside:.2f} ms, "
        f"{beside / alone:.2f} times as much"
    )
    print(f"allowed: {MILLISECONDS_ALLOWED} ms")
    return beside <= MILLISECONDS_ALLOWED


def endure(worker: str, times: int) -> None:
    """Print what so many leavers leave behind."""
    core, load_core = cores()
    if load_core is not None:
        os.sched_setaffinity(0, {load_core})
    with running(worker, core) as started:
        come_and_go(started.port, LEAVERS, together=TOGETHER)
        time.sleep(1)
        first = started.usage()
        print(f"{worker}: {first}", flush=True)
        for step in range(1, STEPS + 1):
            come_and_go(started.port, times // STEPS, together=TOGETHER)
            grown = started.usage().kilobytes - first.kilobytes
            print(f"  after {times // STEPS * step}: {grown:+} kB", flush=True)
        time.sleep(1)
        held = started.usage().descriptors - first.descriptors
        print(f"  in the end: {held:+} descriptors", flush=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--idle", type=int, default=IDLE)
    parser.add_argument("--endurance", type=int, metavar="TIMES")
    parser.add_argument("--only", nargs="+", choices=WORKERS, default=list(WORKERS))
    options = parser.parse_args(arguments)
    try:
        raise_descriptor_limit(options.idle)
        if options.endurance is None:
            return 0 if beside_idle(options.idle) else 1
        for worker in options.only:
            endure(worker, options.endurance)
    except BenchmarkError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Stand-ins for a server and its client: connections whose two ends are in this
process, and scripts that gevent has patched."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .patience import patient

ROOT = Path(__file__).parents[1]


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end of a TCP connection, and its client's end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        client.settimeout(patient(10.0))
        yield server, client


def fill(send: Callable[[bytes], object]) -> None:
    """Send until ``send`` raises, because the system has no room for more. ``send``
    must not wait."""
    while True:
        send(b"a" * 65536)


def run_on_gevent(script: str) -> None:
    """Run a script in a process of its own, which gevent has patched."""
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent is not installed")
    done = subprocess.run(
        [
            *(sys.executable, "-c"),
            f"from gevent import monkey\nmonkey.patch_all()\n{script}",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patient(60.0),
    )
    assert done.returncode == 0, done.stdout

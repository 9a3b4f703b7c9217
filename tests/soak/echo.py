"""A bare echo, in processes of its own: ``python -m tests.soak.echo``.

One process sends a byte to the other fifty times a second, and waits for it to come
back. Nothing of ours is between them: where their times grow, the machine is busy. The
process prints its times, a line of JSON each second, until its standard input ends.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections import Counter

from .visitor import step

#: Seconds between two bytes.
PAUSE = 0.02

REPORT = 1.0


def answer(listener: socket.socket) -> None:
    """Send back what comes, until its sender leaves."""
    peer, _ = listener.accept()
    with peer:
        while data := peer.recv(64):
            peer.sendall(data)


def ask(sock: socket.socket) -> None:
    delays: Counter[int] = Counter()
    reported = time.monotonic()
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        began = time.monotonic()
        sock.sendall(b"x")
        sock.recv(64)
        now = time.monotonic()
        delays[step(now - began)] += 1
        if now > reported + REPORT:
            reported = now
            print(json.dumps({"at": now, "delays": dict(delays)}), flush=True)
            delays.clear()


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if not os.fork():
            answer(listener)
            os._exit(0)
        address = listener.getsockname()
    with socket.create_connection(address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask(sock)
    os.wait()


if __name__ == "__main__":
    main()

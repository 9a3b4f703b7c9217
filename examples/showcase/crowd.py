"""Opens a thousand streams to this server, and tells the page what reached them.

A browser opens no thousand connections. Here a second process does, over the loopback
(``crowd_clients.py``): its streams are as real as the page's own. The process lives as
long as the page listens, and a minute at most. One crowd is there at a time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .crowd_clients import BUSY

COUNT = 1000

SECONDS = 60

_CLIENTS = Path(__file__).with_name("crowd_clients.py")

#: What a server that listens on all addresses is told of its own.
_WILDCARDS = ("0.0.0.0", "::", "")


def gather(host: str, port: str, path: str, count: int) -> Iterator[dict[str, object]]:
    """What the crowd sees, as long as somebody wants to know: how many streams are
    open, and which clients an event has just reached. When this is closed, the crowd
    ends."""
    address = "127.0.0.1" if host in _WILDCARDS else host
    words = [address, port, path, str(count), str(SECONDS)]
    process = subprocess.Popen(
        [sys.executable, str(_CLIENTS), *words], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        yield {"pid": process.pid, "count": count, "seconds": SECONDS}
        for line in process.stdout:
            yield json.loads(line) | {"time": time.time()}
        yield {"end": "busy" if process.wait() == BUSY else "over"}
    finally:
        process.kill()
        process.stdout.close()
        process.wait()

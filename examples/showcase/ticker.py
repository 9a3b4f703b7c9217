"""Kills a worker of the server in the middle of a row of numbers.

``python ticker.py URL PID COUNT`` publishes the numbers from 1 to COUNT on the channel
"ticker", and kills the process after a third of them. It is a process of its own, so
that it goes on whichever worker dies. It ends at once (status 3) while another one
counts for the same URL. Showcases with other URLs count beside each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flask_sse_lite.publisher import Publisher

PERIOD = 0.2  # seconds from one number to the next


@contextmanager
def alone(url: str) -> Iterator[bool]:
    """Whether no other ticker counts for a URL, and none can until the block ends. The
    lock ends with this process, however it ends."""
    # The URL can hold a password, and is no name of a file.
    name = f"showcase-{os.getuid()}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    path = os.path.join(tempfile.gettempdir(), name)
    # The folder is for everybody: a link that somebody has put there is not followed.
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        is_alone = True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_alone = False
        yield is_alone
    finally:
        os.close(lock)


def main(url: str, pid: str, count: str) -> int:
    with alone(url) as is_alone, Publisher.from_url(url) as publisher:
        if not is_alone:
            return 3
        last = int(count)
        for number in range(1, last + 1):
            tick = {"number": number, "count": last, "worker": int(pid)}
            now = {"time": time.time()}
            publisher.publish(tick | now, type="tick", channel="ticker")
            if number == last // 3:
                with suppress(ProcessLookupError):  # It has died by itself.
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(PERIOD)
        return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

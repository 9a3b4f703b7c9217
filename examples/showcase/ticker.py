"""Kills a worker of the server in the middle of a row of numbers.

``python ticker.py URL PID COUNT`` publishes the numbers from 1 to COUNT on the channel
"ticker", and kills the process after a third of them. It is a process of its own, so
that it goes on whichever worker dies. It ends at once (status 3) while there is
another.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from contextlib import suppress

from flask_sse_lite.publisher import Publisher

PERIOD = 0.2  # seconds from one number to the next


def main(url: str, pid: str, count: str) -> int:
    with open(__file__) as own, Publisher.from_url(url) as publisher:
        try:  # The lock is on this file, and ends with this process.
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
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

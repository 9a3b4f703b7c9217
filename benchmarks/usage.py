"""What processes have used, read from outside and in the same way for every server.

What never lives here: who started them, and what the figures mean.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """What processes have used so far (CPU time, user and system), and what they have
    now: memory (RSS), threads, file descriptors."""

    cpu_seconds: float
    kilobytes: int
    threads: int
    descriptors: int


def usage(group: int) -> Usage:
    """Return what the processes of a group use."""
    pids = map(int, filter(str.isdigit, os.listdir("/proc")))
    members = [pid for pid in pids if group_of(pid) == group]
    return Usage(
        cpu_seconds=sum(map(cpu_seconds, members)),
        kilobytes=sum(map(resident_kilobytes, members)),
        threads=sum(len(os.listdir(f"/proc/{pid}/task")) for pid in members),
        descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in members),
    )


def group_of(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None  # The process has ended meanwhile.


def cpu_seconds(pid: int) -> float:
    """Read the clock whose number clock_getcpuclockid(3) returns.

    It tells the same time as /proc/PID/stat, in nanoseconds instead of hundredths of a
    second.
    """
    return time.clock_gettime(~pid << 3 | 2)


def resident_kilobytes(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = re.search(r"^Rss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1])

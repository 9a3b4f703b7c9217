"""The tests' stopwatch: a wait counts, a pause of the whole process does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from .clocks import LONGEST_TICK, stopwatch
from .servers import ROOT

#: Measures how long a line of input takes to come.
MEASURING = """
from tests.clocks import stopwatch
with stopwatch() as seconds:
    print("ready", flush=True)
    input()
    print(seconds())
"""

#: Seconds that the line takes. Either process can lose some of them on a busy machine.
WAIT = 20 * LONGEST_TICK


@pytest.mark.parametrize("is_stopped", [False, True])
def test_what_counts_is_the_time_in_which_a_process_runs(is_stopped: bool) -> None:
    command, pipe = [sys.executable, "-c", MEASURING], subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        if is_stopped:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            with stopwatch() as seconds:
                while seconds() < WAIT:
                    time.sleep(LONGEST_TICK / 10)
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        finally:
            process.send_signal(signal.SIGCONT)
        told, _ = process.communicate()
    assert (float(told) < WAIT / 2) == is_stopped

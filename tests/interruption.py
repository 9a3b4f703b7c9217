"""Code that interrupts ours in its own thread, as a signal handler or a ``__del__``
does. Where it comes is not left to chance: Python's tracing stops at our steps, one
after the other."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Container
from types import FrameType
from typing import Any

#: Files whose code is interrupted: ours, and the standard library's locks.
OURS = ("flask_sse_lite", "threading.py")

#: Steps in a row: more than a call has that is not interrupted. (Where each step was
#: interrupted without end, the call would never come to its own end.)
EACH_STEP = range(1, 500)


class Interruption:
    """Calls something at some steps of our code.

    :param steps: the numbers of these steps, from 1.
    """

    def __init__(self, steps: Container[int], call: Callable[[], object]) -> None:
        self._wanted = steps
        self._call = call
        self._steps = 0
        #: Whether a call was made.
        self.was_called = False

    def run(self, step: Callable[[], object]) -> None:
        self._run(step, sys.settrace)

    def run_in_new_threads(self, step: Callable[[], object]) -> None:
        """Interrupt the threads that a step starts, and not the step itself."""
        self._run(step, threading.settrace)

    def _run(self, step: Callable[[], object], trace: Callable[[Any], None]) -> None:
        trace(self._trace)
        try:
            step()
        finally:
            trace(None)

    def _trace(self, frame: FrameType, what: str, _: object) -> Any:
        if not any(part in frame.f_code.co_filename for part in OURS):
            return None
        frame.f_trace_opcodes = True
        if what == "opcode":
            self._steps += 1
            if self._steps in self._wanted:
                self.was_called = True
                self._call()
        return self._trace

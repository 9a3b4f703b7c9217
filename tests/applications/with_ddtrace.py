"""The channels, with ddtrace's spans counted in the process. It must be started by
``ddtrace-run``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ddtrace.trace import Span, TraceFilter, tracer
from flask.typing import ResponseReturnValue

from .channels import app

reports: Counter[str] = Counter()


class Counting(TraceFilter):
    """Passes nothing on to the agent."""

    def process_trace(self, trace: Sequence[Span]) -> None:
        root = trace[0]
        reports["streams"] += "/stream" in root.resource
        reports["errors"] += any(span.error for span in trace)


tracer.configure(trace_processors=[Counting()])


@app.get("/reports")
def report() -> ResponseReturnValue:
    """How many requests for streams came to their end, and how many errors there
    were."""
    return {"streams": reports["streams"], "errors": reports["errors"]}


@app.get("/fail")
def fail() -> ResponseReturnValue:
    """An error that the log is not told of."""
    span = tracer.current_root_span()
    assert span
    span.error = 1
    return "", 204

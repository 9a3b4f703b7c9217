"""Channels that are traced by OpenTelemetry. It is configured as channels.py is. Each
process keeps its spans in memory, and writes them into ``FOLDER``, one a line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from flask import Response
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flask_sse_lite import sse
from flask_sse_lite.opentelemetry import instrument

from .channels import app


class Exporter(InMemorySpanExporter):
    """The SDK's exporter, whose spans other processes can read, too."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with Path(app.config["FOLDER"], str(os.getpid())).open("a") as file:
            file.writelines(span.to_json(indent=None) + "\n" for span in spans)
        return super().export(spans)


exporter = Exporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
instrument(app, provider)


@app.get("/run")
def run() -> Response:
    return sse.run(iter("abc"))

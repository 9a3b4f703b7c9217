"""The channels, with OpenTelemetry's spans counted in the process: those of its
instrumentation of Flask, and of its middleware for any WSGI application."""

from __future__ import annotations

from flask.typing import ResponseReturnValue
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from .channels import app

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
FlaskInstrumentor().instrument_app(app)  # type: ignore[no-untyped-call]
app.wsgi_app = OpenTelemetryMiddleware(app.wsgi_app)  # type: ignore[method-assign]


@app.get("/reports")
def report() -> ResponseReturnValue:
    """How many requests for streams came to their end, and how many errors there
    were."""
    spans = exporter.get_finished_spans()
    return {
        "streams": sum("/stream" in span.name for span in spans) // 2,
        "errors": sum(
            span.status.status_code is StatusCode.ERROR or len(span.events)
            for span in spans
        ),
    }


@app.get("/fail")
def fail() -> ResponseReturnValue:
    """An error that the log is not told of."""
    trace.get_current_span().record_exception(ValueError("on purpose"))
    return "", 204

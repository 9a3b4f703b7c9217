"""The channels, with Sentry's reports counted in the process."""

from __future__ import annotations

from collections import Counter

import sentry_sdk
from flask.typing import ResponseReturnValue
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.transport import Transport

from .channels import app

reports: Counter[str] = Counter()


class Counting(Transport):
    """Sends nothing on."""

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            content = item.payload.json or {}
            reports["streams"] += content.get("transaction") == "sse.stream"
            # A log line at level ERROR becomes one too.
            reports["errors"] += item.type == "event"


# The integrations of all else that is installed here would cost each start some
# seconds.
sentry_sdk.init(
    "http://key@127.0.0.1:9/1",
    transport=Counting,
    traces_sample_rate=1.0,
    auto_enabling_integrations=False,
    integrations=[FlaskIntegration()],
)


@app.get("/reports")
def report() -> ResponseReturnValue:
    """How many requests for streams came to their end, and how many errors there
    were."""
    return {"streams": reports["streams"], "errors": reports["errors"]}


@app.get("/fail")
def fail() -> ResponseReturnValue:
    """An error that the log is not told of."""
    sentry_sdk.capture_exception(ValueError("on purpose"))
    return "", 204

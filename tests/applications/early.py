"""The application of generators.py, which believes that gunicorn cuts requests earlier
than it does: a worker that pauses has time left until the cut."""

from __future__ import annotations

from flask_sse_lite.servers import gunicorn

from . import generators as generators
from .channels import app as app

#: Seconds between the cut that is believed in and gunicorn's own.
EARLIER = 30.0

_graceful_timeout = gunicorn.graceful_timeout

gunicorn.graceful_timeout = lambda: _graceful_timeout() - EARLIER

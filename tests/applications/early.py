"""The application of generators.py, which believes that gunicorn cuts requests earlier
than it does, by ``EARLIER`` seconds: a worker that pauses has time left until the
cut."""

from __future__ import annotations

from flask_sse_lite.servers import gunicorn

from . import generators as generators
from .channels import app as app

_graceful_timeout = gunicorn.graceful_timeout

gunicorn.graceful_timeout = lambda: _graceful_timeout() - app.config["EARLIER"]

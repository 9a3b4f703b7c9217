"""Channels that are measured in prometheus_client's multiprocess mode. It is configured
as channels.py is; ``FOLDER`` is where the processes put their numbers. gunicorn takes
this module as its configuration, too."""

from __future__ import annotations

import os
from typing import Any

from flask import Response

from .channels import app

os.environ["PROMETHEUS_MULTIPROC_DIR"] = app.config["FOLDER"]

# prometheus_client looks at the environment when it is imported.
from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from flask_sse_lite import metrics

metrics.register(app)


@app.get("/metrics")
def show() -> Response:
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), mimetype="text/plain")


def child_exit(server: Any, worker: Any) -> None:
    """gunicorn's hook: a worker has ended, and its streams with it."""
    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]

"""Progress with Celery: the page of ``progress.py``, and its job in a worker.

To run it, with a Redis on this machine: ``flask --app examples/progress_celery.py
run``, and in another terminal ``celery --workdir examples -A progress_celery worker``.
"""

from __future__ import annotations

import os

import progress
from celery import Celery
from flask import Flask

from flask_sse_lite import Publisher

REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

queue = Celery("progress_celery", broker=REDIS)
publisher = Publisher.from_url(REDIS)  # It connects when it first publishes.


@queue.task  # type: ignore[untyped-decorator]
def resize(job: str) -> None:
    progress.resize(job, publisher)


def create_app() -> Flask:
    return progress.create_app(resize.delay, SSE_URL=REDIS)

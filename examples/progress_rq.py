"""Progress with RQ: the page of ``progress.py``, and its job in a worker.

To run it, with a Redis on this machine: ``flask --app examples/progress_rq.py run``,
and in another terminal ``rq worker --path examples``.
"""

from __future__ import annotations

import os

import progress
from flask import Flask
from redis import Redis
from rq import Queue

from flask_sse_lite import Publisher

REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

publisher = Publisher.from_url(REDIS)  # It connects anew in each process that RQ forks.


def resize(job: str) -> None:
    progress.resize(job, publisher)


def create_app() -> Flask:
    queue = Queue(connection=Redis.from_url(REDIS))

    def enqueue(job: str) -> None:
        queue.enqueue(resize, job)

    return progress.create_app(enqueue, SSE_URL=REDIS)

"""What `sse.publish` costs while nobody listens: prints µs of CPU per call as JSON."""

from __future__ import annotations

import json
import time
from statistics import median

from flask import Flask

from flask_sse_lite import sse

PUBLISHES = 20_000  # takes 0.1 s and more: enough for the clock
ROUNDS = 5
DATA = "x" * 64


def publish_microseconds() -> float:
    start = time.process_time()
    for _ in range(PUBLISHES):
        sse.publish(DATA)
    return (time.process_time() - start) / PUBLISHES * 1e6


def main() -> None:
    app = Flask(__name__)
    app.register_blueprint(sse)
    app.test_client().get("/")  # so that publish() does not warn: this process serves
    with app.app_context():
        rounds = [publish_microseconds() for _ in range(ROUNDS)]
    print(json.dumps({"publish_us": median(rounds)}))


if __name__ == "__main__":
    main()

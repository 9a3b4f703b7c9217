"""The extension with a channel for each client, and with a thread that computes.

The number of a scattered event names its subscriber, so that load.c can check that it
came to that one.
"""

from __future__ import annotations

import threading

from control import scattering
from ours import app

from flask_sse_lite import sse

app.register_blueprint(scattering(sse.publish))


@app.post("/compute")
def compute() -> dict[str, int]:
    """Start a thread that never waits."""
    threading.Thread(target=_compute, daemon=True).start()
    return {"threads": threading.active_count()}


def _compute() -> None:
    number = 0
    while True:
        number = (number * 31 + 7) % 1_000_003

"""Channels, and receivers of all signals, which note what they are told. It is
configured as channels.py is. ``FOLDER`` is where the notes and the gates are."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from flask import Flask, current_app
from flask.typing import ResponseReturnValue

from flask_sse_lite import signals, sse

from .channels import app

FOLDER = Path(app.config["FOLDER"])

NAMES = ["connected", "disconnected", "published", "gap", "refused"]
NAMES += ["run_started", "run_ended"]


def note(name: str, facts: dict[str, Any]) -> None:
    told = {"signal": name, "process": os.getpid(), **facts}
    line = json.dumps(told, default=lambda event: event.data) + "\n"
    with (FOLDER / "notes").open("a") as notes:
        notes.write(line)


def connect(name: str) -> None:
    def receiver(sender: Flask, **facts: Any) -> None:
        assert sender is current_app._get_current_object()  # type: ignore[attr-defined]
        if name == "published" and facts["event"].type == "gate":
            note("waiting", {})
            while not (FOLDER / "open").exists():
                time.sleep(0.01)
        note(name, facts)

    getattr(signals, name).connect(receiver, app, weak=False)


for each in NAMES:
    connect(each)


@app.post("/end-streams")
def end_streams() -> ResponseReturnValue:
    sse.end_streams()
    return "", 204


@app.post("/disconnect/<channel>")
def disconnect(channel: str) -> ResponseReturnValue:
    sse.disconnect(channel=channel)
    return "", 204


@app.post("/fork")
def fork() -> ResponseReturnValue:
    """Fork a child that publishes, tells of it, and ends."""
    child = os.fork()
    if child:
        return str(child)
    try:
        with app.app_context():
            sse.publish("from the child", channel="child")
            app.extensions["sse"].courier.settle(10)
    finally:
        os._exit(0)

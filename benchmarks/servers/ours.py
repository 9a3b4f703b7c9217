"""The extension as its README shows it: one line to register, one to publish."""

from __future__ import annotations

from control import control
from flask import Flask

from flask_sse_lite import sse

app = Flask(__name__)
app.config.from_prefixed_env()  # FLASK_SSE_HANDOFF and the like, from contenders.py
app.register_blueprint(sse)
app.register_blueprint(control(sse.publish))

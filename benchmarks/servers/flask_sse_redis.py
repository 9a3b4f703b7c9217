"""Flask-SSE as its documentation shows it; every event goes through Redis."""

from __future__ import annotations

from control import control
from flask import Flask
from flask_sse import sse

app = Flask(__name__)
app.config.from_prefixed_env()  # FLASK_REDIS_URL, from lineup.py
app.register_blueprint(sse, url_prefix="/stream")
app.register_blueprint(control(sse.publish))

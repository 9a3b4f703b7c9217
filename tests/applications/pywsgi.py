"""gevent.pywsgi by itself, run as its documentation says:
``python -m tests.applications.pywsgi HOST PORT MODULE:VARIABLE``."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

from gevent import monkey, signal_handler
from gevent.pywsgi import WSGIServer

if __name__ == "__main__":
    monkey.patch_all()
    host, port, app = sys.argv[1:]
    module, variable = app.split(":")
    server = WSGIServer((host, int(port)), getattr(import_module(module), variable))
    signal_handler(signal.SIGTERM, server.stop, 0.1)
    server.serve_forever()

"""Servers inside a process that goes on when they are stopped:
``python -m tests.applications.embedded KIND CONTROL``.

A test sends commands, one a line, to the port ``CONTROL``, and gets a line for each.
"""

# ruff: noqa: E402  (gevent patches before anything else is imported)

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

KIND = sys.argv[1]

if KIND == "pywsgi":
    from gevent import monkey

    monkey.patch_all()

from flask import Flask

from flask_sse_lite import EventStream, Stats, sse

HOST = "127.0.0.1"

#: Seconds between two items of an endless generator, and the process's longest life.
PAUSE = 0.05
LIFE = 300.0


def make_application(name: str) -> Flask:
    app = Flask(name)
    app.config["SSE_PUBLIC_CHANNELS"] = ["*"]
    app.config.from_prefixed_env()
    sse.init_app(app, url_prefix="/stream")

    def endless() -> Iterator[str]:
        while True:
            yield name
            time.sleep(PAUSE)

    app.add_url_rule("/words", "words", lambda: EventStream(endless()))
    app.add_url_rule("/run", "run", lambda: sse.run(endless()))
    app.add_url_rule("/", "index", lambda: name)
    return app


class Pywsgi:
    def __init__(self, app: Flask, port: int) -> None:
        from gevent.pywsgi import WSGIServer

        self.server = WSGIServer((HOST, port), app, log=None)
        self.server.start()

    def stop(self) -> None:
        self.server.stop()

    def start_again(self) -> None:
        self.server.set_handle(self.server.__class__.handle.__get__(self.server))
        self.server.set_spawn("default")
        self.server.start()


class Threaded:
    """A server that runs in a thread of its own."""

    def __init__(self, app: Flask, port: int) -> None:
        self.server = self.make(app, port)
        self.start_again()

    def make(self, app: Flask, port: int) -> Any:
        raise NotImplementedError

    def serve(self) -> None:
        self.server.serve_forever()

    def start_again(self) -> None:
        self._thread = threading.Thread(target=self.serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(10)


class Cheroot(Threaded):
    def make(self, app: Flask, port: int) -> Any:
        from cheroot.wsgi import Server

        return Server((HOST, port), app, numthreads=20)

    def serve(self) -> None:
        self.server.prepare()
        self.server.serve()

    def stop(self) -> None:
        self.server.stop()


class Werkzeug(Threaded):
    def make(self, app: Flask, port: int) -> Any:
        from werkzeug.serving import make_server

        return make_server(HOST, port, app, threaded=True)


class Wsgiref(Threaded):
    def make(self, app: Flask, port: int) -> Any:
        from socketserver import ThreadingMixIn
        from wsgiref.simple_server import WSGIServer, make_server

        class Server(ThreadingMixIn, WSGIServer):
            daemon_threads = True

        return make_server(HOST, port, app, server_class=Server)


class Waitress(Threaded):
    def make(self, app: Flask, port: int) -> Any:
        waitress: Any = import_module("waitress")
        return waitress.create_server(app, host=HOST, port=port, threads=20)

    def serve(self) -> None:
        try:
            self.server.run()
        except (OSError, ValueError):
            pass  # Another thread closed it.

    def stop(self) -> None:
        self.server.close()
        self._thread.join(10)
        self.server.task_dispatcher.shutdown()


SERVERS: dict[str, Callable[[Flask, int], Any]] = {
    "pywsgi": Pywsgi,
    "cheroot": Cheroot,
    "werkzeug": Werkzeug,
    "wsgiref": Wsgiref,
    "waitress": Waitress,
}


class Process:
    """The commands that a test can send."""

    def __init__(self) -> None:
        self._apps: dict[str, Flask] = {}
        self._servers: dict[int, Any] = {}

    def app(self, name: str) -> Flask:
        if name not in self._apps:
            self._apps[name] = make_application(name)
        return self._apps[name]

    def start(self, port: int, name: str) -> None:
        self._servers[port] = SERVERS[KIND](self.app(name), port)

    def stop(self, port: int) -> float:
        began = time.monotonic()
        self._servers[port].stop()
        return time.monotonic() - began

    def start_again(self, port: int) -> None:
        self._servers[port].start_again()

    def publish(self, name: str, text: str) -> str | None:
        with self.app(name).app_context():
            return sse.publish(text).id

    def end_streams(self, name: str) -> None:
        with self.app(name).app_context():
            sse.end_streams()

    def stats(self, name: str) -> Stats:
        with self.app(name).app_context():
            return sse.stats()


def main(control: int) -> None:
    process = Process()
    with socket.create_server((HOST, control)) as listener:
        connection, _ = listener.accept()
    with connection, connection.makefile("rw") as lines:
        for line in lines:
            verb, *arguments = json.loads(line)
            try:
                answer = [True, getattr(process, verb)(*arguments)]
            except Exception as error:
                logging.exception("That failed")
                answer = [False, repr(error)]
            lines.write(json.dumps(answer) + "\n")
            lines.flush()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    faulthandler.register(signal.SIGUSR2)
    life = threading.Timer(LIFE, os._exit, [1])
    life.daemon = True
    life.start()
    main(int(sys.argv[2]))

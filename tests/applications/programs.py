"""Servers with settings that no command line has, so a program sets them:
``python -m tests.applications.programs HOST PORT MODULE:VARIABLE NAME [CERT KEY]``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def _end(*_: object) -> None:
    raise SystemExit


def _cheroot(address: tuple[str, int], app: str, adapter: str, *tls: str) -> None:
    from cheroot import wsgi
    from cheroot.server import get_ssl_adapter_class

    server = wsgi.Server(address, _load(app))
    server.ssl_adapter = get_ssl_adapter_class(adapter)(*tls)
    signal.signal(signal.SIGTERM, _end)
    server.safe_start()


def cheroot_builtin(address: tuple[str, int], app: str, *tls: str) -> None:
    _cheroot(address, app, "builtin", *tls)


def cheroot_pyopenssl(address: tuple[str, int], app: str, *tls: str) -> None:
    _cheroot(address, app, "pyopenssl", *tls)


def pywsgi(address: tuple[str, int], app: str, certificate: str, key: str) -> None:
    from gevent import monkey

    monkey.patch_all()
    pywsgi_unpatched(address, app, certificate, key)


def pywsgi_unpatched(
    address: tuple[str, int], app: str, certificate: str, key: str
) -> None:
    from gevent.pywsgi import WSGIServer

    signal.signal(signal.SIGTERM, _end)
    WSGIServer(address, _load(app), certfile=certificate, keyfile=key).serve_forever()


def werkzeug_processes(address: tuple[str, int], app: str) -> None:
    from werkzeug.serving import run_simple

    run_simple(*address, _load(app), processes=4)


PROGRAMS: dict[str, Callable[..., None]] = {
    program.__name__.replace("_", "-"): program
    for program in (
        cheroot_builtin,
        cheroot_pyopenssl,
        pywsgi,
        pywsgi_unpatched,
        werkzeug_processes,
    )
}


def _load(app: str) -> Any:
    module, variable = app.split(":")
    return getattr(import_module(module), variable)


if __name__ == "__main__":
    host, port, app, name, *arguments = sys.argv[1:]
    PROGRAMS[name]((host, int(port)), app, *arguments)

"""A WSGI application behind an adapter of ASGI, or behind Tornado:
``python -m tests.applications.adapted ADAPTER HOST PORT MODULE:VARIABLE``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any


def _uvicorn(adapted: Any, host: str, port: int) -> None:
    uvicorn: Any = import_module("uvicorn")
    uvicorn.run(adapted, host=host, port=port, log_level="warning", lifespan="off")


def a2wsgi(app: Any, host: str, port: int) -> None:
    module: Any = import_module("a2wsgi")
    _uvicorn(module.WSGIMiddleware(app), host, port)


def uvicorn(app: Any, host: str, port: int) -> None:
    module: Any = import_module("uvicorn.middleware.wsgi")
    _uvicorn(module.WSGIMiddleware(app), host, port)


def asgiref(app: Any, host: str, port: int) -> None:
    module: Any = import_module("asgiref.wsgi")
    _uvicorn(module.WsgiToAsgi(app), host, port)


def hypercorn(app: Any, host: str, port: int) -> None:
    config = import_module("hypercorn.config").Config()
    config.bind = [f"{host}:{port}"]
    serve: Any = import_module("hypercorn.asyncio").serve
    asyncio.run(serve(app, config, mode="wsgi"))


def tornado(app: Any, host: str, port: int) -> None:
    async def main() -> None:
        container = import_module("tornado.wsgi").WSGIContainer
        adapted = container(app, ThreadPoolExecutor(8))
        import_module("tornado.httpserver").HTTPServer(adapted).listen(port, host)
        await asyncio.Event().wait()

    asyncio.run(main())


ADAPTERS: dict[str, Callable[[Any, str, int], None]] = {
    adapter.__name__: adapter
    for adapter in (a2wsgi, uvicorn, asgiref, hypercorn, tornado)
}


if __name__ == "__main__":
    name, host, port, app = sys.argv[1:]
    module, variable = app.split(":")
    ADAPTERS[name](getattr(import_module(module), variable), host, int(port))

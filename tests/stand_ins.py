"""Stand-ins for a server and its client: connections whose two ends are in this
process, responses of servers that do not run, and scripts that gevent has patched.

The responses are the servers' own classes where those can be had without the server.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import Response as GunicornResponse
from werkzeug.test import EnvironBuilder

from .patience import patient

ROOT = Path(__file__).parents[1]


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end of a TCP connection, and its client's end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        client.settimeout(patient(10.0))
        yield server, client


def read(client: socket.socket, size: int) -> bytes:
    """What a client gets, up to so many bytes, or to the end."""
    received = b""
    while len(received) < size and (piece := client.recv(size - len(received))):
        received += piece
    return received


def is_bounded(sock: socket.socket) -> bool:
    """Whether the system no longer tunes what it holds for a socket's other side
    (``SO_BUF_LOCK``, and its bit for the send buffer)."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, 72) & 1)


def fill(send: Callable[[bytes], object]) -> None:
    """Send until ``send`` raises, because the system has no room for more. ``send``
    must not wait."""
    while True:
        send(b"a" * 65536)


def environ_of(sock: object = None, **more: Any) -> dict[str, Any]:
    """The environ of a request of HTTP/1.1.

    :param sock: the connection's socket, where the server shows it as gunicorn does.
    """
    environ = EnvironBuilder(path="/").get_environ()
    environ["SERVER_PROTOCOL"] = "HTTP/1.1"
    if sock is not None:
        environ["gunicorn.socket"] = sock
    return environ | more


class Response(GunicornResponse):  # type: ignore[misc]
    """gunicorn's response, which keeps what the server itself was given to send."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.written: list[bytes] = []

    def write(self, piece: bytes) -> None:
        self.written.append(piece)
        super().write(piece)


def gunicorn_response(sock: object, version: tuple[int, int] = (1, 1)) -> Response:
    """gunicorn's response on a connection. It is not started."""
    request = SimpleNamespace(version=version, method="GET", should_close=lambda: False)
    return Response(request, sock, Config())


def instance_of(owner: tuple[str, str], **attributes: Any) -> Any:
    """An object of a server's class, for a server whose own class has too many needs.

    :param owner: the module and the name of the class.
    """
    module, name = owner
    made = type(name, (), {"__module__": module, "write": lambda self, data: None})()
    vars(made).update(attributes)
    return made


def code_of(module: str, source: str) -> Callable[..., Any]:
    """A function whose frames are of another module.

    :param module: that module's name.
    :param source: code that defines ``run``, which is returned.
    """
    made = types.ModuleType(module)
    exec(source, vars(made))
    run: Callable[..., Any] = vars(made)["run"]
    return run


#: Iterates a body as gunicorn does, up to its first piece.
iterate_in_gunicorn = code_of(
    "gunicorn.workers.sync",
    """
def run(respiter):
    for piece in respiter:
        return piece
""",
)

#: A body that makes one piece, by a call with these arguments.
body_of = code_of(
    "flask_sse_lite.stand_in",
    """
def run(call, *arguments, **options):
    yield call(*arguments, **options)
""",
)


def run_on_gevent(script: str, first: str = "") -> None:
    """Run a script in a process of its own, which gevent has patched.

    :param first: what runs before that.
    """
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent is not installed")
    done = subprocess.run(
        [
            *(sys.executable, "-c"),
            f"{first}\nfrom gevent import monkey\nmonkey.patch_all()\n{script}",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patient(60.0),
    )
    assert done.returncode == 0, done.stdout


def greenlet_of(thread: threading.Thread) -> Any:
    """The greenlet that a thread is, where gevent has patched threads."""
    import gevent

    (found,) = [
        greenlet
        for greenlet in gc.get_objects()
        if isinstance(greenlet, gevent.Greenlet) and id(greenlet) == thread.ident
    ]
    return found


class WaitingHandler(logging.Handler):
    """A handler that waits for long, as one can that sends its lines away."""

    is_waiting = False

    def emit(self, record: logging.LogRecord) -> None:
        self.is_waiting = True
        time.sleep(30)


@contextmanager
def waiting_log() -> Iterator[WaitingHandler]:
    """Have whoever logs for the package wait, in a process of the test's own. Behind
    the block, nothing is logged."""
    logging.disable(logging.NOTSET)
    logger, handler = logging.getLogger("flask_sse_lite"), WaitingHandler()
    logger.propagate = False
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.addHandler(logging.NullHandler())

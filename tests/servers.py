"""Real servers for the tests, each a process of its own on a port of the loopback, and
a client that sees what they put on the wire.

Here lives how a server is started, asked and ended, whichever it is: one more is one
more line in ``COMMANDS``. What is to hold of them stands in the tests.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

import h11

from flask_sse_lite import Event
from flask_sse_lite.event import Decoder
from flask_sse_lite.testing import BOOKKEEPING

HOST = "127.0.0.1"
ROOT = Path(__file__).parent.parent

#: Where the programs lie that were installed with what the tests import.
SCRIPTS = Path(sys.executable).parent

#: The application that is served unless another is named.
CHANNELS = "tests.applications.channels:app"

#: Seconds that anything may take which does not fail. The machine may be busy.
PATIENCE = 15.0

#: Seconds that a server may take to end when it is asked to.
STOP_PATIENCE = 5.0

_GUNICORN = "-m gunicorn --bind {host}:{port} --graceful-timeout 1"
_UWSGI = (
    "--wsgi {app} --master --die-on-term --need-app --enable-threads --threads 4 "
    "{options}"
)

#: How each kind of server is started: what stands behind the interpreter's name, or a
#: program beside the interpreter.
COMMANDS = {
    "gunicorn sync": _GUNICORN + " --worker-class sync {options} {app}",
    "gunicorn gthread": _GUNICORN + " --threads 32 {options} {app}",
    "gunicorn gevent": _GUNICORN + " --worker-class gevent {options} {app}",
    "gunicorn gevent_pywsgi": _GUNICORN + " -k gevent_pywsgi {options} {app}",
    "gevent.pywsgi": "-m tests.applications.pywsgi {host} {port} {app}",
    "cheroot": "-m cheroot {app} --bind {host}:{port} {options}",
    "werkzeug": "-m flask --app {app} run --host {host} --port {port} {options}",
    "uWSGI": "{scripts}/uwsgi --http-socket {host}:{port} " + _UWSGI,
    "uWSGI behind its router": "{scripts}/uwsgi --http {host}:{port} " + _UWSGI,
}

T = TypeVar("T")


def until(condition: Callable[[], T], timeout: float = PATIENCE) -> T:
    """Wait for something that nobody tells of.

    :param timeout: seconds, after which it is a failure.
    :returns: the condition's first true value.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not so within {timeout} s"
        time.sleep(0.01)
    return value


@contextmanager
def serve(
    kind: str,
    *,
    app: str = CHANNELS,
    options: str = "",
    folder: Path = ROOT,
    **config: Any,
) -> Iterator[Server]:
    """A server that answers, until the end of the block.

    :param kind: one of ``COMMANDS``.
    :param app: what it serves, as ``module:variable``.
    :param options: more of the command line.
    :param folder: where it starts.
    :param config: the application's configuration.
    """
    with TemporaryDirectory(prefix="server-") as home, _reserved_port() as port:
        command = COMMANDS[kind].format(
            host=HOST, port=port, options=options, app=app, scripts=SCRIPTS
        )
        server = Server(port, shlex.split(command), folder, _environment(home, config))
        try:
            server.start()
            with server.watched():
                yield server
        finally:
            server.stop()


@contextmanager
def _reserved_port() -> Iterator[int]:
    """A port that nobody else is given. A server that allows its address to be used
    again can listen there, as what holds it never does; so can its successor."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, 0))
        yield holder.getsockname()[1]


def _environment(home: str, config: Mapping[str, Any]) -> dict[str, str]:
    """Our environment, but for what would configure a server, and with the package
    that stands beside these tests."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLASK_", "GUNICORN_", "WERKZEUG_", "XDG_"))
    }
    theirs = {f"FLASK_{name}": json.dumps(value) for name, value in config.items()}
    return ours | theirs | {"HOME": home, "PYTHONPATH": str(ROOT)}


class Response(NamedTuple):
    """What an ordinary request got."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Server:
    """A server process, with all that it starts."""

    def __init__(
        self,
        port: int,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self._command = list(command)
        if not command[0].startswith("/"):
            self._command.insert(0, sys.executable)
        self._folder = folder
        self._environment = environment
        self._log = Path(environment["HOME"], "log")
        self._process: subprocess.Popen[bytes] | None = None

    # Its life

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"It ended by itself:\n{self.log()}"
        try:
            return self.request("GET", "/").status < 500
        except ConnectionRefusedError:
            return False

    def stop(self) -> None:
        """End it, and see that it is gone."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        try:
            process.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        try:
            # It leads a group of its own, in which all that it started is too.
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait(STOP_PATIENCE)
        until(self._refuses)

    def _refuses(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex((HOST, self.port)) != 0

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @contextmanager
    def watched(self) -> Iterator[Server]:
        """Print what it logs meanwhile, which pytest shows when a test fails. There is
        to be no traceback in it."""
        before = len(self.log())
        try:
            yield self
        finally:
            logged = self.log()[before:]
            print(logged)
        assert "Traceback" not in logged

    # What it is asked

    def request(self, method: str, target: str, body: Any = None) -> Response:
        """An ordinary request, with JSON as its body, on a connection of its own."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, target, json.dumps(body), headers)
            answer = connection.getresponse()
            return Response(answer.status, dict(answer.headers), answer.read())
        finally:
            connection.close()

    def publish(self, *events: Mapping[str, Any]) -> list[str]:
        """Publish events, each given as the arguments of ``sse.publish``.

        :returns: their ids.
        """
        answer = self.request("POST", "/publish", events)
        assert answer.status == 200, answer
        ids: list[str] = json.loads(answer.body)
        return ids

    def close(self, channel: str) -> None:
        target = f"/close?{urlencode({'channel': channel})}"
        assert self.request("POST", target).status == 204

    def stats(self) -> dict[str, int]:
        """What the process that answers has in use."""
        numbers: dict[str, int] = json.loads(self.request("GET", "/stats").body)
        return numbers

    def stream(
        self,
        *channels: str,
        since: str = "",
        query: str = "",
        receive_buffer: int | None = None,
    ) -> Client:
        """A client that streams channels, and has read nothing but the head.

        :param since: the header ``Last-Event-ID``.
        :param query: the parameter ``last_event_id``.
        :param receive_buffer: bytes that its kernel takes in while it reads none.
        """
        parameters = [("channel", channel) for channel in channels]
        if query:
            parameters.append(("last_event_id", query))
        client = Client(self.port, receive_buffer)
        headers = {"Last-Event-ID": since} if since else {}
        client.request(f"/stream?{urlencode(parameters)}", headers=headers)
        return client


class Client:
    """One HTTP connection, which takes nothing that is framed wrongly."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((HOST, port))
        self._http = h11.Connection(h11.CLIENT)
        self._body = b""
        #: All that is left of the stream, once.
        self.events = self._decoded()
        self.status = 0
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    def leave(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Leave without a goodbye."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()

    def request(
        self,
        target: str,
        method: str = "GET",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Ask, and read the head of the answer. The one before must be at its end."""
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        fields = {"Host": HOST, **headers}
        request = h11.Request(
            method=method,
            target=target,
            headers=[(name.encode(), text.encode()) for name, text in fields.items()],
        )
        self.socket.sendall(self._http.send(request) or b"")
        self.socket.sendall(self._http.send(h11.EndOfMessage()) or b"")
        head = self._next()
        assert isinstance(head, h11.Response)
        self.status = head.status_code
        self.headers = {name.decode(): value.decode() for name, value in head.headers}

    def _next(self) -> h11.Event:
        """What HTTP says next."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(self.socket.recv(65536))
        assert isinstance(event, h11.Event)
        return event

    def read(self, size: int | None = None) -> bytes:
        """The body's next bytes, at most so many; none at its end."""
        while not self._body and self._http.their_state is h11.SEND_BODY:
            event = self._next()
            if isinstance(event, h11.Data):
                self._body = bytes(event.data)
        piece = self._body[:size]
        self._body = self._body[len(piece) :]
        return piece

    def read_exactly(self, size: int) -> bytes:
        pieces = []
        while size and (piece := self.read(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _decoded(self) -> Iterator[Event]:
        decoder = Decoder()
        deadline = time.monotonic() + PATIENCE
        while piece := self.read():
            if events := decoder.feed(piece):
                yield from events
                deadline = time.monotonic() + PATIENCE
            assert time.monotonic() < deadline, "nothing but signs of life"

    def take(self, count: int) -> list[Event]:
        """The next so many events, but for those that say where a client stands."""
        return list(
            islice((e for e in self.events if e.type not in BOOKKEEPING), count)
        )

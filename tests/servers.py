"""Real servers for the tests, each a process of its own on a port of the loopback, and
a client that sees what they put on the wire.

How a server of any kind is started, asked and ended lives here. A new kind is one more
line in ``COMMANDS``, and one in ``KINDS`` with what is peculiar to it. What must hold
of a server stands in the tests.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import shlex
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlencode

import h11

from flask_sse_lite import Event
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.own_events import BOOKKEEPING
from flask_sse_lite.testing.broker_suite.harness import until as until

from .patience import patient

HOST = "127.0.0.1"
ROOT = Path(__file__).parent.parent

#: The folder of the programs that were installed with what the tests import.
SCRIPTS = Path(sys.executable).parent

#: The application that is served unless another is named.
CHANNELS = "tests.applications.channels:app"

#: Seconds that anything may take that does not fail. The machine may be slow and busy.
PATIENCE = patient(30.0)

#: Seconds that a server may take to end when it is asked to.
STOP_PATIENCE = patient(10.0)

#: An option of gunicorn's, for tests that need a worker's last words. Without it, these
#: servers kill a worker after a second, also where a busy machine delays it.
GRACE = f"--graceful-timeout {STOP_PATIENCE - 2:.0f}"

#: A line of each traceback that is the own of gunicorn's gevent worker, and harmless.
#: The first is of a connection that it took just before it closed its listener: the
#: client is cut. The second is of a worker that was told to quit, and that had ended
#: before gunicorn's handler ended it, 0.1 s later.
HARMLESS = ("listener_name = listener.getsockname()", ", in handle_quit")


@contextmanager
def stopped(processes: Iterable[int]) -> Iterator[None]:
    """Stop processes, so that only others take requests meanwhile. (Otherwise, which
    worker takes a connection is chance: it can be one of them hundreds of times. A
    connection that was made before can be one of theirs.)"""
    stopped = {*processes}
    for process in stopped:
        os.kill(process, signal.SIGSTOP)
    try:
        until(lambda: all(_state_of(process) == "T" for process in stopped))
        yield
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)


def _state_of(process: int) -> str:
    """What the system says that a process does."""
    status = Path(f"/proc/{process}/stat").read_text()
    return status.rpartition(") ")[2][0]


def process_of(client: Client) -> int:
    """The worker that serves a client of ours."""
    return int(client.headers["x-process"])


def sockets_of(worker: int) -> set[str]:
    """What a worker has open, each by a unique name."""
    found = set()
    for descriptor in Path(f"/proc/{worker}/fd").iterdir():
        with suppress(OSError):  # It was closed meanwhile.
            found.add(os.readlink(descriptor))
    return found


def faults_in(log: str) -> int:
    """How many tracebacks a log has that are not harmless."""
    return log.count("Traceback") - sum(map(log.count, HARMLESS))


_GUNICORN = "-m gunicorn --bind {host}:{port} --graceful-timeout 1"
_UWSGI = (
    "--wsgi {app} --master --die-on-term --need-app --enable-threads --threads 4 "
    "{options}"
)

#: How each kind of server is started: the command line behind the interpreter, or a
#: program that lies beside the interpreter.
COMMANDS = {
    "gunicorn sync": _GUNICORN + " --worker-class sync {options} {app}",
    "gunicorn gthread": _GUNICORN + " --threads 32 {options} {app}",
    "gunicorn gevent": _GUNICORN + " --worker-class gevent {options} {app}",
    "gunicorn gevent_pywsgi": _GUNICORN + " -k gevent_pywsgi {options} {app}",
    "gevent.pywsgi": "-m tests.applications.pywsgi {host} {port} {app}",
    "cheroot": "-m cheroot {app} --bind {host}:{port} {options}",
    "werkzeug": "-m flask --app {app} run --host {host} --port {port} {options}",
    "waitress": "-m waitress --threads 32 --listen {host}:{port} {options} {app}",
    "program": "-m tests.applications.programs {host} {port} {app} {options}",
    "gunicorn eventlet": _GUNICORN + " -k eventlet {options} {app}",
    "adapter": "-m tests.applications.adapted {options} {host} {port} {app}",
    "uWSGI": "{scripts}/uwsgi --http-socket {host}:{port} " + _UWSGI,
    "uWSGI behind its router": "{scripts}/uwsgi --http {host}:{port} " + _UWSGI,
}

#: Numbers for channels that no other test has.
_rooms = count()


class Kind(NamedTuple):
    """A kind of server, how it delivers streams, and what is peculiar to it."""

    #: One of ``COMMANDS``.
    server: str
    #: The hub takes over the streams' connections. Otherwise the server iterates the
    #: streams.
    hands_off: bool = True
    #: More of the server's command line.
    options: str = ""
    #: What more of it has the server itself speak TLS, with ``{certificate}`` and
    #: ``{key}`` for the files; empty where the server speaks none.
    tls: str = ""
    #: What the server holds for each request while it is busy with it, under its name
    #: in ``stats``. (A pool of threads stays.)
    holds: str = "descriptors"
    #: A connection of the server serves one request after another.
    keeps_alive: bool = True
    #: The connection is also kept after a HEAD for what has no length.
    keeps_alive_after_head: bool = True
    #: What a client sends after its request reaches the worker.
    hears: bool = True
    #: The versions of HTTP in which the server sends a stream in chunks.
    chunks: tuple[str, ...] = ("1.1",)
    #: When the server is told to stop, it lets its streams end properly.
    ends_properly: bool = True
    #: What the server logs of a request for a stream, with ``{target}`` for the
    #: requested path; empty where it logs no requests.
    access_line: str = ""

    def __str__(self) -> str:
        if self.tls:
            return f"{self.server}, under TLS"
        return self.server if self.hands_off else f"{self.server}, iterated"

    def serve(
        self, *, heartbeat: float, options: str = "", **config: Any
    ) -> AbstractContextManager[Server]:
        config |= {"SSE_HEARTBEAT": heartbeat}
        if not self.hands_off and not self.tls:  # Under TLS that is not asked for.
            config["SSE_HANDOFF"] = False
        return serve(self.server, options=f"{self.options} {options}", **config)


_LOGGED = "--access-logfile -"
_LINE = '"GET {target} HTTP/1.1" 200 '

#: All servers of ``COMMANDS`` that hand connections over, each with as few threads as
#: it takes.
HANDED_OFF = [
    Kind("gunicorn sync", options=_LOGGED, keeps_alive=False, access_line=_LINE),
    Kind(
        "gunicorn gthread",
        options=f"-k gthread --threads 2 {_LOGGED}",
        access_line=_LINE,
    ),
    Kind("gunicorn gevent", options=_LOGGED, holds="greenlets", access_line=_LINE),
    Kind(
        "gunicorn gevent_pywsgi",
        options=_LOGGED,
        holds="greenlets",
        keeps_alive_after_head=False,
        # gunicorn logs the first word of an error of gevent's, here of a dead socket,
        # in place of the status.
        access_line='"GET {target} HTTP/1.1" (200|socket) ',
    ),
    Kind(
        "gevent.pywsgi",
        holds="greenlets",
        # It answers a HEAD with a last chunk behind the head, which no client expects.
        keeps_alive_after_head=False,
        access_line=_LINE,
    ),
    # A signal ends cheroot at once.
    Kind("cheroot", keeps_alive_after_head=False, ends_properly=False),
    Kind(
        "werkzeug",
        holds="threads",
        keeps_alive=False,
        # werkzeug looks at its own version of HTTP, not at the client's.
        chunks=("1.0", "1.1"),
        # A signal ends werkzeug at once, too.
        ends_properly=False,
        access_line=_LINE,
    ),
    # uWSGI frames nothing: the end of a stream is the end of its connection.
    *(
        Kind(
            server,
            keeps_alive=False,
            hears=hears,
            chunks=(),
            access_line="GET {target} => generated [0-9]+ bytes .*HTTP/1.1 200",
        )
        # The router discards what it was not told to expect.
        for server, hears in {"uWSGI": True, "uWSGI behind its router": False}.items()
    ),
]

#: Servers that iterate the streams themselves, with threads or greenlets for the tests'
#: many streams. gunicorn's sync worker is left out: its first such stream would hold
#: the whole worker.
ITERATED = [
    Kind(
        "gunicorn gthread",
        hands_off=False,
        options=_LOGGED,
        access_line=_LINE,
    ),
    Kind(
        "gunicorn gevent",
        hands_off=False,
        options=_LOGGED,
        holds="greenlets",
        access_line=_LINE,
    ),
]

KINDS = [*HANDED_OFF, *ITERATED]


@contextmanager
def descriptor_limit(limit: int | None) -> Iterator[None]:
    """Limit the file descriptors of this process, and of what it starts meanwhile; None
    for as many as there can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit or hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def serve(
    kind: str,
    *,
    app: str = CHANNELS,
    options: str = "",
    tls: ssl.SSLContext | None = None,
    folder: Path = ROOT,
    python: Sequence[str] = (),
    speaking: type[Server] | None = None,
    **config: Any,
) -> Iterator[Server]:
    """A server that answers, until the end of the block.

    :param kind: one of ``COMMANDS``.
    :param app: what it serves, as ``module:variable``.
    :param options: more of the command line.
    :param tls: how its clients speak to it, where it is told to speak TLS.
    :param folder: the server's working directory.
    :param python: how another interpreter than ours is run: its path, and options.
    :param speaking: a class that asks the server in another protocol than HTTP.
    :param config: the application's configuration.
    """
    with TemporaryDirectory(prefix="server-") as home, reserved_port() as port:
        command = COMMANDS[kind].format(
            host=HOST, port=port, options=options, app=app, scripts=SCRIPTS
        )
        words = [*python, *shlex.split(command)]
        environment = _environment(home, config)
        if kind.startswith("uWSGI"):
            # Under coverage its workers crash at their end: greenlet fails in the weak
            # references of coverage.
            environment.pop("COVERAGE_PROCESS_CONFIG", None)
        made = speaking or Server
        server = made(port, words, folder, environment, tls)
        try:
            server.start()
            with server.watched():
                yield server
        finally:
            server.stop()


def several(kind: str, workers: int) -> str:
    """The options of a gunicorn with so many workers. Its master loads the application,
    which saves each worker a second. Under gevent it must not: the standard library
    complains at a worker's end if it was patched in the master."""
    loaded = "" if "gevent" in kind else "--preload"
    return f"--workers {workers} --graceful-timeout 5 {loaded}"


#: nginx, if it is installed. Debian puts it where only root looks for programs.
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

_NGINX_CONFIGURATION = """
daemon off;
master_process off;
pid {home}/pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    uwsgi_temp_path {home}/uwsgi;
    fastcgi_temp_path {home}/fastcgi;
    scgi_temp_path {home}/scgi;
    upstream application {{
        server {upstream};
        keepalive 16;
    }}
    server {{
        listen {host}:{port};
        location / {{
            {location}
        }}
    }}
}}
"""


@contextmanager
def nginx(upstream: str, location: str) -> Iterator[Server]:
    """nginx in front of a server that runs, until the end of the block.

    :param upstream: the server's address.
    :param location: nginx's directives that pass all requests on to the server; they
        call it ``application``.
    """
    assert NGINX
    with TemporaryDirectory(prefix="nginx-") as home, reserved_port() as port:
        configuration = Path(home, "nginx.conf")
        configuration.write_text(
            _NGINX_CONFIGURATION.format(
                home=home, host=HOST, port=port, upstream=upstream, location=location
            )
        )
        command = [NGINX, "-p", home, "-e", "stderr", "-c", str(configuration)]
        server = Server(port, command, ROOT, _environment(home, {}), None)
        try:
            server.start()
            with server.watched():
                yield server
        finally:
            server.stop()


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that nobody else is given. The socket that holds it never listens, so a
    server that sets ``SO_REUSEADDR`` can listen there, and its successor too."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, 0))
        yield holder.getsockname()[1]


def _environment(home: str, config: Mapping[str, Any]) -> dict[str, str]:
    """Our environment without what would configure a server, and with the package that
    stands beside these tests."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLASK_", "GUNICORN_", "WERKZEUG_", "XDG_"))
    }
    theirs = {f"FLASK_{name}": json.dumps(value) for name, value in config.items()}
    return ours | theirs | {"HOME": home, "PYTHONPATH": str(ROOT)}


class Response(NamedTuple):
    """The answer to an ordinary request."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Server:
    """A server process, with every process that it starts."""

    def __init__(
        self,
        port: int,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        tls: ssl.SSLContext | None,
    ) -> None:
        self.port = port
        self.tls = tls
        self.url = f"{'https' if tls else 'http'}://{HOST}:{port}"
        self._command = list(command)
        if not command[0].startswith("/"):
            self._command.insert(0, sys.executable)
        self._folder = folder
        self._environment = environment
        self._log = Path(environment["HOME"], "log")
        self._process: subprocess.Popen[bytes] | None = None

    # Its life

    def start(self) -> None:
        """Start the server, and wait until it answers."""
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
        except (ConnectionRefusedError, ConnectionResetError):
            return False

    def stop(self) -> None:
        """End the server, and check that it is gone."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        try:
            process.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        try:
            # It leads a group of its own, with every process that it started.
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait(STOP_PATIENCE)
        until(self._refuses)

    def _refuses(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex((HOST, self.port)) != 0

    def signal(self, number: int) -> None:
        """Signal the process that was started: of gunicorn and uWSGI, the master."""
        assert self._process is not None
        self._process.send_signal(number)

    def workers(self) -> list[int]:
        """The processes that this process has started: of gunicorn, the workers."""
        assert self._process is not None
        pid = self._process.pid
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def wait(self, timeout: float = PATIENCE) -> None:
        """Wait until the process has ended by itself."""
        assert self._process is not None
        self._process.wait(timeout)

    def home(self, name: str) -> Path:
        """A file in the server's home folder."""
        return Path(self._environment["HOME"], name)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @contextmanager
    def watched(self) -> Iterator[Server]:
        """Print what the server logs meanwhile; pytest shows that when a test fails.
        The log must contain no traceback."""
        before = len(self.log())
        try:
            yield self
        finally:
            logged = self.log()[before:]
            print(logged)
        assert faults_in(logged) == 0

    @contextmanager
    def emptied(self) -> Iterator[Server]:
        """Watch the server, and wait until its last stream is over."""
        with self.watched():
            yield self
            until(lambda: self.stats()["streams"] == 0)

    # What it is asked

    def request(self, method: str, target: str, body: Any = None) -> Response:
        """An ordinary request, with JSON as its body, on a connection of its own.

        Its answer ends its connection. A gthread worker of gunicorn gives a kept
        connection that its client closes to its pool, and when SIGINT or SIGQUIT comes
        at that moment, gunicorn waits for itself: its handler shuts the pool down.
        """
        connection = self._connection()
        try:
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request(method, target, json.dumps(body), headers)
            answer = connection.getresponse()
            return Response(answer.status, dict(answer.headers), answer.read())
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection(HOST, self.port, timeout=PATIENCE)
        return http.client.HTTPSConnection(
            HOST, self.port, timeout=PATIENCE, context=self.tls
        )

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

    @contextmanager
    def channel(self) -> Iterator[str]:
        """A channel that nobody else has. It is closed at the end of the block, which
        ends its streams."""
        name = f"room.{next(_rooms)}"
        try:
            yield name
        finally:
            self.close(name)

    @contextmanager
    def flask(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command of ``flask`` beside the server, with the server's configuration. It
        is killed at the end of the block, or when it takes too long."""
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", CHANNELS, *words],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        guard = threading.Timer(2 * PATIENCE, process.kill)
        guard.start()
        try:
            yield process
        finally:
            guard.cancel()
            guard.join()
            process.kill()
            process.communicate()

    def stats(self) -> dict[str, int]:
        """What the answering process has in use."""
        numbers: dict[str, int] = json.loads(self.request("GET", "/stats").body)
        return numbers

    def is_served_by_another(self, process: int) -> bool:
        """Whether another process than the given one answers. (A process that is ending
        may drop the connection.)"""
        try:
            return self.stats()["process"] != process
        except (OSError, http.client.HTTPException):
            return False

    def paths(self) -> dict[str, dict[str, int]]:
        """How the answering process delivers its streams: ``sse.stats``."""
        paths: dict[str, dict[str, int]] = json.loads(
            self.request("GET", "/paths").body
        )
        return paths

    def stream(
        self,
        *channels: str,
        since: str = "",
        query: str = "",
        receive_buffer: int | None = None,
    ) -> Client:
        """A client that has asked for channels, and has read only the head.

        :param since: the header ``Last-Event-ID``.
        :param query: the parameter ``last_event_id``.
        :param receive_buffer: bytes that its kernel takes in while the client reads
            none.
        """
        parameters = [("channel", channel) for channel in channels]
        if query:
            parameters.append(("last_event_id", query))
        client = Client(self.port, receive_buffer, tls=self.tls)
        headers = {"Last-Event-ID": since} if since else {}
        try:
            client.request(f"/stream?{urlencode(parameters)}", headers=headers)
        except BaseException:
            client.leave()  # Its server may have died in between.
            raise
        return client


class Client:
    """One HTTP connection; wrong framing is an error."""

    def __init__(
        self,
        port: int,
        receive_buffer: int | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect((HOST, port))
        except BaseException:
            self.socket.close()
            raise
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=HOST)
        self._http = h11.Connection(h11.CLIENT)
        self._body = b""
        #: All that is left of the stream. It can be iterated once.
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
        """Leave by a reset, without a proper end."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()

    def request(
        self,
        target: str,
        method: str = "GET",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Send a request, and read the head of the answer. The answer before must be at
        its end."""
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
        """The next event of HTTP."""
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
        """The next so many events, without those that only tell a position."""
        return list(
            islice((e for e in self.events if e.type not in BOOKKEEPING), count)
        )

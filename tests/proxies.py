"""Real proxies for the tests, each as a file of ``examples/deploy`` sets it up, with
the block of ``docs/proxies.rst`` in it.

How such a file becomes a proxy that runs on a port of the loopback, without privileges,
lives here: what belongs around it, and where the addresses in it are replaced. What
must hold of a proxy stands in the tests.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent, indent

from .certificates import Certificate
from .servers import HOST, NGINX, PATIENCE, ROOT, Server, _environment, reserved_port

DOCUMENT = ROOT / "docs" / "proxies.rst"

#: The files that set the proxies up, each with how far the documented block is indented
#: in it.
DEPLOY = ROOT / "examples" / "deploy"
FILES = {
    "nginx": ("nginx.conf", "    "),
    "haproxy": ("haproxy.cfg", ""),
    "apache": ("apache.conf", "    "),
    "caddy": ("Caddyfile", ""),
}

#: Where the documented applications listen.
UPSTREAM = "127.0.0.1:8000"

#: Debian's modules of Apache httpd, and those that a block needs beside its own.
APACHE_MODULES = Path("/usr/lib/apache2/modules")
APACHE_LOADED = ("mpm_event", "authz_core", "alias", "proxy", "proxy_http", "asis")

#: nginx's connections, to clients and to servers together: few, so that a test can use
#: them up, and enough for a page of each kind.
NGINX_CONNECTIONS = 64

#: Debian puts servers where only root looks for programs.
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"

#: The programs, each by its proxy's name; None where one is not installed.
PROGRAMS = {
    "nginx": NGINX,
    "haproxy": shutil.which("haproxy", path=_PATH),
    "apache": shutil.which("apache2", path=_PATH),
    "caddy": shutil.which("caddy", path=_PATH),
}


def block(language: str, document: Path = DOCUMENT) -> str:
    """The only block of a document in a language."""
    pattern = rf"^\.\. code-block:: {language}\n\n((?: +.*\n|\n)+)"
    (found,) = re.findall(pattern, document.read_text("utf-8"), re.MULTILINE)
    return dedent(found).strip("\n") + "\n"


def replaced(text: str, old: str, new: str) -> str:
    """A text with a part of it replaced. The part must stand in the text."""
    assert old in text, f"{old!r} does not stand in:\n{text}"
    return text.replace(old, new)


def deployed(name: str, change: Callable[[str], str] = str) -> str:
    """The file that sets a proxy up. The documented block must stand in it.

    :param change: changes the block.
    """
    file, margin = FILES[name]
    documented = block(name)
    return replaced(
        (DEPLOY / file).read_text("utf-8"),
        indent(documented, margin),
        indent(change(documented), margin),
    )


def _nginx(text: str, home: Path, port: int, timeout: int) -> list[str]:
    listen = f"proxy_read_timeout {timeout}s; listen {HOST}:{port}"
    text = replaced(text, "listen 80", listen)
    folders = "".join(
        f"{kind}_temp_path {home}/{kind}; "
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (home / "configuration").write_text(
        f"daemon off; pid {home}/pid;\n"
        f"events {{ worker_connections {NGINX_CONNECTIONS}; }}\n"
        f"http {{ access_log off; {folders}\n{text}}}\n"
    )
    return ["-p", str(home), "-e", "stderr", "-c", str(home / "configuration")]


def _haproxy(text: str, home: Path, port: int, timeout: int) -> list[str]:
    text = replaced(text, "bind :80\n", f"bind {HOST}:{port}\n")
    text = replaced(text, "timeout server 60s", f"timeout server {timeout}s")
    (home / "configuration").write_text(text)
    return ["-db", "-f", str(home / "configuration")]


def _apache(text: str, home: Path, port: int, timeout: int) -> list[str]:
    away = home / "away.asis"
    away.write_bytes((DEPLOY / "away.asis").read_bytes())
    text = replaced(text, "<VirtualHost *:80>", f"<VirtualHost {HOST}:{port}>")
    modules = (
        f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so"
        for name in APACHE_LOADED
    )
    # httpd refuses to serve as root; as another user it needs a home that all can read.
    user = [] if os.getuid() else ["User www-data", "Group www-data"]
    home.chmod(0o755)
    lines = [
        f"ServerRoot {home}",
        f"DefaultRuntimeDir {home}",
        f"PidFile {home}/pid",
        f"ErrorLog {home}/log",
        f"ServerName {HOST}",
        f"Listen {HOST}:{port}",
        f"Timeout {timeout}",
        *user,
        *modules,
        replaced(text, "/etc/apache2/away.asis", str(away)),
    ]
    (home / "configuration").write_text("\n".join(lines))
    return ["-D", "FOREGROUND", "-f", str(home / "configuration")]


def _caddy(text: str, home: Path, port: int, timeout: int) -> list[str]:
    """Caddy has no timeout for an answer."""
    text = replaced(text, ":80 {\n", f"http://{HOST}:{port} {{\n")
    (home / "configuration").write_text(
        f"{{\n    admin off\n    auto_https off\n}}\n{text}"
    )
    return ["run", "--adapter", "caddyfile", "--config", str(home / "configuration")]


#: How each proxy is started: the arguments of its program.
ARGUMENTS: dict[str, Callable[[str, Path, int, int], list[str]]] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "apache": _apache,
    "caddy": _caddy,
}


class Careless:
    """A proxy of the tests' own, which never tells the application that a client has
    left: it reads streams on. No program that can be installed here does so; some CDNs
    do.

    :param upstream: the application's port.
    """

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._listener = socket.create_server((HOST, 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._run(self._accept)
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"

    def _run(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((HOST, self._upstream))
            self._sockets += [client, server]
            self._run(self._pass_on, client, server)
            self._run(self._pass_on, server, client)

    @staticmethod
    def _pass_on(origin: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := origin.recv(65536):
                with suppress(OSError):
                    target.sendall(data)

    def close(self) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        for one in self._sockets:
            one.close()


@contextmanager
def careless(upstream: int) -> Iterator[Careless]:
    """Such a proxy, until the end of the block."""
    made = Careless(upstream)
    try:
        yield made
    finally:
        made.close()


#: Varnish, if it is installed. Nothing of it is documented, so that it has a
#: configuration of its own.
VARNISH = shutil.which("varnishd", path=_PATH)

_VARNISH_CONFIGURATION = """
vcl 4.1;
backend default {{ .host = "{host}"; .port = "{port}"; {backend} }}
sub vcl_recv {{ {receive} }}
sub vcl_backend_response {{ {response} }}
"""


class Proxy(Server):
    """A proxy's process. It counts as started when it listens, as its answer is often
    an error."""

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"It ended by itself:\n{self.log()}"
        return not self._refuses()


@contextmanager
def proxy(
    name: str,
    upstream: int,
    *,
    timeout: int = 60,
    change: Callable[[str], str] = str,
    certificate: Certificate | None = None,
) -> Iterator[Proxy]:
    """A proxy in front of a server that answers, until the end of the block.

    :param name: one of ``PROGRAMS``.
    :param upstream: the server's port.
    :param timeout: seconds that the proxy waits for an application that says nothing.
    :param change: changes the documented block.
    :param certificate: nginx speaks TLS with it, and HTTP/2.
    """
    program = PROGRAMS[name]
    assert program
    text = replaced(deployed(name, change), UPSTREAM, f"{HOST}:{upstream}")
    if certificate:
        text = replaced(
            text,
            "listen 80;",
            f"ssl_certificate {certificate.certificate}; "
            f"ssl_certificate_key {certificate.key}; listen 80 ssl http2;",
        )
    with TemporaryDirectory(prefix=f"{name}-") as home, reserved_port() as port:
        arguments = ARGUMENTS[name](text, Path(home), port, timeout)
        environment = _environment(home, {})
        server = Proxy(port, [program, *arguments], ROOT, environment, None)
        try:
            server.start()
            with server.watched():
                yield server
        finally:
            server.stop()


@contextmanager
def varnish(
    upstream: int, *, backend: str = "", receive: str = "", response: str = ""
) -> Iterator[Proxy]:
    """Varnish in front of a server that answers, until the end of the block.

    :param upstream: the server's port.
    :param backend: more of the backend's definition.
    :param receive: what is done with a request.
    :param response: what is done with the server's response.
    """
    assert VARNISH
    with TemporaryDirectory(prefix="varnish-") as home, reserved_port() as port:
        # Its child runs as another user, who must read this.
        Path(home).chmod(0o755)
        configuration = Path(home, "configuration")
        configuration.write_text(
            _VARNISH_CONFIGURATION.format(
                host=HOST,
                port=upstream,
                backend=backend,
                receive=receive,
                response=response,
            )
        )
        command = [
            VARNISH,
            *("-F", "-n", home, "-a", f"{HOST}:{port}", "-f", str(configuration)),
            *("-s", "default,16m", "-T", "none"),
        ]
        server = Proxy(port, command, ROOT, _environment(home, {}), None)
        try:
            server.start()
            with server.watched():
                yield server
        finally:
            server.stop()

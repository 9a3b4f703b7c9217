"""Links: connections to a Redis, each for one thread at a time.

Here lives how one connection is opened, used and closed, so that no wait goes beyond
the deadline of the call that uses it. redis-py alone bounds only each single wait for a
socket. An answer that drips, a host with several addresses, or the round trips that
open a connection could then take many times as long. What is asked is unknown here.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import lru_cache
from typing import Any

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from ...system.gevent import bounded, call_in_a_thread, native
from ..deadline import Deadline


class Link:
    """A connection, for one thread at a time.

    Its methods raise redis-py's errors and those of sockets, at the deadline at the
    latest.

    :param connection_class: redis-py's, and ``options`` for it.
    """

    def __init__(
        self, connection_class: type, options: dict[str, Any], deadline: Deadline
    ) -> None:
        #: When all waits on the link end. The thread that uses the link sets it.
        self.deadline = deadline
        #: Which life of the server this link speaks to; empty where the server cannot
        #: tell it.
        self.life = ""
        #: Seconds that one wait takes at most; None where only the deadline counts.
        self.patience: float | None = None
        #: Whether the link must not be used any more.
        self.is_closed = False
        self._connection: Any = _bounded(connection_class)(
            link=self, retry=Retry(NoBackoff(), 0), **options
        )

    def open(self) -> None:
        self._connection.connect()

    def is_good(self) -> bool:
        """Whether the server seems not to have hung up meanwhile."""
        try:
            return not self.can_read(0.0)
        except (RedisError, OSError):
            return False

    def call(self, *words: Any) -> Any:
        self.send(*words)
        return self.read()

    def send(self, *words: Any) -> None:
        self._connection.send_command(*words)

    def can_read(self, timeout: float) -> bool:
        """Whether something can be read within some seconds."""
        self.patience = timeout
        try:
            return bool(self._connection.can_read(timeout))
        finally:
            self.patience = None

    def read(self) -> Any:
        return self._connection.read_response()

    def interrupt(self) -> None:
        """End the wait and all use of the link. Any thread can call this."""
        with suppress(OSError, AttributeError):
            self._connection._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection. Any thread can call this; a thread that still uses the
        link gets an error."""
        self.is_closed = True
        self._connection.disconnect()


_AS_IT_IS = nullcontext()


class _Socket:
    """A socket whose every wait ends at its link's deadline."""

    def __init__(self, real: Any, link: Link, *, is_over_tls: bool) -> None:
        self._real = real
        self._link = link
        self._is_over_tls = is_over_tls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def settimeout(self, seconds: object) -> None:
        """Ignored: redis-py's timeouts begin anew with each wait."""

    def recv(self, *arguments: Any) -> Any:
        with self._in_time():
            return self._real.recv(*arguments)

    def recv_into(self, *arguments: Any) -> Any:
        with self._in_time():
            return self._real.recv_into(*arguments)

    def sendall(self, data: Any) -> None:
        # sendall has one timeout, however many pieces the system takes.
        with self._in_time():
            self._real.sendall(data)

    def _in_time(self) -> AbstractContextManager[object]:
        seconds = self._link.patience
        if seconds != 0:
            left = _left(self._link.deadline)
            seconds = left if seconds is None else min(seconds, left)
        self._real.settimeout(seconds)
        return bounded(seconds) if self._is_over_tls and seconds else _AS_IT_IS


@lru_cache
def _timely(kind: type[socket.socket]) -> Any:
    """A class of sockets that tell, as their timeout, what their ``deadline`` leaves. A
    handshake of TLS asks for it when it begins: OpenSSL has read certificates before,
    which can have taken long.

    :param kind: the class of sockets now. gevent can replace it after this module was
        imported, as in a worker of gunicorn's under ``--preload``.
    """

    class Timely(kind):  # type: ignore[valid-type,misc]
        deadline: Deadline

        def gettimeout(self) -> float:
            # An error here would leave ssl with a socket that is half its own.
            return self.deadline.left or 0.001

    return Timely


class _Tcp(Connection):
    """redis-py's connection, whose look-up of a name ends at its link's deadline."""

    _link: Link

    def _connect(self) -> socket.socket:
        fault = OSError(f"{self.host} has no address")
        for family, kind, protocol, _, address in _addresses(
            self.host, self.port, self._link.deadline
        ):
            sock = socket.socket(family, kind, protocol)
            if isinstance(self, SSLConnection):
                timely = _timely(socket.socket)
                sock = timely(family, kind, protocol, sock.detach())
                sock.deadline = self._link.deadline
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.socket_keepalive:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    for option, value in self.socket_keepalive_options.items():
                        sock.setsockopt(socket.IPPROTO_TCP, option, value)
                sock.settimeout(_left(self._link.deadline))
                sock.connect(address)
                return sock
            except OSError as error:
                sock.close()
                fault = error
        raise fault


@lru_cache
def _bounded(connection_class: type) -> type:
    """A connection class of redis-py whose waits all end at its link's deadline."""
    bases: tuple[type, ...] = (connection_class,)
    if connection_class is Connection:
        bases = (_Tcp,)
    elif issubclass(connection_class, Connection):
        bases = (connection_class, _Tcp)  # Its calls of super() reach _Tcp.

    is_over_tls = issubclass(connection_class, SSLConnection)

    class Bounded(*bases):  # type: ignore[misc]
        def __init__(self, *, link: Link, **options: Any) -> None:
            self._link = link
            super().__init__(**options)

        @property
        def socket_timeout(self) -> float:
            return _left(self._link.deadline)

        @socket_timeout.setter
        def socket_timeout(self, seconds: object) -> None:
            pass

        socket_connect_timeout = socket_timeout

        def _connect(self) -> _Socket:
            # redis-py connects anew whenever it finds no socket, also after a close.
            if self._link.is_closed:
                raise OSError("The connection was closed")
            try:
                left = _left(self._link.deadline)  # Before a socket must be closed.
                with bounded(left) if is_over_tls else _AS_IT_IS:
                    sock = super()._connect()
            except TimeoutError as error:
                # redis-py would look for the host and the port of this error, and a
                # Unix socket has none.
                raise RedisTimeoutError(f"Timeout connecting: {error}") from error
            if self._link.is_closed:
                sock.close()
                raise OSError("The connection was closed")
            return _Socket(sock, self._link, is_over_tls=is_over_tls)

    return Bounded


def _left(deadline: Deadline) -> float:
    """:raises TimeoutError: where no time is left."""
    if left := deadline.left:
        return left
    raise TimeoutError("It does not answer")


def _addresses(host: str, port: int, deadline: Deadline) -> list[Any]:
    """The addresses of a name, as getaddrinfo gives them, within the deadline.

    :raises TimeoutError: where the name is not found in time.
    :raises OSError: where the name is unknown.
    """
    # gevent's own would give each look-up, even of an address, to its pool of threads,
    # which a signal handler cannot use (see call_in_a_thread).
    getaddrinfo = native("socket", "getaddrinfo")

    def look_up() -> list[Any]:
        found: list[Any] = getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return found

    with suppress(ValueError):
        ipaddress.ip_address(host)
        return look_up()  # An address is not looked up, only taken apart.
    # The system sets no limit to how long this takes.
    try:
        return call_in_a_thread(look_up, _left(deadline))
    except TimeoutError:
        raise TimeoutError(f"The address of {host} cannot be had") from None

"""The wire: how a doctor asks a server, and when what it answers comes.

Here lives one request whose answer a thread reads, so that each of its pieces has the
time of its arrival, and so that no wait of the doctor's is without an end. What the
pieces prove is unknown here.
"""

from __future__ import annotations

import http.client
import queue
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from ..decoder import Decoder
from ..errors import InvalidValue
from ..event import Event
from .discretion import without_secrets

#: Seconds that a connection can take to open.
CONNECT_PATIENCE = 10.0

#: Bytes of a body that are kept to look at: the beginning of a page shows what it is.
KEPT = 64 * 1024

#: What every request says, unless the operator says otherwise: what browsers say.
LIKE_A_BROWSER = {
    "Accept": "text/event-stream",
    "Cache-Control": "no-cache",
    "User-Agent": "flask-sse-doctor",
}


class Head(NamedTuple):
    """The head of an answer: its status, the names of its headers in lower case, and
    whether it is of HTTP/1.0."""

    status: int
    headers: Mapping[str, str]
    is_old: bool


class Heard(NamedTuple):
    """An event, and when it came (``time.monotonic()``)."""

    at: float
    event: Event


@dataclass
class _Piece:
    at: float
    head: Head | None = None
    data: bytes = b""
    end: str = ""


def parts_of(url: str) -> SplitResult:
    """An address, taken apart.

    :raises InvalidValue: for what is no address of HTTP.
    """
    parts = urlsplit(url)
    try:
        is_port = parts.port is None or parts.port > 0
    except ValueError:
        is_port = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_port:
        raise InvalidValue(
            "An address is like https://example.com/stream, not "
            f"{without_secrets(url)!r}"
        )
    return parts


class Answer:
    """One request, and its answer as it comes. One thread uses it.

    :param method: GET, or OPTIONS to ask whether the server answers at all.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        is_verified: bool = True,
        method: str = "GET",
    ) -> None:
        self._parts = parts_of(url)
        self._headers = {**LIKE_A_BROWSER, **headers}
        self._is_verified = is_verified
        self._method = method
        self._pieces: queue.SimpleQueue[_Piece] = queue.SimpleQueue()
        self._decoder = Decoder()
        self._socket: Any = None
        self._is_left = False
        #: When the request was begun, and what has come.
        self.began = time.monotonic()
        self.connected_after = 0.0
        self.head: Head | None = None
        self.head_at = 0.0
        self.body = b""
        self.heard: list[Heard] = []
        #: When each piece of the body came.
        self.beats: list[float] = []
        #: How the answer ended; empty while it goes on.
        self.end = ""
        self.ended_at = 0.0
        self._thread = threading.Thread(
            target=self._read, name="flask_sse_lite.doctor", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def wait(self, is_enough: Callable[[], object], seconds: float) -> bool:
        """Take what comes, until it is enough or the answer ends, for some seconds at
        most.

        :returns: whether it is enough.
        """
        deadline = time.monotonic() + seconds
        while not is_enough() and not self.end:
            try:
                left = max(0.0, deadline - time.monotonic())
                self._take(self._pieces.get(timeout=left))
            except queue.Empty:
                break
        return bool(is_enough())

    @property
    def is_left(self) -> bool:
        """Whether the doctor itself has ended this request."""
        return self._is_left

    def event(self, type: str | None) -> Heard | None:
        """The first event of a type that has come."""
        return next((h for h in self.heard if h.event.type == type), None)

    def leave(self) -> None:
        """Leave as a browser does whose page is closed. A second call does nothing."""
        self._is_left = True
        with suppress(OSError, AttributeError):
            self._socket.shutdown(2)
        self._thread.join(CONNECT_PATIENCE)

    def _take(self, piece: _Piece) -> None:
        if piece.head:
            self.head, self.head_at = piece.head, piece.at
        if piece.data:
            self.beats.append(piece.at)
            self.body = (self.body + piece.data)[:KEPT]
            events = self._decoder.feed(piece.data)
            self.heard += [Heard(piece.at, event) for event in events]
        if piece.end:
            self.end, self.ended_at = piece.end, piece.at

    # The thread that reads

    def _read(self) -> None:
        connection = self._connection()
        try:
            connection.connect()
            self.connected_after = time.monotonic() - self.began
            self._socket = connection.sock
            if self._is_left:
                return
            connection.sock.settimeout(None)
            connection.request(self._method, self._target(), headers=self._headers)
            self._read_answer(connection)
        except http.client.IncompleteRead:
            self._put(end="it was cut, without an end of its body")
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._put(end=f"{error}" or type(error).__name__)
        finally:
            connection.close()

    def _read_answer(self, connection: http.client.HTTPConnection) -> None:
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        self._put(head=Head(response.status, headers, response.version == 10))
        with response:
            while data := response.read1(65536):
                self._put(data=data)
        self._put(end="its body ended")

    def _put(self, **fields: Any) -> None:
        self._pieces.put(_Piece(time.monotonic(), **fields))

    def _target(self) -> str:
        path = self._parts.path or "/"
        return f"{path}?{self._parts.query}" if self._parts.query else path

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=CONNECT_PATIENCE)
        return http.client.HTTPSConnection(
            host,
            port,
            timeout=CONNECT_PATIENCE,
            context=_context(["http/1.1"], self._is_verified),
        )


def _context(protocols: list[str], is_verified: bool) -> ssl.SSLContext:
    """How to speak TLS.

    :param protocols: those that are offered to the server.
    """
    context = ssl.create_default_context()
    if not is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(protocols)
    return context


def speaks_http_2(url: str, is_verified: bool) -> bool:
    """Whether a server chooses HTTP/2 where a browser offers it. Nothing is asked.

    :raises OSError: where the server cannot be reached.
    """
    parts = parts_of(url)
    if parts.scheme == "http":
        return False
    context = _context(["h2", "http/1.1"], is_verified)
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port, timeout=CONNECT_PATIENCE, context=context
    )
    try:
        connection.connect()
        return bool(connection.sock.selected_alpn_protocol() == "h2")
    finally:
        connection.close()

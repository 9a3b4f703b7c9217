"""Many clients at once, in one thread. What each was sent is checked to the byte.

How clients come, are read and leave lives here. What they must get stands in the tests.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from urllib.parse import urlencode

from flask_sse_lite import Event
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.own_events import BOOKKEEPING

from .servers import HOST, PATIENCE

#: How many clients wait for their answers at the same time, where the number does not
#: matter: fewer than the backlog of any server.
IN_FLIGHT = 64

_READ_SIZE = 1 << 18


class Member:
    """One client's connection, and all that came on it.

    :param more: parameters of the request's query, beside the channels.
    """

    def __init__(
        self, channels: Sequence[str], path: str, since: str, more: Mapping[str, str]
    ) -> None:
        self.channels = channels
        self._path = path
        self._since = since
        self.more = more
        self.socket = socket.socket()
        self.status = 0
        self.headers: dict[str, str] = {}
        #: The body of an answer that is no stream.
        self.body = b""
        self.opening: Event | None = None
        self.events: list[Event] = []
        #: Whether the answer is at its end, and whether the connection is.
        self.is_whole = self.is_over = False
        self._raw = b""
        self._size = 0
        self._decoder = Decoder()

    @property
    def is_answered(self) -> bool:
        """Whether the client has its opening, or an answer without one."""
        return self.opening is not None or self.is_whole or self.is_over

    def request(self) -> bytes:
        parameters = [("channel", channel) for channel in self.channels]
        query = urlencode([*parameters, *self.more.items()])
        since = f"Last-Event-ID: {self._since}\r\n" if self._since else ""
        return (
            f"GET {self._path}?{query} HTTP/1.1\r\nHost: {HOST}\r\n"
            f"Accept: text/event-stream\r\n{since}\r\n"
        ).encode()

    def take(self, data: bytes) -> None:
        """Take what came. Empty data is the end of the connection."""
        if not data:
            self.is_over = True
            assert not self._raw, f"cut in the middle of {self._raw[:200]!r}"
            return
        assert not self.is_whole, f"more than one answer: {data!r}"
        self._raw += data
        if not self.status:
            head, separator, rest = self._raw.partition(b"\r\n\r\n")
            if not separator:
                return
            self._take_head(head.decode())
            self._raw = rest
        if self.headers.get("transfer-encoding") == "chunked":
            self._take_chunks()
        else:
            self._take_rest()

    def _take_head(self, head: str) -> None:
        status, *fields = head.split("\r\n")
        assert status.startswith("HTTP/1.1 "), status
        self.status = int(status.split()[1])
        self.headers = {
            name.lower(): value
            for name, _, value in (f.partition(": ") for f in fields)
        }

    def _take_chunks(self) -> None:
        while True:
            size, separator, rest = self._raw.partition(b"\r\n")
            if not separator:
                assert len(size) < 10, size
                return
            end = int(size, 16)
            if len(rest) < end + 2:
                return
            assert rest[end : end + 2] == b"\r\n", rest[: end + 2]
            self._raw = rest[end + 2 :]
            if not end:
                self.is_whole = True
                assert not self._raw, f"behind the end: {self._raw!r}"
                return
            self._take_body(rest[:end])

    def _take_rest(self) -> None:
        """Take a piece of a body without chunks: the end of the connection ends it, or
        its length does."""
        data, self._raw = self._raw, b""
        if data:
            self._take_body(data)
        self._size += len(data)
        if "content-length" in self.headers:
            length = int(self.headers["content-length"])
            assert self._size <= length, f"behind the end: {data!r}"
            self.is_whole = self._size == length

    def _take_body(self, data: bytes) -> None:
        if not self.headers["content-type"].startswith("text/event-stream"):
            self.body += data
            return
        for event in self._decoder.feed(data):
            if event.type not in BOOKKEEPING:
                self.events.append(event)
            elif event.type == "stream-open":
                assert self.opening is None, "two openings"
                self.opening = event

    @property
    def since(self) -> str:
        """The id from which the client would resume."""
        return self._decoder.last_event_id or self._since

    @property
    def retry(self) -> int | None:
        """The last ``retry`` that the client was sent."""
        return self._decoder.retry


class Crowd:
    """All clients of one test, which end with it.

    :param bears_resets: whether a connection can be reset before anything came on it.
        gunicorn's gevent worker resets connections that it has accepted when it stops
        listening.
    """

    def __init__(self, port: int, *, bears_resets: bool = False) -> None:
        self._port = port
        self._bears_resets = bears_resets
        self._selector = selectors.DefaultSelector()
        self.members: set[Member] = set()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for member in list(self.members):
            self.leave(member)
        self._selector.close()

    def connect(
        self, *channels: str, path: str = "/stream", since: str = "", **more: str
    ) -> Member:
        """A client that is connected, and has sent nothing.

        :param since: the header ``Last-Event-ID``.
        :param more: parameters of the request's query, beside the channels.
        """
        member = Member(channels, path, since, more)
        self.members.add(member)
        member.socket.settimeout(PATIENCE)
        member.socket.connect((HOST, self._port))
        member.socket.setblocking(False)
        self._selector.register(member.socket, selectors.EVENT_READ, member)
        return member

    def join(self, *channels: str, **options: str) -> Member:
        """A client that has asked for a stream, and has not waited for the answer.

        :param options: those of ``connect``.
        """
        member = self.connect(*channels, **options)
        self.ask(member)
        return member

    def ask(self, member: Member) -> None:
        request = member.request()
        assert member.socket.send(request) == len(request)

    def join_all(self, count: int, *channels: str, **options: str) -> list[Member]:
        """So many clients of the same channels, each with its answer."""
        members = []
        for _ in range(count):
            members.append(self.join(*channels, **options))
            self.await_answers(members[-IN_FLIGHT:], at_most=IN_FLIGHT - 1)
        self.await_answers(members)
        return members

    def await_answers(self, members: Sequence[Member], at_most: int = 0) -> None:
        """Wait until at most so many of these clients have no answer yet."""
        self.until(lambda: sum(not m.is_answered for m in members) <= at_most)

    def await_ends(self, members: Sequence[Member]) -> None:
        """Wait until the connection of each of these clients is at its end."""
        self.until(lambda: all(member.is_over for member in members))

    def until(self, condition: Callable[[], bool]) -> None:
        """Read what comes, until a condition is true."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.read(0.05)
            assert time.monotonic() < deadline, f"not so within {PATIENCE} s"

    def read(self, timeout: float = 0.0) -> None:
        """Read what has come, or comes within so many seconds."""
        for key, _ in self._selector.select(timeout):
            member: Member = key.data
            member.take(self._receive(member))
            if member.is_over or (member.is_whole and not member.opening):
                # Close at once: gunicorn's sync worker waits for that, and other
                # servers would wait for one more request.
                member.is_over = True
                self._selector.unregister(member.socket)
                member.socket.close()

    def _receive(self, member: Member) -> bytes:
        try:
            return member.socket.recv(_READ_SIZE)
        except ConnectionResetError:
            if member.status or not self._bears_resets:
                raise
            return b""

    def half_close(self, member: Member) -> None:
        """Have a client tell the server that it will send no more."""
        member.socket.shutdown(socket.SHUT_WR)

    def leave(self, member: Member) -> None:
        if not member.is_over:
            self._selector.unregister(member.socket)
        member.socket.close()
        self.members.discard(member)

    def reset(self, member: Member) -> None:
        """Leave by a reset, without a proper end."""
        linger = struct.pack("ii", 1, 0)
        member.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.leave(member)

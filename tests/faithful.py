"""A client that comes back, whatever becomes of its connection."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import h11

from .servers import PATIENCE, Client, Server

#: Seconds after which a client comes back.
COMES_BACK = 0.02


class Faithful:
    """A client that comes back as a browser does, and what it saw."""

    def __init__(self, server: Server, channel: str) -> None:
        self.data: list[str] = []
        self.gaps: list[str] = []
        self.processes: list[str] = []
        self._server = server
        self._channel = channel
        self._since = ""
        self._is_stopping = False
        self._stream: Client | None = None
        self.has_begun = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping = True

    def cut(self) -> None:
        """Cut its connection, wherever in the stream it is."""
        if stream := self._stream:
            with suppress(OSError):  # It has no connection now.
                stream.socket.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                with self._server.stream(self._channel, since=self._since) as stream:
                    # A worker that stops answers 503; the client must ask again.
                    assert stream.status in (200, 503)
                    if stream.status == 200:
                        self.processes.append(stream.headers["x-process"])
                        self._follow(stream)
            except (OSError, h11.RemoteProtocolError):
                pass  # It was cut.
            time.sleep(COMES_BACK)

    def _follow(self, stream: Client) -> None:
        self._stream = stream
        for event in stream.events:
            self._since = event.id or self._since
            self.has_begun.set()
            if event.type == "stream-gap":
                self.gaps.append(event.data)
            elif event.type is None:
                self.data.append(event.data)
                if event.data == "the end":
                    self.stop()
                    return

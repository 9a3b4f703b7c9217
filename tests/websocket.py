"""A client of WebSocket (RFC 6455), over which browsers are driven.

What is said over it stands in the file of each browser.
"""

from __future__ import annotations

import base64
import http.client
import os
import secrets
import socket
import struct

from .servers import HOST, PATIENCE

#: The bits of a frame's head: the last one of a message, and one whose payload is
#: masked, as everything must be that a client sends.
_LAST = 0x80
_MASKED = 0x80
_TEXT = 0x1
_PING = 0x9
_PONG = 0xA


class WebSocket:
    """A connection that sends and receives text."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        fields = ["Upgrade: websocket", "Connection: Upgrade"]
        fields += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        head = [f"GET {path} HTTP/1.1", f"Host: {HOST}:{port}", *fields, "", ""]
        self._socket.sendall("\r\n".join(head).encode())
        self._file = self._socket.makefile("rb")
        assert b" 101 " in self._file.readline()
        http.client.parse_headers(self._file)

    def send(self, text: str) -> None:
        self._send(_TEXT, text.encode())

    def _send(self, kind: int, payload: bytes) -> None:
        length = len(payload)
        if length < 126:
            head = struct.pack("!BB", _LAST | kind, _MASKED | length)
        elif length < 2**16:
            head = struct.pack("!BBH", _LAST | kind, _MASKED | 126, length)
        else:
            head = struct.pack("!BBQ", _LAST | kind, _MASKED | 127, length)
        # Firefox closes the connection at a mask of zeros.
        mask = secrets.token_bytes(4)
        pattern = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
        masked = (int.from_bytes(payload, "big") ^ pattern).to_bytes(length, "big")
        self._socket.sendall(head + mask + masked)

    def receive(self) -> str:
        message = b""
        while True:
            first, length = self._file.read(2)
            if length == 126:
                (length,) = struct.unpack("!H", self._file.read(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self._file.read(8))
            payload = self._file.read(length)
            if first & 0xF == _PING:
                self._send(_PONG, payload)
                continue
            message += payload
            if first & _LAST:
                return message.decode()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

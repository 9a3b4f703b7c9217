"""The address at which a phone in the same network finds this page, and its picture.

No packet is sent: the system is only asked which of its addresses it would use.
"""

from __future__ import annotations

import io
import socket
from urllib.parse import urlsplit

from flask import request

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_WILDCARDS = ("0.0.0.0", "::")


def address() -> str | None:
    """Where a phone finds this page; None where only this machine can reach it."""
    here = urlsplit(request.host_url)
    if here.hostname not in _LOOPBACK:
        return request.host_url
    if request.environ["SERVER_NAME"] not in _WILDCARDS:
        return None
    own = _own_address()
    return own and f"http://{own}:{request.environ['SERVER_PORT']}/"


def picture(url: str) -> bytes | None:
    """A QR code as SVG; None where segno is not installed."""
    try:
        import segno
    except ImportError:
        return None
    drawn = io.BytesIO()
    segno.make(url).save(drawn, kind="svg", scale=4, dark="#111", light="#fff")
    return drawn.getvalue()


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # of a network for documentation
        except OSError:
            return None
        found: str = asking.getsockname()[0]
        return found

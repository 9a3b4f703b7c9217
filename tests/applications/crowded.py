"""The channels, on a server that many clients also use for other things."""

from __future__ import annotations

import ctypes
import gc
import os
import select
import socket
import sys
from collections import Counter, defaultdict
from contextlib import ExitStack
from threading import Condition

from flask import Response, request
from flask.typing import ResponseReturnValue
from gevent import monkey

from .channels import app

__all__ = ["app"]

#: The first descriptor that select.select cannot hold (FD_SETSIZE).
END_OF_SELECT = 1024


#: Meetings by name: the requests of a meeting wait for each other.
_meetings: defaultdict[str, Condition] = defaultdict(Condition)
_present: Counter[str] = Counter()


@app.after_request
def mark(response: Response) -> Response:
    """Have each answer carry the token of its request."""
    response.headers["X-Token"] = request.args.get("token", "")
    return response


@app.after_request
def meet(response: Response) -> Response:
    """Have the answers of a meeting's requests leave together, when all of them are
    made."""
    meeting = request.args.get("meeting", "")
    if meeting:
        condition = _meetings[meeting]
        with condition:
            _present[meeting] += 1
            condition.notify_all()
            party = int(request.args["party"])
            assert condition.wait_for(lambda: _present[meeting] == party, 30.0)
    return response


@app.after_request
def replace(response: Response) -> Response:
    """Send another response than the one that was made."""
    if "replace" in request.args:
        return Response("something else")
    return response


@app.post("/echo")
def echo() -> ResponseReturnValue:
    return request.get_data(), {"Content-Type": "application/octet-stream"}


@app.get("/blocks")
def blocks() -> ResponseReturnValue:
    """How many blocks of memory Python's objects hold, without garbage. Memory that is
    free is given back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return str(sys.getallocatedblocks())


@app.get("/select")
def use_select() -> ResponseReturnValue:
    """Do as an application that knows nothing of streams: open some pipes and sockets,
    and wait for them with the real select (not gevent's replacement)."""
    real_select = select.select
    if monkey.is_module_patched("select"):
        real_select = monkey.get_original("select", "select")
    with ExitStack() as stack:
        ends: list[int] = []
        for _ in range(20):
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            stack.callback(os.close, writer)
            one, other = socket.socketpair()
            stack.enter_context(one)
            stack.enter_context(other)
            os.write(writer, b"x")
            os.write(other.fileno(), b"x")
            ends += [reader, one.fileno()]
        readable, _, _ = real_select(ends, [], [], 5.0)
        return {"highest": max(ends), "all": readable == ends}

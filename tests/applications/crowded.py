"""The channels, on a server that many clients use for other things too."""

from __future__ import annotations

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

#: What select.select can hold ends here (FD_SETSIZE).
END_OF_SELECT = 1024


#: By their names, those who wait for each other.
_meetings: defaultdict[str, Condition] = defaultdict(Condition)
_present: Counter[str] = Counter()


@app.after_request
def mark(response: Response) -> Response:
    """Have each answer name the request that it answers."""
    response.headers["X-Token"] = request.args.get("token", "")
    return response


@app.after_request
def meet(response: Response) -> Response:
    """Have the answers of requests that belong together leave together, when all of
    them are made."""
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
    """Send something else than what was made."""
    if "replace" in request.args:
        return Response("something else")
    return response


@app.post("/echo")
def echo() -> ResponseReturnValue:
    return request.get_data(), {"Content-Type": "application/octet-stream"}


@app.get("/blocks")
def blocks() -> ResponseReturnValue:
    """How many pieces of memory Python's objects have, but for garbage."""
    gc.collect()
    return str(sys.getallocatedblocks())


@app.get("/select")
def use_select() -> ResponseReturnValue:
    """What an application does that knows nothing of streams: open some pipes and
    sockets, and wait for them with the real select, whatever gevent put there."""
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

"""The channels, in an application whose views start processes, each in another way.
Every child lives for as long as the test lets it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from typing import NoReturn

from flask import request
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse

from .channels import app

__all__ = ["app"]

#: Seconds after which a forgotten child ends by itself.
LIFE = 60.0

#: Children whose end the parent waits for through an object, by process id.
_children: dict[int, BaseProcess | subprocess.Popen[bytes]] = {}


@app.post("/fork/<way>")
def fork(way: str) -> ResponseReturnValue:
    """Publish the body's ``before``, start a child, and publish ``after``, with no time
    for anyone in between.

    :returns: the child's process id.
    """
    for event in request.get_json()["before"]:
        sse.publish(**event)
    child = {
        "fork": _fork,
        "fork, and publish": _fork_and_publish,
        "multiprocessing": _multiprocess,
        "subprocess": _subprocess,
    }[way]()
    for event in request.get_json()["after"]:
        sse.publish(**event)
    return str(child)


@app.post("/fork-and-publish")
def fork_and_publish() -> ResponseReturnValue:
    """Have a child publish, and wait for its end.

    :returns: its exit status.
    """
    child = os.fork()
    if child == 0:
        try:
            sse.publish("from a child", channel=request.args["channel"])
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return str(os.waitstatus_to_exitcode(status))


@app.post("/end/<int:child>")
def end(child: int) -> ResponseReturnValue:
    """End a child, which must not have ended by itself.

    :returns: its exit status.
    """
    process = _children.pop(child, None)
    os.kill(child, signal.SIGKILL)
    if isinstance(process, BaseProcess):
        process.join()
        return str(process.exitcode)
    if process is not None:
        return str(process.wait())
    _, status = os.waitpid(child, 0)
    return str(os.waitstatus_to_exitcode(status))


def _fork() -> int:
    child = os.fork()
    if child == 0:
        _live()
    return child


def _fork_and_publish() -> int:
    child = os.fork()
    if child == 0:
        for _ in range(100):
            sse.publish("from a child", channel=request.get_json()["channel"])
        _live()
    return child


def _multiprocess() -> int:
    process = multiprocessing.get_context("fork").Process(target=_live)
    process.start()
    assert process.pid is not None
    _children[process.pid] = process
    return process.pid


def _subprocess() -> int:
    command = [sys.executable, "-c", f"import time; time.sleep({LIFE})"]
    process = subprocess.Popen(command, close_fds=False)
    _children[process.pid] = process
    return process.pid


def _live() -> NoReturn:
    """What a child does: it sleeps. Under gevent it has a copy of all of its parent's
    greenlets, which run while it sleeps."""
    if worker := getattr(signal.getsignal(signal.SIGTERM), "__self__", None):
        # A copy of gunicorn's greenlet would find its arbiter gone, and exit.
        worker.ppid = os.getppid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _take_no_clients()
    time.sleep(LIFE)
    os._exit(0)


def _take_no_clients() -> None:
    """Leave the listening sockets to the parent: under gevent a child would accept
    clients itself."""
    deaf, _ = pair = socket.socketpair()
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        try:
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                listens = copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            continue  # It is no socket.
        if listens:
            os.dup2(deaf.fileno(), descriptor)
    _kept.extend(pair)


#: Sockets that a child must keep open for its life.
_kept: list[socket.socket] = []

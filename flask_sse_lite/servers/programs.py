"""Servers inside a process that can be stopped while the process goes on:
``gevent.pywsgi``, cheroot, werkzeug's ``make_server``, waitress, wsgiref.

Here lives which of them serve streams, and whether one was stopped. That is asked once
per server, however many streams it has. What is then done is the hub's affair.
"""

from __future__ import annotations

import weakref
from typing import Any

from .server import Server


class Program:
    """One such server, from its start to its stop. It is not kept alive: one that is
    gone was stopped."""

    def __init__(self, program: object, kind: type[Server]) -> None:
        self._server = weakref.ref(program)
        # Started again, it listens with another one.
        self._socket = getattr(program, "socket", None)
        self._kind = kind
        self.grace = kind.grace(program)
        self.is_stopped = False

    def look(self) -> bool:
        """Whether it was stopped since it was first seen."""
        if not self.is_stopped:
            self.is_stopped = self._has_stopped()
        return self.is_stopped

    def _has_stopped(self) -> bool:
        program: Any = self._server()
        if program is None or getattr(program, "socket", None) is not self._socket:
            return True
        try:
            return self._kind.has_stopped(program)
        except AttributeError:
            return False  # It is of a release that does not tell.


class Programs:
    """The servers that a process has seen. Any thread may ask: of a race there comes a
    second ``Program`` of the same server, which is as good."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, Program] = (
            weakref.WeakKeyDictionary()
        )
        self._running: set[Program] = set()

    def get(self, program: object, kind: type[Server]) -> Program:
        """What is known of a server. Started again, it is another one."""
        known = self._known.get(program)
        if known is None or known.look():
            known = self._known[program] = Program(program, kind)
            self._running.add(known)
        return known

    def take_stopped(self) -> set[Program]:
        """Those that were stopped since this was last called."""
        stopped = {program for program in list(self._running) if program.look()}
        self._running -= stopped
        return stopped


#: This process's. What a forked child inherits says nothing of its own streams.
programs = Programs()


def program_of(server: Server) -> Program | None:
    """What serves a response, if it can be stopped while its process goes on."""
    program = server.program()
    if program is None:
        return None
    try:
        return programs.get(program, type(server))
    except (AttributeError, TypeError):
        return None  # It is of a release that has other attributes.

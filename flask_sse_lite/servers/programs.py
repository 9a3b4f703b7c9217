"""Servers inside a process that can be stopped while the process goes on:
``gevent.pywsgi``, cheroot, werkzeug's ``make_server``, waitress, wsgiref. Each is
called a program here.

Here lives which programs serve streams, and whether a program was stopped. That is
looked up once per program, however many streams it has. This module never ends a
stream: the hub does.
"""

from __future__ import annotations

import weakref
from typing import Any

from .server import Server


class Program:
    """One program, from its start to its stop. This holds a weak reference: a program
    that was garbage collected counts as stopped."""

    def __init__(self, program: object, kind: type[Server]) -> None:
        self._server = weakref.ref(program)
        # A program that is started again has another socket.
        self._socket = getattr(program, "socket", None)
        self._kind = kind
        self.grace = kind.grace(program)
        self.is_stopped = False

    def look(self) -> bool:
        """Whether the program was stopped since it was first seen."""
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
            return False  # This release of the server lacks the attribute.


class Programs:
    """The programs that this process has seen. Any thread can call this. A race between
    two threads makes two ``Program`` objects for one program, and either works."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, Program] = (
            weakref.WeakKeyDictionary()
        )
        self._running: set[Program] = set()

    def get(self, program: object, kind: type[Server]) -> Program:
        """The ``Program`` of a server. A server that was stopped and started again gets
        a new one."""
        known = self._known.get(program)
        if known is None or known.look():
            known = self._known[program] = Program(program, kind)
            self._running.add(known)
        return known

    def take_stopped(self) -> set[Program]:
        """The programs that were stopped since the last call."""
        stopped = {program for program in list(self._running) if program.look()}
        self._running -= stopped
        return stopped


#: The programs of this process. A forked child inherits its parent's, which tell it
#: nothing of its own streams.
programs = Programs()


def program_of(server: Server) -> Program | None:
    """The program that serves a response. None where the server cannot be stopped while
    its process goes on."""
    program = server.program()
    if program is None:
        return None
    try:
        return programs.get(program, type(server))
    except (AttributeError, TypeError):
        return None  # This release of the server has other attributes.

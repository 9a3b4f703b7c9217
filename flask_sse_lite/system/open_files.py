"""File descriptors: which numbers streams get, and how many streams there can be.

Streams take high numbers and leave the low ones to the application and its server, for
two reasons. ``select.select``, which an application can use, fails with a descriptor of
1024 or more. A server that has no descriptor left for ``accept`` can die.

This module only counts: it never opens, moves or closes a descriptor.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    import resource

#: The lowest descriptor of a stream. A process whose limit is below twice this number
#: gives streams the upper half instead.
FIRST = 1024

#: Descriptors in the upper range that are not streams: the server inherited some of
#: them, and other libraries moved some of theirs up too.
STRAY = 16

#: Descriptors that a server needs beside its connections: listeners, pipes, log files.
SERVER_OWN = 64

#: The number of streams where the system sets no limit.
UNLIMITED = sys.maxsize


def first_descriptor() -> int:
    """The lowest descriptor that a stream can get."""
    return min(FIRST, _limit() // 2)


def room_for_streams(server_connections: int = 0, limit: int | None = None) -> int:
    """How many streams a process can hold.

    :param server_connections: how many connections the server itself can hold.
    :param limit: how many files the process can have open; None for this process.
    """
    limit = _limit() if limit is None else limit
    if limit == UNLIMITED:
        return UNLIMITED
    reserve = max(min(FIRST, limit // 2), server_connections + SERVER_OWN)
    return limit - min(reserve, limit // 2) - STRAY


def descriptors_lacking(server_connections: int) -> int:
    """By how much the limit must be raised, so that the server has enough descriptors
    beside the streams; 0 where it has. Streams can take half of all descriptors, so the
    limit must be twice what the server needs.

    :param server_connections: how many connections the server itself can hold.
    """
    limit = _limit()
    return max(0, 2 * (server_connections + SERVER_OWN) - limit)


def _limit() -> int:
    if sys.platform == "win32":
        return UNLIMITED
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft

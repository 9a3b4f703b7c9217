"""File descriptors: which of them streams get, and how many there can be.

Streams take high numbers and leave the low ones to the application and its server:
``select.select`` in an application's own code holds none from 1024 on, and a server
that finds none left for ``accept`` may die of it.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    import resource

#: Where streams begin, unless a process has fewer than twice as many in all.
FIRST = 1024

#: Descriptors in the upper range that are not streams: some that the server inherited,
#: or that other libraries moved up too.
STRAY = 16

#: Descriptors that a server has beside its connections: listeners, pipes, log files.
SERVER_OWN = 64

#: The number of streams where nothing bounds it.
UNLIMITED = sys.maxsize


def first_descriptor() -> int:
    """The lowest that a stream may have."""
    return min(FIRST, _limit() // 2)


def room_for_streams(server_connections: int = 0) -> int:
    """How many streams there can be.

    :param server_connections: how many connections the server itself may hold.
    """
    limit = _limit()
    if limit == UNLIMITED:
        return UNLIMITED
    reserve = max(first_descriptor(), server_connections + SERVER_OWN)
    return limit - min(reserve, limit // 2) - STRAY


def descriptors_lacking(server_connections: int) -> int:
    """By how much the limit is too low for what the server itself may hold: streams
    leave it half of the descriptors at least, and all that it needs where they can."""
    limit = _limit()
    return max(0, 2 * (server_connections + SERVER_OWN) - limit)


def _limit() -> int:
    if sys.platform == "win32":
        return UNLIMITED
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft

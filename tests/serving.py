"""A server of the standard library, in a thread of the test's own process.

Servers that are processes of their own live in servers.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import BaseServer
from typing import TypeVar

S = TypeVar("S", bound=BaseServer)

#: Seconds until a server notices that it is to stop.
LOOK = 0.02


@contextmanager
def serving(server: S, end: Callable[[], object] = lambda: None) -> Iterator[S]:
    """Have a server serve, and stop and close it at the exit.

    :param end: called before it stops; ends what its requests still do.
    """
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(LOOK,))
        thread.start()
        try:
            yield server
        finally:
            end()
            server.shutdown()
            thread.join()

"""Threads, where gevent has put greenlets in their place.

Here lives how something that blocks is done beside a gevent worker's greenlets, and how
the end of a greenlet is told from an error.
"""

# An application that checks its types need not have those of gevent.
# mypy: disable-error-code="import-untyped,import-not-found"

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_natively(function: Callable[[], T]) -> T:
    """Call a function that blocks. Under a monkey-patched gevent a native thread does,
    while other greenlets run."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return function()
    import gevent

    try:
        result: T = gevent.get_hub().threadpool.apply(function)
    except RuntimeError:
        return function()  # The interpreter ends, and begins no thread any more.
    return result


def can_wait() -> bool:
    """Whether who calls this can wait for anything. gevent's own greenlet cannot, in
    which a handler of ``signal.signal`` runs while all others wait."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return True
    import gevent

    return gevent.getcurrent() is not gevent.get_hub()


def is_kill(error: BaseException) -> bool:
    """Whether somebody has killed the greenlet that this was raised in."""
    gevent = sys.modules.get("gevent")
    return gevent is not None and isinstance(error, gevent.GreenletExit)

"""What differs where gevent has replaced threads by greenlets.

Here lives how a blocking call is made while a gevent worker's other greenlets run, and
how a killed greenlet is told from one that failed. How the hub waits lives in
``poller``.
"""

# An application can check its types without having gevent's types installed.
# mypy: disable-error-code="import-untyped,import-not-found"

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_natively(function: Callable[[], T]) -> T:
    """Call a function that blocks. Under a monkey-patched gevent, a native thread calls
    it, and other greenlets run meanwhile."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return function()
    import gevent
    from gevent.exceptions import LoopExit

    try:
        pending = gevent.get_hub().threadpool.spawn(function)
    except RuntimeError:
        # The interpreter is ending and starts no thread: this one calls it.
        return function()
    while True:
        try:
            result: T = pending.get()
            return result
        except LoopExit:
            # A signal handler that interrupted this greenlet, and waited itself, was
            # given the wake-up that was meant for us.
            gevent.sleep(0)


def can_wait() -> bool:
    """Whether the caller can wait. gevent's hub greenlet cannot. A handler of
    ``signal.signal`` runs in that greenlet when all others wait."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return True
    import gevent

    return gevent.getcurrent() is not gevent.get_hub()


def is_kill(error: BaseException) -> bool:
    """Whether an exception means that its greenlet was killed, and did not fail."""
    gevent = sys.modules.get("gevent")
    return gevent is not None and isinstance(error, gevent.GreenletExit)

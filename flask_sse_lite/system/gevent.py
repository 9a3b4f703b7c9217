"""What differs where gevent has replaced threads by greenlets.

Here lives whether gevent has done so, what was there before, how a blocking call is
made while a gevent worker's other greenlets run, and how a killed greenlet is told from
one that failed. How the hub waits lives in ``poller``.
"""

# An application can check its types without having gevent's types installed.
# mypy: disable-error-code="import-untyped,import-not-found"

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")


def is_patched_by_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def native(module: str, name: str) -> Any:
    """A function or class as it was before gevent replaced it."""
    if is_patched_by_gevent():
        return _replaced(module, name)
    return getattr(sys.modules[module], name)


@lru_cache
def _replaced(module: str, name: str) -> Any:
    return sys.modules["gevent.monkey"].get_original(module, name)


def wait_natively(function: Callable[[], T]) -> T:
    """Call a function that blocks. Under a monkey-patched gevent, a native thread calls
    it, and other greenlets run meanwhile."""
    return call_in_a_thread(function) if is_patched_by_gevent() else function()


def call_in_a_thread(function: Callable[[], T], seconds: float | None = None) -> T:
    """Call a function that blocks in a native thread, and wait for it.

    gevent's own pool of threads is not used. While a greenlet gives the pool something
    to do, it holds a native lock. A signal handler that interrupted the greenlet then,
    and needed the pool itself, would wait for that lock for ever.

    :param function: must use nothing that gevent has patched.
    :param seconds: to wait at most; None for no limit. Then the thread goes on alone.
    :raises TimeoutError: where the function has not returned in time.
    """
    outcome: list[tuple[T | None, BaseException | None]] = []
    wake, wait = _greenlet_s_sleep() if is_patched_by_gevent() else _thread_s_sleep()

    def call() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))
        finally:
            wake()

    try:
        native("_thread", "start_new_thread")(call, ())
    except RuntimeError:
        call()  # The interpreter is ending and starts no thread: this one calls it.
    end = None if seconds is None else monotonic() + seconds
    while not outcome:
        left = None if end is None else end - monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        wait(left)
    result, error = outcome.pop()
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def _thread_s_sleep() -> tuple[Callable[[], None], Callable[[float | None], object]]:
    """What wakes the thread that sleeps, and how it sleeps for some seconds."""
    asleep = threading.Lock()
    asleep.acquire()
    return asleep.release, lambda seconds: asleep.acquire(
        timeout=-1 if seconds is None else seconds
    )


def _greenlet_s_sleep() -> tuple[Callable[[], None], Callable[[float | None], object]]:
    """What wakes the greenlet that sleeps, from a native thread, and how it sleeps."""
    import gevent
    from gevent.event import Event
    from gevent.exceptions import LoopExit

    is_over = Event()
    waker = gevent.get_hub().loop.async_()

    def end() -> None:
        waker.close()
        is_over.set()

    def wait(seconds: float | None) -> None:
        try:
            is_over.wait(seconds)
        except LoopExit:
            # A signal handler that interrupted this greenlet, and waited itself, was
            # given the wake-up that was meant for us.
            gevent.sleep(0)

    waker.start(end)
    return waker.send, wait


def bounded(seconds: float) -> AbstractContextManager[object]:
    """Bound all waits of a block, together, where gevent has replaced ``ssl``: its
    sockets wait anew for each piece that comes. Python's own have one bound.

    :raises TimeoutError: in the block, where it takes longer.
    """
    if not is_patched_by_gevent():
        return nullcontext()
    import gevent

    bound: AbstractContextManager[object] = gevent.Timeout(
        seconds, TimeoutError("It does not answer")
    )
    return bound


def can_wait() -> bool:
    """Whether the caller can wait. gevent's hub greenlet cannot. A handler of
    ``signal.signal`` runs in that greenlet when all others wait."""
    if not is_patched_by_gevent():
        return True
    import gevent

    return gevent.getcurrent() is not gevent.get_hub()


def is_kill(error: BaseException) -> bool:
    """Whether an exception means that its greenlet was killed, and did not fail."""
    gevent = sys.modules.get("gevent")
    return gevent is not None and isinstance(error, gevent.GreenletExit)

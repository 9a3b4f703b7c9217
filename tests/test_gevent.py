"""How a blocking call is made beside greenlets. On threads, the caller blocks."""

from __future__ import annotations

import sys
import threading
import types

import pytest

from flask_sse_lite.system.gevent import can_wait, is_kill, wait_natively

from .stand_ins import run_on_gevent


def test_on_threads_it_is_done_here() -> None:
    assert wait_natively(threading.get_ident) == threading.get_ident()
    assert can_wait()


def test_a_kill_is_told_from_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    gevent = types.ModuleType("gevent")
    vars(gevent)["GreenletExit"] = type("GreenletExit", (BaseException,), {})
    monkeypatch.setitem(sys.modules, "gevent", gevent)
    assert is_kill(vars(gevent)["GreenletExit"]())
    assert not is_kill(GeneratorExit())
    monkeypatch.delitem(sys.modules, "gevent")
    assert not is_kill(GeneratorExit())


def test_on_gevent_a_native_thread_does_it_while_greenlets_run() -> None:
    run_on_gevent(
        """
import threading
import gevent
from flask_sse_lite.system.gevent import wait_natively
native = monkey.get_original("threading", "get_ident")
allowed = monkey.get_original("threading", "Event")()
gevent.spawn(allowed.set)

def block():
    assert allowed.wait(20)
    return native()

assert wait_natively(block) != native()
"""
    )


def test_at_the_interpreters_end_it_is_done_here() -> None:
    run_on_gevent(
        """
from flask_sse_lite.system.gevent import wait_natively

def refuse(function, arguments):
    raise RuntimeError("can't start new thread at interpreter shutdown")

monkey.saved["_thread"]["start_new_thread"] = refuse
assert wait_natively(lambda: "done") == "done"
"""
    )


WAITS = """
import threading, time
import pytest
from flask_sse_lite.system.gevent import call_in_a_thread, native

allowed = native("threading", "Event")()
has_ended = native("threading", "Event")()

def block():
    assert allowed.wait(20)
    has_ended.set()

def fail():
    raise LookupError("it is unknown")

assert call_in_a_thread(lambda: 7) == call_in_a_thread(lambda: 7, seconds=20) == 7
with pytest.raises(LookupError, match="it is unknown"):
    call_in_a_thread(fail, seconds=20)
with pytest.raises(TimeoutError):
    call_in_a_thread(block, seconds=0.01)
allowed.set()
assert has_ended.wait(20)
time.sleep(0.01)  # Nobody waits for it any more, and its end does no harm.
assert call_in_a_thread(lambda: 8) == 8
"""


def test_a_call_in_a_thread_is_waited_for_as_long_as_is_said() -> None:
    exec(WAITS, {})
    run_on_gevent(WAITS)


def test_gevents_own_pool_of_threads_is_not_needed() -> None:
    """A signal handler can interrupt a greenlet that holds the pool's lock."""
    run_on_gevent(
        """
import gevent
from flask_sse_lite.system.gevent import wait_natively

with gevent.get_hub().threadpool.task_queue._mutex:
    assert wait_natively(lambda: 7) == 7
"""
    )


def test_gevents_own_greenlet_cannot_wait() -> None:
    run_on_gevent(
        """
import gevent
from flask_sse_lite.system.gevent import can_wait
from gevent.event import AsyncResult
found = AsyncResult()
gevent.get_hub().loop.run_callback(lambda: found.set(can_wait()))
assert found.get(timeout=10) is False
assert can_wait()
"""
    )


def test_who_was_robbed_of_its_wake_up_asks_again() -> None:
    """A signal handler that interrupts a greenlet, and waits, can take the wake-up that
    was meant for the greenlet."""
    run_on_gevent(
        """
import gevent.event
from gevent.exceptions import LoopExit
from flask_sse_lite.system.gevent import native, wait_natively

was_robbed = native("_thread", "allocate_lock")()
was_robbed.acquire()

class Robbed(gevent.event.Event):
    errors = [LoopExit("robbed"), LoopExit("robbed again")]

    def wait(self, timeout=None):
        if self.errors:
            raise self.errors.pop()
        if was_robbed.locked():
            was_robbed.release()
        return super().wait(timeout)

gevent.event.Event = Robbed
# The function must not be done before somebody waits for it.
assert wait_natively(was_robbed.acquire)
assert not Robbed.errors
"""
    )

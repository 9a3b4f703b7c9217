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
from types import SimpleNamespace
import gevent
from flask_sse_lite.system.gevent import wait_natively

def refuse(function):
    raise RuntimeError("can't start new thread at interpreter shutdown")

gevent.get_hub = lambda: SimpleNamespace(threadpool=SimpleNamespace(spawn=refuse))
assert wait_natively(lambda: "done") == "done"
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
from types import SimpleNamespace
import gevent
from gevent.exceptions import LoopExit
from flask_sse_lite.system.gevent import wait_natively

class Robbed:
    def __init__(self, function):
        self.answers = [LoopExit("robbed"), LoopExit("robbed again"), function()]

    def get(self):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

gevent.get_hub = lambda: SimpleNamespace(threadpool=SimpleNamespace(spawn=Robbed))
assert wait_natively(lambda: 7) == 7
"""
    )

"""Own threads: what an application has started when it was loaded.

A doctor's process has loaded the application as a server does. Here lives whose thread
a thread is. What follows from that is unknown here.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
from typing import Any

#: A library whose threads do an application's work.
SCHEDULER = "apscheduler"

#: Where code lies that is no application's own: Python's, and in such folders.
PYTHONS = sysconfig.get_path("stdlib")
PACKAGES = ("site-packages", "dist-packages")


def own_threads() -> list[str]:
    """The names of threads that run an application's own code, or its scheduler."""
    return sorted(thread.name for thread in threading.enumerate() if _is_own(thread))


def _is_own(thread: threading.Thread) -> bool:
    name = _module_of(thread)
    package = name.partition(".")[0]
    if package in ("", "threading", "__main__", __name__.partition(".")[0]):
        return False
    if package == SCHEDULER:
        return True
    file = getattr(sys.modules.get(name), "__file__", None) or PYTHONS
    return not file.startswith(PYTHONS) and not any(part in file for part in PACKAGES)


def _module_of(thread: threading.Thread) -> str:
    """The module of what a thread runs: its target, the function of its timer, or its
    class."""
    run: Any = getattr(thread, "_target", None) or getattr(thread, "function", None)
    return getattr(run, "__module__", None) or type(thread).__module__

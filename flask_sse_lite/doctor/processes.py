"""Processes: the servers that run on this machine in this folder, as the system shows
them.

Here lives how a server is recognized by its command line, and what follows from its
options. A server that runs elsewhere, or as another user, is not seen: the account that
it gives to a visit tells more. Where no server runs, what a gunicorn would be told in
this folder is judged in its place.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import suppress

from flask import Flask

from ..channels import Channels
from ..servers.server import ENOUGH_REQUESTS
from ..system.open_files import room_for_streams
from . import gunicorn_options, gunicorn_settings
from .gunicorn_settings import UNREAD
from .report import Report
from .running import Running

#: Where the system shows its processes.
PROC = "/proc"

#: The programs that serve, each with what codes calls it. The first word of a command
#: line that names one decides.
PROGRAMS = {
    "gunicorn": "gunicorn",
    "uwsgi": "uWSGI",
    "pyuwsgi": "uWSGI",
    "uvicorn": "uvicorn",
    "hypercorn": "hypercorn",
    "waitress": "waitress",
    "waitress-serve": "waitress",
}

#: Those of them that are adapters of ASGI.
ADAPTERS = ("uvicorn", "hypercorn")

#: An application's name: a module, and a name in it. Other words have colons, too, such
#: as addresses and URLs.
APPLICATION = re.compile(r"[a-z_][\w.]*:[a-z_]", re.IGNORECASE)

#: Words of a command line among which the program is: the interpreter, -m, the program.
FIRST_WORDS = 3


def examine(app: Flask, channels: Channels, report: Report) -> None:
    """Look at the servers of an application that run here."""
    modules = {app.import_name, os.environ.get("FLASK_APP", "")}
    packages = {_package(module) for module in modules} - {""}
    found = list(servers(packages)) or list(_intended(packages))
    for server in found:
        _judge(channels, server, report)
    if not found:
        report.unknown(
            "workers",
            "no server of this application runs in this folder, that this user can "
            "see. With --url, the server tells it.",
        )


def servers(packages: Set[str]) -> Iterator[Running]:
    """The servers whose folder is this process's, and whose command line names a module
    of one of these packages."""
    seen = {pid: words for pid in _pids() if (words := _words(pid))}
    parents = {pid: _parent(pid) for pid in seen}
    children = Counter(parents.values())
    here = os.getcwd()
    for pid, words in seen.items():
        name = _program(words)
        if not name or _program(seen.get(parents[pid], ())) == name:
            continue  # It is none, or a worker of one.
        with suppress(OSError):
            if os.readlink(f"{PROC}/{pid}/cwd") == here and pid != os.getpid():
                words, sources = _all_words(pid, name, words, here)
                if packages.isdisjoint(map(_package, _names(words))):
                    continue  # Another application lives in this folder, too.
                yield Running(name, pid, children[pid], words, _limit(pid), sources)


def _intended(packages: Set[str]) -> Iterator[Running]:
    """The gunicorn that would be started in this folder, where something tells how."""
    words, sources = gunicorn_settings.told(os.environ, (), os.getcwd())
    # (A file of Python that gunicorn is told of is one of settings.)
    names = {_package(name) for name in _names(words) if not name.endswith(".py")}
    if sources and not (names and packages.isdisjoint(names)):
        yield Running("gunicorn", 0, 0, words, None, sources)


def _pids() -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir(PROC) if name.isdecimal()]
    return []


def _words(pid: int) -> tuple[str, ...]:
    """A process's command line. gunicorn can show another, with a setproctitle."""
    with suppress(OSError), open(f"{PROC}/{pid}/cmdline", "rb") as file:
        return tuple(file.read().decode(errors="replace").rstrip("\0").split("\0"))
    return ()


def _program(words: tuple[str, ...]) -> str:
    if words and words[0].startswith("gunicorn:"):
        return "gunicorn"
    for word in words[:FIRST_WORDS]:
        if name := PROGRAMS.get(os.path.basename(word)):
            return name
    return ""


def _names(words: tuple[str, ...]) -> Iterator[str]:
    """What on a command line can name an application: ``shop:app``, ``shop.py``; in a
    title that setproctitle has set, ``gunicorn: master [shop:app]``."""
    for word in words:
        for part in word.strip("]").split("["):
            if APPLICATION.match(part) or part.endswith(".py"):
                yield part


def _package(name: str) -> str:
    """The outermost package of an application's name."""
    module = os.path.basename(name.partition(":")[0]).removesuffix(".py")
    return module.partition(".")[0]


def _parent(pid: int) -> int:
    with suppress(OSError, ValueError), open(f"{PROC}/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])
    return 0


def _all_words(
    pid: int, name: str, words: tuple[str, ...], folder: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A server's options, and what says some of them beside its command line."""
    if name != "gunicorn":
        return words, ()
    beside, sources = gunicorn_settings.told(_variables(pid), words, folder)
    return (*beside, *words), sources


def _variables(pid: int) -> dict[str, str]:
    """A process's environment, as it was when the process began."""
    with suppress(OSError), open(f"{PROC}/{pid}/environ", "rb") as file:
        text = file.read().decode(errors="replace")
        return dict(e.split("=", 1) for e in text.split("\0") if "=" in e)
    return {}


def _limit(pid: int) -> int | None:
    with suppress(OSError), open(f"{PROC}/{pid}/limits", encoding="utf-8") as file:
        if match := re.search(r"^Max open files\s+(\d+)", file.read(), re.MULTILINE):
            return int(match[1])
    return None


# What follows


def _judge(channels: Channels, server: Running, report: Report) -> None:
    _judge_workers(channels, server, report)
    if server.name in ADAPTERS:
        report.wrong(
            "asgi-adapter",
            f"{server.name}, a server of ASGI, serves from this folder. Its adapter "
            "never tells a WSGI application that a client has left.",
            server.how,
        )
    _judge_recycling(server, report)
    most = channels.settings.max_connections
    if most is not None and server.limit is not None:
        _judge_limit(server.limit, most, report, server.how)
    if server.name == "gunicorn":
        gunicorn_options.judge(server, channels, report)


def _judge_workers(channels: Channels, server: Running, report: Report) -> None:
    count, said = _workers(server), server.option("--workers", "-w")
    if not channels.broker.is_shared and not server.pid and said == UNREAD:
        report.unknown(
            "workers",
            f"{' and '.join(server.sources)} can ask for several: the number is made "
            "by code, which the doctor does not run.",
        )
    elif (variable := gunicorn_options.other_broker(server)) and count > 1:
        report.unknown(
            "workers",
            f"the server has a {variable} of its own, which this command has not.",
        )
    elif count > 1 and not channels.broker.is_shared:
        report.wrong(
            "workers",
            f"The server runs several worker processes ({count}), and SSE_URL is "
            "memory://, which is one process's own: a browser sees only what its own "
            "worker publishes.",
            server.how,
        )
    else:
        report.ok("workers", f"{server.name} has {count} worker(s).")


def _workers(server: Running) -> int:
    options = {
        "gunicorn": ("--workers", "-w"),
        "uWSGI": ("--processes", "--workers", "-p"),
        "uvicorn": ("--workers",),
        "hypercorn": ("--workers", "-w"),
    }
    said = server.option(*options.get(server.name, ()))
    if said.isdecimal():
        return int(said)
    # uWSGI without a master serves itself; gunicorn's workers are its children.
    return max(1, server.workers if server.name == "gunicorn" else 1)


def _judge_recycling(server: Running, report: Report) -> None:
    harmful = [
        f"{option} {value}"
        for option in ("--max-requests", "--cheaper", "--idle")
        if (value := server.option(option)) not in ("", UNREAD)
        and not (option == "--max-requests" and _is_enough(value))
    ]
    if harmful:
        report.warning(
            "server-options",
            f"{server.name} has options that end workers, and all of their streams: "
            f"{', '.join(harmful)}.",
            server.how,
        )


def _is_enough(value: str) -> bool:
    return value.isdecimal() and (int(value) == 0 or int(value) >= ENOUGH_REQUESTS)


def _judge_limit(limit: int, most: int, report: Report, how: str) -> None:
    room = room_for_streams(limit=limit)
    if most > room:
        report.wrong(
            "open-files",
            f"SSE_MAX_CONNECTIONS is {most}, and the server's process has file "
            f"descriptors for {room} streams.",
            f"{how} Its limit on open files is {limit}.",
        )

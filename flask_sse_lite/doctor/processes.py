"""Processes: the servers that run on this machine in this folder, as the system shows
them.

Here lives how a server is recognized by its command line, and what follows from its
options. A server that runs elsewhere, or as another user, is not seen: the account that
it gives to a visit tells more.
"""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import suppress
from typing import NamedTuple

from flask import Flask

from ..channels import Channels
from ..servers.server import ENOUGH_REQUESTS
from ..system.open_files import room_for_streams
from .report import Report

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

#: Words of a command line among which the program is: the interpreter, -m, the program.
FIRST_WORDS = 3


class Running(NamedTuple):
    """A server: its master process, how many processes it has started, its options, and
    the limit on its open files, if that is known."""

    name: str
    pid: int
    workers: int
    words: tuple[str, ...]
    limit: int | None

    def option(self, *names: str) -> str:
        """The value of the last of these options on the command line; ``"yes"`` where
        it has none; empty where it is not given."""
        found = ""
        for word, following in zip(self.words, (*self.words[1:], ""), strict=True):
            name, equals, value = word.partition("=")
            if name in names:
                bare = "yes" if following.startswith("-") else following or "yes"
                found = value if equals else bare
            elif len(word) > 2 and word[:2] in names and not word.startswith("--"):
                found = word[2:]
        return found


def examine(app: Flask, channels: Channels, report: Report) -> None:
    """Look at the servers of an application that run here."""
    modules = {app.import_name, os.environ.get("FLASK_APP", "")}
    found = list(servers({_package(module) for module in modules} - {""}))
    if not found:
        _judge_intention(channels, report)
        return
    for server in found:
        _judge(channels, server, report)


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
                if packages.isdisjoint(map(_package, _names(words))):
                    continue  # Another application lives in this folder, too.
                words = (*_environment_words(pid, name), *words)
                yield Running(name, pid, children[pid], words, _limit(pid))


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
            if ":" in part or part.endswith(".py"):
                yield part


def _package(name: str) -> str:
    """The outermost package of an application's name."""
    module = os.path.basename(name.partition(":")[0]).removesuffix(".py")
    return module.partition(".")[0]


def _parent(pid: int) -> int:
    with suppress(OSError, ValueError), open(f"{PROC}/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])
    return 0


def _environment_words(pid: int, name: str) -> tuple[str, ...]:
    """What the environment adds to gunicorn's command line, which goes before it."""
    if name != "gunicorn":
        return ()
    with suppress(OSError, ValueError), open(f"{PROC}/{pid}/environ", "rb") as file:
        text = file.read().decode(errors="replace")
        variables = dict(e.split("=", 1) for e in text.split("\0") if "=" in e)
        words = shlex.split(variables.get("GUNICORN_CMD_ARGS", ""))
        if count := variables.get("WEB_CONCURRENCY"):
            words = [f"--workers={count}", *words]
        return tuple(words)
    return ()


def _limit(pid: int) -> int | None:
    with suppress(OSError), open(f"{PROC}/{pid}/limits", encoding="utf-8") as file:
        if match := re.search(r"^Max open files\s+(\d+)", file.read(), re.MULTILINE):
            return int(match[1])
    return None


# What follows


def _judge_intention(channels: Channels, report: Report) -> None:
    """Judge what the environment would have a gunicorn do."""
    count = os.environ.get("WEB_CONCURRENCY", "")
    if count.isdecimal() and int(count) > 1 and not channels.broker.is_shared:
        _judge_several(report, int(count), "WEB_CONCURRENCY says so.")
        return
    report.unknown(
        "workers",
        "no server of this application runs in this folder, that this user can see. "
        "With --url, the server tells it.",
    )


def _judge(channels: Channels, server: Running, report: Report) -> None:
    how = f"The process {server.pid} is {server.name}, with {server.workers} others."
    count = _workers(server)
    if count > 1 and not channels.broker.is_shared:
        _judge_several(report, count, how)
    else:
        report.ok("workers", f"{server.name} has {count} worker(s).")
    if server.name in ADAPTERS:
        report.wrong(
            "asgi-adapter",
            f"{server.name}, a server of ASGI, serves from this folder. Its adapter "
            "never tells a WSGI application that a client has left.",
            how,
        )
    _judge_recycling(server, report, how)
    most = channels.settings.max_connections
    if most is not None and server.limit is not None:
        _judge_limit(server.limit, most, report, how)


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


def _judge_several(report: Report, count: int, how: str) -> None:
    report.wrong(
        "workers",
        f"The server runs several worker processes ({count}), and SSE_URL is "
        "memory://, which is one process's own: a browser sees only what its own "
        "worker publishes.",
        how,
    )


def _judge_recycling(server: Running, report: Report, how: str) -> None:
    harmful = [
        f"{option} {value}"
        for option in ("--max-requests", "--cheaper", "--idle")
        if (value := server.option(option))
        and not (option == "--max-requests" and _is_enough(value))
    ]
    if harmful:
        report.warning(
            "server-options",
            f"{server.name} has options that end workers, and all of their streams: "
            f"{', '.join(harmful)}.",
            how,
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

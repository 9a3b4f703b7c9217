"""gunicorn's settings: what it is told by a file and by its environment.

gunicorn runs ``gunicorn.conf.py`` as a program. A doctor runs nothing: here lives what
can be read off the file's text, which is each name that the file sets once, outside of
any block, to a value that ``expressions`` can follow. Any other setting counts as one
that cannot be read. What follows from the settings is unknown here.
"""

from __future__ import annotations

import ast
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from .expressions import Evaluator
from .running import option

#: The file that gunicorn reads where it is told of no other.
FILE = "gunicorn.conf.py"

#: Bytes of a file that are read: no person writes more settings.
MOST_BYTES = 1024 * 1024

#: The settings that matter to streams, each with its option of the command line.
OPTIONS = {
    "workers": "--workers",
    "worker_class": "--worker-class",
    "threads": "--threads",
    "worker_connections": "--worker-connections",
    "max_requests": "--max-requests",
    "timeout": "--timeout",
    "graceful_timeout": "--graceful-timeout",
    "preload_app": "--preload",
    "certfile": "--certfile",
    "raw_env": "--env",
}

#: The setting that names the application, which a command line does without an option.
APPLICATION = "wsgi_app"

#: The value of a setting that a file makes by code.
UNREAD = "?"

_ALL_UNREAD = [f"{long}={UNREAD}" for long in OPTIONS.values()]


class Told(NamedTuple):
    """What gunicorn is told beside its command line.

    ``words`` are options as on a command line. A later one goes before an earlier one,
    and the command line's own come last. ``sources`` are the files and variables that
    say them.
    """

    words: tuple[str, ...]
    sources: tuple[str, ...]


def told(variables: Mapping[str, str], words: tuple[str, ...], folder: str) -> Told:
    """What a gunicorn is told that has an environment and a command line.

    :param folder: where it is started.
    """
    found: list[str] = []
    sources: list[str] = []
    if count := variables.get("WEB_CONCURRENCY"):
        found.append(f"--workers={count}")
        sources.append("WEB_CONCURRENCY")
    by_variable = _split(variables.get("GUNICORN_CMD_ARGS", ""))
    name = _config(words) or _config(by_variable) or FILE
    if name.startswith("python:"):
        found += _ALL_UNREAD
        sources.append(name)
    elif (text := _text(os.path.join(folder, name.removeprefix("file:")))) is not None:
        found += _words_of(text, variables)
        sources.append(name.removeprefix("file:").removeprefix("./"))
    if by_variable:
        found += by_variable
        sources.append("GUNICORN_CMD_ARGS")
    return Told(tuple(found), tuple(sources))


def _config(words: tuple[str, ...]) -> str:
    return option(words, "--config", "-c")


def _split(text: str) -> tuple[str, ...]:
    with suppress(ValueError):  # A quotation mark is open: gunicorn would not start.
        return tuple(shlex.split(text))
    return ()


def _text(path: str) -> str | None:
    """A file's text; None where there is no such file, or where it is no text."""
    with suppress(OSError, ValueError), open(path, "rb") as file:
        return file.read(MOST_BYTES).decode()
    return None


def _words_of(text: str, variables: Mapping[str, str]) -> Iterator[str]:
    """The settings of a file, as options."""
    values = settings_in(text, variables)
    if values is None:
        yield from _ALL_UNREAD
        return
    for name, long in OPTIONS.items():
        if name in values:
            value = values[name]
            for each in value if isinstance(value, list) else [value]:
                yield f"{long}={each}"
    if APPLICATION in values:
        yield str(values[APPLICATION])


def settings_in(
    text: str, variables: Mapping[str, str] | None = None
) -> dict[str, object] | None:
    """The names that a file sets, each with its value, or ``UNREAD`` where the value is
    none that can be read without running the file. None where the file is no Python,
    or is Python that sets names of which its text does not tell.

    :param variables: the environment that the file has.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    evaluator = Evaluator(variables or {})
    found: dict[str, object] = {}
    for statement in tree.body:
        names = [*_names_set_by(statement)]
        if "*" in names:
            return None
        value = _value_of(statement, evaluator)
        for name in names:
            is_new = name not in found
            found[name] = value if is_new else UNREAD
            evaluator.forget(name)
            if found[name] is not UNREAD:
                evaluator.values[name] = value
        evaluator.note_import(statement)
    return found


def _value_of(statement: ast.stmt, evaluator: Evaluator) -> object:
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        return UNREAD
    if statement.value and all(isinstance(target, ast.Name) for target in targets):
        with suppress(ValueError, RecursionError):
            value = evaluator.value(statement.value)
            if isinstance(value, (str, int, float, list)):
                return value
    return UNREAD


def _names_set_by(statement: ast.AST) -> Iterator[str]:
    """The module's names that a statement, or one within it, can set. What stands in
    functions sets none of them."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield statement.name
        return
    if isinstance(statement, ast.Name) and isinstance(statement.ctx, ast.Store):
        yield statement.id
    elif isinstance(statement, ast.alias):
        yield (statement.asname or statement.name).partition(".")[0]
    for part in ast.iter_child_nodes(statement):
        yield from _names_set_by(part)

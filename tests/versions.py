"""Environments of other versions: an interpreter of this machine, with releases that
are installed for it when they are first needed.

How interpreters are found, and how packages are put beside them, lives here. Which
versions are tested, and for what, stands in the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from .servers import ROOT

#: Where installed packages are kept, until ``make clean``. "The newest" of a package is
#: the newest at the time of its installation.
CACHE = ROOT / ".venv" / "versions"

#: The minor versions of Python that are looked for, as in pyproject.toml: 3.10 to 3.14.
MINORS = range(10, 15)

#: Installations at a time. Each waits for the network, and then computes.
PARALLEL = 3

_TELL_VERSION = (
    "import sys, sysconfig; print(*sys.version_info[:3], "
    "int(bool(sysconfig.get_config_var('Py_GIL_DISABLED'))))"
)


class Python(NamedTuple):
    """An interpreter of this machine."""

    path: str
    version: tuple[int, int, int]
    is_free_threaded: bool

    @property
    def kind(self) -> tuple[int, bool]:
        """The minor version, and whether it is free-threaded. One interpreter of each
        kind is tested."""
        return self.version[1], self.is_free_threaded

    def __str__(self) -> str:
        version = ".".join(map(str, self.version))
        return f"Python {version}{'t' * self.is_free_threaded}"


class Layer(NamedTuple):
    """Packages in a folder of their own, which can lie above other layers.

    :param requirements: as pip takes them.
    :param python: the interpreter that they are for. None for any: the packages must be
        pure Python, and come without their dependencies.
    """

    requirements: tuple[str, ...]
    python: Python | None = None

    @property
    def folder(self) -> Path:
        return CACHE / "+".join([str(self.python or "any Python"), *self.requirements])

    def install(self) -> None:
        """Install the packages into the folder: all of them, or none."""
        if self.folder.is_dir():
            return
        CACHE.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="unfinished-", dir=CACHE) as unfinished:
            packages = Path(unfinished, "packages")
            done = subprocess.run(
                [*self._pip(), "--target", str(packages), *self.requirements],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert done.returncode == 0, done.stdout
            try:
                packages.rename(self.folder)
            except OSError:
                assert self.folder.is_dir()  # Another process was faster.

    def _pip(self) -> list[str]:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        if self.python:
            command += ["--python", self.python.path]
        # Most of it is never imported, so compiling it would be wasted.
        command += ["install", "--quiet", "--no-compile", "--only-binary", ":all:"]
        return command if self.python else [*command, "--no-deps"]


class Environment(NamedTuple):
    """An interpreter, its layers (the first is found first), and variables of its
    environment."""

    python: Python
    layers: tuple[Layer, ...]
    variables: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """How the interpreter is run. It finds our package and its layers, and nothing
        that is installed elsewhere."""
        folders = [ROOT, *(layer.folder for layer in self.layers)]
        path = os.pathsep.join(map(str, folders))
        variables = [f"PYTHONPATH={path}", *self.variables]
        return ["/usr/bin/env", *variables, self.python.path, "-S"]


def install(environments: Iterable[Environment]) -> None:
    """Install all layers of these environments."""
    layers = {layer for environment in environments for layer in environment.layers}
    with ThreadPoolExecutor(PARALLEL) as pool:
        for _ in pool.map(Layer.install, layers):
            pass


@cache
def pythons() -> list[Python]:
    """One interpreter of each kind that the machine has, in order. The interpreter that
    runs this is among them."""
    found: dict[tuple[int, bool], Python] = {}
    for path in _candidates():
        if python := _examine(path):
            found.setdefault(python.kind, python)
    return [found[kind] for kind in sorted(found)]


def running_python() -> Python:
    """The interpreter that our virtual environment was made from."""
    (running,) = (python for python in pythons() if python.path == _running_path())
    return running


def _running_path() -> str:
    return os.path.realpath(sys.executable)


def _candidates() -> Iterable[str]:
    """Paths of programs that may be interpreters, ours first."""
    yield _running_path()
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    for minor in MINORS:
        for name in (f"python3.{minor}", f"python3.{minor}t"):
            for program in sorted(pyenv.glob(f"versions/*/bin/{name}")):
                yield str(program)
            if program_on_path := shutil.which(name):
                yield program_on_path


def _examine(path: str) -> Python | None:
    """Ask an interpreter what it is; None if it does not answer. (A ``python3.x`` of
    pyenv's on the path may lead to none.)"""
    done = subprocess.run(
        [path, "-S", "-c", _TELL_VERSION],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if done.returncode != 0:
        return None
    major, minor, micro, is_free_threaded = map(int, done.stdout.split())
    return Python(path, (major, minor, micro), bool(is_free_threaded))

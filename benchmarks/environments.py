"""The environments of the peers. Each peer has its own, of pinned versions, which is
made at first use.

What never lives here: who runs in them, and what is measured.
"""

from __future__ import annotations

import json
import re
import subprocess
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol

from processes import BUILD, HERE, BenchmarkError

REQUIREMENTS = HERE / "requirements"
SYSTEM_PACKAGES = HERE.parent / "tests" / "system-packages"
INSTALL_SECONDS = 600
ERROR_TAIL = 500  # characters of what a failed command printed


class Environment(Protocol):
    """What a server is installed in.

    `prepare` installs what is missing, or raises a BenchmarkError. `versions` can be
    called after that; it returns the versions by the names that people use.
    """

    def prepare(self) -> None: ...
    def versions(self) -> Mapping[str, str]: ...


def printed_by(command: Sequence[str | Path]) -> str:
    """Return what a command prints.

    :raises BenchmarkError: when the command fails.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchmarkError(str(error)) from error
    if done.returncode:
        printed = (done.stdout + done.stderr).strip()[-ERROR_TAIL:]
        raise BenchmarkError(f"{Path(command[0]).name} failed; it printed:\n{printed}")
    return done.stdout


@dataclass(frozen=True)
class Here:
    """The environment of the benchmark itself."""

    shown: tuple[str, ...]

    def prepare(self) -> None:
        pass

    def versions(self) -> Mapping[str, str]:
        return {name: metadata.version(name) for name in self.shown}


@dataclass(frozen=True)
class Checkout:
    """The package beside this folder, installed or not."""

    name: str

    def prepare(self) -> None:
        pass

    def versions(self) -> Mapping[str, str]:
        source = (HERE.parent / self.name / "__init__.py").read_text(encoding="utf-8")
        found = re.search('__version__ = "(.+)"', source)
        return {self.name: found[1]} if found else {}


@dataclass(frozen=True)
class Virtualenv:
    """A virtual environment with exactly what `requirements/` lists under its name."""

    name: str
    shown: tuple[str, ...]

    @property
    def python(self) -> str:
        return str(BUILD / self.name / "bin" / "python")

    @property
    def _pins(self) -> Path:
        return REQUIREMENTS / f"{self.name}.txt"

    def prepare(self) -> None:
        pins = self._pins.read_text(encoding="utf-8")
        installed = BUILD / self.name / "installed.txt"
        if installed.exists() and installed.read_text(encoding="utf-8") == pins:
            return
        try:
            venv.create(BUILD / self.name, with_pip=True, clear=True)
        except subprocess.CalledProcessError as error:
            raise BenchmarkError(f"cannot make a virtualenv: {error}") from error
        pip = [self.python, "-m", "pip", "install", "--disable-pip-version-check"]
        printed_by([*pip, "--quiet", "--requirement", self._pins])
        installed.write_text(pins, encoding="utf-8")

    def versions(self) -> Mapping[str, str]:
        lines = self._pins.read_text(encoding="utf-8").split()
        pinned = dict(line.split("==") for line in lines)
        return {name: pinned[name] for name in self.shown}


@dataclass(frozen=True)
class NodePackage:
    """A folder with one package from npm."""

    name: str
    version: str

    @property
    def _manifest(self) -> Path:
        return BUILD / self.name / "node_modules" / self.name / "package.json"

    def prepare(self) -> None:
        if self._manifest.exists() and self._installed() == self.version:
            return
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]
        wanted = f"{self.name}@{self.version}"
        printed_by(["npm", "install", *options, BUILD / self.name, wanted])

    def _installed(self) -> str:
        version: str = json.loads(self._manifest.read_text("utf-8"))["version"]
        return version

    def versions(self) -> Mapping[str, str]:
        node = printed_by(["node", "--version"]).strip()
        return {self.name: self._installed(), "Node": node.removeprefix("v")}


@dataclass(frozen=True)
class Debian:
    """Debian's packages, each with the file that is needed of it.

    :param service: the system's service of the first package. Debian can start it at
        the installation, and it is stopped: only our own servers must run
    """

    files: Mapping[str, Path]
    service: str

    def prepare(self) -> None:
        if not (missing := self._missing()):
            return
        printed_by([SYSTEM_PACKAGES, *missing])
        if next(iter(self.files)) in missing:
            self._stop_service()
        if missing := self._missing():
            raise BenchmarkError(f"Debian's {', '.join(missing)} cannot be installed")

    def _missing(self) -> list[str]:
        return [package for package, file in self.files.items() if not file.exists()]

    def _stop_service(self) -> None:
        for command in (
            ["service", self.service, "stop"],
            ["update-rc.d", self.service, "disable"],
        ):
            subprocess.run(command, capture_output=True, timeout=INSTALL_SECONDS)

    def versions(self) -> Mapping[str, str]:
        return {name_of(package): self._version(package) for package in self.files}

    def _version(self, package: str) -> str:
        full = printed_by(["dpkg-query", "--show", "--showformat=${Version}", package])
        found = re.match(r"(?:\d+:)?([\d.]+)", full)  # [epoch:]upstream[-revision]
        return found[1] if found else full


def name_of(package: str) -> str:
    return {"redis-server": "Redis", "libnginx-mod-nchan": "nchan"}.get(
        package, package
    )

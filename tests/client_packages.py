"""Clients that other people have written: the packages that
``tests/clients/package.json`` names, and what a page gets of them from a CDN.

How a package comes onto this machine lives here, and which of its files a CDN's address
means. Nothing is downloaded but by npm and pip, and no page reaches a CDN. What the
clients must do stands in the tests.
"""

from __future__ import annotations

import fcntl
import json
import mimetypes
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route

from .servers import ROOT

CLIENTS = Path(__file__).parent / "clients"

#: Where the packages are installed once.
INSTALLED = ROOT / "build" / "clients"

#: Where the copy of Datastar is unpacked once.
DATASTAR = ROOT / "build" / "datastar"

#: npm has no Datastar of version 1.0. PyPI has one: a copy in a package of another
#: project, which has changed it in two places that have nothing to do with streams. The
#: package's own Python is never run.
DATASTAR_WHEEL = "starhtml==0.7.0"
DATASTAR_FILE = "starhtml/static/js/datastar-core.js"
DATASTAR_URL = "/gh/starfederation/datastar@v1.0.1/bundles/datastar.js"

INSTALL_SECONDS = 300

#: The CDN of the examples.
CDN = "https://cdn.jsdelivr.net"

#: An address of the CDN: a package of npm, its version, and a file of it.
_NPM_URL = re.compile(r"/npm/(@?[^@]+)@([^/]+)/(.+)")


def npm_packages() -> Path:
    """The folder of the packages, which are installed if they are not there yet."""
    if not (shutil.which("node") and (npm := shutil.which("npm"))):
        pytest.skip("Node.js and npm are not installed")
    wanted = (CLIENTS / "package.json").read_text("utf-8")

    def install() -> None:
        (INSTALLED / "package.json").write_text(wanted, "utf-8")
        options = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        _run([npm, "install", *options, "--prefix", str(INSTALLED)])

    _have(INSTALLED, wanted, install)
    return INSTALLED / "node_modules"


def datastar() -> Path:
    """Datastar's bundle, which is unpacked if it is not there yet."""

    def unpack() -> None:
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
        python = ["--python-version", "3.14", "--dest", str(DATASTAR)]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        _run([*pip, "download", *options, *python, DATASTAR_WHEEL])
        (wheel,) = DATASTAR.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(DATASTAR_FILE, DATASTAR)

    _have(DATASTAR, DATASTAR_WHEEL, unpack)
    return DATASTAR / DATASTAR_FILE


def _have(folder: Path, wanted: str, make: Callable[[], None]) -> None:
    """Make a folder's content anew, unless it is what is wanted. Test processes that
    run side by side wait for each other."""
    stamp = folder / "installed"
    with _locked(folder):
        if stamp.exists() and stamp.read_text("utf-8") == wanted:
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        make()
        stamp.write_text(wanted, "utf-8")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=INSTALL_SECONDS
    )
    assert done.returncode == 0, done.stderr


def cdn_file(url: str) -> Path:
    """The file that the CDN has at an address. Its version must be the tests' own."""
    path = url.removeprefix(CDN)
    if path == DATASTAR_URL:
        return datastar()
    found = _NPM_URL.fullmatch(path)
    assert found, f"The tests have nothing for {url}"
    name, version, file = found.groups()
    known = json.loads((CLIENTS / "package.json").read_text("utf-8"))
    packages: dict[str, str] = known["dependencies"]
    names = {value: alias for alias, value in packages.items() if ":" in value}
    alias = names.get(f"npm:{name}@{version}", name)
    assert packages.get(alias) in {version, f"npm:{name}@{version}"}, url
    return npm_packages() / alias / file


def serve_cdn(page: Page) -> None:
    """Have a page get the CDN's files from this machine. It reaches no other host."""

    def answer(route: Route) -> None:
        file = cdn_file(route.request.url)
        kind = mimetypes.guess_type(file.name)[0] or "text/javascript"
        headers = {"Access-Control-Allow-Origin": "*"}
        route.fulfill(body=file.read_bytes(), content_type=kind, headers=headers)

    page.route(f"{CDN}/**", answer)

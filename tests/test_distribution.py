"""The archives of a release: the source distribution is complete, its tests run from
it, and the links that a package index shows lead somewhere."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
from readme_renderer import rst

import flask_sse_lite

from .archives import unpack
from .patience import patient
from .servers import ROOT

#: Seconds that a build may take, or the tests' collection.
BUILD_PATIENCE = patient(300)

#: What a build adds to the files of the project.
ADDED = re.compile(r"PKG-INFO|setup\.cfg|flask_sse_lite\.egg-info/")

#: Tests that are run from the archive: a few quick ones of different kinds.
HANDFUL = ("tests/test_settings.py", "tests/test_view.py", "tests/test_open_files.py")


def run(command: Sequence[str], folder: Path) -> str:
    """What a command prints that runs in a folder."""
    # What runs there is a copy of the code, whose coverage is not measured.
    foreign = ("PYTEST", "COVERAGE")
    ours = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    done = subprocess.run(
        command,
        cwd=folder,
        env=ours | {"PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_PATIENCE,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The project's files, without those that only serve the repository."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no checkout: only git knows which files are the project's")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = run(command, ROOT).splitlines()
    return [n for n in names if (ROOT / n).is_file() and not n.startswith(".")]


@pytest.fixture(scope="module")
def built(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both archives; the wheel is built from the source distribution.
    They are built from a copy, so that what an earlier build left beside the project
    cannot help."""
    copy = tmp_path_factory.mktemp("copy")
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation"]
    run([*build, "--outdir", str(folder)], copy)
    return folder


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    (archive,) = built.glob("*.tar.gz")
    folder = tmp_path_factory.mktemp("unpacked")
    unpack(archive.read_bytes(), folder)
    (root,) = folder.iterdir()
    return root


def files(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths}


def test_the_source_distribution_has_every_file(
    tracked: list[str], unpacked: Path
) -> None:
    packed = {name for name in files(unpacked) if not ADDED.match(name)}
    assert packed == set(tracked)


def test_the_tests_run_from_the_source_distribution(unpacked: Path) -> None:
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    collected = run([*pytest_, "--collect-only"], unpacked)
    for path in (unpacked / "tests").glob("test_*.py"):
        assert f"tests/{path.name}::" in collected
    # The tests that run are the archive's, and so is the package that they test.
    script = "import flask_sse_lite as f, tests.servers as s; print(f.__file__, s.ROOT)"
    where = run([sys.executable, "-c", script], unpacked).split()
    assert where == [str(unpacked / "flask_sse_lite" / "__init__.py"), str(unpacked)]
    assert "passed" in run([*pytest_, *HANDFUL], unpacked)


def test_the_wheel_has_the_package_and_nothing_else(built: Path) -> None:
    (archive,) = built.glob("*.whl")
    with zipfile.ZipFile(archive) as wheel:
        names = {n for n in wheel.namelist() if ".dist-info/" not in n}
    modules = (ROOT / "flask_sse_lite").rglob("*.py")
    expected = {path.relative_to(ROOT).as_posix() for path in modules}
    static = {f"flask_sse_lite/static/{name}" for name in ("sse.js", "sse.d.ts")}
    own = (ROOT / "flask_sse_lite" / "inspector" / "static").iterdir()
    static |= {path.relative_to(ROOT).as_posix() for path in own}
    assert names == expected | {"flask_sse_lite/py.typed"} | static


def metadata_of(unpacked: Path) -> Message:
    (path,) = unpacked.glob("*.egg-info")
    return message_from_string((path / "PKG-INFO").read_text("utf-8"))


def test_the_metadata_is_what_the_project_says(unpacked: Path) -> None:
    metadata = metadata_of(unpacked)
    assert metadata["Version"] == flask_sse_lite.__version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata.get_all("Requires-Dist", [])[0] == "Flask>=3.0"


def test_a_package_index_shows_the_readme_with_links_that_lead_somewhere() -> None:
    complaints = io.StringIO()
    readme = (ROOT / "README.rst").read_text("utf-8")
    page = rst.render(readme, stream=complaints)
    assert page is not None, complaints.getvalue()
    assert complaints.getvalue() == ""
    targets = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert [t for t in targets if not t.startswith(("https://", "http://", "#"))] == []


def test_the_readmes_links_into_the_project_are_to_its_files(unpacked: Path) -> None:
    """They begin with the address in the metadata, and lead to files that exist."""
    urls = metadata_of(unpacked).get_all("Project-URL", [])
    (home,) = (url.partition(", ")[2] for url in urls if url.startswith("Source, "))
    raw = home.replace("https://github.com/", "https://raw.githubusercontent.com/")
    readme = (ROOT / "README.rst").read_text("utf-8")
    links = re.findall(r"https://(?:raw\.)?github[\w.]*\.com/[^\s>`]+", readme)
    assert links
    for link in links:
        beginning = next(b for b in (f"{home}/blob/HEAD/", f"{raw}/HEAD/") if b in link)
        assert (ROOT / link.removeprefix(beginning)).is_file(), link

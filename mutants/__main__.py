"""Run the tests on each mutant of some modules, and say which ones survive.

::

    python -m mutants                          # all modules of MODULES
    python -m mutants history.reading          # one module, or all of a folder
    python -m mutants history --only "_gap:"   # those with that in their names

It exits with 1 for a survivor that ``equal.txt`` does not list, and for an entry there
that names no mutant any more.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from .changes import Mutant, mutants
from .trial import Chosen, Seen, Watching, run

ROOT = Path(__file__).parents[1]
EQUAL = Path(__file__).parent / "equal.txt"

#: What is tried where nothing is named, in this order.
MODULES = ["history", "event", "position", "hub.handoff", "hub"]

#: What the tests need of the checkout.
COPIED = ("flask_sse_lite", "tests", "examples", "docs", "pyproject.toml")

#: Libraries that most tests import, loaded once for all trials. None starts a thread.
LIBRARIES = ("flask", "hypothesis", "psutil", "h11", "redis", "gevent", "blinker")

#: Seconds of tests of each file that a mutant must survive, the fastest tests first.
#: With more, a module takes hours: what slow tests alone would see deserves a fast one.
MOST = 8.0

#: A trial is over when it takes so many times as long as its tests, and so many seconds
#: more: a busy machine must not look like a mutant that hangs.
TIMES, MORE = 4, 20.0

#: Seconds that all tests of a module can take, on a copy that is not broken.
LONGEST = 1800.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mutants")
    parser.add_argument("modules", nargs="*", default=MODULES)
    parser.add_argument("--only", default="", help="a part of the mutants' names")
    wanted = parser.parse_args()
    equal = read_equal(EQUAL.read_text("utf-8"))
    # As Ctrl-C does: the copy is removed, and the trial ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        enter_copy(Path(folder))
        architecture = importlib.import_module("tests.test_architecture")
        bad = 0
        for module in named(wanted.modules, architecture.GUESSED):
            files = architecture.files_of(module)
            bad += try_module(module, files, wanted.only, equal)
    return int(bool(bad))


def named(names: Sequence[str], modules: Sequence[str]) -> list[str]:
    """The modules that are meant by their own names, or by those of their folders."""
    return list(
        dict.fromkeys(
            module
            for name in names
            for module in modules
            if f"{module}.".startswith(f"{name}.")
        )
    )


def read_equal(text: str) -> dict[str, str]:
    """The mutants that nobody can tell from the original, and why. A name begins a
    line, and the reason stands in indented lines below it, or below several names.

    :raises ValueError: for a name without a reason.
    """
    reasons: dict[str, str] = {}
    waiting: list[str] = []
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if not line.startswith(" "):
            waiting = [name for name in waiting if name not in reasons] + [line]
        for name in waiting if line.startswith(" ") else ():
            reasons[name] = f"{reasons.get(name, '')} {line.strip()}".strip()
    if bare := [name for name in waiting if name not in reasons]:
        raise ValueError(f"{EQUAL.name} gives no reason for {bare}")
    return reasons


def enter_copy(folder: Path) -> None:
    """Make the copy that is broken, and have this process, and all that it starts, work
    in it."""
    tree = folder / "tree"
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        tree.mkdir(exist_ok=True)
        copy(ROOT / name, tree / name)
    (folder / "tmp").mkdir()
    os.environ.update(PYTHONPATH=str(tree), TMPDIR=str(folder / "tmp"))
    tempfile.tempdir = None
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    for library in LIBRARIES:
        importlib.import_module(library)


def try_module(
    module: str, files: Sequence[str], only: str, equal: Mapping[str, str]
) -> int:
    """Try all mutants of a module, and print what came of it.

    :returns: how many faults the run must end with.
    """
    path = Path("flask_sse_lite", *module.split(".")).absolute()
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    source = path.read_text("utf-8")
    found = list(mutants(module, source))
    stale = [n for n in equal if n.startswith(f"{module} ")]
    stale = [n for n in stale if n not in {mutant.name for mutant in found}]
    found = [mutant for mutant in found if only in mutant.name]
    if not found and not stale:
        return 0
    print(f"{module}: {len(found)} mutants, {', '.join(files)}", flush=True)
    seen = watch(path, files)
    results: Counter[str] = Counter()
    for mutant in found:
        result = "equal" if mutant.name in equal else trial(path, mutant, files, seen)
        results[result] += 1
        if result in ("survived", "unreached"):
            print(f"  {result:9}  {mutant.name}", flush=True)
    path.write_text(source, "utf-8")
    for name in stale:
        print(f"  no mutant  {name}")
    counts = ", ".join(f"{results[result]} {result}" for result in sorted(results))
    print(f"{module}: {counts}", flush=True)
    return results["survived"] + results["unreached"] + len(stale)


def watch(path: Path, files: Sequence[str]) -> list[Seen]:
    """What the tests do where nothing is broken, the fastest first.

    :raises SystemExit: where they fail.
    """
    notes, output = Path("notes.json"), Path("output.txt")
    if run(files, Watching(path, notes), LONGEST, output) != 0:
        sys.exit(f"{output.read_text()}\nThe tests fail where nothing is broken.")
    told = [Seen(*told) for told in json.loads(notes.read_text())]
    return sorted(told, key=lambda test: test.seconds)


def trial(
    path: Path, mutant: Mutant, files: Sequence[str], seen: Sequence[Seen]
) -> str:
    """Break the copy, and say what the tests make of it."""
    path.write_text(mutant.source, "utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()
    lines = range(mutant.first, mutant.last + 1)
    reaching = [test for test in seen if any(line in lines for line in test.lines)]
    result = "unreached"
    for file in files:
        # One file at a time: most mutants do not survive the first.
        chosen, seconds = [], 0.0
        for test in reaching:
            if test.file == file and seconds + test.seconds <= MOST:
                chosen.append(test.test)
                seconds += test.seconds
        if chosen:
            limit = seconds * TIMES + MORE
            code = run([file], Chosen(chosen), limit, Path("output.txt"))
            result = {None: "too slow", 0: "survived"}.get(code, "killed")
            if code != 0:
                break
    return result


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.fuzzing``: run each target, or those that are named, for a while.

The exit status is 1 where a target was broken. What was found interesting stays in
``build/fuzzing/``, where the next run begins with it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from .targets import TARGETS

SECONDS = 60
FOLDER = Path("build/fuzzing")

#: Bytes of an input, at most: more than any single value needs.
LONGEST = 2_000


def run(name: str, seconds: int, folder: Path) -> bool:
    """Fuzz a target.

    :returns: whether nothing broke it.
    """
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-artifact_prefix={folder}/{name}-",
        "-print_final_stats=1",
        str(corpus),
    ]
    command = [sys.executable, "-m", "tests.fuzzing.running", name, *options]
    return subprocess.run(command).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzzing", description=__doc__
    )
    parser.add_argument("names", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each target")
    options = parser.parse_args()
    if unknown := {*options.names} - {*TARGETS}:
        parser.error(f"no target: {', '.join(sorted(unknown))}")
    broken = [
        name
        for name in options.names or TARGETS
        if not run(name, options.seconds, FOLDER)
    ]
    for name in broken:
        print(f"BROKEN: {name}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

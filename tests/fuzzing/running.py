"""Runs one target: ``python -m tests.fuzzing.running TARGET``, and libFuzzer's options.

The process ends with the run, or with what broke the target. libFuzzer writes the bytes
that did it into a file, and names the file; given as an argument, the file is run
again.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["flask_sse_lite"]):
    from .targets import TARGETS


def main() -> None:
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name].read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

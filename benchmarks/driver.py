"""What the programs of this folder have in common: the options, the preparations, and
that a failure is named and does not keep the rest from being measured.

What never lives here: what is measured.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from processes import BenchmarkError, compile_c, raise_descriptor_limit, time_limit

PART_SECONDS = 600  # for one server or part, on a busy machine too


def parser(description: str, *, subscribers: int, rounds: int) -> ArgumentParser:
    """Return a parser of the options that all programs have, with these defaults."""
    options = ArgumentParser(description=description)
    options.add_argument("--subscribers", type=int, default=subscribers, metavar="N")
    options.add_argument("--rounds", type=int, default=rounds, metavar="N")
    return options


class ArgumentParser(argparse.ArgumentParser):
    """A parser that refuses too few subscribers or rounds."""

    def parse(self) -> argparse.Namespace:
        parsed = self.parse_args()
        if parsed.subscribers < 2 or parsed.rounds < 1:
            self.error("at least 2 subscribers and 1 round")
        return parsed


def prepare(subscribers: int) -> None:
    """Make this process ready to measure, or end it with the reason."""
    # An exception, so that every process started here is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        raise_descriptor_limit(subscribers)
        for program in ("load", "baseline"):
            compile_c(program)
    except BenchmarkError as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")


def attempt(
    what: str,
    names: Iterable[str],
    action: Callable[[str], None],
    seconds: int = PART_SECONDS,
) -> dict[str, str]:
    """Do something with each name, each within so many seconds.

    :returns: why it failed, by name.
    """
    failures = {}
    for name in names:
        print(f"{what} {name} …", file=sys.stderr)
        try:
            with time_limit(seconds):
                action(name)
        except BenchmarkError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            failures[name] = str(error)
    return failures

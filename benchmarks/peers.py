"""Measures the peers in one run, and writes the page and the chart of docs/.

``python benchmarks/peers.py``; how to read it is said in the page. The order of things
lives here; a single measurement is that of bench.py. A peer that cannot be had or
fails is named with the reason, and the others are measured.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from bench import measure
from chart import chart
from lineup import LINEUP, Entry
from page import Comparison, page
from processes import (
    HERE,
    BenchmarkError,
    compile_c,
    raise_descriptor_limit,
    time_limit,
)
from report import Result, report

DOCS = HERE.parent / "docs"
PEER_SECONDS = 300  # the slowest known takes a third of it


def attempt(
    what: str, entries: Iterable[Entry], action: Callable[[Entry], None]
) -> dict[str, str]:
    """Do something with each entry; return why it failed, by title."""
    failures = {}
    for entry in entries:
        print(f"{what} {entry.contender.name} …", file=sys.stderr)
        try:
            action(entry)
        except BenchmarkError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            failures[entry.title] = str(error)
    return failures


def compare(names: Iterable[str], subscribers: int, rounds: int) -> Comparison:
    """Prepare them all first, so that they are measured close to each other."""
    entries = [LINEUP[name] for name in names]
    results: list[tuple[Entry, Result]] = []

    def measure_one(entry: Entry) -> None:
        with time_limit(PEER_SECONDS):
            results.append((entry, measure(entry.contender, subscribers, rounds)))

    missing = attempt("preparing", entries, Entry.prepare)
    ready = [entry for entry in entries if entry.title not in missing]
    failures = attempt("measuring", ready, measure_one)
    return Comparison(results, missing | failures, subscribers, rounds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare with the peers.")
    parser.add_argument("--subscribers", type=int, default=1000, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--only", nargs="+", choices=LINEUP, help="and write no page")
    parser.add_argument(
        "--docs", type=Path, metavar="FOLDER", help="for page and chart"
    )
    parsed = parser.parse_args()
    if parsed.subscribers < 2 or parsed.rounds < 1:
        parser.error("at least 2 subscribers and 1 round")
    return parsed


def write(comparison: Comparison, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "benchmarks.rst").write_text(page(comparison), encoding="utf-8")
    (folder / "benchmarks.svg").write_text(chart(comparison), encoding="utf-8")


def main() -> int:
    chosen = arguments()
    # As an exception, so that every process started here is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        raise_descriptor_limit(chosen.subscribers)
        for program in ("load", "baseline"):
            compile_c(program)
    except BenchmarkError as error:
        sys.exit(f"peers: {error}")
    comparison = compare(chosen.only or LINEUP, chosen.subscribers, chosen.rounds)
    print(report([result for _, result in comparison.measured]))
    for title, why in comparison.failures.items():
        print(f"\nLEFT OUT: {title}: {why}")
    folder = chosen.docs or (None if chosen.only else DOCS)
    if folder and comparison.measured:
        write(comparison, folder)
    return 0 if comparison.measured else 1


if __name__ == "__main__":
    sys.exit(main())

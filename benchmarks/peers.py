"""Measures the peers in one run, and writes the page and the chart of docs/.

``python benchmarks/peers.py``. The page says how to read it. measuring.py measures each
peer. A peer that cannot be installed, or fails, is named with the reason, and the
others are measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from chart import chart
from driver import attempt, parser, prepare
from environments import INSTALL_SECONDS
from lineup import LINEUP, Entry
from measuring import measure
from page import Comparison, page
from processes import HERE
from report import Result, report

DOCS = HERE.parent / "docs"


def compare(names: Iterable[str], subscribers: int, rounds: int) -> Comparison:
    """Measure these peers. All are prepared first, so that little time lies between the
    measurements."""
    results: list[tuple[Entry, Result]] = []

    def measure_one(name: str) -> None:
        entry = LINEUP[name]
        results.append((entry, measure(entry.contender, subscribers, rounds)))

    names = list(names)
    failures = attempt(
        "preparing", names, lambda name: LINEUP[name].prepare(), INSTALL_SECONDS
    )
    ready = [name for name in names if name not in failures]
    failures |= attempt("measuring", ready, measure_one)
    by_title = {LINEUP[name].title: why for name, why in failures.items()}
    return Comparison(results, by_title, subscribers, rounds)


def arguments() -> argparse.Namespace:
    options = parser("Compare with the peers.", subscribers=1000, rounds=3)
    options.add_argument("--only", nargs="+", choices=LINEUP, help="and write no page")
    options.add_argument(
        "--docs", type=Path, metavar="FOLDER", help="for page and chart"
    )
    return options.parse()


def write(comparison: Comparison, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "benchmarks.rst").write_text(page(comparison), encoding="utf-8")
    (folder / "benchmarks.svg").write_text(chart(comparison), encoding="utf-8")


def main() -> int:
    chosen = arguments()
    prepare(chosen.subscribers)
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

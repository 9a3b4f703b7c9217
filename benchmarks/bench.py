"""Runs the benchmark: ``python benchmarks/bench.py``; README.rst says how to read it.

How a server is measured lives in measuring.py, the parts about scale in scale.py, the
parts about bounds in bounds.py, those about shared brokers in brokers.py, those about a
page in pages.py, and the meaning of the figures in report.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import bounds
import brokers
import pages
import scale
from contenders import CONTENDERS
from driver import attempt, parser, prepare
from measuring import measure, measure_lone_publish
from report import Finding, Result, findings_table, report

LONE_PUBLISH = "lone-publish"
PARTS = {**scale.PARTS, **bounds.PARTS, **brokers.PARTS, **pages.PARTS}
NAMES = (*CONTENDERS, LONE_PUBLISH, *PARTS)
SUBSCRIBERS = 5000  # the limits of the findings hold for this number


@dataclass
class Outcome:
    """What a whole run has measured, and what it has failed to measure."""

    subscribers: int
    rounds: int
    results: list[Result] = field(default_factory=list)
    publish_us: float | None = None
    findings: list[Finding] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    loads: list[float] = field(default_factory=list)

    def measure(self, name: str) -> None:
        self.loads.append(os.getloadavg()[0])
        if name == LONE_PUBLISH:
            self.publish_us = measure_lone_publish()
        elif part := PARTS.get(name):
            self.findings += part(self.subscribers, self.rounds)
        else:
            contender = CONTENDERS[name]
            self.results.append(measure(contender, self.subscribers, self.rounds))

    def __str__(self) -> str:
        parts = [report(self.results)] if self.results else []
        if self.publish_us is not None:
            parts.append(f"publish() without a subscriber: {self.publish_us:.1f} µs")
        if self.findings:
            parts.append(findings_table("What is asked", self.findings))
            if self.subscribers != SUBSCRIBERS:
                parts.append(f"What is asked is asked of --subscribers {SUBSCRIBERS}.")
        if self.loads:
            loads = ", ".join(f"{load:.1f}" for load in self.loads)
            parts.append(
                f"Load average before each, of {os.cpu_count()} cores: {loads}"
            )
        parts += [f"FAILED: {name}: {why}" for name, why in self.failures.items()]
        return "\n\n".join(parts)

    def as_json(self) -> str:
        measured = {
            "results": [result.as_json() for result in self.results],
            "publish_us": self.publish_us,
            "asked": [asdict(finding) for finding in self.findings],
            "loads": self.loads,
            "failures": self.failures,
        }
        return json.dumps(measured, indent=2, ensure_ascii=False)


def arguments() -> argparse.Namespace:
    options = parser("Compare event stream servers.", subscribers=SUBSCRIBERS, rounds=5)
    options.add_argument(
        "--only",
        nargs="+",
        choices=NAMES,
        default=NAMES,
        metavar="NAME",
        help=f"some of: {', '.join(NAMES)}",
    )
    options.add_argument("--json", type=Path, metavar="FILE")
    return options.parse()


def main() -> int:
    chosen = arguments()
    prepare(chosen.subscribers)
    outcome = Outcome(chosen.subscribers, chosen.rounds)
    outcome.failures = attempt("measuring", chosen.only, outcome.measure)
    print(outcome)
    if chosen.json:
        chosen.json.write_text(outcome.as_json() + "\n", encoding="utf-8")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())

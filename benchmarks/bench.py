"""Runs the benchmark: ``python benchmarks/bench.py``; README.rst says how to read it.

The order of things lives here: which server, which rounds, what is read before and
after. How processes are run is in processes.py, what the figures mean in report.py.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from contenders import CONTENDERS, STREAM, Contender
from processes import (
    BUILD,
    HERE,
    BenchmarkError,
    Load,
    compile_c,
    cores,
    free_port,
    load,
    output_of,
    raise_descriptor_limit,
)
from report import Result, Round, report
from server import Server, server

EVENTS = 40  # in a round
KINDS = {"One event after the other": 1, "Burst of 40": EVENTS}  # events per publish
WARM_UP = 100  # subscribers that join before memory is read for the first time
CONTROL_CONNECTIONS = 200  # beside the subscribers: publishing, and some that linger
LONE_PUBLISH = "lone-publish"


@dataclass
class Outcome:
    """What a whole run has measured, and what it could not measure."""

    results: list[Result] = field(default_factory=list)
    publish_us: float | None = None
    failures: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [report(self.results)] if self.results else []
        if self.publish_us is not None:
            parts.append(f"publish() without a subscriber: {self.publish_us:.1f} µs")
        parts += [f"FAILED: {name}: {why}" for name, why in self.failures.items()]
        return "\n\n".join(parts)

    def as_json(self) -> str:
        measured = {
            "results": [result.as_json() for result in self.results],
            "publish_us": self.publish_us,
            "failures": self.failures,
        }
        return json.dumps(measured, indent=2, ensure_ascii=False)


def run_round(running: Server, generator: Load, batch: int) -> Round:
    before = running.usage().cpu_seconds
    answer = generator.ask(f"round {EVENTS} {batch}")
    after = running.usage().cpu_seconds
    measured = Round(**answer, server_cpu_seconds=after - before)
    if not measured.exact:
        raise BenchmarkError(f"not every event once and in order: {measured.tally}")
    return measured


def measure(contender: Contender, subscribers: int, rounds: int) -> Result:
    """Measure one server.

    :raises BenchmarkError: if it cannot be run, or if one delivery is wrong.
    """
    server_core, load_core = cores()
    port = free_port()
    warm_up = min(WARM_UP, subscribers // 2)
    counted = subscribers - warm_up
    commands = contender.command_lines(
        port=port,
        beside_port=free_port(),
        connections=subscribers + CONTROL_CONNECTIONS,
        build=BUILD,
    )
    paths = [STREAM, *filter(None, [contender.events])]
    with (
        server(commands, port, server_core) as running,
        load(BUILD / "load", port, paths, load_core) as generator,
    ):
        with running.nudged() if contender.silent else nullcontext():
            generator.ask(f"open {warm_up}")
            before = running.usage().kilobytes
            joined = generator.ask(f"open {counted}")
        after = running.usage().kilobytes
        return Result(
            contender=contender,
            kilobytes=(after - before) / counted,
            joins_per_second=counted / joined["seconds"],
            rounds={
                kind: [run_round(running, generator, batch) for _ in range(rounds)]
                for kind, batch in KINDS.items()
            },
        )


def measure_lone_publish() -> float:
    """Return the µs of CPU of a publish() that nobody listens to."""
    server_core, _ = cores()
    printed = output_of([sys.executable, str(HERE / "lone_publish.py")], server_core)
    microseconds: float = json.loads(printed)["publish_us"]
    return microseconds


def run(names: list[str], subscribers: int, rounds: int) -> Outcome:
    outcome = Outcome()
    for name in names:
        print(f"measuring {name} …", file=sys.stderr)
        try:
            if name == LONE_PUBLISH:
                outcome.publish_us = measure_lone_publish()
            else:
                measured = measure(CONTENDERS[name], subscribers, rounds)
                outcome.results.append(measured)
        except BenchmarkError as error:
            outcome.failures[name] = str(error)
    return outcome


def arguments() -> argparse.Namespace:
    names = [*CONTENDERS, LONE_PUBLISH]
    parser = argparse.ArgumentParser(description="Compare event stream servers.")
    parser.add_argument("--subscribers", type=int, default=5000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parsed = parser.parse_args()
    if parsed.subscribers < 2 or parsed.rounds < 1:
        parser.error("at least 2 subscribers and 1 round")
    return parsed


def main() -> int:
    chosen = arguments()
    # As an exception, so that every process started here is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        raise_descriptor_limit(chosen.subscribers)
        for program in ("load", "baseline"):
            compile_c(program)
    except BenchmarkError as error:
        sys.exit(f"bench: {error}")
    outcome = run(chosen.only, chosen.subscribers, chosen.rounds)
    print(outcome)
    if chosen.json:
        chosen.json.write_text(outcome.as_json() + "\n", encoding="utf-8")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())

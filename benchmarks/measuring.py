"""How one server is measured: which rounds, and what is read before and after.

How processes are run lives in processes.py, what the figures mean in report.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from contenders import BASELINE, CONTENDERS, STREAM, Contender
from processes import (
    BUILD,
    HERE,
    BenchmarkError,
    Load,
    cores,
    free_port,
    load,
    output_of,
)
from report import Result, Round
from server import Server, server

EVENTS = 40  # in a round
KINDS = {"One event after the other": 1, "Burst of 40": EVENTS}  # events per publish
WARM_UP = 100  # subscribers that join before memory is read for the first time
CONTROL_CONNECTIONS = 200  # beside the subscribers, for publishing and its leftovers

#: A server that is measured in turn with others, and its load.
Turn = tuple[Server, Load]


@contextmanager
def running(
    contender: Contender,
    subscribers: int,
    *,
    stream: str = STREAM,
    is_pinned: bool = True,
) -> Iterator[tuple[Server, Load]]:
    """Run a server on one core, and its load on the other.

    :param stream: the path that the subscribers ask for.
    :param is_pinned: False lets the server have both cores.
    """
    server_core, load_core = cores()
    port = free_port()
    commands = contender.command_lines(
        port=port,
        beside_port=free_port(),
        connections=subscribers + CONTROL_CONNECTIONS,
        build=BUILD,
    )
    paths = [stream, *filter(None, [contender.events])]
    with (
        server(commands, port, server_core if is_pinned else None) as started,
        load(BUILD / "load", port, paths, load_core) as generator,
    ):
        yield started, generator


def cpu_of(started: Server, generator: Load, command: str) -> tuple[Any, float]:
    """Return the load generator's answer, and the server's CPU seconds meanwhile."""
    before = started.usage().cpu_seconds
    answer = generator.ask(command)
    return answer, started.usage().cpu_seconds - before


def run_round(started: Server, generator: Load, command: str) -> Round:
    """Run a round of whatever kind.

    :raises BenchmarkError: if one delivery is wrong.
    """
    answer, used = cpu_of(started, generator, command)
    return exact(Round(**answer, server_cpu_seconds=used))


def exact(measured: Round) -> Round:
    if not measured.exact:
        raise BenchmarkError(f"not every event once and in order: {measured.tally}")
    return measured


def measure(contender: Contender, subscribers: int, rounds: int) -> Result:
    """Measure one server, and the C server in turn with it, round by round: the cost of
    a send changes from one minute to the next.

    :raises BenchmarkError: if it cannot be run, or if one delivery is wrong.
    """
    warm_up = min(WARM_UP, subscribers // 2)
    counted = subscribers - warm_up
    with ExitStack() as stack:
        turns = [stack.enter_context(running(contender, subscribers))]
        started, generator = turns[0]
        with started.nudged() if contender.silent else nullcontext():
            generator.ask(f"open {warm_up}")
            before = started.usage().kilobytes
            joined = generator.ask(f"open {counted}")
        after = started.usage().kilobytes
        if contender.name != BASELINE:
            beside = stack.enter_context(running(CONTENDERS[BASELINE], subscribers))
            beside[1].ask(f"open {subscribers}")
            turns.append(beside)
        done = {
            kind: rounds_in_turn(turns, batch, rounds) for kind, batch in KINDS.items()
        }
        return Result(
            contender=contender,
            kilobytes=(after - before) / counted,
            joins_per_second=counted / joined["seconds"],
            rounds={kind: of_each[0] for kind, of_each in done.items()},
            baseline={kind: of_each[-1] for kind, of_each in done.items()},
        )


def rounds_in_turn(
    turns: Sequence[Turn], batch: int, rounds: int, events: int = EVENTS
) -> list[list[Round]]:
    """Run rounds on several servers in turn; return those of each.

    :param batch: events in a publish.
    """
    done: list[list[Round]] = [[] for _ in turns]
    for _ in range(rounds):
        for (started, generator), own in zip(turns, done, strict=True):
            own.append(run_round(started, generator, f"round {events} {batch}"))
    return done


def measure_lone_publish() -> float:
    """Return the µs of CPU of a publish() without a subscriber."""
    server_core, _ = cores()
    printed = output_of([sys.executable, str(HERE / "lone_publish.py")], server_core)
    microseconds: float = json.loads(printed)["publish_us"]
    return microseconds

"""Compares this checkout with another one: ``python benchmarks/against.py FOLDER``.

Both packages are run by the programs of this folder, with the same Python and the same
servers. They take turns, round by round, so that each pair of figures was measured
within seconds. What never lives here: how a server is run, and what is asked of it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from answers import PACED, SPEAKERS, UNPACED, token_us
from brokers import cost_of_publishing, on, worker
from contenders import CONTENDERS, STREAM, Contender
from driver import attempt, parser, prepare
from listening import Listener
from measuring import EVENTS, Turn, cpu_of, rounds_in_turn, run_round, running
from processes import (
    HERE,
    BenchmarkError,
    cores,
    free_port,
    output_of,
    raise_descriptor_limit,
)
from report import table
from scale import (
    FIRST_VISITS,
    GEVENT,
    GTHREAD,
    OWN_CHANNEL,
    PLAIN,
    SCATTERED,
    SCATTERED_AT_ONCE,
    SYNC,
    VISITS,
)
from server import Server, server
from stores import redis_server, sqlite_file

HEARTBEATS = 2  # of the default 15 s, that silent streams are watched for
SILENT_SECONDS = 15 * HEARTBEATS
ANSWERS = 50  # at once
FIND = "import flask_sse_lite; print(flask_sse_lite.__file__)"
OURS = ("ours-gevent", "ours-sync", "ours-gthread")
PATHS = (STREAM, PLAIN)


@dataclass(frozen=True)
class Both:
    """What both checkouts took for one thing, round by round."""

    what: str
    server: str
    now: Sequence[float]
    before: Sequence[float]

    def row(self) -> list[str]:
        ratios = [a / b for a, b in zip(self.now, self.before, strict=True)]
        return [
            self.what,
            self.server,
            f"{median(self.before):,.2f}",
            f"{median(self.now):,.2f}",
            f"{median(ratios):.3f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
        ]


@dataclass(frozen=True)
class Checkouts:
    """This checkout and the other one, and how large the comparison is."""

    other: Path
    subscribers: int
    rounds: int

    def of(self, contender: Contender) -> tuple[Contender, Contender]:
        """Return how a contender is run with either package."""
        return contender, replace(
            contender, command=(*self._within_other, *contender.command)
        )

    @property
    def _within_other(self) -> tuple[str, ...]:
        """The beginning of a command that finds the other package. ``python -m`` looks
        into the working directory first."""
        return ("env", f"--chdir={self.other}", f"PYTHONPATH={self.other}")

    def check(self) -> None:
        """:raises BenchmarkError: if the other package would not be the one that is
        measured."""
        command = (*self._within_other, sys.executable, "-c", FIND)
        found = output_of(command, None).decode().strip()
        if not Path(found).is_relative_to(self.other):
            raise BenchmarkError(f"the package of {self.other} is {found}")

    def in_turn(self, *measures: Callable[[], float]) -> list[list[float]]:
        """Measure in turn. A round before the others is not counted."""
        for measure in measures:
            measure()
        taken = [[measure() for measure in measures] for _ in range(self.rounds)]
        return [list(column) for column in zip(*taken, strict=True)]


def deliveries(both: Checkouts) -> Iterator[Both]:
    for name in OURS:
        with ExitStack() as stack:
            turns = [
                stack.enter_context(running(one, both.subscribers))
                for one in both.of(CONTENDERS[name])
            ]
            for _, generator in turns:
                generator.ask(f"open {both.subscribers}")
            singles = rounds_in_turn(turns, 1, both.rounds)
            bursts = rounds_in_turn(turns, EVENTS, both.rounds)
        for kind, (now, before) in {"one by one": singles, "burst": bursts}.items():
            yield Both(
                f"µs of CPU of a delivery, {kind}",
                name,
                [one.delivery_cpu_us for one in now],
                [one.delivery_cpu_us for one in before],
            )
        now, before = singles
        yield Both(
            "µs of time of a delivery, one by one",
            name,
            [1e6 / one.deliveries_per_second for one in now],
            [1e6 / one.deliveries_per_second for one in before],
        )


def channels(both: Checkouts) -> Iterator[Both]:
    count = both.subscribers * 2
    raise_descriptor_limit(count)
    command = f"scatter {SCATTERED} {SCATTERED_AT_ONCE}"
    with ExitStack() as stack:
        turns = [
            stack.enter_context(running(one, count, stream=OWN_CHANNEL))
            for one in both.of(GEVENT)
        ]
        for _, generator in turns:
            generator.ask(f"open {count}")

        def cost(turn: Turn) -> float:
            return run_round(*turn, command).delivery_cpu_us

        now, before = both.in_turn(*(partial(cost, turn) for turn in turns))
    yield Both(
        f"µs of CPU of a publish to one of {count:,} channels", GEVENT.name, now, before
    )


def subscription(both: Checkouts) -> Iterator[Both]:
    for contender in (SYNC, GTHREAD, GEVENT):
        with ExitStack() as stack:
            turns = [
                stack.enter_context(running(one, VISITS)) for one in both.of(contender)
            ]
            for _, generator in turns:
                generator.ask(f"visit {FIRST_VISITS} {STREAM}")
                generator.ask(f"visit {FIRST_VISITS} {PLAIN}")

            def cost(turn: Turn, path: str) -> float:
                return cpu_of(*turn, f"visit {VISITS} {path}")[1] / VISITS * 1e6

            now, plain, before, plain_before = both.in_turn(
                *(partial(cost, turn, path) for turn in turns for path in PATHS)
            )
        yield Both("µs of CPU of a subscription", contender.name, now, before)
        yield Both(
            "a subscription to a plain request",
            contender.name,
            [a / b for a, b in zip(now, plain, strict=True)],
            [a / b for a, b in zip(before, plain_before, strict=True)],
        )


def silence(both: Checkouts) -> Iterator[Both]:
    """Silent streams get nothing but heartbeats. Both servers are silent at once."""
    with ExitStack() as stack:
        turns = [
            stack.enter_context(running(one, both.subscribers))
            for one in both.of(GEVENT)
        ]
        for _, generator in turns:
            generator.ask(f"open {both.subscribers}")
        time.sleep(SILENT_SECONDS / HEARTBEATS)
        first = [started.usage().cpu_seconds for started, _ in turns]
        time.sleep(SILENT_SECONDS)
        used = [
            (started.usage().cpu_seconds - cpu) / SILENT_SECONDS
            for (started, _), cpu in zip(turns, first, strict=True)
        ]
    now, before = ([one / both.subscribers * 1e6] for one in used)
    yield Both("µs of CPU a second of a silent stream", GEVENT.name, now, before)


def publishing(both: Checkouts, store: str, urls: Sequence[str]) -> Iterator[Both]:
    """A publish while another process follows the store."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor())
        workers = []
        for index, url in enumerate(urls):
            contender = both.of(on(store, url, "gevent"))[index]
            speaking, following = (stack.enter_context(worker(contender)) for _ in "12")
            listener = stack.enter_context(closing(Listener(following.port)))
            workers.append((speaking, listener))

        def cost(speaking: Server, listener: Listener) -> float:
            return cost_of_publishing(pool, speaking, listener)["cpu_us"]

        now, before = both.in_turn(*(partial(cost, *one) for one in workers))
    yield Both(f"µs of CPU of a publish, {store}", GEVENT.name, now, before)


def sqlite_publish(both: Checkouts) -> Iterator[Both]:
    with sqlite_file() as first, sqlite_file() as second:
        yield from publishing(both, "sqlite", (first, second))


def redis_publish(both: Checkouts) -> Iterator[Both]:
    with redis_server() as first, redis_server() as second:
        yield from publishing(both, "redis", (first.url, second.url))


def lone_publish(both: Checkouts) -> Iterator[Both]:
    command = (sys.executable, str(HERE / "lone_publish.py"))
    contender = Contender("memory", command, "")
    core, _ = cores()

    def cost(one: Contender) -> float:
        figure: float = json.loads(output_of(one.command, core))["publish_us"]
        return figure

    now, before = both.in_turn(*(partial(cost, one) for one in both.of(contender)))
    yield Both("µs of CPU of a publish, nobody listens", "no server", now, before)


def tokens(both: Checkouts) -> Iterator[Both]:
    core, _ = cores()
    for name in ("ours-stream", "ours-run"):
        speaker = SPEAKERS[name]
        with ExitStack() as stack:
            turns = []
            for one in both.of(speaker.contender):
                port = free_port()
                commands = one.command_lines(port=port, connections=ANSWERS)
                turns.append(stack.enter_context(server(commands, port, core)))

            def cost(path: str, pause: float, started: Server) -> float:
                return token_us(started, path, ANSWERS, pause)[0]

            for kind, pause in {"at once": UNPACED, "paced": PACED}.items():
                paced = partial(cost, speaker.path, pause)
                now, before = both.in_turn(*(partial(paced, one) for one in turns))
                yield Both(f"µs of CPU of a token, {kind}", name, now, before)


PARTS: dict[str, Callable[[Checkouts], Iterator[Both]]] = {
    "deliveries": deliveries,
    "channels": channels,
    "subscription": subscription,
    "silence": silence,
    "sqlite-publish": sqlite_publish,
    "redis-publish": redis_publish,
    "lone-publish": lone_publish,
    "tokens": tokens,
}


def main() -> int:
    options = parser("Compare with another checkout.", subscribers=5000, rounds=5)
    options.add_argument("folder", type=Path)
    options.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    chosen = options.parse()
    prepare(chosen.subscribers)
    both = Checkouts(chosen.folder.resolve(), chosen.subscribers, chosen.rounds)
    try:
        both.check()
    except BenchmarkError as error:
        options.error(str(error))
    found: list[Both] = []
    failures = attempt(
        "comparing", chosen.only, lambda name: found.extend(PARTS[name](both))
    )
    header = ["what", "server", "before", "now", "now to before", "from round to round"]
    print(table("This checkout and the other", header, [one.row() for one in found]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

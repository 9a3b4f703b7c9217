"""What the shared brokers promise: a part for each promise, with the limit that it must
keep.

Each worker process is a gunicorn of its own here, so that it can be asked by itself;
all have one store. The stores live in stores.py, what a process does in
servers/ours_shared.py, and how servers are run in measuring.py and server.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from statistics import median, quantiles

from contenders import SERVERS, Contender, gunicorn
from listening import Listener, drained, latencies, take_all
from measuring import run_round, running
from processes import (
    BUILD,
    BenchmarkError,
    free_port,
    load,
    output_of,
    process,
)
from report import AtLeast, AtMost, Finding
from scale import Part
from server import Server, server
from stores import MEMORY, redis_server, sqlite_file

WORKERS = {
    "gevent": ("--worker-class=gevent",),
    "gthread": ("--worker-class=gthread", "--threads=4"),
}
WRITERS = 4  # workers that publish at once
WRITES = 5_000  # of each of them in a round
SEEING = 2  # of these workers have a subscriber
PUBLISHES = 5_000  # in a round of sqlite-publish
DRIPS = 500  # single events in a round
PAUSE = 0.004  # seconds between two of them, at most
STALL_DRIPS = 500  # single events of the worker beside the writers
STALL_PAUSE = 0.01  # seconds between two of them, at most
BESIDE = 20  # subscribers of the worker beside the writers
COUNTED = 1_000  # publishes whose commands are counted
TOGETHER = 200  # publishes at once
FAN_OUT_EVENTS = 20  # in a round of one store
CHANNELS = 50  # of the clients that come back
MISSED = 20  # events that these clients missed in each channel
IDLE_SECONDS = 3  # in which the reads of the followers alone are counted
WORKERS_BACK = "--workers=2"
OUTSIDE = str(SERVERS / "outside.py")
ROOMS = f"/rooms?count={CHANNELS}&number={{}}"


def on(
    store: str, url: str, worker: str, *options: str, app: str = "ours_shared:app"
) -> Contender:
    """Return the extension on a store, which its URL names."""
    name = f"{store}, {worker}"
    command = gunicorn(app, *WORKERS[worker], f"--env=FLASK_SSE_URL={url}", *options)
    return Contender(name, command, name)


@contextmanager
def worker(contender: Contender) -> Iterator[Server]:
    """Run a worker process, pinned to no core."""
    port = free_port()
    with server(contender.command_lines(port=port), port, None) as started:
        yield started


def answer(started: Server, path: str) -> dict[str, float]:
    """Have a worker do something that it measures itself."""
    status, body = started.answer("POST", path)
    if status != 200:
        raise BenchmarkError(f"{path} was answered by {status}")
    found: dict[str, float] = json.loads(body)
    return found


def numbered(first: int, count: int) -> str:
    return f"first={first}&count={count}"


# SQLite


def sqlite_publish(subscribers: int, rounds: int) -> Iterator[Finding]:
    """What does a publish cost while another process follows the store?"""
    with ExitStack() as stack:
        url = stack.enter_context(sqlite_file())
        contender = on("sqlite", url, "gevent")
        publishing, following = (stack.enter_context(worker(contender)) for _ in "12")
        listener = stack.enter_context(closing(Listener(following.port)))
        pool = stack.enter_context(ThreadPoolExecutor())
        costs = []
        for _ in range(rounds + 1):
            costs.append(cost_of_publishing(pool, publishing, listener))
    del costs[0]
    cpu, p50 = (median(one[name] for one in costs) for name in ("cpu_us", "p50_us"))
    yield Finding(
        "µs of CPU of a publish",
        contender.name,
        cpu,
        AtMost(60),
        f"p50 of its time {p50:.0f} µs; {PUBLISHES:,} without a pause",
    )


def cost_of_publishing(
    pool: Executor, publishing: Server, listener: Listener
) -> dict[str, float]:
    """Have a worker publish a round, while a subscriber of another one reads: who is
    not read from loses events to a gap."""
    first = listener.events
    path = f"/costs?{numbered(first, PUBLISHES)}"
    costs = pool.submit(answer, publishing, path)
    take_all([listener], first + PUBLISHES)
    return costs.result()


def sqlite_latency(subscribers: int, rounds: int) -> Iterator[Finding]:
    """When is an event on a socket of another worker process?"""
    with sqlite_file() as url:
        for kind in WORKERS:
            contender = on("sqlite", url, kind)
            took = latency(contender, rounds)
            yield from latency_findings(contender.name, took, {50: 0.5, 99: 3})


def redis_latency(subscribers: int, rounds: int) -> Iterator[Finding]:
    """The same over a Redis on the same machine."""
    with redis_server() as redis:
        for kind in WORKERS:
            contender = on("redis", redis.url, kind)
            took = latency(contender, rounds)
            yield from latency_findings(contender.name, took, {50: 1})


def latency(contender: Contender, rounds: int) -> list[list[float]]:
    """Return ms from publishing in one process to the arrival from another, of each
    round's events."""
    with ExitStack() as stack:
        publishing, serving = (stack.enter_context(worker(contender)) for _ in "12")
        listener = stack.enter_context(closing(Listener(serving.port)))
        pool = stack.enter_context(ThreadPoolExecutor())
        took = []
        for number in range(rounds + 1):
            path = f"/drip?pause={PAUSE}&{numbered(number * DRIPS, DRIPS)}"
            published = pool.submit(answer, publishing, path)
            took.append(latencies(listener, DRIPS))
            published.result()
        if listener.numbers() != list(range((rounds + 1) * DRIPS)):
            raise BenchmarkError("not every event once and in order")
    return took[1:]


def latency_findings(
    name: str, took: Sequence[Sequence[float]], asked: dict[int, float]
) -> Iterator[Finding]:
    """The medians of the rounds' percentiles."""
    percentiles = [quantiles(one, n=100) for one in took]

    def of(percent: int) -> float:
        return median(one[percent - 1] for one in percentiles)

    longest = max(map(max, took))
    for percent, limit in asked.items():
        yield Finding(
            f"ms to another process's socket, p{percent}",
            name,
            of(percent),
            AtMost(limit),
            f"p50 {of(50):.2f} ms, p99 {of(99):.2f} ms, max {longest:.1f} ms",
        )


def sqlite_stall(subscribers: int, rounds: int) -> Iterator[Finding]:
    """For how long does no greenlet of a gevent worker get a turn, while other
    processes write as fast as they can?"""
    with ExitStack() as stack:
        url = stack.enter_context(sqlite_file())
        contender = on("sqlite", url, "gevent")
        started = stack.enter_context(worker(contender))
        opened = [
            stack.enter_context(closing(Listener(started.port))) for _ in range(BESIDE)
        ]
        path = f"/stall?pause={STALL_PAUSE}&{numbered(0, STALL_DRIPS)}"
        stack.enter_context(drained(opened))
        alone = answer(started, path)
        for _ in range(WRITERS):
            stack.enter_context(writer(url))
        beside = [answer(started, path) for _ in range(rounds)]
    worst = max(beside, key=lambda one: one["longest_ms"])
    each = ", ".join(f"{one['longest_ms']:.0f}" for one in beside)
    yield Finding(
        f"ms a gevent worker is held beside {WRITERS} writers",
        contender.name,
        worst["longest_ms"],
        AtMost(50),
        f"of these {worst['waited_ms']:.0f} ms without a core; by round {each}; "
        f"without writers {alone['longest_ms']:.0f}, {alone['waited_ms']:.0f} of these",
    )


@contextmanager
def writer(url: str) -> Iterator[None]:
    """Run a process that publishes as fast as it can."""
    command = [sys.executable, OUTSIDE, url, "0", "0", "sse"]
    with process(command, core=None, stdout=subprocess.DEVNULL):
        yield


def sqlite_writers(subscribers: int, rounds: int) -> Iterator[Finding]:
    """How many events a second do some workers publish at once, and does each
    subscriber see all of them in the same order?"""
    with ExitStack() as stack:
        url = stack.enter_context(sqlite_file())
        contender = on("sqlite", url, "gevent")
        workers = [stack.enter_context(worker(contender)) for _ in range(WRITERS)]
        listeners = [
            stack.enter_context(closing(Listener(one.port))) for one in workers[:SEEING]
        ]
        pool = stack.enter_context(ThreadPoolExecutor())
        rates, used = [], []
        for number in range(rounds + 1):
            start = time.monotonic()
            answers = [
                pool.submit(one.request, "POST", f"/publish?{numbered(first, WRITES)}")
                for one, first in zip(workers, shares(number), strict=True)
            ]
            take_all(listeners, (number + 1) * WRITERS * WRITES)
            if any(one.result() != 200 for one in answers):
                raise BenchmarkError("a worker could not publish")
            rates.append(WRITERS * WRITES / (time.monotonic() - start))
            used.append(sum(one.usage().cpu_seconds for one in workers))
        check_order([one.numbers() for one in listeners], rounds + 1)
    del rates[0]
    cpu = (used[-1] - used[0]) / (rounds * WRITERS * WRITES) * 1e6
    yield Finding(
        f"events a second of {WRITERS} workers that publish at once",
        contender.name,
        median(rates),
        AtLeast(10_000),
        f"from {min(rates):,.0f} to {max(rates):,.0f}; {cpu:.0f} µs of CPU each "
        f"in all workers, of which {SEEING} have a subscriber; these saw one order",
    )


def shares(number: int) -> range:
    """The first event of each writer in a round."""
    first = number * WRITERS * WRITES
    return range(first, first + WRITERS * WRITES, WRITES)


def check_order(seen: Sequence[list[int]], rounds: int) -> None:
    if any(one != seen[0] for one in seen):
        raise BenchmarkError("not the same order for all")
    if sorted(seen[0]) != list(range(rounds * WRITERS * WRITES)):
        raise BenchmarkError("not every event once")
    for number in range(rounds):
        for first in shares(number):
            own = [seq for seq in seen[0] if first <= seq < first + WRITES]
            if own != sorted(own):
                raise BenchmarkError("a writer's events are not in its order")


# Redis


def redis_publish(subscribers: int, rounds: int) -> Iterator[Finding]:
    """How many commands does a publish take? Commands that a script runs are not
    counted: MONITOR marks them."""
    with redis_server() as redis:
        contender = on("redis", redis.url, "gevent")
        with worker(contender) as started:
            answer(
                started, f"/costs?{numbered(0, COUNTED)}"
            )  # connects and loads the scripts
            with redis.sent() as commands:
                costs = answer(started, f"/costs?{numbered(0, COUNTED)}")
    yield Finding(
        "commands, thus round trips, of a publish",
        contender.name,
        sum(commands.values()) / COUNTED,
        AtMost(1),
        f"{COUNTED:,} publishes were {listed(commands)}; one takes "
        f"{costs['p50_us']:.0f} µs (p50), {costs['cpu_us']:.0f} of CPU",
    )


def listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def redis_connections(subscribers: int, rounds: int) -> Iterator[Finding]:
    """How many connections listen for many subscribers, and how many more are there
    after many publishes at once?"""
    count = subscribers // 5
    with redis_server() as redis:
        contender = on("redis", redis.url, "gevent")
        with running(contender, count) as (started, generator):
            generator.ask(f"open {count}")
            answer(started, f"/together?{numbered(0, TOGETHER)}")
            kinds = Counter(
                "listens" if int(one["sub"]) else "commands"
                for one in redis.connections()
            )
    yield Finding(
        f"connections that listen, of a process with {count:,} subscribers",
        contender.name,
        kinds["listens"],
        AtMost(1),
        f"and {kinds['commands']} for commands, after {TOGETHER} publishes at once",
    )


# All stores


def fan_out(subscribers: int, rounds: int) -> Iterator[Finding]:
    """What does a delivery cost, compared with memory? Redis's own CPU is not in it."""
    with ExitStack() as stack:
        urls = {
            "memory": MEMORY,
            "sqlite": stack.enter_context(sqlite_file()),
            "redis": stack.enter_context(redis_server()).url,
        }
        servers = {}
        for store, url in urls.items():
            contender = on(store, url, "gevent")
            one = stack.enter_context(running(contender, subscribers))
            servers[contender.name] = one
            one[1].ask(f"open {subscribers}")
        costs: dict[str, list[float]] = {name: [] for name in servers}
        # In turn: the machine's other load changes from minute to minute.
        for _ in range(rounds):
            for name, one in servers.items():
                done = run_round(*one, f"round {FAN_OUT_EVENTS} 1")
                costs[name].append(done.delivery_cpu_us)
    memory, *shared = {name: median(each) for name, each in costs.items()}.items()
    for name, cpu in shared:
        yield Finding(
            f"CPU of a delivery among {subscribers:,} to that with memory",
            name,
            cpu / memory[1],
            AtMost(1.1),
            f"{cpu:.2f} µs to {memory[1]:.2f} µs",
        )


def resume(subscribers: int, rounds: int) -> Iterator[Finding]:
    """All clients come back at once after a restart of all workers. How long until
    each has what it missed, and how often is the store read for them?"""
    with sqlite_file() as url, tempfile.NamedTemporaryFile() as visits:
        option = f"--env=FLASK_VISITS_FILE={visits.name}"
        contender = on("sqlite", url, "gevent", WORKERS_BACK, option)
        count = partial(os.path.getsize, visits.name)
        yield from resumption(contender, url, count, subscribers, rounds)
    with redis_server() as redis:
        contender = on("redis", redis.url, "gevent", WORKERS_BACK)
        yield from resumption(contender, redis.url, redis.calls, subscribers, rounds)


def resumption(
    contender: Contender,
    url: str,
    count_reads: Callable[[], int],
    subscribers: int,
    rounds: int,
) -> Iterator[Finding]:
    port = free_port()
    commands = contender.command_lines(port=port)
    done, reads = [], []
    with load(BUILD / "load", port, [ROOMS], None) as generator:
        with server(commands, port, None):
            generator.ask(f"open {subscribers}")
        for number in range(rounds):
            publish_outside(url, 1 + number * MISSED)
            with server(commands, port, None) as started:
                before, since = count_reads(), time.monotonic()
                done.append(run_round(started, generator, f"resume {MISSED}"))
                after, until = count_reads(), time.monotonic()
                # The followers read now and then, without any client's coming back.
                time.sleep(IDLE_SECONDS)
                idle = (count_reads() - after) / IDLE_SECONDS
                reads.append(max(0.0, after - before - idle * (until - since)))
    took = [one.seconds for one in done]
    yield Finding(
        f"s until {subscribers:,} who come back have all they missed",
        contender.name,
        max(took),
        AtMost(10),
        f"from {min(took):.1f} to {max(took):.1f} s; "
        f"{median(one.server_cpu_seconds for one in done):.1f} s of CPU; "
        f"{MISSED} events each",
    )
    each = median(reads) / CHANNELS / 2
    yield Finding(
        f"reads for them, for each of {CHANNELS} channels and of two workers",
        contender.name,
        each,
        AtMost(2),
        f"{median(reads):.0f} for {subscribers:,} clients",
    )


def publish_outside(url: str, first: int) -> None:
    """Publish the same numbers to each channel, while no worker runs."""
    names = [f"room.{number}" for number in range(CHANNELS)]
    numbers = [str(first), str(MISSED)]
    output_of([sys.executable, OUTSIDE, url, *numbers, *names], None)


PARTS: dict[str, Part] = {
    "sqlite-publish": sqlite_publish,
    "sqlite-latency": sqlite_latency,
    "sqlite-stall": sqlite_stall,
    "sqlite-writers": sqlite_writers,
    "redis-publish": redis_publish,
    "redis-latency": redis_latency,
    "redis-connections": redis_connections,
    "fan-out": fan_out,
    "resume": resume,
}

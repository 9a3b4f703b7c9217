"""What scale costs: a part for each question, with the limit of its answer.

All numbers of subscribers follow from one, so that a quick look is possible. The limits
hold for the full size. How a server is run lives in measuring.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from contenders import BASELINE, CONTENDERS, STREAM, at_scale
from measuring import cpu_of, exact, rounds_in_turn, run_round, running
from processes import BenchmarkError, Load, raise_descriptor_limit
from report import AtMost, Finding, Round, median_ratio
from server import Server

CROWD_EVENTS = 20  # in a round of either crowd
SCATTERED = 10_000  # events in a round
SCATTERED_AT_ONCE = 1_000  # of these in one request
VISITS = 1_000  # in a round: long enough for the clock, short enough to take turns
FIRST_VISITS = 200  # not measured: a server prepares some things at first use
CONTINUOUS_EVENTS = 40  # in a round of continuous fan-out
SINGLE_EVENTS = 5  # in a round beside the thread that computes
OWN_CHANNEL = "/stream?channel={}"
PLAIN = "/plain"

GEVENT = at_scale("gevent")
SYNC = at_scale("sync")
GTHREAD = at_scale("gthread", "--threads=4")

Part = Callable[[int, int], Iterator[Finding]]


def crowd(subscribers: int, rounds: int) -> Iterator[Finding]:
    """Does a delivery cost more when there are many? The C server shows how much of
    that is the kernel's."""
    few, many = subscribers // 5, subscribers * 3
    raise_descriptor_limit(many)
    for contender in (CONTENDERS[BASELINE], GEVENT, SYNC):
        with running(contender, many) as large, running(contender, few) as small:
            for (_, generator), count in ((large, many), (small, few)):
                generator.ask(f"open {count}")
            costs = [
                [one.delivery_cpu_us for one in done]
                for done in rounds_in_turn((large, small), 1, rounds, CROWD_EVENTS)
            ]
        among_many, among_few = map(median, costs)
        yield Finding(
            f"CPU of a delivery among {many:,} to among {few:,}",
            contender.name,
            median_ratio(*costs),
            None if contender.name == BASELINE else AtMost(1.2),
            f"{among_many:.2f} µs to {among_few:.2f} µs",
        )


def channels(subscribers: int, rounds: int) -> Iterator[Finding]:
    """What does a publish cost when each subscriber has a channel of its own?"""
    count = subscribers * 2
    raise_descriptor_limit(count)
    for contender in (GEVENT, SYNC, GTHREAD):
        with running(contender, count, stream=OWN_CHANNEL) as (started, generator):
            generator.ask(f"open {count}")
            command = f"scatter {SCATTERED} {SCATTERED_AT_ONCE}"
            done = [run_round(started, generator, command) for _ in range(rounds)]
        yield Finding(
            f"µs of CPU of a publish to one of {count:,} channels",
            contender.name,
            median(one.delivery_cpu_us for one in done),
            AtMost(30),
            f"{SCATTERED_AT_ONCE:,} in a request, "
            f"p50 {median(one.p50_ms for one in done):.1f} ms, "
            f"p99 {median(one.p99_ms for one in done):.1f} ms",
        )


def subscription(subscribers: int, rounds: int) -> Iterator[Finding]:
    """What does a subscription that comes and goes cost, beside an ordinary request?"""
    for contender in (SYNC, GTHREAD, GEVENT):
        with running(contender, subscribers) as (started, generator):
            kinds: dict[str, list[float]] = {STREAM: [], PLAIN: []}
            for path in kinds:
                generator.ask(f"visit {FIRST_VISITS} {path}")
            for _ in range(rounds):
                for path, costs in kinds.items():
                    _, used = cpu_of(started, generator, f"visit {VISITS} {path}")
                    costs.append(used / VISITS * 1e6)
        stream, plain = map(median, kinds.values())
        yield Finding(
            "CPU of a subscription to that of a plain request",
            contender.name,
            median_ratio(*kinds.values()),
            AtMost(1.1),
            f"{stream:.0f} µs to {plain:.0f} µs",
        )


def bystander(subscribers: int, rounds: int) -> Iterator[Finding]:
    """How long does an ordinary request wait while a gevent worker fans out?"""
    with running(GEVENT, subscribers) as (started, generator):
        generator.ask(f"open {subscribers}")
        answers = []
        for _ in range(rounds):
            command = f"beside {CONTINUOUS_EVENTS} {PLAIN}"
            answer, used = cpu_of(started, generator, command)
            requests = {
                name: answer.pop(name)
                for name in list(answer)
                if name.startswith("request")
            }
            done = exact(Round(**answer, server_cpu_seconds=used))
            answers.append(requests | {"busy": used / done.seconds})

    def middle(name: str) -> float:
        figure: float = median(answer[name] for answer in answers)
        return figure

    yield Finding(
        f"ms, p99 of a request during fan-out to {subscribers:,}",
        GEVENT.name,
        middle("request_p99_ms"),
        AtMost(25),
        f"p50 {middle('request_p50_ms'):.1f} ms, max {middle('request_max_ms'):.1f} "
        f"ms, {sum(a['requests'] for a in answers):,} requests, "
        f"server busy {middle('busy'):.0%}",
    )


def busy_thread(subscribers: int, rounds: int) -> Iterator[Finding]:
    """How long does a fan-out take while another thread computes? The server has two
    cores: on one, threads that wait for the GIL do not overtake each other."""
    count = max(subscribers // 10, 1)
    with running(GTHREAD, count, is_pinned=False) as (started, generator):
        generator.ask(f"open {count}")
        alone = fan_out_ms(started, generator, rounds)
        if started.request("POST", "/compute") != 200:
            raise BenchmarkError("no thread that computes")
        beside = fan_out_ms(started, generator, rounds)
    yield Finding(
        f"ms of a fan-out to {count:,} beside a busy thread",
        GTHREAD.name,
        median(beside),
        AtMost(60),
        f"from {min(beside):.0f} ms to {max(beside):.0f} ms; without the thread "
        f"{median(alone):.0f} ms",
    )


def fan_out_ms(started: Server, generator: Load, rounds: int) -> Sequence[float]:
    """Return the ms of single events, each from its publishing to its last arrival."""
    return [
        run_round(started, generator, "round 1 1").max_ms
        for _ in range(rounds * SINGLE_EVENTS)
    ]


PARTS: dict[str, Part] = {
    "crowd": crowd,
    "channels": channels,
    "subscription": subscription,
    "bystander": bystander,
    "busy-thread": busy_thread,
}

"""What bounds cost, and how soon clients are out that are thrown out: a part for each
question, with the limit of its answer.

Applications with identities and limits, and one without, take many short turns in one
process: hundredths are asked for, and the machine changes by tenths, as two processes
of one program do. What servers do lives in servers/ours_bounded.py and ours_members.py,
and how they are run in server.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice, permutations
from statistics import median

from brokers import on
from contenders import Contender, gunicorn
from measuring import Turn, cpu_of, run_round, running
from processes import BUILD, cores, free_port, load
from report import AtMost, Finding, median_ratio
from scale import OWN_CHANNEL, Part
from server import server
from stores import MEMORY, redis_server, sqlite_file

MEMBER = "/stream?channel=sse&who={}"
FRIEND = "/stream?channel=sse&who=ann"

#: Limits that nobody reaches, and one that is reached again and again where events are
#: scattered.
LIMITS = {
    "SSE_MAX_PER_CLIENT": 10,
    "SSE_MAX_CHANNELS": 50_000,
    "SSE_MAX_CONNECTIONS": 50_000,
    "SSE_HISTORY_BYTES": 50_000_000,
}
REACHED = {"SSE_HISTORY_BYTES": 1_000_000}
#: The applications.
KINDS: dict[str, Mapping[str, object]] = {
    "neither": {"identities": False},
    "identities": {"identities": True},
    "limits": {"identities": True, **LIMITS},
    "full": {"identities": True, **LIMITS, **REACHED},
}
#: What the cost of each bound is the ratio of.
RATIOS = {
    "an identity": ("identities", "neither"),
    "limits": ("limits", "identities"),
    "a history that is full": ("full", "limits"),
}
TURNS = 40  # in a round: the median of fewer pairs is off by more than is asked for
VISITS = 60  # in a turn, which is short, so that a pair is measured at one speed
EVENTS = 5  # in a turn, to all subscribers
SCATTERED = 500  # events in a turn, in one request, to one subscriber each
DEAREST = 1.02  # asked of a ratio

SEVERAL = 4  # workers that share a store
LEEWAY = 0.5  # seconds in which clients that come back can be thrown out once more


def bounded_subscription(subscribers: int, rounds: int) -> Iterator[Finding]:
    """What do an identity and limits add to a subscription that comes and goes?"""

    def cost(turn: Turn) -> float:
        _, used = cpu_of(*turn, f"visit {VISITS} {MEMBER}")
        return used / VISITS * 1e6

    for worker in ("sync", "gevent"):
        with bounded(worker, MEMBER) as turns:
            yield from costs("a subscription", worker, turns, cost, rounds)


def bounded_delivery(subscribers: int, rounds: int) -> Iterator[Finding]:
    """What do they add to a delivery among many, and to one for which an event is
    published?"""
    count = max(subscribers // 5, 1)
    commands = {
        "a delivery": (MEMBER, f"round {EVENTS} 1"),
        "a publish with its delivery": (
            OWN_CHANNEL,
            f"scatter {SCATTERED} {SCATTERED}",
        ),
    }
    for what, (path, command) in commands.items():

        def cost(turn: Turn, command: str = command) -> float:
            return run_round(*turn, command).delivery_cpu_us

        with bounded("gevent", path) as turns:
            for _, generator in turns.values():
                generator.ask(f"open {count}")
            yield from costs(what, "gevent", turns, cost, rounds)


@contextmanager
def bounded(worker: str, stream: str) -> Iterator[dict[str, Turn]]:
    """Run a server on one core, with a port for each kind of application, and a load
    for each on the other.

    :param stream: the path that the subscribers ask for.
    """
    server_core, load_core = cores()
    ports = {kind: free_port() for kind in KINDS}
    config = json.dumps({ports[kind]: config for kind, config in KINDS.items()})
    _, *binds = (f"--bind=127.0.0.1:{port}" for port in ports.values())
    command = gunicorn(
        *("ours_bounded:app", f"--worker-class={worker}"),
        *(*binds, f"--env=APPLICATIONS={escaped(config)}"),
    )
    with ExitStack() as stack:
        first, *_ = ports.values()
        commands = Contender("", command, "").command_lines(port=first)
        started = stack.enter_context(server(commands, first, server_core))
        yield {
            kind: (
                started,
                stack.enter_context(load(BUILD / "load", port, [stream], load_core)),
            )
            for kind, port in ports.items()
        }


def escaped(text: str) -> str:
    """A part of a contender's command in which nothing is filled in."""
    return text.replace("{", "{{").replace("}", "}}")


def costs(
    what: str,
    worker: str,
    turns: Mapping[str, Turn],
    cost: Callable[[Turn], float],
    rounds: int,
) -> Iterator[Finding]:
    """Measure in turn; each begins as often as the others. The first turns are not
    counted, because servers prepare some things at first use."""
    found: dict[str, list[float]] = {kind: [] for kind in turns}
    for turn in turns.values():
        cost(turn)
    for order in islice(cycle(permutations(turns)), rounds * TURNS):
        for kind in order:
            found[kind].append(cost(turns[kind]))
    for bound, (kind, without) in RATIOS.items():
        yield Finding(
            f"CPU of {what} with {bound}, to that without",
            f"ours-{worker}",
            median_ratio(found[kind], found[without]),
            AtMost(DEAREST),
            f"{median(found[kind]):.1f} µs to {median(found[without]):.1f} µs, "
            f"{rounds * TURNS} pairs",
        )


# Who is thrown out


def thrown_out(subscribers: int, rounds: int) -> Iterator[Finding]:
    """How soon are streams over whose clients are thrown out, in one worker and in
    several?"""
    with sqlite_file() as file, redis_server() as redis:
        places = {
            "memory": (MEMORY, 1),
            "sqlite": (file, SEVERAL),
            "redis": (redis.url, SEVERAL),
        }
        for store, (url, workers) in places.items():
            contender = on(
                store,
                url,
                "gevent",
                f"--workers={workers}",
                app="ours_members:app",
            )
            for count in (subscribers // 5, subscribers):
                for who, (path, target) in ways_out(count).items():
                    yield Finding(
                        f"s until the last of {count:,} streams is over, {who}",
                        f"{contender.name}, workers: {workers}",
                        *last_ends(contender, count, path, target, rounds),
                    )


def ways_out(count: int) -> dict[str, tuple[str, str]]:
    """What so many clients ask for, and what ends all of their streams."""
    return {
        "one identity's": (FRIEND, "/disconnect?identity=ann"),
        "one channel's": (MEMBER, "/disconnect?channel=sse"),
        "one by one": (MEMBER, f"/disconnect-each?count={count}"),
    }


def last_ends(
    contender: Contender, count: int, path: str, target: str, rounds: int
) -> tuple[float, AtMost | None, str]:
    """Throw out all clients, again and again.

    :returns: the rest of a finding.
    """
    took, answered = [], []
    with running(contender, count, stream=path, is_pinned=False) as (_, generator):
        for _ in range(rounds):
            generator.ask(f"open {count}")
            ended = generator.ask(f"end {target}")
            took.append(ended["seconds"])
            answered.append(ended["answered_seconds"])
            time.sleep(LEEWAY)
    last = median(took)
    return (
        last,
        None,  # It follows from what the machine takes to close so many connections.
        f"from {min(took):.3f} to {max(took):.3f} s; {count / last:,.0f} streams a "
        f"second; disconnect() returned after {median(answered):.3f} s",
    )


PARTS: dict[str, Part] = {
    "bounded-subscription": bounded_subscription,
    "bounded-delivery": bounded_delivery,
    "thrown-out": thrown_out,
}

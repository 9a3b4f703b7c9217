"""All that a run has seen, by time. What it means is decided in ``verdicts``.

Any thread can add to a record: each kind of thing is added by one thread, at the end of
its list.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from math import exp
from pathlib import Path
from typing import Any, NamedTuple

from .plan import Plan
from .visitor import STEPS


class Sample(NamedTuple):
    """What one worker held at a time. Memory is in bytes: all that it has in memory
    (RSS), and that with its share of what it shares (PSS)."""

    at: float
    process: int
    rss: int
    pss: int
    descriptors: int
    threads: int


class Inside(NamedTuple):
    """What a worker told of itself."""

    at: float
    process: int
    streams: int
    greenlets: int


class Done(NamedTuple):
    """Something that was done to the service, and until when it took."""

    at: float
    until: float
    name: str
    what: str


class Seen(NamedTuple):
    """What all clients of a process have seen in a second."""

    at: float
    who: str
    connected: int
    counts: dict[str, int]
    delays: dict[int, int]


class Rest(NamedTuple):
    """What the workers hold before anybody has come, and when all have left: the most
    of any worker."""

    streams: int
    descriptors: int
    threads: int
    greenlets: int


@dataclass
class Record:
    plan: Plan
    #: ``time.monotonic()`` at the beginning of the run. All other times count from it.
    began: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    inside: list[Inside] = field(default_factory=list)
    #: Bytes that Redis uses, by time.
    store: list[tuple[float, int]] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    #: A bare echo's times, by ``step``, of each second.
    echo: list[tuple[float, dict[int, int]]] = field(default_factory=list)
    #: How many events were published by then.
    published: list[tuple[float, int]] = field(default_factory=list)
    #: Attempts to publish that failed, and were repeated.
    failed: int = 0
    wrong: list[str] = field(default_factory=list)
    #: Lines of the server's log that begin a traceback and are not to be expected.
    tracebacks: int = 0
    #: What was left out: of each deed, why.
    skipped: dict[str, str] = field(default_factory=dict)
    before: Rest | None = None
    after: Rest | None = None
    #: The process of the worker that was spared.
    elder: int | None = None

    def total(self, name: str) -> int:
        """How often clients have counted something."""
        return sum(seen.counts.get(name, 0) for seen in self.seen)

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @property
    def events(self) -> int:
        return self.published[-1][1] if self.published else 0


def quantile(delays: dict[int, int], part: float) -> float | None:
    """The seconds within which a part of all came; None where none came."""
    left = part * sum(delays.values())
    for number in sorted(delays):
        left -= delays[number]
        if left <= 0:
            return exp((number + 0.5) / STEPS) / 1e6
    return None


def merged(all_delays: list[dict[int, int]]) -> dict[int, int]:
    sum_: Counter[int] = Counter()
    for delays in all_delays:
        sum_.update(delays)
    return sum_


def delays_of(report: dict[str, Any]) -> dict[int, int]:
    """The times of a report: JSON has only texts as keys."""
    return {int(number): count for number, count in report["delays"].items()}

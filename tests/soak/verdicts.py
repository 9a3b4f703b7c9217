"""The verdicts: which promises a record keeps, and by which figures.

Nothing here waits or looks at a machine: a record is all that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median
from typing import NamedTuple

from .plan import BEGIN, DEEDS, DROP, END, REPLACE, RESTART
from .record import Record, Sample, merged, quantile

#: States of a verdict. What is noted is not judged, and its text says why.
#: What is missed is no promise: the run was not what it was to be.
HELD, BROKEN, SKIPPED, NOTED = "held", "broken", "skipped", "noted"
MISSED = "missed"

#: The part of the clients and of the events that there must be for a run to be what was
#: asked for. Events are fewer while Redis and the workers are away.
ASKED = 0.75

#: Seconds over which growth can be judged. In less, what fluctuates looks like growth.
JUDGED = 240.0

#: By how much a worker can grow over the second half: for the fragments that the
#: allocator leaves, which fill up at last. The larger one counts.
GROWTH, GROWTH_PART = 4e6, 0.06

#: Bytes that a further stream can cost: a worker whose neighbours are killed gets their
#: clients. (Streams of two channels in groups of twenty cost some 10 kB.)
PER_STREAM = 16_000

#: How many times as long a delivery can take in the second half as in the first,
#: divided by the same of a bare echo: in the median, and at the slowest hundredth, of
#: which a busy machine has more.
SLOWER, SLOWEST = 1.5, 2.0

#: Seconds of one figure of the delays.
BIN = 10.0

#: Seconds behind a restart or a replacement for which delays show the return of all.
ECHOES = 10.0

#: By how much a worker at rest, behind it all, can exceed one before it all. It keeps
#: connections to Redis and a follower; gunicorn keeps a connection or two.
DESCRIPTORS, THREADS, GREENLETS = 16, 4, 8

#: The factor by which Redis can hold more at the end of the second half than at its
#: beginning: what it keeps is bounded, and it rewrites its file now and then.
STORE = 1.3


class Verdict(NamedTuple):
    promise: str
    state: str
    why: str


class Trend(NamedTuple):
    """A line through values over time, by least squares."""

    slope: float
    span: float

    @property
    def growth(self) -> float:
        return self.slope * self.span

    @property
    def per_hour(self) -> float:
        return self.slope * 3600


def trend(points: Sequence[tuple[float, float]]) -> Trend:
    times, values = zip(*points, strict=True)
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((t - middle) ** 2 for t in times)
    slope = sum((t - middle) * (v - mean) for t, v in points) / spread if spread else 0
    return Trend(slope, times[-1] - times[0])


def verdicts(record: Record) -> list[Verdict]:
    return [verdict for judge in _JUDGES for verdict in judge(record)]


def is_kept(found: Iterable[Verdict]) -> bool:
    """Whether no promise is broken."""
    return all(verdict.state != BROKEN for verdict in found)


def _said(promise: str, is_held: bool, why: str) -> Verdict:
    return Verdict(promise, HELD if is_held else BROKEN, why)


# What clients were sent


def _deliveries(record: Record) -> Iterator[Verdict]:
    lost = record.total("lost") + record.total("unfinished")
    lost += sum(
        "lost" in text for text in record.wrong if text.startswith("a newcomer")
    )
    told = f"{record.total('deliveries'):,} deliveries of {record.events:,} events"
    yield _said("Nothing is lost", not lost, f"{told}; {lost:,} lost")
    doubled = record.total("doubled")
    late = sum(text.endswith("out of its turn") for text in record.wrong)
    yield _said(
        "Nothing comes twice or out of its turn",
        not doubled + late,
        f"{doubled:,} twice, {late:,} out of turn",
    )
    yield _said(
        "A client that comes back goes on where it was, or is told what it lost",
        not lost + doubled,
        f"{record.total('returns'):,} returns; in "
        f"{record.total('continued'):,} channels their clients went on, in "
        f"{record.total('told'):,} they were told of a gap",
    )
    others = len(record.wrong)
    yield _said(
        "Every answer is a stream, or one that sends the client away for a while",
        not others,
        f"{record.total('refused'):,} answers of 503; {others:,} faults in all",
    )
    yield _said(
        "The server logs no traceback",
        record.tracebacks <= 0,
        f"{max(0, record.tracebacks)} tracebacks",
    )


# What it costs


def _elders(record: Record) -> Iterator[list[Sample]]:
    """The samples of the second half of each worker that was there for almost all of
    it."""
    begin, end = record.plan.half, END * record.plan.seconds * 0.97
    by_process: dict[int, list[Sample]] = {}
    for sample in record.samples:
        if begin <= sample.at <= end:
            by_process.setdefault(sample.process, []).append(sample)
    for samples in by_process.values():
        if samples[-1].at - samples[0].at >= 0.8 * (end - begin):
            yield samples


def _memory(record: Record) -> Iterator[Verdict]:
    promise = "A worker's memory does not grow with time"
    found = [*_elders(record)]
    if not found:
        yield Verdict(promise, NOTED, "no worker lived through the second half")
        return
    for samples in found:
        rss = trend([(s.at, s.rss) for s in samples])
        more = trend([(s.at, s.descriptors) for s in samples]).growth
        mean = sum(s.rss for s in samples) / len(samples)
        room = max(GROWTH, GROWTH_PART * mean) + PER_STREAM * max(0.0, more)
        pss = trend([(s.at, s.pss) for s in samples])
        why = (
            f"the worker {samples[0].process}: {rss.growth / 1e6:+.2f} MB of "
            f"{mean / 1e6:.0f} MB in {rss.span / 60:.1f} min, that is "
            f"{rss.per_hour / 1e6:+.1f} MB an hour (PSS {pss.per_hour / 1e6:+.1f}), "
            f"with {more:+.0f} streams"
        )
        if rss.span < JUDGED:
            yield Verdict(promise, NOTED, f"{why}; too short to be judged")
        else:
            yield _said(promise, rss.growth <= room, why)


def _rest(record: Record) -> Iterator[Verdict]:
    before, after = record.before, record.after
    if before is None or after is None:
        yield Verdict("Nothing is left behind", BROKEN, "the run did not come to rest")
        return
    yield _said(
        "When all have left, no stream is left", not after.streams, f"{after.streams}"
    )
    for name, room in {
        "descriptors": DESCRIPTORS,
        "threads": THREADS,
        "greenlets": GREENLETS,
    }.items():
        one, other = getattr(before, name), getattr(after, name)
        yield _said(
            f"A worker at rest holds as many {name} as before",
            other <= one + room,
            f"{one} before, {other} after; {room} more are allowed",
        )


def _growing(record: Record) -> Iterator[Verdict]:
    """Descriptors beyond those of streams, and threads, while it goes on."""
    for samples in _elders(record):
        threads = trend([(s.at, s.threads) for s in samples])
        why = f"the worker {samples[0].process}: {threads.per_hour:+.1f} an hour"
        promise = "A worker's threads do not grow with time"
        if threads.span < JUDGED:
            yield Verdict(promise, NOTED, f"{why}; too short to be judged")
        else:
            yield _said(promise, threads.growth <= THREADS, why)


def _store(record: Record) -> Iterator[Verdict]:
    promise = "Redis does not grow with time"
    begin, end = record.plan.half, END * record.plan.seconds
    points = [(at, float(size)) for at, size in record.store if begin <= at <= end]
    if len(points) < 4:
        yield Verdict(promise, NOTED, "too few samples")
        return
    line = trend(points)
    quarter = len(points) // 4
    first = median(size for _, size in points[:quarter])
    last = median(size for _, size in points[-quarter:])
    why = (
        f"{first / 1e6:.1f} to {last / 1e6:.1f} MB ({line.per_hour / 1e6:+.1f} an hour)"
    )
    # What is kept is as old as SSE_HISTORY_AGE at most, 300 s: it fills until then.
    if line.span < JUDGED or record.plan.half < 300:
        yield Verdict(promise, NOTED, f"{why}; too short to be judged")
    else:
        yield _said(promise, last <= STORE * first, why)


# How fast it is


class Delays(NamedTuple):
    """The delays of some seconds."""

    at: float
    p50: float
    p99: float


def delays(reports: Iterable[tuple[float, dict[int, int]]]) -> list[Delays]:
    """The delays over time, a figure for each ``BIN``."""
    bins: dict[int, list[dict[int, int]]] = {}
    for at, counts in reports:
        bins.setdefault(int(at // BIN), []).append(counts)
    found = []
    for number in sorted(bins):
        counts = merged(bins[number])
        p50, p99 = quantile(counts, 0.5), quantile(counts, 0.99)
        if p50 is not None and p99 is not None:
            found.append(Delays((number + 0.5) * BIN, p50, p99))
    return found


def delays_of_all(record: Record) -> list[Delays]:
    return delays((seen.at, seen.delays) for seen in record.seen)


def _is_calm(record: Record, at: float) -> bool:
    """Whether neither Redis nor all workers have just been away."""
    return not any(
        done.at - BIN / 2 <= at <= done.until + ECHOES
        for done in record.done
        if done.name in (RESTART, REPLACE)
    )


def _delay(record: Record) -> Iterator[Verdict]:
    ours = [d for d in delays_of_all(record) if _is_calm(record, d.at)]
    echo = [d for d in delays(record.echo) if _is_calm(record, d.at)]
    for name, figure, room in (
        ("median delay", lambda d: d.p50, SLOWER),
        ("99th percentile of delays", lambda d: d.p99, SLOWEST),
    ):
        yield _flat(record, f"The {name} does not grow", ours, echo, figure, room)


def _flat(
    record: Record,
    promise: str,
    ours: list[Delays],
    echo: list[Delays],
    figure: Callable[[Delays], float],
    room: float,
) -> Verdict:
    halves = [_halves(record, delays, figure) for delays in (ours, echo)]
    if None in halves:
        return Verdict(promise, NOTED, "too few calm moments")
    (early, late), (echo_early, echo_late) = (half for half in halves if half)
    ratio = late / early / max(1.0, echo_late / echo_early)
    why = (
        f"{early * 1e3:.1f} ms in the first half, {late * 1e3:.1f} ms in the second; a "
        f"bare echo {echo_early * 1e3:.2f} and {echo_late * 1e3:.2f} ms; a factor of "
        f"{ratio:.2f}, where {room:g} is allowed"
    )
    if record.plan.half < JUDGED:
        return Verdict(promise, NOTED, f"{why}; too short to be judged")
    return _said(promise, ratio <= room, why)


def _halves(
    record: Record, found: list[Delays], figure: Callable[[Delays], float]
) -> tuple[float, float] | None:
    """The median in each half, without the time in which all come."""
    plan = record.plan
    early = [figure(d) for d in found if BEGIN * plan.seconds <= d.at < plan.half]
    late = [figure(d) for d in found if plan.half <= d.at < END * plan.seconds]
    return (median(early), median(late)) if early and late else None


# Whether it was a soak


def _load(record: Record) -> Iterator[Verdict]:
    """Whether the machine was fast enough for what was asked of it."""
    plan = record.plan
    rate = record.events / plan.seconds
    clients = median(connected(record, BEGIN * plan.seconds, plan.seconds) or [0])
    for what, found, asked in (
        ("clients", clients, plan.clients),
        ("events a second", rate, plan.rate),
    ):
        state = HELD if found >= ASKED * asked else MISSED
        why = f"{found:,.0f}, where {asked:,.0f} were asked for"
        yield Verdict(f"There were as many {what} as asked for", state, why)


def connected(record: Record, begin: float, end: float) -> list[int]:
    """How many clients had a stream, at each report of a part of the run."""
    latest: dict[str, int] = {}
    counts = []
    for seen in sorted(record.seen):
        latest[seen.who] = seen.connected
        if begin <= seen.at <= end:
            counts.append(sum(latest.values()))
    return counts


def _done(record: Record) -> Iterator[Verdict]:
    for name, what in DEEDS.items():
        if why := record.skipped.get(name):
            yield Verdict(what, SKIPPED, why)
            continue
        times = sum(done.name == name for done in record.done)
        yield _said(what, bool(times), f"{times} times")
    if DROP not in record.skipped:
        missed = record.total("silent")
        yield _said(
            "A client whose network is gone comes back when it hears nothing",
            bool(missed),
            f"{missed:,} connections were given up",
        )


_JUDGES = (_deliveries, _memory, _rest, _growing, _store, _delay, _load, _done)

"""The page: a record and its verdicts as one HTML file, which asks no other host for
anything. What the figures mean is decided in ``verdicts``."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from itertools import pairwise

import flask_sse_lite

from .plan import DEEDS, DROP, KILL, REPLACE, RESTART
from .plots import Line, Mark, Plot, svg
from .record import Record
from .verdicts import MISSED, Verdict, delays, delays_of_all, is_kept

#: Seconds of one figure of what clients and publishers do.
_STEP = 5.0

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --faint: #59636e; --paper: #fff;
  --edge: #d1d9e0; --panel: #f6f8fa; --a: #0a7b56; --b: #a84b00; --c: #2b5cd9;
  --d: #8b3fb5; --held: #0a6b3d; --broken: #b4141e; --noted: #59636e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #9aa4af;
  --paper: #0d1117; --edge: #3d444d; --panel: #161b22; --a: #3fb98a; --b: #f0883e;
  --c: #79a6ff; --d: #c68ae8; --held: #4cc38a; --broken: #ff7b72; --noted: #9aa4af; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 78rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; }
p { margin: .25rem 0; } .faint { color: var(--faint); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0;
  border-top: 1px solid var(--edge); overflow-wrap: anywhere; }
td.number { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.state { font-weight: 600; white-space: nowrap; }
.held { color: var(--held); } .broken { color: var(--broken); }
.noted, .skipped, .missed { color: var(--noted); }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit,
  minmax(min(100%, 30rem), 1fr)); }
figure { margin: 0; padding: .75rem; background: var(--panel); border-radius: 8px;
  border: 1px solid var(--edge); min-width: 0; }
svg { display: block; width: 100%; height: auto; font: 14px system-ui, sans-serif;
  fill: var(--faint); }
.end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: var(--edge); } .line { fill: none; stroke-width: 1.75; }
.mark { stroke-width: 2; }
.a { stroke: var(--a); } .b { stroke: var(--b); } .c { stroke: var(--c); }
.d { stroke: var(--d); } .faintly { stroke: var(--faint); opacity: .6; }
.since, .since.faintly { stroke-width: 1; opacity: .2; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .875rem; }
.legend i { display: inline-block; width: 1.1em; height: 0; border-top: 3px solid;
  vertical-align: middle; margin-right: .35em; }
i.a { border-color: var(--a); } i.b { border-color: var(--b); }
i.c { border-color: var(--c); } i.d { border-color: var(--d); }
i.faintly { border-color: var(--faint); opacity: .6; }
.deeds th { white-space: nowrap; }
details pre { white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  table.stacked, .stacked tbody, .stacked tr, .stacked td { display: block; }
  .stacked thead { display: none; } .stacked tr { border-top: 1px solid var(--edge);
    padding: .4rem 0; } .stacked td { border: 0; padding: 0; } }
"""

#: How each deed is drawn.
_KINDS = {KILL: "faintly", REPLACE: "c", RESTART: "b", DROP: "d"}


def page(record: Record, found: Sequence[Verdict]) -> str:
    kept = is_kept(found)
    headline = "All promises held" if kept else "A promise broke"
    if kept and any(verdict.state == MISSED for verdict in found):
        headline = "No promise broke, in less than was asked for"
    plan = record.plan
    lead = (
        f"{plan.clients:,} clients that come and go, {plan.rate:g} events a second, "
        f"{plan.workers} gevent workers of gunicorn and one Redis, for "
        f"{plan.seconds / 60:.3g} minutes."
    )
    state = "held" if kept else "broken"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>Soak: {headline}</title><style>{_STYLE}</style>"
        f'<h1>The soak: <span class="{state}">{headline}</span></h1>'
        f"<p>{lead}</p><p class=faint>{escape(_where())}</p>"
        f"<h2>Promises</h2>{_verdicts(found)}"
        f"<h2>What was done</h2>{_deeds(record)}"
        f"<h2>What came of it</h2>{_totals(record)}"
        f"<h2>Over time</h2>{_legend_of_marks()}<div class=plots>"
        f"{''.join(map(_figure, plots(record)))}</div>{_wrong(record)}</html>\n"
    )


def _where() -> str:
    return (
        f"flask_sse_lite {flask_sse_lite.__version__}, Python "
        f"{sys.version.split()[0]}, {platform.system()} {platform.release()}, "
        f"{os.cpu_count()} cores, load average now {os.getloadavg()[0]:.1f}. "
        f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC."
    )


# Tables


def _table(heads: Sequence[str], rows: Iterable[str], kind: str = "") -> str:
    head = "".join(f"<th scope=col>{escape(text)}" for text in heads)
    return (
        f'<table class="{kind}"><thead><tr>{head}</thead><tbody>{"".join(rows)}'
        "</tbody></table>"
    )


def _verdicts(found: Sequence[Verdict]) -> str:
    rows = (
        f'<tr><td class="state {state}">{state}<td>{escape(promise)}'
        f"<td class=faint>{escape(why)}"
        for promise, state, why in found
    )
    return _table(("", "Promise", "Seen"), rows, "stacked")


def _deeds(record: Record) -> str:
    def row(name: str, what: str) -> str:
        done = [d for d in record.done if d.name == name]
        when = ", ".join(_minutes(d.at) for d in done)
        seen = record.skipped.get(name) or when
        return (
            f"<tr><td>{escape(what)}<td class=number>{len(done)}"
            f"<td class=faint>{escape(seen)}"
        )

    rows = [row(name, what) for name, what in DEEDS.items()]
    return _table(("Deed", "Times", "At (minutes:seconds)"), rows, "deeds")


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _totals(record: Record) -> str:
    attempts = record.failed
    rows = [
        ("Events published", record.events),
        ("Attempts to publish that failed, and were repeated", attempts),
        ("Deliveries", record.total("deliveries")),
        ("Clients that came for the first time", record.total("openings")),
        ("Clients that left for good", record.total("left")),
        ("Clients that came back with their position", record.total("returns")),
        ("… channels in which they went on", record.total("continued")),
        ("… channels in which they were told of a gap", record.total("told")),
        ("Connections that were cut", record.total("cut")),
        ("Streams that their worker ended", record.total("ended")),
        (
            "Connections that were given up, because nothing came",
            record.total("silent"),
        ),
        ("Connections that could not be made", record.total("unreachable")),
        ("Answers of 503", record.total("refused")),
        ("Events lost, twice, or out of turn", len(record.wrong)),
    ]
    return _table(
        ("", ""),
        (f"<tr><td>{name}<td class=number>{number:,}" for name, number in rows),
    )


def _wrong(record: Record) -> str:
    if not record.wrong:
        return ""
    shown = escape("\n".join(record.wrong[:200]))
    return f"<h2>What was wrong</h2><details open><pre>{shown}</pre></details>"


# Plots


def _legend(lines: Iterable[tuple[str, str]]) -> str:
    items = (f'<span><i class="{kind}"></i>{escape(n)}</span>' for n, kind in lines)
    return f"<div class=legend>{''.join(items)}</div>"


def _legend_of_marks() -> str:
    return _legend((what, _KINDS[name]) for name, what in DEEDS.items())


def _figure(plot: Plot) -> str:
    names = {line.name: line.kind for line in plot.lines}
    return (
        f"<figure><h3>{escape(plot.title)}</h3>{_legend(names.items())}{svg(plot)}"
        "</figure>"
    )


def plots(record: Record) -> list[Plot]:
    seconds = max([record.plan.seconds, *(seen.at for seen in record.seen)])
    marks = [Mark(done.at, _KINDS[done.name]) for done in record.done]
    return [
        Plot(title, lines, seconds, shown, marks, is_logarithmic)
        for title, lines, shown, is_logarithmic in _drawn(record)
    ]


def _drawn(
    record: Record,
) -> Iterator[tuple[str, list[Line], Callable[[float], str], bool]]:
    yield "Memory of each worker (RSS), MB", _memory(record), _megabytes, False
    yield "Memory of all workers, MB", _memory_of_all(record), _megabytes, False
    yield "Delay from publishing to arrival, ms", _delays(record), _milliseconds, True
    yield "Descriptors of all workers", _descriptors(record), _count, False
    yield "Threads and greenlets of a worker", _threads(record), _count, False
    yield "Clients", _clients(record), _count, False
    yield "Events and deliveries a second", _rates(record), _count, True
    yield "Memory of Redis, MB", _of_store(record), _megabytes, False


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.3g}"


def _milliseconds(value: float) -> str:
    return f"{value * 1e3:g}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _memory(record: Record) -> list[Line]:
    by_process: dict[int, list[tuple[float, float]]] = {}
    for sample in record.samples:
        by_process.setdefault(sample.process, []).append((sample.at, sample.rss))
    elder = by_process.pop(record.elder, []) if record.elder else []
    lines = [Line("the others", points, "faintly") for points in by_process.values()]
    return [*lines, Line("the worker that was spared", elder, "a")]


def _summed(record: Record, field: str) -> list[tuple[float, float]]:
    sums: Counter[float] = Counter()
    for sample in record.samples:
        sums[sample.at] += getattr(sample, field)
    return sorted((at, float(value)) for at, value in sums.items())


def _memory_of_all(record: Record) -> list[Line]:
    return [
        Line("RSS", _summed(record, "rss"), "b"),
        Line("PSS", _summed(record, "pss"), "a"),
    ]


def _delays(record: Record) -> list[Line]:
    ours, echo = delays_of_all(record), delays(record.echo)
    return [
        Line("p99", [(d.at, d.p99) for d in ours], "b"),
        Line("p50", [(d.at, d.p50) for d in ours], "a"),
        Line("p99 of a bare echo", [(d.at, d.p99) for d in echo], "faintly"),
        Line("p50 of a bare echo", [(d.at, d.p50) for d in echo], "c"),
    ]


def _descriptors(record: Record) -> list[Line]:
    return [
        Line("descriptors", _summed(record, "descriptors"), "a"),
        Line("connected clients", _connected(record), "c"),
    ]


def _connected(record: Record) -> list[tuple[float, float]]:
    """The clients of all processes: each tells its own once a second."""
    latest: dict[str, int] = {}
    points = []
    for seen in sorted(record.seen):
        latest[seen.who] = seen.connected
        points.append((seen.at, float(sum(latest.values()))))
    return points


def _threads(record: Record) -> list[Line]:
    most: dict[float, float] = {}
    for sample in record.samples:
        most[sample.at] = max(most.get(sample.at, 0.0), sample.threads)
    greenlets = [(told.at, float(told.greenlets)) for told in record.inside]
    return [
        Line("threads, of the worker with most", sorted(most.items()), "a"),
        Line("greenlets, of one worker", greenlets, "c"),
    ]


def _per_second(record: Record, name: str) -> list[tuple[float, float]]:
    bins: Counter[int] = Counter()
    for seen in record.seen:
        bins[int(seen.at // _STEP)] += seen.counts.get(name, 0)
    return [((n + 0.5) * _STEP, bins[n] / _STEP) for n in sorted(bins)]


def _clients(record: Record) -> list[Line]:
    back = [(at, 10 * rate) for at, rate in _per_second(record, "returns")]
    return [
        Line("connected", _connected(record), "a"),
        Line("coming back, in ten seconds", back, "d"),
    ]


def _rates(record: Record) -> list[Line]:
    told = [(0.0, 0), *record.published]
    events = [
        (later[0], (later[1] - earlier[1]) / (later[0] - earlier[0]))
        for earlier, later in pairwise(told)
        if later[0] > earlier[0]
    ]
    return [
        Line("deliveries", _per_second(record, "deliveries"), "a"),
        Line("events", events, "c"),
    ]


def _of_store(record: Record) -> list[Line]:
    return [Line("used_memory", [(at, float(size)) for at, size in record.store], "a")]

"""The page of docs/: the tables of a comparison, and how to read them.

What never lives here: how a figure came about, and the chart.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from lineup import Entry
from measuring import KINDS
from report import Figures, Result

ONE_BY_ONE, BURST = KINDS


@dataclass(frozen=True)
class Comparison:
    """What one run has measured, and by title why other servers are missing."""

    measured: Sequence[tuple[Entry, Result]]
    failures: Mapping[str, str]
    subscribers: int
    rounds: int
    day: date = field(default_factory=date.today)

    def lines(self) -> list[Line]:
        """Return a line for each server, the cheapest first."""
        lines = [Line.of(entry, result) for entry, result in self.measured]
        return sorted(lines, key=lambda line: line.one_by_one.cpu_us)


@dataclass(frozen=True)
class Line:
    entry: Entry
    kilobytes: float
    one_by_one: Figures
    burst: Figures
    #: CPU, one by one, against that of the C server.
    against_c: float

    @property
    def memory(self) -> str:
        """The kB as they are shown. Below one they differ from run to run."""
        return f"{self.kilobytes:.1f}" if self.kilobytes >= 1 else "< 1"

    @classmethod
    def of(cls, entry: Entry, result: Result) -> Line:
        return cls(
            entry,
            max(result.kilobytes, 0),  # a process can have shrunk meanwhile
            Figures.of(result.rounds[ONE_BY_ONE]),
            Figures.of(result.rounds[BURST]),
            result.against_c(ONE_BY_ONE, lambda one: one.delivery_cpu_us),
        )


PAGE = """\
Benchmarks
==========

.. This page and its chart are written by ``make bench-peers``.

Servers of event streams, measured in one run on {day}: the CPU time that a delivery
costs, and the memory that a connection takes.

.. image:: benchmarks.svg
   :alt: CPU per delivery and memory per connection of {count} servers

{figures}

{subscribers:,} subscribers on the loopback interface, events of 64 bytes, medians of
{rounds} rounds. *CPU* per delivery and *one by one*, deliveries per second, are of 40
events, each published when every subscriber has the one before. *Burst*: the same of 40
events published at once. *Memory*: by how much the server grows for a connection.
{left_out}
The machine: {machine}.

What they are
-------------

{servers}

How to read this
----------------

- **Read the ratios.** The machine is small and was shared with other work, so that
  deliveries per second in particular depend on who else ran; CPU time per delivery
  depends on it less. Figures of two runs, or of two machines, are not to be compared;
  servers within some 40 % of each other change places from one run to the next.
- *C* is the floor: ``benchmarks/baseline.c`` does nothing but one ``send()`` for each
  delivery. It takes turns with each server, round by round; *vs C* is the median of
  these pairs. A server goes below it only where it puts several events into one write,
  as some do in a burst.
- *CPU* is user and system time of all the processes that a server needs. Flask-SSE's
  includes Redis, which sends each event once for each subscriber. Publishing is counted
  too: one request for each event.
- Every subscriber has to get every event once and in order, or the server gets no
  figures. Each server has one core, and the load generator another.
- They do not do the same work. nchan's publisher is an HTTP request to nginx for each
  event, and the application behind it is not counted. sse-starlette, FastAPI and the
  queue per client leave fan-out to the application, which here is a queue per client
  without a bound. Ours keeps a history, writes an id into each event, and replays; that
  is counted, but nobody comes back while it is measured.
- All of them run in one process here. Redis is what lets Flask-SSE run in several, on
  several machines; part of its price pays for that.
- *Memory* is that of the same processes (RSS). Below a kilobyte it is not told apart: a
  process first uses up what it already has. What the kernel keeps for a socket comes on
  top and is the same for all.
- Clients on loopback read at once and lose nothing. Slow networks are not measured.

To repeat it: ``make bench-peers``. Each peer gets an environment of its own, of pinned
versions, under ``benchmarks/build/``; nginx and Redis are Debian's. What cannot be
installed is left out, and named here.
"""


def page(comparison: Comparison) -> str:
    lines = comparison.lines()
    return PAGE.format(
        day=comparison.day,
        count=len(lines),
        figures=figures_table(lines),
        subscribers=comparison.subscribers,
        rounds=comparison.rounds,
        left_out=left_out(comparison.failures),
        machine=machine(),
        servers=servers_table(lines),
    )


def figures_table(lines: Sequence[Line]) -> str:
    header = ["server", "CPU", "vs C", "memory", "one by one", "burst"]
    rows = [
        [
            line.entry.title,
            f"{line.one_by_one.cpu_us:.1f} µs",
            f"{line.against_c:.2f}",
            f"{line.memory} kB",
            f"{line.one_by_one.deliveries_per_second:,.0f}/s",
            f"{line.burst.deliveries_per_second:,.0f}/s",
        ]
        for line in lines
    ]
    return simple_table(header, rows)


def servers_table(lines: Sequence[Line]) -> str:
    header = [
        "server",
        "versions",
        "a client that comes back gets",
        "in several processes",
    ]
    rows = [
        [
            line.entry.title,
            line.entry.versions() or f"``{line.entry.contender.name}``",
            line.entry.back,
            line.entry.shares,
        ]
        for line in lines
    ]
    return simple_table(header, rows)


def simple_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a simple table of reStructuredText."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([rule, line(header), rule, *map(line, rows), rule])


def left_out(failures: Mapping[str, str]) -> str:
    reasons = [f"- {title}: {first_line(why)}" for title, why in failures.items()]
    return "\n".join(["", "Left out, and why:", "", *reasons, ""]) if reasons else ""


def first_line(text: str) -> str:
    return text.partition("\n")[0].removesuffix("; it printed:")


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return ", ".join(
        [
            model[1] if model else platform.machine(),
            f"{os.cpu_count()} cores",
            f"{platform.system()} {platform.release()}",
            f"Python {platform.python_version()}",
        ]
    )

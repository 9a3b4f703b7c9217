"""What the figures mean: rounds, their medians, and the tables that show them.

What never lives here: processes, and how a figure came about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from contenders import RECIPE, Contender

NONE = "-"
# These columns are set to the left, all others to the right.
TEXTS = ("server", "what it is", "what", "in figures")


@dataclass(frozen=True)
class Round:
    """One round, as the load generator saw it, and the server's CPU during it."""

    expected: int
    delivered: int
    duplicated: int
    misordered: int
    stray: int
    closed: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    load_cpu_seconds: float
    server_cpu_seconds: float

    @property
    def exact(self) -> bool:
        """Every subscriber got every event, once, in order."""
        wrong = self.duplicated + self.misordered + self.stray + self.closed
        return self.delivered == self.expected and not wrong

    @property
    def delivery_cpu_us(self) -> float:
        return self.server_cpu_seconds / self.delivered * 1e6

    @property
    def deliveries_per_second(self) -> float:
        return self.delivered / self.seconds

    @property
    def tally(self) -> str:
        return (
            f"{self.delivered} of {self.expected}, {self.duplicated} twice, "
            f"{self.misordered} late, {self.stray} of other rounds, "
            f"{self.closed} connections lost"
        )


@dataclass(frozen=True)
class Figures:
    """The medians of several rounds of one kind, all of them exact."""

    deliveries_per_second: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    server_busy: float
    load_busy: float

    @classmethod
    def of(cls, rounds: Sequence[Round]) -> Figures:
        def middle(figure: Callable[[Round], float]) -> float:
            return median(figure(one) for one in rounds)

        return cls(
            deliveries_per_second=middle(lambda one: one.deliveries_per_second),
            cpu_us=middle(lambda one: one.delivery_cpu_us),
            p50_ms=middle(lambda one: one.p50_ms),
            p99_ms=middle(lambda one: one.p99_ms),
            server_busy=middle(lambda one: one.server_cpu_seconds / one.seconds),
            load_busy=middle(lambda one: one.load_cpu_seconds / one.seconds),
        )


@dataclass(frozen=True)
class Result:
    """All that was measured of one contender. `rounds` has its rounds by their kind,
    `baseline` those that the C server ran in turn with them."""

    contender: Contender
    kilobytes: float
    joins_per_second: float
    rounds: Mapping[str, Sequence[Round]]
    baseline: Mapping[str, Sequence[Round]]

    @property
    def deliveries(self) -> int:
        return sum(one.delivered for kind in self.rounds.values() for one in kind)

    def against_c(self, kind: str, figure: Callable[[Round], float]) -> float:
        """The median of the ratios, round by round, of a figure to the C server's."""
        return median_ratio(
            [figure(one) for one in self.rounds[kind]],
            [figure(one) for one in self.baseline[kind]],
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.contender.name,
            "notes": self.contender.notes,
            "kilobytes_per_subscriber": self.kilobytes,
            "joins_per_second": self.joins_per_second,
            "deliveries": self.deliveries,
            "kinds": {
                kind: {
                    "medians": asdict(Figures.of(rounds)),
                    "rounds": [asdict(one) for one in rounds],
                    "baseline": [asdict(one) for one in self.baseline[kind]],
                }
                for kind, rounds in self.rounds.items()
            },
        }


@dataclass(frozen=True)
class AtMost:
    """The limit of a figure that must be small."""

    limit: float

    def __str__(self) -> str:
        return f"≤ {self.limit:g}"

    def is_met_by(self, measured: float) -> bool:
        return measured <= self.limit


@dataclass(frozen=True)
class AtLeast:
    """The limit of a figure that must be large."""

    limit: float

    def __str__(self) -> str:
        return f"≥ {self.limit:,g}"

    def is_met_by(self, measured: float) -> bool:
        return measured >= self.limit


@dataclass(frozen=True)
class Finding:
    """The answer to one question, and its limit; `figures` says what it comes from."""

    what: str
    server: str
    measured: float
    asked: AtMost | AtLeast | None
    figures: str

    @property
    def verdict(self) -> str:
        if self.asked is None:
            return NONE
        return "yes" if self.asked.is_met_by(self.measured) else "NO"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    to_width = [str.ljust if name in TEXTS else str.rjust for name in header]

    def line(cells: Sequence[str]) -> str:
        placed = zip(to_width, cells, widths, strict=True)
        return "  ".join(place(cell, width) for place, cell, width in placed).rstrip()

    rule = ["-" * width for width in widths]
    return "\n".join([title, "", *map(line, [header, rule, *rows])])


def ratio(value: float, reference: float | None) -> str:
    return f"{value / reference:.2f}" if reference else NONE


def median_ratio(values: Sequence[float], references: Sequence[float]) -> float:
    """The median of the ratios of figures that were measured in turn."""
    return median(a / b for a, b in zip(values, references, strict=True))


def rounds_table(kind: str, results: Sequence[Result]) -> str:
    recipes = [one for one in results if one.contender.name == RECIPE]
    recipe = Figures.of(recipes[0].rounds[kind]) if recipes else None

    def row(result: Result) -> list[str]:
        one = Figures.of(result.rounds[kind])
        rate = result.against_c(kind, lambda of: of.deliveries_per_second)
        cpu = result.against_c(kind, lambda of: of.delivery_cpu_us)
        return [
            result.contender.name,
            f"{one.deliveries_per_second:,.0f}",
            f"{rate:.2f}",
            ratio(
                one.deliveries_per_second,
                recipe.deliveries_per_second if recipe else None,
            ),
            f"{one.cpu_us:.2f}",
            f"{cpu:.2f}",
            ratio(one.cpu_us, recipe.cpu_us if recipe else None),
            f"{one.p50_ms:.1f}",
            f"{one.p99_ms:.1f}",
            f"{one.server_busy:.0%}",
            f"{one.load_busy:.0%}",
        ]

    header = [
        "server",
        "deliveries/s",
        "vs C",
        "vs recipe",
        "CPU µs",
        "vs C",
        "vs recipe",
    ]
    header += ["p50 ms", "p99 ms", "server busy", "load busy"]
    return table(kind, header, [row(result) for result in results])


def subscribers_table(results: Sequence[Result]) -> str:
    kilobytes = {result.contender.name: result.kilobytes for result in results}
    header = ["server", "kB each", "vs recipe", "joins/s", "in order", "what it is"]
    rows = [
        [
            result.contender.name,
            f"{result.kilobytes:.1f}",
            ratio(result.kilobytes, kilobytes.get(RECIPE)),
            f"{result.joins_per_second:,.0f}",
            f"{result.deliveries:,}",
            result.contender.notes,
        ]
        for result in results
    ]
    return table("Subscribers, and the deliveries checked", header, rows)


def findings_table(title: str, findings: Sequence[Finding]) -> str:
    rows = [
        [
            one.what,
            one.server,
            str(one.asked or NONE),
            f"{one.measured:,.2f}",
            one.verdict,
            one.figures,
        ]
        for one in findings
    ]
    header = ["what", "server", "asked", "measured", "met", "in figures"]
    return table(title, header, rows)


def report(results: Sequence[Result]) -> str:
    """Return all tables: one for each kind of round, one of the subscribers."""
    kinds = results[0].rounds if results else ()
    rounds = [rounds_table(kind, results) for kind in kinds]
    return "\n\n".join([*rounds, subscribers_table(results)])

"""Plots: lines over time, as SVG that stands in a page. Nothing here knows a soak."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

WIDTH, HEIGHT = 480, 250

#: Where the lines are: room for the figures at the left and for the time below.
LEFT, RIGHT, TOP, BOTTOM = 58, 468, 30, 218

#: Points of one line, at most: more than pixels that a telephone has for it.
POINTS = 300

#: Texts at an axis, at most.
TEXTS = 6

Points = Sequence[tuple[float, float]]


class Line(NamedTuple):
    """:param kind: a class of the page's style: ``a`` to ``d``, or ``faint``."""

    name: str
    points: Points
    kind: str


class Mark(NamedTuple):
    """Something that was done at a time."""

    at: float
    kind: str


@dataclass(frozen=True)
class Plot:
    """:param seconds: where the axis of time ends.
    :param shown: a value as a text.
    """

    title: str
    lines: Sequence[Line]
    seconds: float
    shown: Callable[[float], str]
    marks: Sequence[Mark] = field(default_factory=list)
    is_logarithmic: bool = False


def thinned(points: Points) -> list[tuple[float, float]]:
    """A line of fewer points, each the mean of some."""
    size = max(1, ceil(len(points) / POINTS))
    pieces = [points[n : n + size] for n in range(0, len(points), size)]
    return [
        (sum(t for t, _ in some) / len(some), sum(v for _, v in some) / len(some))
        for some in pieces
    ]


class _Scale(NamedTuple):
    """From values to heights."""

    low: float
    high: float
    is_logarithmic: bool

    @classmethod
    def around(cls, values: Iterable[float], is_logarithmic: bool) -> _Scale:
        found = [v for v in values if v > 0] or [1.0]
        if is_logarithmic:
            low, high = floor(log10(min(found))), ceil(log10(max(found)))
            return cls(10.0**low, 10.0 ** max(high, low + 1), True)
        step = _step(max(found))
        return cls(0.0, step * ceil(max(found) / step), False)

    def y(self, value: float) -> float:
        if self.is_logarithmic:
            value = log10(max(value, self.low))
            low, high = log10(self.low), log10(self.high)
        else:
            low, high = self.low, self.high
        return BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)

    def ticks(self) -> list[float]:
        if self.is_logarithmic:
            first, last = round(log10(self.low)), round(log10(self.high))
            return [10.0**n for n in range(first, last + 1)]
        step = _step(self.high)
        return [n * step for n in range(round(self.high / step) + 1)]


def _step(high: float) -> float:
    """A round distance of ticks."""
    rough = high / (TEXTS - 2)
    power = 10.0 ** floor(log10(rough))
    return next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= rough)


def svg(plot: Plot) -> str:
    values = (v for line in plot.lines for _, v in line.points)
    scale = _Scale.around(values, plot.is_logarithmic)
    parts = [*_axes(plot, scale), *_marks(plot)]
    parts += [_line(line, scale, plot.seconds) for line in plot.lines]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(plot.title)}">{"".join(parts)}</svg>'
    )


def _x(at: float, seconds: float) -> float:
    return LEFT + min(max(at, 0.0), seconds) / seconds * (RIGHT - LEFT)


def _line(line: Line, scale: _Scale, seconds: float) -> str:
    points = " ".join(
        f"{_x(at, seconds):.1f},{scale.y(value):.1f}"
        for at, value in thinned(line.points)
    )
    return f'<polyline class="line {line.kind}" points="{points}"/>'


def _axes(plot: Plot, scale: _Scale) -> Iterable[str]:
    for value in scale.ticks():
        y = scale.y(value)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
        shown = escape(plot.shown(value))
        yield f'<text class="end" x="{LEFT - 6}" y="{y + 4:.1f}">{shown}</text>'
    unit, name = (60.0, "min") if plot.seconds >= 120 else (1.0, "s")
    step = _step(plot.seconds / unit)
    for number in range(int(plot.seconds / unit / step) + 1):
        at = number * step * unit
        x = _x(at, plot.seconds)
        text = f"{number * step:g}" + (f" {name}" if not number else "")
        yield f'<text class="middle" x="{x:.1f}" y="{BOTTOM + 20}">{text}</text>'


def _marks(plot: Plot) -> Iterable[str]:
    for at, kind in plot.marks:
        x = _x(at, plot.seconds)
        yield f'<path class="mark {kind}" d="M{x:.1f} {TOP - 14}v8"/>'
        yield f'<path class="since {kind}" d="M{x:.1f} {TOP - 6}V{BOTTOM}"/>'

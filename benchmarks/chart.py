"""The chart of docs/: bars of CPU per delivery and of memory per connection, as SVG.

Both scales are linear and begin at 0, so that readers can compare lengths by eye.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from page import Comparison, Line

WIDTH = 860
ROW = 28
BAR = 16
TOP = 92  # of the first row
BOTTOM = 46  # below the last one
MARGIN = 24
DIGITS = 46  # room for the figure beside a bar

SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"
     width="{width}" height="{height}" role="img" aria-labelledby="title">
<title id="title">{title}</title>
<style>
  svg {{ font: 14px system-ui, sans-serif; fill: #1f2328; }}
  .paper {{ fill: #ffffff; stroke: #d1d9e0; }}
  .heading {{ font-size: 17px; font-weight: 600; }}
  .panel {{ font-weight: 600; }}
  .note {{ font-size: 12px; fill: #59636e; }}
  .bar {{ fill: #a9b4c0; }}
  .ours .bar {{ fill: #1a7f5a; }}
  .ours text {{ font-weight: 600; }}
  .axis {{ stroke: #d1d9e0; }}
  @media (prefers-color-scheme: dark) {{
    svg {{ fill: #e6edf3; }}
    .paper {{ fill: #0d1117; stroke: #3d444d; }}
    .note {{ fill: #9198a1; }}
    .bar {{ fill: #57606a; }}
    .ours .bar {{ fill: #3fb98a; }}
    .axis {{ stroke: #3d444d; }}
  }}
</style>
<rect class="paper" x="0.5" y="0.5" width="{inner_width}" height="{inner_height}"
      rx="8"/>
{body}
</svg>
"""


@dataclass(frozen=True)
class Panel:
    """One half of the chart: where it stands, and which figure it shows."""

    heading: str
    left: int
    right: int
    figure: Callable[[Line], float]
    shown: Callable[[Line], str]

    def bar(self, line: Line, top: int, largest: float) -> str:
        room = self.right - self.left - DIGITS
        length = self.figure(line) / largest * room if largest else 0
        return (
            f'<rect class="bar" x="{self.left}" y="{top + (ROW - BAR) // 2}" '
            f'width="{max(length, 1):.1f}" height="{BAR}" rx="2"/>'
            f"{text(self.left + length + 6, top, self.shown(line))}"
        )


PANELS = (
    Panel(
        "CPU per delivery, µs",
        left=214,
        right=570,
        figure=lambda line: line.one_by_one.cpu_us,
        shown=lambda line: f"{line.one_by_one.cpu_us:.1f}",
    ),
    Panel(
        "Memory per connection, kB",
        left=598,
        right=836,
        figure=lambda line: line.kilobytes,
        shown=lambda line: line.memory,
    ),
)


def chart(comparison: Comparison) -> str:
    lines = comparison.lines()
    end = TOP + ROW * len(lines)
    title = "What a delivery and a connection cost a server"
    note = (
        f"{comparison.subscribers:,} subscribers, 64-byte events one after the other, "
        f"one run on {comparison.day}. Shorter is better."
    )
    body = [
        text(MARGIN, 22, title, "heading"),
        *(panel_head(panel, end) for panel in PANELS),
        *rows(lines),
        text(MARGIN, end + 10, note, "note"),
    ]
    height = end + BOTTOM
    return SVG.format(
        title=title,
        width=WIDTH,
        height=height,
        inner_width=WIDTH - 1,
        inner_height=height - 1,
        body="\n".join(body),
    )


def panel_head(panel: Panel, end: int) -> str:
    axis = f'<path class="axis" d="M{panel.left - 0.5} {TOP}V{end}"/>'
    return axis + text(panel.left, TOP - 32, panel.heading, "panel")


def rows(lines: Sequence[Line]) -> list[str]:
    largest = {panel: max(map(panel.figure, lines)) for panel in PANELS}

    def row(number: int, line: Line) -> str:
        top = TOP + ROW * number
        bars = [panel.bar(line, top, largest[panel]) for panel in PANELS]
        name = text(MARGIN, top, line.entry.title)
        kind = ' class="ours"' if line.entry.ours else ""
        return f"<g{kind}>{name}{''.join(bars)}</g>"

    return [row(number, line) for number, line in enumerate(lines)]


def text(x: float, top: int, content: str, kind: str = "") -> str:
    """Return a text in the middle of a row that begins at `top`."""
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x:.1f}" y="{top + 19}">{escape(content)}</text>'

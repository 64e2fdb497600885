"""Draws bar charts as inline SVG: columns along time, and bars by category.

Horizontal positions are percentages and vertical ones pixels, so a chart fills any width while its text keeps its size. Its
colours are classes of the page's style sheet, which follow light, dark and print. A library of charts draws for one width and one
background, and the one with which we compared it (Vega-Altair) adds 90 MB to a program that may delete.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from markupsafe import Markup

from sweeper.errors import printable
from sweeper.report.page import Figure, Table

PLOT = 150
"""Pixels: the height of a chart of columns without its labels."""
ROW, THICKNESS = 30, 18
"""Pixels: the height of one row of a chart of bars, and of its bar."""
CHARACTER = 7.5
"""Pixels that a character of a label needs at most, on average."""
NARROW, WIDE = 250, 600
"""Pixels that a chart has at least on a telephone, and on paper or a screen."""
WIDEST = 8.0
"""Percent: the greatest width of a column, however few there are."""
NAME = 22
"""Characters: a longer name is cut beside its bar; the table has it whole."""


@dataclass(frozen=True)
class Column:
    """One column: its label on the axis and its number."""

    label: str
    count: float


@dataclass(frozen=True)
class Bar:
    """One bar: its name and its number in each series."""

    name: str
    counts: Sequence[int]


def columns(finding: str, found: Sequence[Column], *, x: str, y: str, table: Table | None = None) -> Figure:
    """Return a chart of columns side by side, for instance of days.

    Args:
        finding: the sentence above the chart: what it shows, with its numbers.
        found: the columns from left to right; at least one.
        x: what the columns are, with time zone or unit ("day (UTC)").
        y: what is counted, or its unit ("conversations").
        table: the same numbers as a table; by default one row for each column.
    """
    step = _step(max(column.count for column in found))
    top = step * max(1, ceil(max(column.count for column in found) / step))
    slot = 100 / len(found)
    parts = [_grid(value, top) for value in _multiples(step, top)]
    parts += [_column(column, n * slot, slot, top, y) for n, column in enumerate(found) if column.count]
    parts += [_drawn('<line class="axis" x1="0" x2="100%" y1="{0}" y2="{0}"/>', PLOT), *_ticks(found, slot)]
    parts.append(_drawn('<text class="name" x="0" y="-14">{}</text>', y))
    parts.append(_drawn('<text class="name" x="100%" y="{}" text-anchor="end">{}</text>', PLOT + 38, x))
    rows = table or Table(f"{y} by {x}", (x, y), [(column.label, column.count) for column in found])
    return Figure(finding, _svg(finding, PLOT + 46, parts), rows, margin=len(_number(top)) + 2, end=3)


def bars(finding: str, found: Sequence[Bar], *, series: Sequence[str], x: str, table: Table | None = None) -> Figure:
    """Return a chart of horizontal bars, stacked if there are several series.

    Args:
        finding: the sentence above the chart: what it shows, with its numbers.
        found: the bars from top to bottom; at least one.
        series: the name of each series; their order has a meaning (age), as their colours go from light to dark.
        x: what is counted ("conversations").
        table: the same numbers as a table; by default one row for each bar and one column for each series.
    """
    most = max(1, *(sum(bar.counts) for bar in found))
    parts = [part for n, bar in enumerate(found) for part in _bar(bar, n * ROW, most, series, x)]
    height = len(found) * ROW
    parts.append(_drawn('<line class="axis" x1="0" x2="0" y1="0" y2="{}"/>', height))
    parts.append(_drawn('<text class="name" x="0" y="-8">{}</text>', x))
    rows = table or Table(x, ("name", *series), [(bar.name, *bar.counts) for bar in found])
    margin = min(NAME, max(len(bar.name) for bar in found)) + 1
    legend = series if len(series) > 1 else ()
    end = len(_number(most)) + 2
    return Figure(finding, _svg(finding, height + 4, parts), rows, margin=margin, end=end, legend=legend)


def _drawn(template: str, *values: object) -> Markup:
    """Fill a template of markup; texts are escaped."""
    return Markup(template).format(*(printable(value) if type(value) is str else value for value in values))  # noqa: S704 — constants


def _svg(finding: str, height: int, parts: Sequence[Markup]) -> Markup:
    template = '<svg width="100%" height="{}" role="img" aria-label="{}">{}</svg>'
    return _drawn(template, height, finding, Markup("").join(parts))


def _column(column: Column, left: float, slot: float, top: float, unit: str) -> Markup:
    height = max(1.0, column.count / top * PLOT)  # a small number is still to be seen
    width = min(slot * 0.72, WIDEST)
    return _drawn(
        '<rect class="bar" x="{:.3f}%" width="{:.3f}%" y="{:.1f}" height="{:.1f}"><title>{}: {} {}</title></rect>',
        left + (slot - width) / 2,
        width,
        PLOT - height,
        height,
        column.label,
        _number(column.count),
        unit,
    )


def _grid(value: float, top: float) -> Markup:
    y = PLOT - value / top * PLOT
    line = _drawn('<line class="grid" x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>', y) if value else Markup("")
    return line + _drawn('<text class="tick" x="-8" y="{:.1f}" text-anchor="end">{}</text>', y + 4, _number(value))


def _ticks(found: Sequence[Column], slot: float) -> list[Markup]:
    """Label as many columns as fit; those of the class `wide` only where there is room."""
    characters = max(len(column.label) for column in found) + 1
    wide = max(1, ceil(characters * CHARACTER * len(found) / WIDE))
    narrow = wide * max(1, ceil(characters * CHARACTER * len(found) / NARROW / wide))
    return [
        _drawn(
            '<text class="tick{}" x="{:.3f}%" y="{}" text-anchor="middle">{}</text>',
            " wide" if n % narrow else "",
            (n + 0.5) * slot,
            PLOT + 18,
            column.label,
        )
        for n, column in enumerate(found)
        if n % wide == 0
    ]


def _bar(bar: Bar, y: int, most: int, series: Sequence[str], unit: str) -> list[Markup]:
    name = bar.name if len(bar.name) <= NAME else f"{bar.name[: NAME - 1]}…"
    middle, left, parts = y + ROW // 2 + 4, 0.0, []
    parts.append(_drawn('<text class="name" x="-8" y="{}" text-anchor="end">{}</text>', middle, name))
    for number, (label, count) in enumerate(zip(series, bar.counts, strict=True)):
        width = count / most * 100
        if count:
            named = f"{bar.name}, {label}" if len(series) > 1 else bar.name
            kind = f"series-{number}" if len(series) > 1 else ""
            parts.append(
                _drawn(
                    '<rect class="bar {}" x="{:.3f}%" width="{:.3f}%" y="{}" height="{}"><title>{}: {} {}</title></rect>',
                    kind,
                    left,
                    width,
                    y + (ROW - THICKNESS) // 2,
                    THICKNESS,
                    named,
                    _number(count),
                    unit,
                )
            )
        left += width
    end = _drawn('<text class="value" x="{:.3f}%" dx="6" y="{}">{}</text>', left, middle, _number(sum(bar.counts)))
    return [*parts, end]


def _step(most: float) -> float:
    """Return the distance of the lines of the grid: 1, 2 or 5 times a power of ten, and four to five lines."""
    step = 1.0
    while True:
        for factor in (1, 2, 5):
            if step * factor * 5 >= most:
                return step * factor
        step *= 10


def _multiples(step: float, top: float) -> list[float]:
    return [n * step for n in range(round(top / step) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"

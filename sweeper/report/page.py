"""Makes a page of HTML that stands alone: one file, no script, no request, light and dark, printable.

A command that writes a page does so in this order, so that a file that cannot be written is refused before the work begins and a
failure leaves what was there before:

    with files.atomic_write(path) as file:
        found = ...  # the work
        file.write(page(title, summary, sections).encode())

A section is a heading and blocks. A block is a `str` (a paragraph; what is quoted by backticks is shown as code), `Verdict`,
`Facts`, `Table`, `Figure` (a chart of `sweeper.report.chart`, or any SVG of your own), or `Commands`. Every text is escaped.
A page holds counts and ids, no content.

Cells and facts are values of the program, formatted here: whole numbers get thousands separators, a `datetime` is written in
UTC to the second, a `timedelta` as a length, None as a dash. Wrap ids and digests in `Code`.
A table below a chart is closed on a screen and printed on paper.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from functools import cache
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from sweeper.errors import printable
from sweeper.policy.instant import rfc3339
from sweeper.report.status import length

LONG = 45
"""Rows: a longer table below a chart stays closed on paper."""


BREAKS = re.compile(r"([_/])(?=\w)")
"""Where a long name may be broken at the end of a line."""


class Code(str):
    """A text that is shown as the machine writes it: an id, a digest, a command's name."""


@dataclass(frozen=True)
class Verdict:
    """The page's answer in a sentence. `is_good` is False if a person must act."""

    kind: ClassVar = "verdict"
    text: str
    is_good: bool


@dataclass(frozen=True)
class Facts:
    """A list of named values: `rows` are pairs of name and value."""

    kind: ClassVar = "facts"
    rows: Sequence[tuple[str, object]]


@dataclass(frozen=True)
class Table:
    """A table. `caption` says what it shows; columns that hold numbers are aligned to the right."""

    kind: ClassVar = "table"
    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[object]]

    @property
    def is_long(self) -> bool:
        """True if the table below a chart is not printed."""
        return len(self.rows) > LONG

    def is_number(self, column: int) -> bool:
        """Return True if every cell of the column is a number, a length of time or empty."""
        cells = [row[column] for row in self.rows]
        return any(cell is not None for cell in cells) and all(
            cell is None or isinstance(cell, int | float | timedelta) for cell in cells
        )


@dataclass(frozen=True)
class Figure:
    """A picture with the finding that it shows, a whole sentence, and the same numbers as a table.

    `svg` is trusted markup. Its `<svg>` has role="img" and the finding as its aria-label. Style it with the classes of
    `templates/page.css` (`bar`, `grid`, `tick`, `name`, `value`, `series-0` …), which follow light, dark and print. Give
    horizontal positions in percent and vertical ones in pixels, and it fits any width with text of the same size.
    `margin` and `end` are the room on the left and on the right for labels, in characters. `legend` names the series in order.
    """

    kind: ClassVar = "figure"
    finding: str
    svg: Markup
    table: Table
    margin: int = 0
    end: int = 2
    legend: Sequence[str] = ()


@dataclass(frozen=True)
class Commands:
    """Commands to type, one a line."""

    kind: ClassVar = "commands"
    lines: Sequence[str]


Block = str | Verdict | Facts | Table | Figure | Commands


@dataclass(frozen=True)
class Section:
    """A heading with its blocks."""

    title: str
    blocks: Sequence[Block]


def page(title: str, summary: Sequence[Block], sections: Sequence[Section], *, footer: str = "") -> str:
    """Return the page as HTML.

    Args:
        title: the heading of the page and the title of the window.
        summary: the first page, before the list of contents: verdict, as-of, store, how to verify.
        sections: the rest, in order.
        footer: one line at the end, for instance which version made the page.
    """
    template = _environment().get_template("page.html.j2")
    return template.render(title=title, summary=summary, sections=sections, footer=footer)


def shown(value: object) -> Markup:
    """Return a value as markup, as in a cell of a table."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, Code):
        return Markup("<code>{}</code>").format(printable(value))
    if isinstance(value, datetime):
        return Markup('<time datetime="{}">{}</time>').format(rfc3339(value), instant(value))
    if isinstance(value, date):
        return Markup("<time>{}</time>").format(value.isoformat())
    return Markup(BREAKS.sub(r"\1<wbr>", str(escape(printable(_text(value))))))  # noqa: S704 — escaped before


def prose(text: str) -> Markup:
    """Return a paragraph as markup: what is quoted by backticks is shown as the machine writes it."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return shown(text)
    return Markup("").join(shown(Code(part) if n % 2 else part) for n, part in enumerate(parts))


def instant(value: datetime) -> str:
    """Return an instant for a reader, in UTC to the second."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, timedelta):
        return length(value)
    return str(value.value) if isinstance(value, Enum) else str(value)


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("sweeper.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    found.filters.update(shown=shown, prose=prose)
    return found

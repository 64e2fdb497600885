"""Pages of HTML: texts are escaped, nothing is fetched or run, and each chart has its numbers as a table."""

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from sweeper.report import chart
from sweeper.report.chart import Bar, Column
from sweeper.report.page import Code, Commands, Facts, Figure, Section, Table, Verdict, page, prose, shown

HOSTILE = "\"><script src='//a.example/x'>\u202e\x1b &"
AT = datetime(2026, 11, 28, 14, 52, 10, 5, tzinfo=UTC)


class Elements(HTMLParser):
    """Collects the elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.found.append((tag, dict(attrs)))


def test_hostile_texts() -> None:
    """A name that looks like markup stays a text wherever it stands; nothing refers to another file; no script."""
    table = Table(HOSTILE, (HOSTILE,), [(HOSTILE,), (Code(HOSTILE),)])
    blocks = (
        HOSTILE,
        Verdict(HOSTILE, is_good=True),
        Facts([(HOSTILE, Code(HOSTILE))]),
        table,
        Commands((HOSTILE,)),
        chart.columns(HOSTILE, [Column(HOSTILE, 1)], x=HOSTILE, y=HOSTILE, table=table),
        chart.bars(HOSTILE, [Bar(HOSTILE, (1, 2))], series=(HOSTILE, HOSTILE), x=HOSTILE),
    )
    made = page(HOSTILE, blocks, [Section(HOSTILE, blocks)] * 2, footer=HOSTILE)
    read = Elements(made)
    assert {tag for tag, _ in read.found} & {"script", "img", "link", "iframe", "object", "base", "form"} == set()
    linked = [value for _, given in read.found for name, value in given.items() if name in ("href", "src", "srcset")]
    assert linked == ["#section-1", "#section-2"]
    assert not any(name.startswith("on") for _, given in read.found for name in given)
    assert "url(" not in made
    assert "@import" not in made
    assert not set(made) & {"\u202e", "\x1b"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (0, "0"),
        (None, "-"),
        (1234.56, "1,234.6"),
        (timedelta(days=3, hours=2), "3 days 2 h"),
        (AT.date(), "<time>2026-11-28</time>"),
        (AT, '<time datetime="2026-11-28T14:52:10.000005Z">2026-11-28 14:52:10 UTC</time>'),
        (Code("a<b"), "<code>a&lt;b</code>"),
        ("a_rule <of>/it", "a_<wbr>rule &lt;of&gt;/<wbr>it"),
    ],
)
def test_values(value: object, text: str) -> None:
    """A value is written for a reader."""
    assert shown(value) == text


@pytest.mark.parametrize(
    ("text", "markup"),
    [("Type `a < b`.", "Type <code>a &lt; b</code>."), ("One ` alone <b>.", "One ` alone &lt;b&gt;.")],
)
def test_quoted_text(text: str, markup: str) -> None:
    """What backticks quote is shown as code; a single one stays as it is."""
    assert prose(text) == markup


@pytest.mark.parametrize("most", [0, 1, 3, 7, 999, 1_234_567, 0.4])
def test_chart(most: float) -> None:
    """Every column lies inside the plot; a number above zero is always to be seen; the table has every number."""
    found = [Column(f"{n} Dec", count) for n, count in enumerate((0, most / 1000, most))]
    figure = chart.columns("Two came.", found, x="day (UTC)", y="conversations")
    drawn = [given for tag, given in Elements(figure.svg).found if tag == "rect"]
    assert len(drawn) == sum(column.count > 0 for column in found)
    for given in drawn:
        top, height = float(given["y"] or ""), float(given["height"] or "")
        assert height >= 1
        assert top >= 0
        assert top + height == pytest.approx(chart.PLOT, abs=0.1)
    assert [row[1] for row in figure.table.rows] == [column.count for column in found]
    _is_named(figure)


def test_bars() -> None:
    """Bars are stacked without gap or overlap up to the whole width, and a cut name stays whole in the table."""
    long = "a_rule_with_a_name_that_is_very_long"
    figure = chart.bars("Most are old.", [Bar(long, (1, 0, 3)), Bar("b", (0, 0, 0))], series=("a", "b", "c"), x="rows")
    drawn = [given for tag, given in Elements(figure.svg).found if tag == "rect"]
    assert [(given["x"], given["width"]) for given in drawn] == [("0.000%", "25.000%"), ("25.000%", "75.000%")]
    assert [row[0] for row in figure.table.rows] == [long, "b"]
    assert figure.margin < len(long)
    _is_named(figure)


def _is_named(figure: Figure) -> None:
    tag, given = Elements(figure.svg).found[0]
    assert (tag, given["role"], given["aria-label"]) == ("svg", "img", figure.finding)

"""As much of PromQL as our rules and panels use: which series an expression asks for, with which labels, and what it groups by.

Invariant: what it does not know it refuses; nothing that it skips could hold a name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.deploy.exported import Exported

TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>\d[\w.]*)|(?P<name>[a-zA-Z_:][\w:]*)"""
    r"""|(?P<sign>=~|!~|!=|==|<=|>=|[-+*/%^<>={}()\[\],])|(?P<space>\s+)"""
)
GROUPINGS = frozenset({"by", "without", "on", "ignoring"})
WORDS = frozenset({"and", "or", "unless", "offset"})
FUNCTIONS = frozenset(
    {"max", "min", "sum", "count", "time", "increase", "rate", "absent", "histogram_quantile", "min_over_time"}
)


@dataclass
class Asked:
    """What an expression asks for: (series, label → (comparison, value)), and all labels that it groups by."""

    series: list[tuple[str, dict[str, tuple[str, str]]]] = field(default_factory=list)
    grouped: set[str] = field(default_factory=set)


def tokens(expression: str) -> Iterator[tuple[str, str]]:
    """The expression's tokens, (kind, text).

    Raises:
        ValueError: there is something in it that is not known here.
    """
    at = 0
    while at < len(expression):
        found = TOKEN.match(expression, at)
        if found is None or found.lastgroup is None:
            raise ValueError(f"{expression!r}: nothing known at {expression[at:]!r}")
        if found.lastgroup != "space":
            yield found.lastgroup, found[0]
        at = found.end()


def asked(expression: str) -> Asked:
    """What an expression asks for."""
    left, found = list(tokens(expression))[::-1], Asked()
    while left:
        kind, text = left.pop()
        if kind != "name" or text in WORDS or text in FUNCTIONS:
            continue
        if text in GROUPINGS:
            found.grouped |= {name for kind, name in _until(left, ")") if kind == "name"}
        else:
            matchers = list(_until(left, "}")) if left and left[-1][1] == "{" else []
            found.series.append((text, _matched([token for token in matchers if token[1] != ","])))
    return found


def faults(expression: str, exported: Exported) -> list[str]:
    """What an expression asks for that is not exported."""
    found, told = asked(expression), []
    for series, matchers in found.series:
        if series not in exported:
            told.append(f"{series} is not exported")
            continue
        for label, (comparison, value) in matchers.items():
            if label not in exported[series]:
                told.append(f"{series} has no label {label}")
            elif comparison == "=" and value not in exported[series][label]:
                told.append(f"{series} never has {label}={value}")
        told += [f"{series} cannot be grouped by {name}" for name in found.grouped if name not in exported[series]]
    return told


def _until(left: list[tuple[str, str]], end: str) -> Iterator[tuple[str, str]]:
    """The tokens behind an opening bracket, up to the closing one; they are taken away."""
    left.pop()
    while (token := left.pop())[1] != end:
        yield token


def _matched(matchers: list[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    return {
        label: (comparison, value.strip('"'))
        for (_, label), (_, comparison), (_, value) in zip(matchers[::3], matchers[1::3], matchers[2::3], strict=True)
    }

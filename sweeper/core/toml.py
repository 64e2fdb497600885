"""TOML as people write it: small and shallow. Whatever else a parser could be made to choke on is named and refused first.

The law of this file: reading takes time in proportion to the text's length, and every fault is a `TomlError` in one line.
"""

import re
import tomllib
from typing import Any

LONGEST = 1 << 20
"""Characters; the shipped policy has some 6,000."""
DEEPEST = 32
MOST_PARTS = 16
"""Parts of a dotted key; the parser's time grows with their square."""
MOST_DIGITS = 100
"""Python itself refuses to print a number of more than 4,300 digits, be it only in a message."""

_SKIPPED = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}(?!")'''
    r"""|'''.*?'{3,5}(?!')"""
    r"""|"(?:\\[^\n]|[^"\\\n])*"|'[^'\n]*\'"""
    r"|\#[^\n]*",
    re.DOTALL,
)
"""Texts and comments, in which brackets, dots and digits mean nothing."""
_DOTTED = re.compile(rf"""(?<![\w"'.-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){{{MOST_PARTS}}}""")
_NUMBER = re.compile(rf"(?<![\w.])[0-9][\w.]{{{MOST_DIGITS},}}")
_BRACKET = re.compile(r"[\[\]{}]")


class TomlError(ValueError):
    """A text is no TOML, or none that a person would write."""


def parse(text: str) -> dict[str, Any]:
    """The tables that a text expresses.

    Raises:
        TomlError: it is no TOML, or larger or deeper than any file for people is.
    """
    if len(text) > LONGEST:
        raise TomlError(f"more than {LONGEST} characters")
    _refuse_monstrous(text)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TomlError(str(error)) from None
    except (RecursionError, MemoryError):
        raise TomlError("nested too deeply") from None
    except (ValueError, OverflowError) as error:  # an instant or a number that Python cannot hold
        raise TomlError(f"a value cannot be read: {error}") from None


def _refuse_monstrous(text: str) -> None:
    """Refuse what would take a parser's stack or time, outside of texts and comments."""
    bare = _SKIPPED.sub(_blank, text)
    if found := _DOTTED.search(bare):
        raise TomlError(f"a key of more than {MOST_PARTS} parts{_place(bare, found.start())}")
    if found := _NUMBER.search(bare):
        raise TomlError(f"a number of more than {MOST_DIGITS} digits{_place(bare, found.start())}")
    depth = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > DEEPEST:
            raise TomlError(f"nested more than {DEEPEST} deep{_place(bare, bracket.start())}")


def _blank(skipped: re.Match[str]) -> str:
    """An empty text in the place of a text, nothing in that of a comment; the lines stay as many."""
    return ("" if skipped[0].startswith("#") else '""') + "\n" * skipped[0].count("\n")


def _place(text: str, at: int) -> str:
    return f" (at line {text.count(chr(10), 0, at) + 1})"

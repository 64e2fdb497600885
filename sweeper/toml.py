"""Parses TOML files that people write, and refuses input that would exhaust the parser's stack or time.

Invariant: parsing takes time linear in the length of the text, and every fault is a `TomlError` with a one-line message.
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
"""Python refuses to format a number of more than 4,300 digits, even in a message."""

_SKIPPED = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}(?!")'''
    r"""|'''.*?'{3,5}(?!')"""
    r"""|"(?:\\[^\n]|[^"\\\n])*"|'[^'\n]*\'"""
    r"|\#[^\n]*",
    re.DOTALL,
)
"""Strings and comments, in which brackets, dots and digits are no syntax."""
_DOTTED = re.compile(rf"""(?<![\w"'.-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){{{MOST_PARTS}}}""")
_NUMBER = re.compile(rf"(?<![\w.])[0-9][\w.]{{{MOST_DIGITS},}}")
_BRACKET = re.compile(r"[\[\]{}]")


class TomlError(ValueError):
    """The text is not TOML, or exceeds a limit."""


def parse(text: str) -> dict[str, Any]:
    """Parse a text into tables.

    Raises:
        TomlError: the text is not TOML, or exceeds a limit of length, depth, key parts or digits.
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
    """Check the limits outside of strings and comments."""
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
    """Replace a string by an empty one and a comment by nothing, keeping the line breaks."""
    return ("" if skipped[0].startswith("#") else '""') + "\n" * skipped[0].count("\n")


def _place(text: str, at: int) -> str:
    return f" (at line {text.count(chr(10), 0, at) + 1})"

"""Turns a row of evidence into a leaf: one JSON object, in the canonical bytes of RFC 8785.

Invariant: every row that PostgreSQL can store has a leaf, and that leaf never changes, whatever the versions of PostgreSQL and
Python.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

import rfc8785

from sweeper.policy.instant import rfc3339

Leaf: TypeAlias = dict[str, Any]
"""A leaf as an object: `source` is the table, the other keys are its columns."""

INSTANTS = {"tombstones": ("due_at", "as_of", "purged_at"), "events": ("at",)}
"""The columns with instants; one outside Python's calendar (infinity, 44 BC) stays as PostgreSQL writes it."""
OBJECTS = {"tombstones": "children", "events": "details"}
"""The jsonb column of each table."""
MOST_BRACKETS = 200
"""JSON with more brackets stays the text that PostgreSQL writes: its nesting could exceed the limits of readers."""
LARGEST = 2**53 - 1
"""The largest integer that every JSON reader reads exactly; larger ones, and fractions, become strings of their digits."""


def of(source: str, row: str) -> Leaf:
    """Return the leaf of a row from the JSON text of its columns (instants in UTC, jsonb as a string)."""
    columns: Leaf = _READER.decode(row)
    for name in INSTANTS[source]:
        columns[name] = _instant(columns[name])
    name = OBJECTS[source]
    if (text := columns[name]) is not None and text.count("{") + text.count("[") <= MOST_BRACKETS:
        columns[name] = _READER.decode(text)
    columns["source"] = source
    return columns


def canonical(leaf: Mapping[str, Any]) -> bytes:
    """Return the canonical bytes of an object of strings, integers, booleans and nulls; they contain no line break.

    The library takes five times as long as `json`, whose bytes are the same for ASCII.

    Raises:
        ValueError: a string is not valid Unicode.
    """
    written = _WRITER.encode(leaf)
    return written.encode() if written.isascii() else rfc8785.dumps(dict(leaf))


def read(text: str | bytes) -> Any:
    """Parse the JSON text of a leaf strictly.

    Raises:
        ValueError: the text is no JSON, repeats a key, or has a number that no leaf can have.
    """
    try:
        return _STRICT.decode(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


@lru_cache(maxsize=1024)
def _instant(text: str | None) -> str | None:
    try:
        return None if text is None else rfc3339(datetime.fromisoformat(text))
    except ValueError:
        return text


def _integer_or_digits(digits: str) -> int | str:
    if len(digits) <= 17 and abs(number := int(digits)) <= LARGEST:
        return number
    return digits


def _exact_integer(digits: str) -> int:
    number = _integer_or_digits(digits)
    return _refuse(digits) if isinstance(number, str) else number


def _refuse(digits: str) -> NoReturn:
    raise ValueError(f"the number {digits[:30]}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("one key twice")
    return found


_STRICT = json.JSONDecoder(
    parse_float=_refuse, parse_int=_exact_integer, parse_constant=_refuse, object_pairs_hook=_unique_keys
)
_READER = json.JSONDecoder(parse_float=str, parse_int=_integer_or_digits)
_WRITER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)

"""A row of evidence as a leaf: one JSON object in the canonical bytes of RFC 8785.

Invariant: every row that PostgreSQL can hold has a leaf, and the same row has the same leaf for ever, whatever
the versions of PostgreSQL and Python.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

import rfc8785

from sweeper.policy.instant import rfc3339

Leaf: TypeAlias = dict[str, Any]
"""A leaf's object: `source` names the table, the other keys are its columns."""

INSTANTS = {"tombstones": ("due_at", "as_of", "purged_at"), "events": ("at",)}
"""The columns that hold instants; one that no calendar holds (infinity, 44 BC), or none, stays as PostgreSQL writes it."""
OBJECTS = {"tombstones": "children", "events": "details"}
"""The column that is jsonb."""
MOST_BRACKETS = 200
"""JSON with more brackets stays the text that PostgreSQL writes: it could be nested more deeply than a reader bears."""
LARGEST = 2**53 - 1
"""The largest whole number that every reader of JSON reads exactly; others, and fractions, become strings of their digits."""


def of(source: str, told: str) -> Leaf:
    """The leaf of a row, from the JSON text that tells its columns (instants in UTC, jsonb as a text in it)."""
    columns: Leaf = _READER.decode(told)
    for name in INSTANTS[source]:
        columns[name] = _instant(columns[name])
    name = OBJECTS[source]
    if (text := columns[name]) is not None and text.count("{") + text.count("[") <= MOST_BRACKETS:
        columns[name] = _READER.decode(text)
    columns["source"] = source
    return columns


def canonical(leaf: Mapping[str, Any]) -> bytes:
    """The canonical bytes of an object of texts, whole numbers, truth values and nulls; no line break is in them.

    The library takes five times as long as Python's own writer, whose bytes are the same where all is ASCII.

    Raises:
        ValueError: it holds what is no Unicode text.
    """
    written = _WRITER.encode(leaf)
    return written.encode() if written.isascii() else rfc8785.dumps(dict(leaf))


def read(text: str | bytes) -> Any:
    """What a JSON text tells, where it could be that of a leaf.

    Raises:
        ValueError: it is no JSON, says something twice, or holds a number that no leaf holds.
    """
    try:
        return _STRICT.decode(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


@lru_cache(maxsize=1024)
def _instant(told: str | None) -> str | None:
    try:
        return None if told is None else rfc3339(datetime.fromisoformat(told))
    except ValueError:
        return told


def _whole(digits: str) -> int | str:
    if len(digits) <= 17 and abs(number := int(digits)) <= LARGEST:
        return number
    return digits


def _exact(digits: str) -> int:
    number = _whole(digits)
    return _refuse(digits) if isinstance(number, str) else number


def _refuse(digits: str) -> NoReturn:
    raise ValueError(f"the number {digits[:30]}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("one key twice")
    return found


_STRICT = json.JSONDecoder(parse_float=_refuse, parse_int=_exact, parse_constant=_refuse, object_pairs_hook=_once)
_READER = json.JSONDecoder(parse_float=str, parse_int=_whole)
_WRITER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)

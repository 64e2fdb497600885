"""Turns the program's values into values that JSON can represent: one rule for every command, event and response."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any

from sweeper.policy.instant import rfc3339


def to_json(value: Any) -> Any:
    """Return the value as dictionaries, lists, strings, numbers, truth values and None.

    A dataclass becomes an object of its fields, without those that its `repr` leaves out; if it has a method `as_json`, the
    result of that is encoded instead. Timestamps are RFC 3339 in UTC, time spans are seconds, and counters are in the order of
    their keys.

    Raises:
        TypeError: JSON has nothing for this type.
    """
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "as_json"):
        return to_json(value.as_json())
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value) if field.repr}
    if isinstance(value, Mapping):
        items = sorted(value.items()) if isinstance(value, Counter) else value.items()
        return {str(to_json(key)): to_json(each) for key, each in items}
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return list(map(to_json, value))
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")

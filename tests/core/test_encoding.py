"""What JSON output, events and plan files have in common: how each value is written."""

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from sweeper.encoding import to_json
from sweeper.policy.evaluate import Outcome
from sweeper.policy.instant import OutOfRange

AT = datetime(2026, 3, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))


@dataclass
class Inner:
    """By its fields, without what its repr leaves out."""

    at: datetime
    secret: str = field(default="hidden", repr=False)


@dataclass
class Outer:
    """In a shape of its own."""

    inner: Inner

    def as_json(self) -> dict[str, Any]:
        """Values that are encoded in turn."""
        return {"inner": self.inner, "in": timedelta(milliseconds=1500)}


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (AT, "2026-02-28T23:00:00Z"),
        (AT.replace(microsecond=50), "2026-02-28T23:00:00.000050Z"),
        (Outer(Inner(AT)), {"inner": {"at": "2026-02-28T23:00:00Z"}, "in": 1.5}),
        ({Outcome.PURGE: Outcome.HELD, 7: None, "never": OutOfRange.NEVER}, {"purge": "held", "7": None, "never": "infinity"}),
        ([True, 1, 0.5, Path("/a/b"), (1,), frozenset({"x"})], [True, 1, 0.5, "/a/b", [1], ["x"]]),
    ],
)  # fmt: skip
def test_values(value: object, encoded: object) -> None:
    """Dataclasses are objects, times are in UTC, keys are text."""
    assert json.loads(json.dumps(to_json(value))) == encoded


def test_counters_are_in_order() -> None:
    """Two runs that counted the same print the same line."""
    assert list(to_json(Counter({"b": 1, "a": 2}))) == ["a", "b"]
    assert list(to_json({"b": 1, "a": 2})) == ["b", "a"]


@pytest.mark.parametrize("value", [b"bytes", object(), {"in": object()}])
def test_what_json_does_not_have(value: object) -> None:
    """A value without a rule is a fault of the program, not a text that looks like one."""
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        to_json(value)

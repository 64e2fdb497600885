"""Spans of neighbouring numbers: nothing is lost, nothing comes twice."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sweeper.evidence.span import LAST, IdSpan, multirange, portions, spans

NUMBERS = st.sets(st.integers(-30, 30) | st.integers(LAST - 20, LAST)).map(sorted)


@given(NUMBERS)
def test_runs_hold_the_numbers(numbers: list[int]) -> None:
    """Spans hold the numbers that went in, in order, and no two of them touch."""
    found = spans(numbers)
    assert [number for span in found for number in span.numbers()] == numbers
    assert all(span.end < after.first for span, after in itertools.pairwise(found))


@given(NUMBERS, st.integers(1, 7))
def test_portions_hold_the_runs(numbers: list[int], size: int) -> None:
    """Portions hold the same numbers, each but the last as many as fit, and no empty span."""
    found = list(portions(spans(numbers), size))
    assert [number for portion in found for span in portion for number in span.numbers()] == numbers
    assert all(span.length > 0 for portion in found for span in portion)
    assert [sum(span.length for span in portion) for portion in found[:-1]] == [size] * len(found[:-1])
    assert all(sum(span.length for span in portion) <= size for portion in found)


def test_ranges_end_where_bigint_does() -> None:
    """The range of the largest bigint is left open, as no bigint comes after it."""
    assert multirange([IdSpan(1, 2), IdSpan(LAST, 1)]) == f"{{[1,3),[{LAST},)}}"
    assert multirange([]) == "{}"

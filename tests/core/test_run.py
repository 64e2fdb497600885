"""Runs of neighbouring numbers: nothing is lost, nothing comes twice."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sweeper.core.run import LAST, Run, multirange, portions, runs

NUMBERS = st.sets(st.integers(-30, 30) | st.integers(LAST - 20, LAST)).map(sorted)


@given(NUMBERS)
def test_runs_hold_the_numbers(numbers: list[int]) -> None:
    """Runs hold the numbers that went in, in order, and no two of them touch."""
    found = runs(numbers)
    assert [number for run in found for number in run.numbers()] == numbers
    assert all(run.end < after.first for run, after in itertools.pairwise(found))


@given(NUMBERS, st.integers(1, 7))
def test_portions_hold_the_runs(numbers: list[int], size: int) -> None:
    """Portions hold the same numbers, each but the last as many as fit, and no empty run."""
    found = list(portions(runs(numbers), size))
    assert [number for portion in found for run in portion for number in run.numbers()] == numbers
    assert all(run.length > 0 for portion in found for run in portion)
    assert [sum(run.length for run in portion) for portion in found[:-1]] == [size] * len(found[:-1])
    assert all(sum(run.length for run in portion) <= size for portion in found)


def test_ranges_end_where_bigint_does() -> None:
    """The range of the largest bigint is left open, as no bigint comes after it."""
    assert multirange([Run(1, 2), Run(LAST, 1)]) == f"{{[1,3),[{LAST},)}}"
    assert multirange([]) == "{}"

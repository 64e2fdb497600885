"""Ranges of neighbouring ids: nothing is lost, nothing comes twice."""

import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.multirange import Int8Multirange
from psycopg.types.range import Int8Range

from sweeper.evidence.ledger import LAST, multirange, ranges

IDS = st.sets(st.integers(-30, 30) | st.integers(LAST - 20, LAST)).map(sorted)


@given(IDS)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_ranges_hold_the_ids(ids: list[int]) -> None:
    """Ranges hold the ids that went in, in order, and no two of them touch."""
    found = ranges(ids)
    assert list(itertools.chain.from_iterable(found)) == ids
    assert all(one.stop < after.start for one, after in itertools.pairwise(found))


def test_ranges_end_where_bigint_does() -> None:
    """The range of the largest bigint is left open, as no bigint comes after it."""
    assert multirange(ranges([1, 2, LAST])) == Int8Multirange([Int8Range(1, 3), Int8Range(LAST, None)])
    assert not multirange([])

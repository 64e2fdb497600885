"""A sweep on a real store does what the rules say, once."""

import json
from pathlib import Path

import pytest

from sweeper.policy.schema import Policy
from sweeper.runs.sweep import preview, sweep
from tests.facts import World, by_as_of, together
from tests.store.stores import ID_TYPES, Store

CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "cases.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("store", ID_TYPES, indirect=True)
def test_cases_are_purged_as_expected(store: Store, policy: Policy) -> None:
    """Of each worked case, exactly the conversations that it says are purged, with their rule in the tombstone.

    What ids are made of has nothing to do with dates: the as-ofs of a single case are for one type.
    """
    guards = {"history": False, "volume": False}
    groups = [group for group in by_as_of(CASES) if store.id_type == "uuid" or len(group) > 1]
    for case in map(together, groups):
        store.wipe()
        store.load(case)
        expected = case["expect"]["conversations"]
        gone = {store.id(name): wanted for name, wanted in expected.items() if wanted["purge"]}
        assert preview(store.job(policy, case["as_of"], guards=guards)).counts.due == len(gone), case["as_of"]
        result = sweep(store.job(policy, case["as_of"], guards=guards))
        assert store.left() == {store.id(name) for name in expected} - gone.keys(), case["as_of"]
        stones = store.execute("SELECT conversation_id, rule FROM sweeper.tombstones")
        assert dict(stones) == {id_: wanted["rule"] for id_, wanted in gone.items()}, case["as_of"]
        assert result.as_json()["purged"] == len(gone)


def test_second_run_finds_nothing(store: Store, policy: Policy) -> None:
    """What a run has purged is gone; the next finds nothing to do."""
    case: World = next(case for case in CASES if case["name"] == "standard: at due")
    store.load(case)
    first = sweep(store.job(policy, case["as_of"], guards={"history": False}))
    second = sweep(store.job(policy, case["as_of"], guards={"history": False}))
    assert (first.as_json()["purged"], second.as_json()["purged"]) == (1, 0)

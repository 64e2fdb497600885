"""The worked cases: every expectation of `cases.jsonl` holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweeper.core.decide import decide
from sweeper.core.instant import rfc3339
from sweeper.core.policy import Policy
from sweeper.core.training import exclusions
from tests.facts import facts_of, instant, messages_of

CASES = [json.loads(line) for line in (Path(__file__).parents[1] / "cases.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_conversations(case: dict[str, Any], policy: Policy) -> None:
    """Each conversation has the rule, the due and the outcome that the case expects."""
    as_of = instant(case["as_of"])
    for name, expected in case["expect"]["conversations"].items():
        verdict = decide(facts_of(case, name), policy, as_of)
        due = rfc3339(verdict.due) if verdict.due else None
        assert {"rule": verdict.rule, "due_at": due, "purge": verdict.purge} == expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_messages(case: dict[str, Any], policy: Policy) -> None:
    """Each message is eligible, or excluded for the reason that the case expects."""
    found = {}
    for conversation in case["conversations"]:
        facts, messages = facts_of(case, conversation["id"]), messages_of(case, conversation["id"])
        for message, reason in exclusions(facts, messages, policy, instant(case["as_of"])):
            found[message.id] = reason.value if reason else "eligible"
    assert found == case["expect"]["messages"]

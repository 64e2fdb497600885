"""The worked cases: every expectation of `cases.jsonl` holds, and of those that a second reader of the rules wrote."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweeper.policy.decide import decide
from sweeper.policy.feedback import decide_feedback
from sweeper.policy.instant import rfc3339
from sweeper.policy.schema import Policy
from sweeper.policy.training import exclusions
from tests.facts import facts_of, feedback_of, instant, messages_of

FOLDER = Path(__file__).parents[1]
CASES = [
    json.loads(line)
    for name in ("cases.jsonl", "more_cases.jsonl")
    for line in (FOLDER / name).read_text().splitlines()
]
FED = [case for case in CASES if "feedback" in case["expect"]]


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


@pytest.mark.parametrize("case", FED, ids=lambda case: case["name"])
def test_feedback(case: dict[str, Any], policy: Policy) -> None:
    """Each feedback row has the due and the outcome that the case expects."""
    found = {}
    for facts in feedback_of(case):
        verdict = decide_feedback(facts, policy, instant(case["as_of"]))
        due = rfc3339(verdict.due) if verdict.due else None
        found[facts.feedback.id] = {"due_at": due, "purge": verdict.purge}
    assert found == case["expect"]["feedback"]

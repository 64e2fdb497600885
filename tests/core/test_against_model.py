"""The core agrees with the slow, obvious model of the policy on random worlds, poisoned ones included."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.policy.decide import decide, exists
from sweeper.policy.feedback import decide_feedback
from sweeper.policy.redaction import decide_redaction
from sweeper.policy.schema import Policy
from sweeper.policy.training import exclusions
from tests import model
from tests.facts import World, conversation_of, facts_of, feedback_of, instant, messages_of
from tests.redacting import RULES, redacting
from tests.worlds import worlds

both = st.one_of(worlds(poison=False), worlds(poison=True))
many = settings(max_examples=200)
REDACTING = redacting(*RULES)


@given(world=both)
@many
def test_conversations(world: World, policy: Policy) -> None:
    """Rule, due, hold and outcome of every conversation are the model's."""
    as_of = instant(world["as_of"])
    found = {}
    for entry in world["conversations"]:
        if exists(conversation_of(entry), policy, as_of):
            v = decide(facts_of(world, entry["id"]), policy, as_of)
            found[entry["id"]] = model.Verdict(v.rule, v.due, v.held, v.purge, bool(v.doubts))
    assert found == model.verdicts(world)


@given(world=both)
@many
def test_redactions(world: World) -> None:
    """What is redacted, by which rule and when, is what the model says."""
    as_of, policy = instant(world["as_of"]), REDACTING
    found = {}
    for entry in world["conversations"]:
        if exists(conversation_of(entry), policy, as_of):
            v = decide_redaction(facts_of(world, entry["id"]), policy, as_of)
            assert v is not None
            is_left = decide(facts_of(world, entry["id"]), policy, as_of).expired
            rule = None if v.due is None else v.rule
            found[entry["id"]] = model.Verdict(
                rule, v.due, v.held or is_left, v.purge and not is_left, unclassified=False
            )
    assert found == model.redactions(world)


@pytest.mark.parametrize(("resumed", "redacts"), [("from_opt_in", False), ("entire", False), ("entire", True)])
@given(world=both)
@many
def test_messages(resumed: str, redacts: bool, world: World, policy: Policy) -> None:  # noqa: FBT001 — a parameter
    """Every message is eligible, or excluded for the model's reason, under both training scopes."""
    policy = REDACTING if redacts else policy
    assert policy.training is not None
    scoped = policy.model_copy(update={"training": policy.training.model_copy(update={"resumed": resumed})})
    as_of = instant(world["as_of"])
    found = {}
    for entry in world["conversations"]:
        if exists(conversation_of(entry), policy, as_of):
            facts = facts_of(world, entry["id"])
            for message, reason in exclusions(facts, messages_of(world, entry["id"]), scoped, as_of):
                found[message.id] = reason.value if reason else "eligible"
    assert found == model.messages(world, resumed=resumed, redacts=redacts)


@given(world=both)
@many
def test_feedback(world: World, policy: Policy) -> None:
    """Due, hold and outcome of every feedback row are the model's."""
    as_of = instant(world["as_of"])
    expected = model.feedback(world)
    for facts in feedback_of(world):
        verdict = decide_feedback(facts, policy, as_of)
        wanted = expected[facts.feedback.id]
        assert (verdict.due, verdict.held, verdict.purge) == (wanted.due, wanted.held, wanted.purge)

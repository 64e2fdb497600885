"""Records that the ledger has as purged and that a backup brought back: protection wins, and newer records are kept."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sweeper.policy.evaluate import Outcome
from sweeper.policy.facts import Conversation, Facts, Feedback, Hold
from sweeper.policy.feedback import FeedbackFacts
from sweeper.policy.instant import OutOfRange
from sweeper.policy.restored import PurgedRecord, evaluate_restored, evaluate_restored_feedback
from sweeper.policy.schema import Policy

PURGED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLD = PURGED_AT - timedelta(days=60)
NOW = PURGED_AT + timedelta(days=1)
BURIED = PurgedRecord("c1", "a1", "standard", OLD + timedelta(days=30), PURGED_AT)
FACTS = Facts(
    Conversation("c1", "a1", "chat", "first_party", False, False, OLD, OLD, None, None, None),  # noqa: FBT003 — a row
    None,
)
INSTANTS = ("created_at", "last_activity_at", "restored_at", "flagged_at")


def outcome(policy: Policy, facts: Facts) -> Outcome:
    """Return the outcome for a restored conversation."""
    return evaluate_restored(facts, BURIED, policy, NOW).outcome


def test_purged_as_before(policy: Policy) -> None:
    """It is purged under the ledger's rule and due date, even if its account is unknown and no rule applies to it today."""
    found = evaluate_restored(FACTS, BURIED, policy, NOW)
    assert (found.outcome, found.verdict.rule, found.verdict.due) == (Outcome.PURGE, "standard", BURIED.due_at)


@pytest.mark.parametrize("column", INSTANTS)
def test_edges(policy: Policy, column: str) -> None:
    """An activity at the instant of the purge does not keep it; one a microsecond later does."""

    def at(instant: datetime | OutOfRange) -> Outcome:
        changes: dict[str, Any] = {column: instant}
        return outcome(policy, replace(FACTS, conversation=replace(FACTS.conversation, **changes)))

    assert at(PURGED_AT - timedelta(microseconds=1)) is Outcome.PURGE
    assert at(PURGED_AT) is Outcome.PURGE
    assert at(PURGED_AT + timedelta(microseconds=1)) is Outcome.SPARED
    assert at(OutOfRange.NEVER) is Outcome.SPARED
    assert at(OutOfRange.ALWAYS) is Outcome.PURGE


def test_message(policy: Policy) -> None:
    """A user message after the purge keeps it, whatever `last_activity_at` says."""
    assert outcome(policy, replace(FACTS, latest_user_message_at=PURGED_AT)) is Outcome.PURGE
    assert outcome(policy, replace(FACTS, latest_user_message_at=NOW)) is Outcome.SPARED


def test_protected(policy: Policy) -> None:
    """A hold keeps it, even one dated in the future; a conversation of another account under the same id is kept."""
    for placed_at in (OLD, NOW + timedelta(days=9), None):
        held = replace(FACTS, holds=(Hold("m", None, "c1", placed_at, None),))
        assert outcome(policy, held) is Outcome.HELD
    other = replace(FACTS, conversation=replace(FACTS.conversation, account_id="a2"))
    assert outcome(policy, other) is Outcome.SPARED
    assert outcome(policy, replace(FACTS, repeated=True)) is Outcome.UNCLASSIFIED


def test_feedback(policy: Policy) -> None:
    """Feedback is purged as the ledger says, unless it is held, newer or of another account."""
    facts = FeedbackFacts(Feedback("f1", "a1", None, "thumbs", OLD))
    buried = replace(BURIED, record_id="f1", rule="thumbs")

    def judged(known: FeedbackFacts) -> tuple[str | None, bool]:
        found = evaluate_restored_feedback(known, buried, policy, NOW)
        return found.verdict.rule, found.outcome is Outcome.PURGE

    assert judged(facts) == ("thumbs", True)
    assert judged(replace(facts, holds=(Hold("m", "a1", None, NOW + timedelta(days=9), None),))) == ("thumbs", False)
    assert judged(replace(facts, repeated=True)) == ("thumbs", False)
    newer = replace(facts.feedback, submitted_at=PURGED_AT + timedelta(microseconds=1))
    assert judged(replace(facts, feedback=newer)) == ("thumbs", False)
    assert judged(replace(facts, feedback=replace(facts.feedback, account_id="a2"))) == ("thumbs", False)

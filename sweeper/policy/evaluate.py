"""Evaluates a proposal once more on the locked row; any doubt keeps the row.

Invariant: a conversation is purged only if it is due as stored *and* still due when every hold, flag and user message counts,
whatever its time (policy, Purge).
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from sweeper.policy.decide import Verdict, decide, exists
from sweeper.policy.facts import Facts
from sweeper.policy.instant import OutOfRange, StoredTimestamp
from sweeper.policy.schema import Policy
from sweeper.policy.window import EVERYTHING, Window


class Outcome(StrEnum):
    """What happens to a record: the one answer that runs, previews, reports and explanations give."""

    PURGE = "purge"
    HELD = "held"
    UNCLASSIFIED = "unclassified"
    SPARED = "spared"
    NOT_DUE = "not_due"
    OUTSIDE = "outside"


class Spared(StrEnum):
    """Why a run skips a record that is due, or that was due when it was proposed."""

    PROTECTED = "protected_after_as_of"
    STALE = "stale_last_activity"
    CHANGED = "changed"
    LOCKED = "locked"
    NOT_APPROVED = "not_approved"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed record: its key, and for a conversation the two timestamps whose change can postpone its due date."""

    account_id: str | None
    record_id: str
    last_activity_at: StoredTimestamp = None
    deleted_at: StoredTimestamp = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The outcome for one record, with the verdict on the row as stored; `spared` is set if the outcome is SPARED."""

    outcome: Outcome
    verdict: Verdict
    spared: Spared | None = None


def evaluate(
    facts: Facts, proposal: Proposal, policy: Policy, as_of: datetime, window: Window = EVERYTHING
) -> Evaluation:
    """Decide whether to purge a conversation, on facts read after its row was locked.

    A conversation that is due outside of the window is left to another run.
    """
    verdict = decide(facts, policy, as_of)
    if not exists(facts.conversation, policy, as_of):
        return Evaluation(Outcome.NOT_DUE, verdict)
    if not verdict.expired:
        return _kept(verdict, facts, proposal, policy, as_of)
    if verdict.held:
        return Evaluation(Outcome.HELD, verdict)
    if not window.holds(verdict.due):
        return Evaluation(Outcome.OUTSIDE, verdict)
    shielded = facts.protected(as_of)
    if shielded is not facts and not decide(shielded, policy, as_of).purge:
        return Evaluation(Outcome.SPARED, verdict, Spared.PROTECTED)
    latest = facts.latest_user_message_at
    stale = is_later(latest, facts.conversation.last_activity_at)
    if stale and not decide(shielded.with_activity(latest), policy, as_of).purge:
        return Evaluation(Outcome.SPARED, verdict, Spared.STALE)
    return Evaluation(Outcome.PURGE, verdict)


def evaluate_stored(facts: Facts, policy: Policy, as_of: datetime) -> Evaluation:
    """Evaluate a conversation that nothing proposed, as a run would that proposed it as it is stored."""
    return evaluate(facts, as_stored(facts), policy, as_of)


def as_stored(facts: Facts) -> Proposal:
    """Return the proposal that a run would make of a conversation as it is stored."""
    c = facts.conversation
    return Proposal(c.account_id, c.id, c.last_activity_at, c.deleted_at)


def protected_facts(facts: Facts, as_of: datetime) -> Facts:
    """Return the facts with whatever protects counted whatever its time: holds, flags and the newest user message."""
    shielded, latest = facts.protected(as_of), facts.latest_user_message_at
    return shielded.with_activity(latest) if is_later(latest, facts.conversation.last_activity_at) else shielded


def is_later(message_at: StoredTimestamp, last_activity_at: StoredTimestamp) -> bool:
    """Return True if a user message is newer than `last_activity_at`, which is then stale."""
    if message_at is None or last_activity_at is None:
        return message_at is not None
    return _order(message_at) > _order(last_activity_at)


def _kept(verdict: Verdict, facts: Facts, proposal: Proposal, policy: Policy, as_of: datetime) -> Evaluation:
    """Say why a row is not due: it has changed since it was proposed, it is unclassified, or its due date is in the future."""
    before = replace(facts.conversation, last_activity_at=proposal.last_activity_at, deleted_at=proposal.deleted_at)
    if before != facts.conversation and decide(replace(facts, conversation=before), policy, as_of).expired:
        return Evaluation(Outcome.SPARED, verdict, Spared.CHANGED)
    return Evaluation(Outcome.UNCLASSIFIED if verdict.doubts else Outcome.NOT_DUE, verdict)


def _order(stored: StoredTimestamp) -> tuple[int, datetime | None]:
    if isinstance(stored, OutOfRange):
        return (-1 if stored.is_past else 1, None)
    return (0, stored)

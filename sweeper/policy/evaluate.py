"""The last word before a purge: what was proposed is decided again on the row as it is now, and doubt keeps it.

The law of this file: a purge takes only what was due on the row as stored *and* with everything that protects counted
whatever its instant (policy, Purge).
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
    """What becomes of a proposed conversation."""

    PURGE = "purge"
    HELD = "held"
    UNCLASSIFIED = "unclassified"
    SPARED = "spared"
    NOT_DUE = "not_due"
    OUTSIDE = "outside"


class Spared(StrEnum):
    """Why a conversation that was proposed as due was kept."""

    PROTECTED = "protected_after_as_of"
    STALE = "stale_last_activity"
    CHANGED = "changed"
    LOCKED = "locked"
    NOT_APPROVED = "not_approved"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A conversation as the store proposed it: its key, and the two instants whose change can make it due no longer."""

    account_id: str | None
    conversation_id: str
    last_activity_at: StoredTimestamp
    deleted_at: StoredTimestamp


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The outcome for one proposed conversation, with the verdict on the row as stored."""

    outcome: Outcome
    verdict: Verdict
    spared: Spared | None = None


def evaluate(
    facts: Facts, proposal: Proposal, policy: Policy, as_of: datetime, window: Window = EVERYTHING
) -> Evaluation:
    """Whether to purge, on facts read after the row was locked; what is due outside of the window is another sweep's."""
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


def is_later(message_at: StoredTimestamp, last_activity_at: StoredTimestamp) -> bool:
    """Whether a user message is newer than the column says: the column is stale."""
    if message_at is None or last_activity_at is None:
        return message_at is not None
    return _order(message_at) > _order(last_activity_at)


def _kept(verdict: Verdict, facts: Facts, proposal: Proposal, policy: Policy, as_of: datetime) -> Evaluation:
    """A row that is not due: it changed since it was proposed, it cannot be classified, or it is simply not yet due."""
    before = replace(facts.conversation, last_activity_at=proposal.last_activity_at, deleted_at=proposal.deleted_at)
    if before != facts.conversation and decide(replace(facts, conversation=before), policy, as_of).expired:
        return Evaluation(Outcome.SPARED, verdict, Spared.CHANGED)
    return Evaluation(Outcome.UNCLASSIFIED if verdict.doubts else Outcome.NOT_DUE, verdict)


def _order(stored: StoredTimestamp) -> tuple[int, datetime | None]:
    if isinstance(stored, OutOfRange):
        return (-1 if stored.is_past else 1, None)
    return (0, stored)

"""Evaluates records that the ledger says were purged and that a restored backup brought back.

Invariant: the ledger proves that a record was due. A legal hold still keeps it, and so does anything newer than its purge, which
means another record under the same id or a conversation that was taken up again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from sweeper.policy.decide import Doubt, decide
from sweeper.policy.evaluate import Evaluation, Outcome, Spared
from sweeper.policy.facts import Facts
from sweeper.policy.feedback import FeedbackFacts, decide_feedback
from sweeper.policy.instant import OutOfRange, StoredTimestamp
from sweeper.policy.schema import Policy


@dataclass(frozen=True, slots=True)
class PurgedRecord:
    """A purged record as its tombstone in the ledger describes it; instants in UTC."""

    record_id: str
    account_id: str | None
    rule: str
    due_at: datetime
    purged_at: datetime


def evaluate_restored(facts: Facts, purged: PurgedRecord, policy: Policy, as_of: datetime) -> Evaluation:
    """Decide whether to purge a conversation again, on facts read after its row was locked."""
    verdict = decide(facts.protected(as_of), policy, as_of)
    again = replace(verdict, rule=purged.rule, due=purged.due_at)
    c = facts.conversation
    instants = (
        c.created_at,
        c.last_activity_at,
        c.deleted_at,
        c.restored_at,
        c.flagged_at,
        facts.latest_user_message_at,
    )
    if verdict.held:
        return Evaluation(Outcome.HELD, again)
    if Doubt.REPEATED in verdict.doubts:
        return Evaluation(Outcome.UNCLASSIFIED, again)
    if c.account_id != purged.account_id or _is_newer(instants, purged.purged_at):
        return Evaluation(Outcome.SPARED, again, Spared.CHANGED)
    return Evaluation(Outcome.PURGE, again)


def evaluate_restored_feedback(
    facts: FeedbackFacts, purged: PurgedRecord, policy: Policy, as_of: datetime
) -> Evaluation:
    """Decide whether to purge a feedback row again, on facts read after it was locked."""
    verdict = decide_feedback(facts, policy, as_of, protect=True)
    again = replace(verdict, rule=purged.rule, due=purged.due_at)
    if facts.repeated:
        return Evaluation(Outcome.UNCLASSIFIED, again)
    if facts.feedback.account_id != purged.account_id or _is_newer([facts.feedback.submitted_at], purged.purged_at):
        return Evaluation(Outcome.NOT_DUE, replace(again, due=None))
    return Evaluation(Outcome.HELD if verdict.held else Outcome.PURGE, again)


def _is_newer(instants: Iterable[StoredTimestamp], purged_at: datetime) -> bool:
    return any(_later(instant, purged_at) for instant in instants)


def _later(instant: StoredTimestamp, purged_at: datetime) -> bool:
    if isinstance(instant, OutOfRange):
        return not instant.is_past
    return instant is not None and instant > purged_at

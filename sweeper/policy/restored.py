"""What becomes of a record that the ledger says was purged and a restored backup brought back.

The law of this file: the ledger says that it was due; what protects now still wins, and what is newer than its purge is another
record under the same id, or the same one taken up again: it is kept.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from sweeper.policy.decide import Doubt, decide
from sweeper.policy.evaluate import Evaluation, Outcome, Spared
from sweeper.policy.facts import Facts
from sweeper.policy.feedback import FeedbackFacts, FeedbackVerdict, decide_feedback
from sweeper.policy.instant import OutOfRange, StoredTimestamp
from sweeper.policy.schema import Policy


@dataclass(frozen=True, slots=True)
class PurgedRecord:
    """What the ledger tells of one purged record; instants in UTC."""

    record_id: str
    account_id: str | None
    rule: str
    due_at: datetime
    purged_at: datetime


def evaluate_restored(facts: Facts, buried: PurgedRecord, policy: Policy, as_of: datetime) -> Evaluation:
    """Whether to purge a conversation again, on facts read after its row was locked."""
    verdict = decide(facts.protected(as_of), policy, as_of)
    purged = replace(verdict, rule=buried.rule, due=buried.due_at)
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
        return Evaluation(Outcome.HELD, purged)
    if Doubt.REPEATED in verdict.doubts:
        return Evaluation(Outcome.UNCLASSIFIED, purged)
    if c.account_id != buried.account_id or _is_newer(instants, buried.purged_at):
        return Evaluation(Outcome.SPARED, purged, Spared.CHANGED)
    return Evaluation(Outcome.PURGE, purged)


def decide_restored(facts: FeedbackFacts, buried: PurgedRecord, policy: Policy, as_of: datetime) -> FeedbackVerdict:
    """The verdict on a feedback row that was purged before; one that is newer, or another's, has no due."""
    verdict = decide_feedback(facts, policy, as_of, protect=True)
    feedback = facts.feedback
    if (
        facts.repeated
        or feedback.account_id != buried.account_id
        or _is_newer([feedback.submitted_at], buried.purged_at)
    ):
        return replace(verdict, rule=buried.rule, due=None)
    return replace(verdict, rule=buried.rule, due=buried.due_at, doubt=None)


def _is_newer(instants: Iterable[StoredTimestamp], purged_at: datetime) -> bool:
    return any(_later(instant, purged_at) for instant in instants)


def _later(instant: StoredTimestamp, purged_at: datetime) -> bool:
    if isinstance(instant, OutOfRange):
        return not instant.is_past
    return instant is not None and instant > purged_at

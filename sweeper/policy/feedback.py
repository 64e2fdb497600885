"""When must feedback be gone? It carries its own copy and its own clock (policy, Other records)."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sweeper.policy.decide import ERASURE_ORDER, UNCLASSIFIED, RuleMatch, covers, in_force, is_known, never_after
from sweeper.policy.facts import Feedback, Hold, Order
from sweeper.policy.instant import aware
from sweeper.policy.schema import FeedbackRule, Policy


class FeedbackDoubt(StrEnum):
    """Why a feedback row is kept and reported."""

    KIND = "feedback_kind"
    SUBMITTED = "feedback_submitted_at"
    REPEATED = "feedback_repeated_row"


@dataclass(frozen=True, slots=True)
class FeedbackFacts:
    """All that a decision on one feedback row may look at."""

    feedback: Feedback
    holds: tuple[Hold, ...] = ()
    orders: tuple[Order, ...] = ()
    repeated: bool = False
    """Whether the store shows the row more than once, so that none of it can be believed."""


@dataclass(frozen=True, slots=True)
class FeedbackVerdict:
    """The answer for one feedback row at one as-of."""

    as_of: datetime
    rule: str | None
    due: datetime | None
    held: bool
    doubt: FeedbackDoubt | None = None

    @property
    def expired(self) -> bool:
        """Whether the due is reached, holds left aside."""
        return self.due is not None and self.due <= self.as_of

    @property
    def purge(self) -> bool:
        """Whether the row must be gone now."""
        return self.expired and not self.held


def decide_feedback(facts: FeedbackFacts, policy: Policy, as_of: datetime, *, protect: bool = False) -> FeedbackVerdict:
    """The verdict on one feedback row; with `protect`, a hold counts whatever its instant of placing.

    Raises:
        ValueError: `as_of` is naive.
    """
    as_of = aware(as_of)
    feedback = facts.feedback
    names = [h for h in facts.holds if h.names(feedback.account_id, feedback.conversation_id)]
    held = any(in_force(h, policy, as_of) or (protect and in_force(_placed_always(h), policy, as_of)) for h in names)
    doubt = FeedbackDoubt.REPEATED if facts.repeated else _doubt(feedback, policy)
    if doubt is not None or not isinstance(feedback.submitted_at, datetime):
        return FeedbackVerdict(as_of, UNCLASSIFIED, None, held, doubt)
    dues = [
        RuleMatch(rule.name, never_after(policy, rule.period.after(feedback.submitted_at)))
        for rule in policy.feedback
        if _applies(rule, feedback.kind, feedback.submitted_at)
    ]
    dues += [RuleMatch(ERASURE_ORDER, due) for due in _ordered(facts, policy, as_of)]
    ruling = min(dues, key=lambda r: (r.due is None, r.due), default=None)
    return FeedbackVerdict(as_of, ruling.rule if ruling else None, ruling.due if ruling else None, held)


def has_orphan_transcript(feedback: Feedback, policy: Policy) -> bool:
    """Whether the row carries a transcript that its kind must not have."""
    return feedback.has_transcript and feedback.kind in (policy.feedback_without_transcript or ())


def _placed_always(hold: Hold) -> Hold:
    return Hold(hold.matter, hold.account_id, hold.conversation_id, None, hold.released_at)


def _doubt(feedback: Feedback, policy: Policy) -> FeedbackDoubt | None:
    if not any(feedback.kind in rule.kinds for rule in policy.feedback):
        return FeedbackDoubt.KIND
    return None if policy.plausible.holds(feedback.submitted_at) else FeedbackDoubt.SUBMITTED


def _applies(rule: FeedbackRule, kind: str | None, submitted_at: datetime) -> bool:
    return kind in rule.kinds and (rule.submitted_before is None or submitted_at < rule.submitted_before)


def _ordered(facts: FeedbackFacts, policy: Policy, as_of: datetime) -> list[datetime]:
    feedback = facts.feedback
    return [
        order.due_at
        for order in facts.orders
        if order.names(feedback.account_id, feedback.conversation_id)
        and is_known(order, as_of)
        and covers(order, feedback.submitted_at, policy)
        and isinstance(order.due_at, datetime)
        and policy.plausible.holds(order.due_at)
    ]

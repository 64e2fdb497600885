"""When must feedback be gone? It carries its own copy and its own clock (policy, Other records)."""

from dataclasses import dataclass, replace
from datetime import datetime

from sweeper.policy.anomaly import Anomaly
from sweeper.policy.decide import (
    ERASURE_ORDER,
    UNCLASSIFIED,
    Doubt,
    RuleMatch,
    Verdict,
    covers,
    in_force,
    is_known,
    never_after,
)
from sweeper.policy.evaluate import Evaluation, Outcome, Spared
from sweeper.policy.facts import Feedback, Hold, Order
from sweeper.policy.instant import aware
from sweeper.policy.schema import FeedbackRule, Policy


@dataclass(frozen=True, slots=True)
class FeedbackFacts:
    """All that a decision on one feedback row may look at."""

    feedback: Feedback
    holds: tuple[Hold, ...] = ()
    orders: tuple[Order, ...] = ()
    repeated: bool = False
    """True if the store shows the row more than once, so that no version of it can be trusted."""

    def reads_as(self, other: "FeedbackFacts") -> bool:
        """Return True if the other facts are equal."""
        return self == other


def decide_feedback(facts: FeedbackFacts, policy: Policy, as_of: datetime, *, protect: bool = False) -> Verdict:
    """The verdict on one feedback row; with `protect`, a hold counts whatever its instant of placing.

    Raises:
        ValueError: `as_of` is naive.
    """
    as_of = aware(as_of)
    feedback = facts.feedback
    names = [h for h in facts.holds if h.names(feedback.account_id, feedback.conversation_id)]
    held = any(
        in_force(h, policy, as_of) or (protect and in_force(replace(h, placed_at=None), policy, as_of)) for h in names
    )
    doubt = Doubt.FEEDBACK_REPEATED if facts.repeated else _doubt(feedback, policy)
    if doubt is not None or not isinstance(feedback.submitted_at, datetime):
        return Verdict(as_of, UNCLASSIFIED, None, held, (doubt or Doubt.FEEDBACK_SUBMITTED,))
    dues = [
        RuleMatch(rule.name, never_after(policy, rule.period.after(feedback.submitted_at)))
        for rule in policy.feedback
        if _applies(rule, feedback.kind, feedback.submitted_at)
    ]
    dues += [RuleMatch(ERASURE_ORDER, due) for due in _ordered(facts, policy, as_of)]
    ruling = min(dues, key=lambda r: (r.due is None, r.due), default=None)
    return Verdict(as_of, ruling.rule if ruling else None, ruling.due if ruling else None, held)


def evaluate_feedback(facts: FeedbackFacts, policy: Policy, as_of: datetime) -> Evaluation:
    """Decide whether to purge a feedback row, on facts read after it was locked (policy, Purge).

    Raises:
        ValueError: `as_of` is naive.
    """
    verdict = decide_feedback(facts, policy, as_of)
    if verdict.doubts:
        return Evaluation(Outcome.UNCLASSIFIED, verdict)
    if not verdict.expired:
        return Evaluation(Outcome.NOT_DUE, verdict)
    if verdict.held:
        return Evaluation(Outcome.HELD, verdict)
    if decide_feedback(facts, policy, as_of, protect=True).held:
        return Evaluation(Outcome.SPARED, verdict, Spared.PROTECTED)
    return Evaluation(Outcome.PURGE, verdict)


def feedback_anomalies(facts: FeedbackFacts, policy: Policy) -> tuple[Anomaly, ...]:
    """Return what should not be so in a feedback row: a transcript that its kind must not have."""
    orphan = facts.feedback.has_transcript and facts.feedback.kind in (policy.feedback_without_transcript or ())
    return (Anomaly.STRAY_TRANSCRIPT,) if orphan else ()


def _doubt(feedback: Feedback, policy: Policy) -> Doubt | None:
    if not any(feedback.kind in rule.kinds for rule in policy.feedback):
        return Doubt.FEEDBACK_KIND
    return None if policy.plausible.holds(feedback.submitted_at) else Doubt.FEEDBACK_SUBMITTED


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

"""Decides when the content of a conversation must be gone, by the rules of the policy that redact.

Invariants: what is due for purge is not redacted. Whatever keeps a conversation from a purge keeps its content, too. An erasure
order is about purges: it sets no date for a redaction.
"""

from dataclasses import replace
from datetime import datetime

from sweeper.policy.decide import Doubt, Verdict, decide
from sweeper.policy.evaluate import Evaluation, Outcome, Proposal, evaluate
from sweeper.policy.facts import Facts
from sweeper.policy.schema import Policy


def decide_redaction(facts: Facts, policy: Policy, as_of: datetime) -> Verdict | None:
    """Return the verdict on the content of a conversation; None if no rule of the policy redacts."""
    return decide(_unordered(facts), policy.redacting, as_of) if policy.redacting is not None else None


def evaluate_redaction(facts: Facts, proposal: Proposal, policy: Policy, as_of: datetime) -> Evaluation:
    """Decide whether to redact a conversation, on facts read after its row was locked; `Outcome.PURGE` says yes."""
    verdict = decide(facts, policy, as_of)
    if policy.redacting is None or verdict.expired:
        return Evaluation(Outcome.NOT_DUE, verdict)
    found = evaluate(_unordered(facts), proposal, policy.redacting, as_of)
    if found.outcome is Outcome.PURGE and Doubt.PERIOD in verdict.doubts and not _stands(found.verdict, policy):
        return Evaluation(Outcome.UNCLASSIFIED, verdict)  # a doubt that only the rules that purge raise
    return found


def _stands(verdict: Verdict, policy: Policy) -> bool:
    rule = policy.by_name.get(str(verdict.rule))
    return rule is not None and rule.stands_unclassified


def _unordered(facts: Facts) -> Facts:
    return replace(facts, orders=()) if facts.orders else facts

"""What a run or a preview met, counted by reason: every proposed record is in exactly one count."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sweeper.policy.anomaly import Anomaly, anomalies
from sweeper.policy.evaluate import Evaluation, Outcome, Spared
from sweeper.policy.facts import Facts
from sweeper.policy.feedback import FeedbackFacts, FeedbackVerdict, decide_feedback, has_orphan_transcript
from sweeper.policy.schema import Policy

COUNTERS = ("by_rule", "feedback_by_rule", "spared", "unclassified", "anomalies")
NUMBERS = ("held", "feedback_held", "not_due", "outside", "failed")


@dataclass
class Counts:
    """Counts of proposed records by what became of them (or would)."""

    by_rule: Counter[str] = field(default_factory=Counter)
    feedback_by_rule: Counter[str] = field(default_factory=Counter)
    spared: Counter[str] = field(default_factory=Counter)
    held: int = 0
    feedback_held: int = 0
    unclassified: Counter[str] = field(default_factory=Counter)
    not_due: int = 0
    outside: int = 0
    failed: int = 0
    anomalies: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Counts") -> None:
        """Add another tally's counts to this one."""
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        for name in NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def count(
        self, disposal: Evaluation, facts: Facts, policy: Policy, as_of: datetime, *, present: bool = True
    ) -> None:
        """Count one conversation under what becomes of it; an unclassified one under its first doubt."""
        verdict = disposal.verdict
        match disposal.outcome:
            case Outcome.PURGE:
                self.by_rule[str(verdict.rule)] += 1
            case Outcome.HELD:
                self.held += 1
            case Outcome.UNCLASSIFIED:
                self.unclassified[verdict.doubts[0].value] += 1
            case Outcome.SPARED:
                self.spared[str(disposal.spared)] += 1
            case Outcome.NOT_DUE:
                self.not_due += 1
            case Outcome.OUTSIDE:
                self.outside += 1
        self.anomalies.update(anomaly.value for anomaly in anomalies(facts, policy, as_of, present=present))

    def judge_feedback(self, facts: FeedbackFacts, policy: Policy, as_of: datetime) -> FeedbackVerdict | None:
        """Decide one feedback row, count it, and return the verdict if it is to be purged."""
        verdict = decide_feedback(facts, policy, as_of)
        if verdict.purge and not decide_feedback(facts, policy, as_of, protect=True).purge:
            self.spared[Spared.PROTECTED.value] += 1
            return None
        self.count_feedback(verdict, facts, policy)
        return verdict if verdict.purge else None

    def count_feedback(self, verdict: FeedbackVerdict, facts: FeedbackFacts, policy: Policy) -> None:
        """Count one feedback row under what becomes of it."""
        if verdict.doubt is not None:
            self.unclassified[verdict.doubt.value] += 1
        elif verdict.purge:
            self.feedback_by_rule[str(verdict.rule)] += 1
        elif verdict.expired:
            self.feedback_held += 1
        else:
            self.not_due += 1
        if has_orphan_transcript(facts.feedback, policy):
            self.anomalies[Anomaly.STRAY_TRANSCRIPT.value] += 1

    @property
    def due(self) -> int:
        """How many conversations are due and not held."""
        return self.by_rule.total()

    @property
    def due_feedback(self) -> int:
        """How many feedback rows are due and not held."""
        return self.feedback_by_rule.total()

    def as_json(self) -> dict[str, Any]:
        """The counts for machines; sums beside their reasons."""
        return {
            "spared": self.spared.total(),
            "held": self.held,
            "unclassified": self.unclassified.total(),
            "failed": self.failed,
            "outside": self.outside,
            "by_rule": dict(sorted(self.by_rule.items())),
            "spared_by_reason": dict(sorted(self.spared.items())),
            "unclassified_by_reason": dict(sorted(self.unclassified.items())),
            "feedback_by_rule": dict(sorted(self.feedback_by_rule.items())),
            "feedback_held": self.feedback_held,
            "anomalies": dict(sorted(self.anomalies.items())),
        }

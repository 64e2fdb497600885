"""Counts of records by rule and by outcome, for runs, previews, reports and totals: every record is in exactly one count."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sweeper.policy.anomaly import Anomaly
from sweeper.policy.evaluate import Evaluation, Outcome, Spared

NO_RULE = "no rule"
Kind = Literal["conversation", "redaction", "feedback"]
"""What a record that is counted is: a conversation, the content of one (which a rule redacts), or a feedback row."""


@dataclass
class RecordCounts:
    """The records of one kind.

    Attributes:
        days: horizons, in days from as-of, for which the kept records that fall due within them are counted.
        by_rule: how many records of each rule have which outcome.
        held: records under a legal hold by rule, whether due or not.
        oldest_due: the earliest due date (UTC) of each rule among the records to purge.
        newest_due: the latest one.
        due_in: for each rule and horizon, how many kept records fall due within it.
        skipped: records that are due and would be skipped, by reason.
        unclassified: records that no rule can be applied to, by the first doubt.
    """

    days: tuple[int, ...] = ()
    by_rule: dict[str, Counter[Outcome]] = field(default_factory=lambda: defaultdict(Counter))
    held: Counter[str] = field(default_factory=Counter)
    oldest_due: dict[str, datetime] = field(default_factory=dict)
    newest_due: dict[str, datetime] = field(default_factory=dict)
    due_in: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    skipped: Counter[str] = field(default_factory=Counter)
    unclassified: Counter[str] = field(default_factory=Counter)

    def count(self, evaluation: Evaluation) -> None:
        """Count one record."""
        verdict, outcome = evaluation.verdict, evaluation.outcome
        rule = verdict.rule or NO_RULE
        self.by_rule[rule][outcome] += 1
        self.held[rule] += verdict.held
        if evaluation.spared is not None:
            self.skipped[evaluation.spared.value] += 1
        elif outcome is Outcome.UNCLASSIFIED:
            self.unclassified[verdict.doubts[0].value] += 1
        elif outcome is Outcome.PURGE and verdict.due is not None:
            self.oldest_due[rule] = min(verdict.due, self.oldest_due.get(rule, verdict.due))
            self.newest_due[rule] = max(verdict.due, self.newest_due.get(rule, verdict.due))
        stays = outcome in (Outcome.NOT_DUE, Outcome.UNCLASSIFIED) and not verdict.held
        if self.days and stays and verdict.due is not None:
            ahead = verdict.due - verdict.as_of
            self.due_in[rule].update(days for days in self.days if ahead <= timedelta(days=days))

    def add(self, other: "RecordCounts") -> None:
        """Add the counts of `other`."""
        for rule, outcomes in other.by_rule.items():
            self.by_rule[rule].update(outcomes)
        for rule, due in other.oldest_due.items():
            self.oldest_due[rule] = min(due, self.oldest_due.get(rule, due))
        for rule, due in other.newest_due.items():
            self.newest_due[rule] = max(due, self.newest_due.get(rule, due))
        for rule, within in other.due_in.items():
            self.due_in[rule].update(within)
        self.held.update(other.held)
        self.skipped.update(other.skipped)
        self.unclassified.update(other.unclassified)

    def of(self, outcome: Outcome) -> Counter[str]:
        """Return how many records of each rule have this outcome; rules without any are left out."""
        return Counter({rule: found[outcome] for rule, found in self.by_rule.items() if found[outcome]})

    @property
    def due(self) -> Counter[str]:
        """The records to purge, by rule."""
        return self.of(Outcome.PURGE)

    @property
    def held_past_due(self) -> int:
        """How many records are due and kept by a legal hold alone."""
        return self.of(Outcome.HELD).total()

    @property
    def total(self) -> int:
        """How many records were counted."""
        return sum(found.total() for found in self.by_rule.values())

    @property
    def earliest_due(self) -> datetime | None:
        """The earliest due date of all records to purge; None if there are none."""
        return min(self.oldest_due.values(), default=None)

    def kept(self, rule: str) -> int:
        """Return how many records of the rule stay, not counting held and skipped ones."""
        found = self.by_rule[rule]
        return found.total() - found[Outcome.PURGE] - found[Outcome.SPARED] - self.held[rule]

    def overdue_seconds(self, rule: str, now: datetime) -> float:
        """Return for how many seconds the oldest record of the rule has been overdue; 0 if none is."""
        return max((now - self.oldest_due.get(rule, now)).total_seconds(), 0.0)

    def due_dates(self) -> dict[str, Any]:
        """Return the oldest and the newest due date of the records to purge, by rule."""
        return {rule: {"oldest": self.oldest_due[rule], "newest": self.newest_due[rule]} for rule in sorted(self.due)}

    def overdue(self, now: datetime) -> dict[str, Any]:
        """Return count and age of the records to purge, by rule."""
        return {
            rule: {
                "count": count,
                "oldest_due_at": self.oldest_due[rule],
                "oldest_seconds": self.overdue_seconds(rule, now),
            }
            for rule, count in sorted(self.due.items())
        }


@dataclass
class Counts:
    """Conversations and feedback rows that a run or a preview evaluated, with the failed ones and the anomalies.

    `redactions` counts conversations once more, by what redacts their content.
    """

    conversations: RecordCounts = field(default_factory=RecordCounts)
    feedback: RecordCounts = field(default_factory=RecordCounts)
    redactions: RecordCounts = field(default_factory=RecordCounts)
    failed: int = 0
    anomalies: Counter[str] = field(default_factory=Counter)

    def of(self, kind: Kind) -> RecordCounts:
        """Return the counts of one kind of record."""
        return {"conversation": self.conversations, "redaction": self.redactions, "feedback": self.feedback}[kind]

    def count(self, kind: Kind, evaluation: Evaluation, anomalies: Iterable[Anomaly] = ()) -> None:
        """Count one record with its anomalies."""
        self.of(kind).count(evaluation)
        self.anomalies.update(anomaly.value for anomaly in anomalies)

    def skip(self, kind: Kind, reason: Spared | str, number: int = 1) -> "Counts":
        """Count records that were skipped before they could be evaluated."""
        self.of(kind).skipped[str(reason)] += number
        return self

    def add(self, other: "Counts") -> None:
        """Add the counts of `other`."""
        self.conversations.add(other.conversations)
        self.feedback.add(other.feedback)
        self.redactions.add(other.redactions)
        self.failed += other.failed
        self.anomalies.update(other.anomalies)

    @property
    def by_rule(self) -> Counter[str]:
        """Conversations to purge, by rule."""
        return self.conversations.due

    @property
    def feedback_by_rule(self) -> Counter[str]:
        """Feedback rows to purge, by rule."""
        return self.feedback.due

    @property
    def redacted_by_rule(self) -> Counter[str]:
        """Conversations to redact, by rule."""
        return self.redactions.due

    @property
    def skipped(self) -> Counter[str]:
        """Records of all kinds that are due and were skipped, by reason."""
        return self.conversations.skipped + self.redactions.skipped + self.feedback.skipped

    @property
    def unclassified(self) -> Counter[str]:
        """Conversations and feedback rows that are in doubt, by the first doubt."""
        return self.conversations.unclassified + self.feedback.unclassified

    @property
    def held(self) -> int:
        """How many conversations are due and kept by a legal hold alone."""
        return self.conversations.held_past_due

    @property
    def outside(self) -> int:
        """How many conversations are due outside the window of the run."""
        return self.conversations.of(Outcome.OUTSIDE).total()

    @property
    def due(self) -> int:
        """How many conversations are to be purged."""
        return self.by_rule.total()

    @property
    def approvable(self) -> Counter[str]:
        """Conversations to purge and conversations to redact, by rule: what an approval permits."""
        return self.by_rule + self.redacted_by_rule

    def as_json(self) -> dict[str, Any]:
        """Return the counts for --json; totals beside the counts by reason."""
        skipped, unclassified = self.skipped, self.unclassified
        return {
            "spared": skipped.total(),
            "held": self.held,
            "unclassified": unclassified.total(),
            "failed": self.failed,
            "outside": self.outside,
            "by_rule": self.by_rule,
            "spared_by_reason": skipped,
            "unclassified_by_reason": unclassified,
            "feedback_by_rule": self.feedback_by_rule,
            "feedback_held": self.feedback.held_past_due,
            "redacted_by_rule": self.redacted_by_rule,
            "redactions_held": self.redactions.held_past_due,
            "anomalies": self.anomalies,
        }

"""The result of a run, as it is printed and kept in `sweeper.runs`."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sweeper.policy import remedies
from sweeper.policy.counts import Counts
from sweeper.policy.evaluate import Spared
from sweeper.postgres.backfills import BackfillPlan
from sweeper.runs.job import Job
from sweeper.runs.throttle import ORDERED, Throttle

LEFT_THOUGH_DUE = (Spared.LOCKED, Spared.NOT_APPROVED, Spared.PROTECTED, Spared.STALE)
"""Reasons to skip a record that is still due.

A record under a hold known at as-of counts as held, and one that changed before it was locked is no longer due; neither is a
failure.
"""


@dataclass(frozen=True)
class ActiveBackfill:
    """A backfill whose range of due dates a run leaves out.

    `silent`: no process has worked on it recently. `backlog`: it is silent, and records are due in its range.
    """

    plan: BackfillPlan
    silent: bool
    backlog: bool

    def as_json(self) -> dict[str, Any]:
        """Return the backfill for machines."""
        return {
            "backfill": self.plan.id,
            "due_from": self.plan.done_until,
            "due_before": self.plan.until,
            "seen_at": self.plan.seen_at,
            "silent": self.silent,
            "command": self.plan.command,
        }


@dataclass
class Result:
    """What a run did; `purged`, by kind of record and rule, is counted from its tombstones."""

    job: Job
    run_id: int
    outcome: str
    counts: Counts
    purged: dict[str, dict[str, int]]
    objects_pending: int
    orphans: int
    seconds: float
    throttle: Throttle
    active_backfill: ActiveBackfill | None = None
    objects_kept: Counter[str] = field(default_factory=Counter)
    """Objects that this run could not remove and that stay pending, by reason."""

    @property
    def count(self) -> int:
        """The number of purged conversations."""
        return sum(self.purged["conversation"].values())

    @property
    def left(self) -> dict[str, int]:
        """Due records that remain, by reason; `failed` counts those that could not be purged."""
        spared = {reason.value: self.counts.skipped[reason.value] for reason in LEFT_THOUGH_DUE}
        return {reason: count for reason, count in {"failed": self.counts.failed, **spared}.items() if count}

    @property
    def overdue(self) -> int:
        """The number of due records that remain."""
        return sum(self.left.values())

    @property
    def purged_in_all(self) -> int:
        """The number of purged conversations and feedback rows, and of redacted conversations."""
        return sum(sum(by_rule.values()) for by_rule in self.purged.values())

    @property
    def purged_nothing(self) -> bool:
        """True if no conversation and no feedback row was purged, and nothing redacted."""
        return self.purged_in_all == 0

    @property
    def advice(self) -> list[str]:
        """What is wrong with the data, and what mends it, for each reason that kept more records than the run purged."""
        purged, schema = self.purged_in_all, self.job.contract.schema
        skipped = ((why, n) for why, n in self.counts.skipped.most_common() if not remedies.is_usual(why, n, purged))
        doubted = self.counts.unclassified.most_common()
        return [
            *(remedies.skipped(why, count, schema) for why, count in skipped if count > purged),
            *(remedies.in_doubt(why, count, schema) for why, count in doubted if count > purged),
        ]

    @property
    def is_stalled(self) -> bool:
        """True if the run purged nothing although records were due. Reported as a failure, whatever the reason."""
        abandoned = self.active_backfill is not None and self.active_backfill.backlog
        return self.purged_nothing and (self.overdue > 0 or bool(self.throttle.stopped) or abandoned)

    @property
    def is_done(self) -> bool:
        """True if the run did all that was requested; using up its budget counts as that."""
        in_order = self.outcome == "completed" or (self.outcome == "stopped" and self.throttle.stopped in ORDERED)
        return in_order and not self.is_stalled

    def as_json(self) -> dict[str, Any]:
        """Return the result for machines."""
        conversations, redacted, feedback = (self.purged[kind] for kind in ("conversation", "redaction", "feedback"))
        return {
            "run": self.run_id,
            "as_of": self.job.as_of,
            "policy": self.job.policy.digest,
            "outcome": self.outcome,
            "stop_reason": self.throttle.stopped or None,
            "stalled": self.is_stalled,
            "advice": self.advice,
            "guards_off": list(self.job.settings.guards.off),
            "purged": self.count,
            **self.counts.as_json(),
            "by_rule": Counter(conversations),
            "redacted": sum(redacted.values()),
            "redacted_by_rule": Counter(redacted),
            "feedback_purged": sum(feedback.values()),
            "feedback_by_rule": Counter(feedback),
            "strays": self.orphans,
            "objects_pending": self.objects_pending,
            "objects_kept": self.objects_kept,
            "left_to_backfill": self.active_backfill,
            "batches": self.throttle.pace.times,
            "pauses": self.throttle.waits,
            "duration_s": round(self.seconds, 3),
        }

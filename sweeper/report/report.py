"""The report for a privacy officer: everything there is, counted by rule; what is overdue, held, in doubt, due next, purged.

The law of this file: it looks at every conversation and every feedback row, changes none, and leaves one event that says so.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection

from sweeper.objects import removal
from sweeper.policy.anomaly import Anomaly
from sweeper.policy.decide import UNCLASSIFIED, Verdict
from sweeper.policy.evaluate import Spared
from sweeper.policy.explain import would_spare
from sweeper.policy.feedback import FeedbackFacts, FeedbackVerdict, decide_feedback, has_orphan_transcript
from sweeper.policy.instant import rfc3339
from sweeper.postgres import evidence, unmatched
from sweeper.postgres.unmatched import UnmatchedProtections
from sweeper.report import numbers as numbers
from sweeper.report import operation
from sweeper.report.operation import Covered, ManifestStates, Purged
from sweeper.report.overdue import PATIENCE, OverdueRow, alarms
from sweeper.runs.job import Job
from sweeper.runs.scan import StoredVerdict, every_feedback, everything
from sweeper.runs.throttle import ORDERED

DAYS = (1, 7, 30)
NO_RULE = "no rule"


class ReportState(StrEnum):
    """How a record stands at as-of; each is in exactly one."""

    KEPT = "kept"
    OVERDUE = "overdue"
    HELD = "held"
    SPARED = "spared"


@dataclass
class ReportLine:
    """The records of one rule by state; of the held ones, how many are past their due; of the kept, how many soon will be."""

    states: Counter[ReportState] = field(default_factory=Counter)
    held_past_due: int = 0
    due_in: Counter[int] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """The line for machines."""
        return {
            **{state.value: self.states[state] for state in ReportState},
            "held_past_due": self.held_past_due,
            "due_in_days": {str(days): self.due_in[days] for days in DAYS},
        }


@dataclass
class ReportPart:
    """All records of one kind."""

    lines: dict[str, ReportLine] = field(default_factory=dict)
    overdue: OverdueRow = field(default_factory=OverdueRow)
    spared: Counter[str] = field(default_factory=Counter)
    unclassified: Counter[str] = field(default_factory=Counter)

    def count(self, verdict: Verdict | FeedbackVerdict, spared: str | None, doubt: str | None) -> None:
        """Count one record; `spared`: why a run would spare it although it is due; `doubt`: why nothing can be decided."""
        state = _state(verdict, spared)
        line = self.lines.setdefault(verdict.rule or NO_RULE, ReportLine())
        line.states[state] += 1
        line.held_past_due += int(state is ReportState.HELD and verdict.expired)
        if state is ReportState.OVERDUE and verdict.rule is not None and verdict.due is not None:
            self.overdue.count(verdict.rule, verdict.due)
        elif state is ReportState.KEPT and verdict.due is not None:
            line.due_in.update(days for days in DAYS if verdict.due - verdict.as_of <= timedelta(days=days))
        self.spared.update([spared] if spared else [])
        self.unclassified.update([doubt] if doubt else [])

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(line.states.total() for line in self.lines.values())

    @property
    def held(self) -> int:
        """How many are past their due and kept by a legal hold alone."""
        return sum(line.held_past_due for line in self.lines.values())

    def as_json(self, as_of: datetime) -> dict[str, Any]:
        """The counts for machines."""
        return {
            "total": self.total,
            "by_rule": {rule: line.as_json() for rule, line in sorted(self.lines.items())},
            "overdue": self.overdue.as_json(as_of),
            "held_past_due": self.held,
            "spared": dict(sorted(self.spared.items())),
            "unclassified": dict(sorted(self.unclassified.items())),
        }


def _state(verdict: Verdict | FeedbackVerdict, spared: str | None) -> ReportState:
    if verdict.held:
        return ReportState.HELD
    if spared is not None:
        return ReportState.SPARED
    return ReportState.OVERDUE if verdict.purge else ReportState.KEPT


@dataclass(frozen=True)
class Past:
    """What the sweeper's own tables say of what was done so far."""

    purged: Mapping[int, Purged]
    purged_lately: Mapping[str, int]
    pace: float | None
    success: datetime | None
    objects_pending: int
    manifests: ManifestStates
    covered: Covered

    def as_json(self) -> dict[str, Any]:
        """What was done, for machines."""
        return {
            "purged_in_days": {str(days): _json(purged) for days, purged in self.purged.items()},
            "last_success_at": rfc3339(self.success) if self.success else None,
            "objects_pending": self.objects_pending,
            "manifests": {
                "by_state": dict(sorted(self.manifests.by_state.items())),
                "never_recalled": self.manifests.never_recalled,
                "oldest_recall_at": rfc3339(self.manifests.oldest_recall) if self.manifests.oldest_recall else None,
            },
            "evidence": {
                "checkpoint_at": rfc3339(self.covered.checkpoint_at) if self.covered.checkpoint_at else None,
                "signed": self.covered.is_signed,
                "uncovered": dict(self.covered.uncovered),
            },
        }


@dataclass
class Report:
    """All of it, at one as-of."""

    job: Job
    past: Past
    conversations: ReportPart
    feedback: ReportPart
    anomalies: Counter[str]
    unmatched: UnmatchedProtections | None
    seconds: float

    @property
    def drain_seconds(self) -> float | None:
        """How long runs at their recent pace need for what is overdue; None where nobody can say."""
        return operation.drain(self.conversations.overdue.total, self.past.pace)

    @property
    def is_present(self) -> bool:
        """Whether it tells of now, as far as clocks agree; one at another as-of alarms nobody."""
        return abs(self.job.clock.now() - self.job.as_of) <= timedelta(seconds=self.seconds) + timedelta(
            seconds=self.job.settings.guards.clock_tolerance_seconds
        )

    @property
    def alarms(self) -> list[str]:
        """What must be said loudly: something is overdue while nothing is purged."""
        if not self.is_present:
            return []
        overdue = {"conversation": self.conversations.overdue, "feedback": self.feedback.overdue}
        return alarms(overdue, self.past.purged_lately, self.job.as_of)

    def as_json(self) -> dict[str, Any]:
        """The report for machines."""
        return {
            "store": numbers.store_name(self.job.settings),
            "as_of": rfc3339(self.job.as_of),
            "policy": self.job.policy.digest,
            "conversations": self.conversations.as_json(self.job.as_of),
            "feedback": self.feedback.as_json(self.job.as_of),
            "anomalies": dict(sorted(self.anomalies.items())),
            "unmatched": self.unmatched.as_json() if self.unmatched else None,
            **self.past.as_json(),
            "drain_seconds": self.drain_seconds,
            "alarms": self.alarms,
            "duration_s": round(self.seconds, 3),
        }


def report(job: Job, advance: Callable[[int], None] = lambda _: None) -> Report:
    """The report at the job's as-of, recorded as an event.

    Args:
        job: what to look at.
        advance: told of each conversation looked at.

    Raises:
        DBAPIError: the database failed, or the role may not record; nothing is recorded then.
    """
    started, conversations, anomalies = time.monotonic(), ReportPart(), Counter[str]()
    for explained in everything(job, lambda count: _ahead(anomalies, count)):
        _count(job, explained, conversations, anomalies)
        advance(1)
    feedback = ReportPart()
    for known in every_feedback(job):
        _count_feedback(job, known, feedback, anomalies)
    past = job.database.within(lambda connection: _past(connection, job))
    idle = unmatched.attempt(job.database, job.as_of)
    found = Report(job, past, conversations, feedback, anomalies, idle, time.monotonic() - started)
    job.database.within(lambda connection: _record(connection, found))
    return found


def _ahead(anomalies: Counter[str], count: int) -> None:
    if count:
        anomalies[Anomaly.CREATED_AHEAD.value] += count


def _count(job: Job, explained: StoredVerdict, part: ReportPart, anomalies: Counter[str]) -> None:
    verdict = explained.verdict
    spared = would_spare(explained.facts, job.policy, job.as_of) if verdict.purge else None
    doubt = verdict.doubts[0] if verdict.rule == UNCLASSIFIED else None
    part.count(verdict, spared, doubt)
    anomalies.update(anomaly.value for anomaly in explained.anomalies)


def _count_feedback(job: Job, known: FeedbackFacts, part: ReportPart, anomalies: Counter[str]) -> None:
    verdict = decide_feedback(known, job.policy, job.as_of)
    protected = verdict.purge and not decide_feedback(known, job.policy, job.as_of, protect=True).purge
    part.count(verdict, Spared.PROTECTED.value if protected else None, verdict.doubt)
    if has_orphan_transcript(known.feedback, job.policy):
        anomalies[Anomaly.STRAY_TRANSCRIPT.value] += 1


def _past(connection: Connection, job: Job) -> Past:
    store, now = job.settings.store.schema_name, job.as_of

    def purged(within: timedelta) -> Purged:
        return operation.purged(connection, store, now - within, now)

    return Past(
        purged={days: purged(timedelta(days=days)) for days in DAYS},
        purged_lately={kind: by_rule.total() for kind, by_rule in purged(PATIENCE).items()},
        pace=operation.pace(connection, store, now),
        success=operation.ended(connection, store, ORDERED).success,
        objects_pending=removal.pending(connection, store),
        manifests=operation.manifests(connection, store),
        covered=operation.covered(connection),
    )


def _record(connection: Connection, found: Report) -> None:
    """Leave evidence that somebody looked, and what they saw: counts only."""
    told = found.as_json()
    details = {
        key: told[key] for key in ("as_of", "policy", "conversations", "feedback", "anomalies", "unmatched", "alarms")
    }
    store = found.job.settings.store.schema_name
    evidence.record(connection, "reported", None, {"store": store, "present": found.is_present, **details})


def _json(purged: Purged) -> dict[str, dict[str, int]]:
    return {kind: dict(sorted(by_rule.items())) for kind, by_rule in purged.items()}

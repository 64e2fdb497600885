"""Build the report for a privacy officer: what is kept, overdue, held, in doubt, due next and purged, by rule.

A report reads every conversation and every feedback row, changes none, and records one event.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from sweeper.copies import lag
from sweeper.copies.lag import CopyLag
from sweeper.encoding import to_json
from sweeper.objects import removal
from sweeper.policy.counts import Counts, RecordCounts
from sweeper.policy.evaluate import Outcome
from sweeper.postgres import evidence, pace, reach, unmatched, vacuum
from sweeper.postgres.unmatched import UnmatchedProtections
from sweeper.postgres.vacuum import DeadRows
from sweeper.postgres.whole_store import Step, StoreVerdicts
from sweeper.report import numbers, operation
from sweeper.report.operation import Covered, ManifestStates, Purged
from sweeper.report.overdue import PATIENCE, alarms
from sweeper.runs.job import Job
from sweeper.runs.record_kind import KINDS
from sweeper.runs.scan import count_everything
from sweeper.runs.throttle import ORDERED

DAYS = (1, 7, 30)


@dataclass(frozen=True)
class Past:
    """What was done so far, from the sweeper's own tables."""

    purged_in_days: Mapping[int, Purged]
    purged_lately: Mapping[str, int] = field(repr=False)
    pace: float | None = field(repr=False)
    last_success_at: datetime | None
    objects_pending: int
    copies: Sequence[CopyLag]
    manifests: ManifestStates
    evidence: Covered
    tables: Sequence[DeadRows]
    """The dead rows of the tables that are purged from."""
    beyond_reach: Sequence[str]
    """Where purged content may live on, each with what to do about it."""


@dataclass
class Report:
    """One report at one as-of."""

    job: Job
    past: Past
    counts: Counts
    unmatched: UnmatchedProtections | None
    seconds: float

    @property
    def drain_seconds(self) -> float | None:
        """How many seconds runs at their recent pace need for the overdue conversations; None if unknown."""
        return pace.remaining_seconds(self.counts.due, self.past.pace)

    @property
    def is_present(self) -> bool:
        """Whether its as-of is now, within the clock tolerance. A report at another as-of has no alarms."""
        return abs(self.job.clock.now() - self.job.as_of) <= timedelta(seconds=self.seconds) + timedelta(
            seconds=self.job.settings.guards.clock_tolerance_seconds
        )

    @property
    def alarms(self) -> list[str]:
        """One sentence for each kind of record that is overdue while nothing is purged."""
        if not self.is_present:
            return []
        overdue: dict[str, RecordCounts] = {kind: self.counts.of(kind) for kind in KINDS}
        return alarms(overdue, self.past.purged_lately, self.job.as_of)

    def as_json(self) -> dict[str, Any]:
        """Return the report for --json."""
        return {
            "store": numbers.store_name(self.job.settings),
            "as_of": self.job.as_of,
            "policy": self.job.policy.digest,
            "conversations": _records_json(self.counts.conversations, self.job.as_of),
            "redactions": {
                "overdue": self.counts.redactions.overdue(self.job.as_of),
                "held_past_due": self.counts.redactions.held_past_due,
                "spared": self.counts.redactions.skipped,
            },
            "feedback": _records_json(self.counts.feedback, self.job.as_of),
            "anomalies": self.counts.anomalies,
            "unmatched": self.unmatched,
            **to_json(self.past),
            "drain_seconds": self.drain_seconds,
            "alarms": self.alarms,
            "duration_s": round(self.seconds, 3),
        }


def report(job: Job, step: Step = lambda _, __: None, look: Callable[[StoreVerdicts], None] = lambda _: None) -> Report:
    """Build the report at the job's as-of and record it as an event.

    Args:
        job: the store, the policy and the as-of.
        step: called when a step begins, for progress.
        look: called with the counted verdicts, within their snapshot; again if that is repeated after a failure.

    Raises:
        DBAPIError: the database failed, or the role may not record events; nothing is recorded.
    """
    started = time.monotonic()
    counts = count_everything(job, DAYS, step, look)
    past = job.database.within(lambda connection: _past(connection, job))
    unmatched_protections = unmatched.attempt(job.database, job.as_of)
    found = Report(job, past, counts, unmatched_protections, time.monotonic() - started)
    job.database.within(lambda connection: _record(connection, found))
    return found


def _records_json(counts: RecordCounts, as_of: datetime) -> dict[str, Any]:
    return {
        "total": counts.total,
        "by_rule": {rule: _rule_json(counts, rule) for rule in sorted(counts.by_rule)},
        "overdue": counts.overdue(as_of),
        "held_past_due": counts.held_past_due,
        "spared": counts.skipped,
        "unclassified": counts.unclassified,
    }


def _rule_json(counts: RecordCounts, rule: str) -> dict[str, Any]:
    outcomes = counts.by_rule[rule]
    return {
        "kept": counts.kept(rule),
        "overdue": outcomes[Outcome.PURGE],
        "held": counts.held[rule],
        "spared": outcomes[Outcome.SPARED],
        "held_past_due": outcomes[Outcome.HELD],
        "due_in_days": {days: counts.due_in[rule][days] for days in DAYS},
    }


def _past(connection: Connection, job: Job) -> Past:
    store, now = job.settings.store.schema_name, job.as_of

    def purged(within: timedelta) -> Purged:
        return operation.purged(connection, store, now - within, now)

    tables = vacuum.read(connection, job.contract)
    return Past(
        purged_in_days={days: purged(timedelta(days=days)) for days in DAYS},
        purged_lately={kind: by_rule.total() for kind, by_rule in purged(PATIENCE).items()},
        pace=pace.recent(connection, store, now),
        last_success_at=operation.ended(connection, store, ORDERED).success,
        objects_pending=removal.pending(connection, store),
        copies=lag.read(connection, job.settings, now),
        manifests=operation.manifests(connection, store),
        evidence=operation.covered(connection),
        tables=tables,
        beyond_reach=[finding.line for finding in reach.beyond(connection, job.contract, job.settings, tables)],
    )


def _record(connection: Connection, found: Report) -> None:
    """Record the report as an event; counts only."""
    fields = to_json(found)
    details = {
        key: fields[key] for key in ("as_of", "policy", "conversations", "feedback", "anomalies", "unmatched", "alarms")
    }
    store = found.job.settings.store.schema_name
    evidence.record(connection, "reported", None, {"store": store, "present": found.is_present, **details})

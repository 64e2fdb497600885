"""Purges a batch in one transaction: lock, read the facts, evaluate, delete, insert tombstones; log after the commit.

Invariants: a batch that fails is undone whole and retried in halves, down to the single row that fails. The facts that
decided a purge are read again before the commit; if the decision would differ, the batch is undone.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sweeper import log
from sweeper.errors import SweeperError
from sweeper.policy.counts import Counts
from sweeper.policy.decide import Verdict
from sweeper.policy.evaluate import Evaluation, Outcome, Proposal, Spared
from sweeper.policy.facts import Facts
from sweeper.policy.feedback import FeedbackFacts
from sweeper.postgres import database as databases
from sweeper.postgres import evidence, fence, purge
from sweeper.postgres.evidence import RunRecord
from sweeper.postgres.fence import FenceBusyError
from sweeper.postgres.lease import Lease
from sweeper.postgres.purge import ChangedError, LockBudget
from sweeper.postgres.related_tables import PhysicalTable
from sweeper.runs import guards
from sweeper.runs.batch_sizer import BatchSizer
from sweeper.runs.job import Job, unreachable
from sweeper.runs.record_kind import F, RecordKind
from sweeper.runs.scan import portions

FENCE_WAIT_MS = 5_000
"""How long a batch waits for the placement of a legal hold to commit; it locks no row meanwhile."""
LOCK_NOT_AVAILABLE = "55P03"
SLOW = frozenset({LOCK_NOT_AVAILABLE, "57014"})
"""SQLSTATEs of lock and statement time-outs: a smaller batch may succeed, the same batch would not."""
G = TypeVar("G", Facts, FeedbackFacts)

HOPELESS_AFTER = 100


class HopelessError(SweeperError):
    """`HOPELESS_AFTER` records failed and none was purged; the run stops."""


@dataclass(frozen=True)
class ToDelete(Generic[F]):
    """A record that a batch purges, with its facts and the verdict."""

    proposal: Proposal
    facts: F
    verdict: Verdict


@dataclass
class BatchReport:
    """The result of a batch: counts, proposals whose rows others held locked, and those for a `later` transaction."""

    counts: Counts = field(default_factory=Counts)
    unlocked: list[Proposal] = field(default_factory=list)
    later: list[Proposal] = field(default_factory=list)

    def add(self, other: "BatchReport") -> "BatchReport":
        """Add another report's counts and rows, and return this one."""
        self.counts.add(other.counts)
        self.unlocked += other.unlocked
        return self


@dataclass(frozen=True)
class Purger(Generic[F]):
    """Purges the batches of one run under its lease, all of one kind of record.

    `ceilings`: how many records an approval allows, by rule. `limit`: how many a run without one may purge. `done`: purged
    records by rule.
    """

    kind: RecordKind[F]
    run: RunRecord
    lease: Lease
    lock_budget: float
    pace: BatchSizer
    ceilings: Mapping[str, int] | None = None
    limit: int | None = None
    done: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    changed: set[str] = field(default_factory=set)
    """Ids of records whose batch was undone because a fact outside their rows changed."""

    @property
    def job(self) -> Job:
        """The job whose records are purged."""
        return self.kind.job

    def sharing(self, kind: RecordKind[G], ceilings: Mapping[str, int] | None) -> "Purger[G]":
        """Return a purger of another kind of record in the same run that counts against the same limit."""
        shared = (self.limit, self.done, self.failures)
        return Purger(kind, self.run, self.lease, self.lock_budget, self.pace, ceilings, *shared)

    def of(self, kind: RecordKind[G]) -> "Purger[G]":
        """Return a purger of another kind of record in the same run; the limits of conversations do not apply to it."""
        pace = BatchSizer(self.pace.target, self.pace.most)
        return Purger(kind, self.run, self.lease, self.lock_budget, pace, failures=self.failures)

    def purge(self, proposals: Sequence[Proposal], *, waiting: bool = False) -> BatchReport:
        """Purge the due proposals in one transaction or, if that fails, in several smaller ones.

        Raises:
            LeaseLostError: another run has taken over; the current transaction purged nothing.
            DatabaseError: the database failed; what was committed before stands.
        """
        total, waits = BatchReport(), [list(proposals)]
        while waits:
            portion = waits.pop()
            report = self._purge_portion(portion, waiting=waiting)
            total.add(report)
            if report.later:
                size = max(len(portion) - len(report.later), 1)  # about as many as fitted into this transaction
                waits += [list(part) for part in portions(report.later, size)][::-1]
        return total

    def _purge_portion(self, proposals: Sequence[Proposal], *, waiting: bool) -> BatchReport:
        attempts, started = count(), time.monotonic()

        def once() -> BatchReport:
            next(attempts)
            return self._purge_once(proposals, waiting=waiting)

        try:
            report = self.job.database.retried(once, worth_it=lambda e: _worth_repeating(e, len(proposals)))
        except (ChangedError, purge.SlowError, purge.MismatchError, purge.ChildrenLockedError, DBAPIError) as error:
            self._raise_if_hopeless(error)
            if next(attempts) > 1:
                self._recount()
            return self._purge_halves(proposals, error, waiting=waiting)
        if next(attempts) == 1:
            self.pace.took(len(proposals) - len(report.later), time.monotonic() - started)
            self.done.update(report.counts.of(self.kind.name).due)
        else:
            self._recount()
        return report

    def _recount(self) -> None:
        """Count this run's purges from its tombstones: after a lost answer to a commit, `done` may be wrong."""
        purged = self.job.database.within(lambda c: evidence.purged_by_rule(c, self.run.id))
        self.done.clear()
        for kind in ("feedback",) if self.kind.name == "feedback" else ("conversation", "redaction"):
            self.done.update(purged[kind])

    def _purge_halves(self, proposals: Sequence[Proposal], error: Exception, *, waiting: bool) -> BatchReport:
        """Retry the proposals in halves; a single row that fails is counted, and the run continues."""
        if isinstance(error, purge.SlowError) or _sqlstate(error) in SLOW:
            self.pace.halve()
        if len(proposals) > 1:
            half = len(proposals) // 2
            return self.purge(proposals[:half], waiting=waiting).add(self.purge(proposals[half:], waiting=waiting))
        if isinstance(error, purge.ChildrenLockedError) or _sqlstate(error) == LOCK_NOT_AVAILABLE:
            return BatchReport(unlocked=list(proposals))
        if isinstance(error, ChangedError):
            return BatchReport(Counts().skip(self.kind.name, Spared.CHANGED))
        return BatchReport(self._count_failure(f"{self.kind.name} {proposals[0].record_id}", error))

    def _raise_if_hopeless(self, error: Exception) -> None:
        """Raise if every other row would fail as well, or if the process must end and cancels its statements."""
        abandoned = self.job.database.stop.is_abandoned
        if isinstance(error, DBAPIError) and (abandoned or _is_hopeless(error)):
            raise unreachable(error) from None

    def _count_failure(self, what: str, error: Exception) -> Counts:
        """Count one record that could not be purged, and record an event.

        Raises:
            HopelessError: `HOPELESS_AFTER` records failed and none was purged.
        """
        reason = databases.reason(error) if isinstance(error, DBAPIError) else str(error)
        log.get().error("not purged", record=what, reason=reason, run=self.run.id)
        details = {"record": what, "sqlstate": _sqlstate(error)}
        self.job.database.within(lambda c: evidence.record(c, "purge_failed", self.run.id, details))
        self.failures[_sqlstate(error) or "mismatch"] += 1
        if self.failures.total() >= HOPELESS_AFTER and not self._has_purged():
            raise HopelessError(
                f"{self.failures.total()} records could not be purged, and none was purged: the run stops. Last error: {reason} "
                "The others are in the log and in sweeper.events. Run `sweeper check`, fix what it reports, and run again."
            )
        return Counts(failed=1)

    def _has_purged(self) -> bool:
        """True if this run has purged any record of any kind."""
        purged = self.job.database.within(lambda c: evidence.purged_by_rule(c, self.run.id))
        return any(purged.values())

    def _purge_once(self, proposals: Sequence[Proposal], *, waiting: bool) -> BatchReport:
        """Purge the due proposals in one transaction."""
        started, table = time.monotonic(), self.kind.table
        if table is None:
            raise ValueError(f"no table of {self.kind.name} is known")
        with self._transaction() as connection:
            self._enter(connection)
            lock_budget = LockBudget(self.lock_budget)
            ids = [proposal.record_id for proposal in proposals]
            locked = purge.lock(connection, table, ids, waiting=waiting)
            facts = self.kind.read(connection, sorted(locked))
            unlocked = self._unlocked(connection, table, [id_ for id_ in ids if id_ not in locked])
            report, to_delete = self._decide(proposals, unlocked, facts)
            if to_delete:
                self._delete(connection, table, to_delete, locked, lock_budget)
                self._refuse_changed(connection, to_delete)
        self._log(report.counts, started)
        return report

    def _unlocked(self, connection: Connection, table: PhysicalTable, missing: Sequence[str]) -> set[str]:
        """Return the ids that exist but were not locked; refuse if the relation still shows a row that the table lacks."""
        there = set(purge.existing(connection, table, missing))
        self.kind.refuse_rowless(connection, [id_ for id_ in missing if id_ not in there])
        return there

    def _log(self, counts: Counts, started: float) -> None:
        log.get().info(
            "batch" if self.kind.name == "conversation" else f"{self.kind.name} batch",
            run=self.run.id,
            **{"redacted" if self.kind.name == "redaction" else "purged": counts.of(self.kind.name).due.total()},
            held=counts.of(self.kind.name).held_past_due,
            spared=dict(counts.skipped),
            unclassified=counts.unclassified.total(),
            milliseconds=round((time.monotonic() - started) * 1000),
        )

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Open a batch's transaction; if the placement of a hold blocks it too long, raise an error that names the session."""
        database = self.job.database
        try:
            with database.transaction(lock_timeout_ms=FENCE_WAIT_MS) as connection:
                yield connection
        except FenceBusyError:
            raise fence.busy(database, "Nothing more is purged while it lasts.") from None

    def _enter(self, connection: Connection) -> None:
        """Renew the lease, then wait for placements of holds to commit; no row may be locked before that."""
        self.lease.renew(connection)
        fence.share(connection)
        purge.bound_lock_wait(connection, self.job.settings.database.lock_timeout_ms)

    def _decide(
        self, proposals: Sequence[Proposal], unlocked: Set[str], facts: Mapping[str, F]
    ) -> tuple[BatchReport, list[ToDelete[F]]]:
        """Evaluate each proposal; return the report and what to purge, within the limits of one transaction."""
        kind, report = self.kind, BatchReport()
        to_delete: list[ToDelete[F]] = []
        room = self.job.settings.purge.batch_children
        for number, proposal in enumerate(proposals):
            known = facts.get(proposal.record_id)
            if known is None:
                if proposal.record_id in unlocked:
                    report.unlocked.append(proposal)
                continue  # somebody else has deleted it
            evaluation = self._evaluation(known, proposal)
            if evaluation.outcome is Outcome.PURGE:
                if to_delete and kind.children(known) > room:
                    report.later = list(proposals[number:])
                    break
                if self._is_over_ceiling(evaluation.verdict, report):
                    report.counts.skip(kind.name, Spared.NOT_APPROVED)
                    continue
                room -= kind.children(known)
                to_delete.append(ToDelete(proposal, known, evaluation.verdict))
            report.counts.count(kind.name, evaluation, kind.anomalies(known))
        return report, to_delete

    def _evaluation(self, known: F, proposal: Proposal) -> Evaluation:
        found = self.kind.evaluate(known, proposal)
        if found.outcome is Outcome.NOT_DUE and proposal.record_id in self.changed:
            return replace(found, outcome=Outcome.SPARED, spared=Spared.CHANGED)
        return found

    def _refuse_changed(self, connection: Connection, to_delete: Sequence[ToDelete[F]]) -> None:
        """Read the facts again just before the commit, and evaluate again those that changed.

        Row locks do not cover views and histories: a concurrent insert into them does not wait for the batch. What commits after
        this read counts as later than the purge.

        Raises:
            ChangedError: a record is no longer due, or for another reason; the caller undoes the batch.
        """
        purge.run_deferred(connection)
        again = self.kind.read_again(connection, [each.facts for each in to_delete])
        changed = {
            each.proposal.record_id
            for each, now in zip(to_delete, again, strict=True)
            if not each.facts.reads_as(now) and not self._is_unchanged_verdict(each, now)
        }
        if changed:
            self.changed.update(changed)
            raise ChangedError(f"facts of {len(changed)} records changed while they were purged")

    def _is_unchanged_verdict(self, each: ToDelete[F], now: F) -> bool:
        found = self._evaluation(now, each.proposal)
        same = (found.verdict.rule, found.verdict.due) == (each.verdict.rule, each.verdict.due)
        return found.outcome is Outcome.PURGE and same

    def _is_over_ceiling(self, verdict: Verdict, report: BatchReport) -> bool:
        """True if the approval allows no more purges of the rule.

        Raises:
            RefusedError: there is no approval, and more is due than when the run began.
        """
        due = report.counts.of(self.kind.name).due
        if self.ceilings is None:
            if self.limit is not None and self.done.total() + due.total() >= self.limit:
                raise guards.more_than_weighed(self.limit, self.done.total())
            return False
        rule = str(verdict.rule)
        return self.done[rule] + due[rule] >= self.ceilings.get(rule, 0)

    def _delete(
        self,
        connection: Connection,
        table: PhysicalTable,
        to_delete: Sequence[ToDelete[F]],
        locked: Mapping[str, int],
        lock_budget: LockBudget,
    ) -> None:
        """Delete the records and insert their tombstones."""
        kind = self.kind
        due = [each.facts for each in to_delete]
        children = kind.delete(connection, table, due, locked, self.run.id, lock_budget)
        tombstones = [kind.tombstone(each.facts, each.verdict, children) for each in to_delete]
        evidence.insert_tombstones(connection, self.run, kind.name, tombstones, self.job.clock.now())


def _worth_repeating(error: BaseException, size: int) -> bool:
    if isinstance(error, FenceBusyError | ChangedError):
        return True
    return databases.is_retryable(error) and not (size > 1 and _sqlstate(error) in SLOW)


def _sqlstate(error: BaseException) -> str | None:
    return databases.sqlstate(error) if isinstance(error, DBAPIError) else None


def _is_hopeless(error: DBAPIError) -> bool:
    """True if every other row would fail as well: the connection is lost, a privilege or a table is missing."""
    return databases.is_disconnected(error) or (_sqlstate(error) or "").startswith("42")

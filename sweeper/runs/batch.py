"""Purges a batch in one transaction: lock, read the facts, evaluate, delete, insert tombstones; log after the commit.

Invariants: a batch that fails is undone whole and retried in halves, down to the single row that fails. The facts that
decided a purge are read again before the commit; if the decision would differ, the batch is undone.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count, starmap

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sweeper import log
from sweeper.errors import SweeperError
from sweeper.policy.anomaly import anomalies
from sweeper.policy.counts import Counts
from sweeper.policy.decide import Verdict
from sweeper.policy.evaluate import Evaluation, Outcome, Proposal, Spared, evaluate
from sweeper.policy.facts import Facts
from sweeper.policy.feedback import FeedbackFacts, evaluate_feedback, feedback_anomalies
from sweeper.postgres import database as databases
from sweeper.postgres import evidence, fence, purge
from sweeper.postgres.evidence import RunRecord, Tombstone
from sweeper.postgres.fence import FenceBusyError
from sweeper.postgres.lease import Lease
from sweeper.postgres.purge import ChangedError, LockBudget
from sweeper.postgres.related_tables import PhysicalTable
from sweeper.runs import guards
from sweeper.runs.batch_sizer import BatchSizer
from sweeper.runs.job import Job, unreachable
from sweeper.runs.scan import portions

FENCE_WAIT_MS = 5_000
"""How long a batch waits for the placement of a legal hold to commit; it locks no row meanwhile."""
LOCK_NOT_AVAILABLE = "55P03"
SLOW = frozenset({LOCK_NOT_AVAILABLE, "57014"})
"""SQLSTATEs of lock and statement time-outs: a smaller batch may succeed, the same batch would not."""
FEEDBACK_AT_ONCE = 500

HOPELESS_AFTER = 100


class HopelessError(SweeperError):
    """`HOPELESS_AFTER` records failed and none was purged; the run stops."""


@dataclass(frozen=True)
class ToDelete:
    """A conversation that a batch purges, with its facts and the verdict."""

    proposal: Proposal
    facts: Facts
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


@dataclass
class FeedbackBatchReport:
    """The result of a batch of feedback rows: counts, and the ids of rows that others held locked."""

    counts: Counts
    unlocked: list[str] = field(default_factory=list)

    def add(self, other: "FeedbackBatchReport") -> "FeedbackBatchReport":
        """Add another report's counts and rows, and return this one."""
        self.counts.add(other.counts)
        self.unlocked += other.unlocked
        return self


@dataclass(frozen=True)
class Purger:
    """Purges the batches of one run under its lease.

    `ceilings`: how many conversations an approval allows, by rule. `limit`: how many a run without one may purge.
    `evaluate` and `evaluate_feedback` replace the policy's evaluation, for example after a restore.
    """

    job: Job
    run: RunRecord
    lease: Lease
    lock_budget: float
    pace: BatchSizer
    ceilings: Mapping[str, int] | None = None
    limit: int | None = None
    evaluate: Callable[[Facts, Proposal], Evaluation] | None = None
    evaluate_feedback: Callable[[FeedbackFacts], Evaluation] | None = None
    done: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    changed: set[str] = field(default_factory=set)
    """Ids of conversations whose batch was undone because a fact outside their rows changed."""

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
            self.done.update(report.counts.by_rule)
        else:
            self._recount()
        return report

    def _recount(self) -> None:
        """Count this run's purges from its tombstones: after a lost answer to a commit, `done` may be wrong."""
        purged = self.job.database.within(lambda c: evidence.purged_by_rule(c, self.run.id))
        self.done.clear()
        self.done.update(purged["conversation"])

    def purge_feedback(
        self, feedback: PhysicalTable, ids: Sequence[str], *, waiting: bool = False
    ) -> FeedbackBatchReport:
        """Purge the due feedback rows, under the same rules; with `waiting`, wait for locked rows."""
        try:
            return self.job.database.retried(
                lambda: self._purge_feedback_once(feedback, ids, waiting=waiting),
                worth_it=lambda e: _worth_repeating(e, len(ids)),
            )
        except (ChangedError, purge.MismatchError, DBAPIError) as error:
            self._raise_if_hopeless(error)
            if len(ids) == 1 and isinstance(error, ChangedError):
                return FeedbackBatchReport(Counts().skip("feedback", Spared.CHANGED))
            if len(ids) == 1 and _sqlstate(error) == LOCK_NOT_AVAILABLE:
                return FeedbackBatchReport(Counts(), list(ids))
            if len(ids) == 1:
                return FeedbackBatchReport(self._count_failure(f"feedback {ids[0]}", error))
            half = len(ids) // 2
            first = self.purge_feedback(feedback, ids[:half], waiting=waiting)
            return first.add(self.purge_feedback(feedback, ids[half:], waiting=waiting))

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
            return BatchReport(Counts().skip("conversation", Spared.CHANGED))
        return BatchReport(self._count_failure(f"conversation {proposals[0].conversation_id}", error))

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
        if self.failures.total() >= HOPELESS_AFTER and not self.done:
            raise HopelessError(
                f"{self.failures.total()} records could not be purged, and none was purged: the run stops. Last error: {reason} "
                "The others are in the log and in sweeper.events. Run `sweeper check`, fix what it reports, and run again."
            )
        return Counts(failed=1)

    def _purge_once(self, proposals: Sequence[Proposal], *, waiting: bool) -> BatchReport:
        """Purge the due proposals in one transaction."""
        started = time.monotonic()
        with self._transaction() as connection:
            self._enter(connection)
            lock_budget = LockBudget(self.lock_budget)
            ids = [proposal.conversation_id for proposal in proposals]
            locked = purge.lock(connection, self.job.contract.conversations, ids, waiting=waiting)
            facts = self.job.reader.conversations(connection, sorted(locked))
            report, to_delete = self._decide(proposals, self._unlocked(connection, ids, locked.keys()), facts)
            if to_delete:
                self._delete(connection, to_delete, locked, lock_budget)
                self._refuse_changed(connection, to_delete)
        _log_batch("batch", report.counts, report.counts.due, started, self.run.id)
        return report

    def _unlocked(self, connection: Connection, ids: Sequence[str], locked: Set[str]) -> set[str]:
        """Return the ids that exist but were not locked; refuse if the relation still shows a row that the table lacks."""
        missing = [id_ for id_ in ids if id_ not in locked]
        there = set(purge.existing(connection, self.job.contract.conversations, missing))
        purge.refuse_rowless(connection, self.job.contract, [id_ for id_ in missing if id_ not in there])
        return there

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
        self, proposals: Sequence[Proposal], unlocked: Set[str], facts: Mapping[str, Facts]
    ) -> tuple[BatchReport, list[ToDelete]]:
        """Evaluate each proposal; return the report and what to purge, within the limits of one transaction."""
        job, report = self.job, BatchReport()
        to_delete: list[ToDelete] = []
        room = job.settings.purge.batch_children
        for number, proposal in enumerate(proposals):
            known = facts.get(proposal.conversation_id)
            if known is None:
                if proposal.conversation_id in unlocked:
                    report.unlocked.append(proposal)
                continue  # somebody else has deleted it
            evaluation = self._evaluation(known, proposal)
            if evaluation.outcome is Outcome.PURGE:
                if to_delete and known.messages > room:
                    report.later = list(proposals[number:])
                    break
                if self._is_over_ceiling(evaluation.verdict, report):
                    report.counts.skip("conversation", Spared.NOT_APPROVED)
                    continue
                room -= known.messages
                to_delete.append(ToDelete(proposal, known, evaluation.verdict))
            found_anomalies = anomalies(known, job.policy, job.as_of, present=job.is_present)
            report.counts.count("conversation", evaluation, found_anomalies)
        return report, to_delete

    def _evaluation(self, known: Facts, proposal: Proposal) -> Evaluation:
        job = self.job
        if self.evaluate is not None:
            found = self.evaluate(known, proposal)
        else:
            found = evaluate(known, proposal, job.policy, job.as_of, job.window)
        if found.outcome is Outcome.NOT_DUE and proposal.conversation_id in self.changed:
            return replace(found, outcome=Outcome.SPARED, spared=Spared.CHANGED)
        return found

    def _refuse_changed(self, connection: Connection, to_delete: Sequence[ToDelete]) -> None:
        """Read the facts again just before the commit, and evaluate again those that changed.

        Row locks do not cover views and histories: a concurrent insert into them does not wait for the batch. What commits after
        this read counts as later than the purge.

        Raises:
            ChangedError: a conversation is no longer due, or for another reason; the caller undoes the batch.
        """
        purge.run_deferred(connection)
        unfenced = not self.job.settings.guards.fence
        again = self.job.reader.anew(connection, [each.facts for each in to_delete], held=unfenced)
        changed = {
            each.proposal.conversation_id
            for each, now in zip(to_delete, again, strict=True)
            if not each.facts.reads_as(now) and not self._is_unchanged_verdict(each, now)
        }
        if changed:
            self.changed.update(changed)
            raise ChangedError(f"facts of {len(changed)} conversations changed while they were purged")

    def _refuse_new_messages(self, known: Sequence[Facts], connection: Connection) -> None:
        """Refuse a batch whose conversations have received messages since they were evaluated.

        Raises:
            ChangedError: there are such messages.
        """
        if self.job.reader.messages_changed(connection, known):
            raise ChangedError("messages came while their conversations were purged")

    def _is_unchanged_verdict(self, each: ToDelete, now: Facts) -> bool:
        found = self._evaluation(now, each.proposal)
        same = (found.verdict.rule, found.verdict.due) == (each.verdict.rule, each.verdict.due)
        return found.outcome is Outcome.PURGE and same

    def _is_over_ceiling(self, verdict: Verdict, report: BatchReport) -> bool:
        """True if the approval allows no more purges of the rule.

        Raises:
            RefusedError: there is no approval, and more is due than when the run began.
        """
        if self.ceilings is None:
            if self.limit is not None and self.done.total() + report.counts.by_rule.total() >= self.limit:
                raise guards.more_than_weighed(self.limit, self.done.total())
            return False
        rule = str(verdict.rule)
        return self.done[rule] + report.counts.by_rule[rule] >= self.ceilings.get(rule, 0)

    def _delete(
        self,
        connection: Connection,
        to_delete: Sequence[ToDelete],
        locked: Mapping[str, int],
        lock_budget: LockBudget,
    ) -> None:
        ids = [each.facts.conversation.id for each in to_delete]

        def counted() -> None:
            self._refuse_new_messages([each.facts for each in to_delete], connection)

        children = purge.delete(connection, self.job.contract, ids, self.run.id, lock_budget, counted, locked)
        evidence.insert_tombstones(
            connection,
            self.run,
            "conversation",
            [
                Tombstone(
                    each.facts.conversation.id,
                    each.facts.conversation.id,
                    each.facts.conversation.account_id,
                    str(each.verdict.rule),
                    _due(each.verdict),
                    children[each.facts.conversation.id],
                )
                for each in to_delete
            ],
            self.job.clock.now(),
        )

    def _purge_feedback_once(
        self, feedback: PhysicalTable, ids: Sequence[str], *, waiting: bool
    ) -> FeedbackBatchReport:
        job, started, counts = self.job, time.monotonic(), Counts()
        with self._transaction() as connection:
            self._enter(connection)
            locked = purge.lock(connection, feedback, ids, waiting=waiting)
            others = purge.existing(connection, feedback, [id_ for id_ in ids if id_ not in locked])
            facts = job.reader.feedback(connection, list(locked))
            to_delete = []
            for known in facts.values():
                evaluation = self._feedback_evaluation(known)
                counts.count("feedback", evaluation, feedback_anomalies(known, job.policy))
                if evaluation.outcome is Outcome.PURGE:
                    to_delete.append((known, evaluation.verdict))
            if to_delete:
                purge.delete_feedback(connection, feedback, [known.feedback.id for known, _ in to_delete])
                evidence.insert_tombstones(
                    connection, self.run, "feedback", list(starmap(_tombstone, to_delete)), job.clock.now()
                )
                self._refuse_changed_feedback(connection, to_delete)
        _log_batch("feedback batch", counts, counts.feedback_by_rule.total(), started, self.run.id)
        return FeedbackBatchReport(counts, sorted(others))

    def _refuse_changed_feedback(
        self, connection: Connection, to_delete: Sequence[tuple[FeedbackFacts, Verdict]]
    ) -> None:
        """As `_refuse_changed`, for feedback rows.

        Raises:
            ChangedError: a row is no longer due, or for another reason; the caller undoes the batch.
        """
        purge.run_deferred(connection)
        again = self.job.reader.feedback_anew(connection, [known for known, _ in to_delete])
        if any(
            now != known and self._feedback_evaluation(now) != Evaluation(Outcome.PURGE, verdict)
            for now, (known, verdict) in zip(again, to_delete, strict=True)
        ):
            raise ChangedError("holds or orders changed while feedback was purged")

    def _feedback_evaluation(self, known: FeedbackFacts) -> Evaluation:
        if self.evaluate_feedback is not None:
            return self.evaluate_feedback(known)
        return evaluate_feedback(known, self.job.policy, self.job.as_of)


def _tombstone(known: FeedbackFacts, verdict: Verdict) -> Tombstone:
    row = known.feedback
    return Tombstone(row.id, row.conversation_id, row.account_id, str(verdict.rule), _due(verdict), {})


def _due(verdict: Verdict) -> datetime:
    if verdict.due is None:
        raise ValueError("a record without a due date is never purged")
    return verdict.due


def _worth_repeating(error: BaseException, size: int) -> bool:
    if isinstance(error, FenceBusyError | ChangedError):
        return True
    return databases.is_retryable(error) and not (size > 1 and _sqlstate(error) in SLOW)


def _sqlstate(error: BaseException) -> str | None:
    return databases.sqlstate(error) if isinstance(error, DBAPIError) else None


def _is_hopeless(error: DBAPIError) -> bool:
    """True if every other row would fail as well: the connection is lost, a privilege or a table is missing."""
    return databases.is_disconnected(error) or (_sqlstate(error) or "").startswith("42")


def _log_batch(event: str, counts: Counts, purged: int, started: float, run_id: int) -> None:
    log.get().info(
        event,
        run=run_id,
        purged=purged,
        held=counts.held + counts.feedback.held_past_due,
        spared=dict(counts.skipped),
        unclassified=counts.unclassified.total(),
        milliseconds=round((time.monotonic() - started) * 1000),
    )

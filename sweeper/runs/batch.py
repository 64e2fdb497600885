"""Purges a batch in one transaction: lock, read the facts, evaluate, delete, insert tombstones; log after the commit.

Invariants: a batch that fails is rolled back and repeated in halves, down to the single row that fails. The facts of each
purge are read again before the commit, and the batch is rolled back if the decision would differ.
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
"""How long a batch waits for a placement of a legal hold to commit; it holds no row while it waits."""
LOCK_NOT_AVAILABLE = "55P03"
SLOW = frozenset({LOCK_NOT_AVAILABLE, "57014"})
"""SQLSTATEs of lock and statement time-outs, after which a smaller batch helps and the same batch does not."""
FEEDBACK_AT_ONCE = 500

HOPELESS_AFTER = 100


class HopelessError(SweeperError):
    """Many records failed and none could be purged; the run stopped."""


@dataclass(frozen=True)
class ToDelete:
    """A conversation that a batch deletes, with the facts and the verdict."""

    proposal: Proposal
    facts: Facts
    verdict: Verdict


@dataclass
class BatchReport:
    """The result of a batch: counts, rows that others hold locked, and rows left for the next transaction."""

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
    """The result of a batch of feedback rows: counts, and rows that others hold locked."""

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

    `ceilings` bound what an approval allows, by rule; `limit` bounds what a run without one may purge in all.
    `evaluate` and `evaluate_feedback` replace the policy where something else has decided before.
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
    """Conversations whose purge was undone because a fact outside of their rows changed."""

    def purge(self, proposals: Sequence[Proposal], *, waiting: bool = False) -> BatchReport:
        """Purge the due conversations among the proposals, in one transaction or, if it fails, in several smaller ones.

        Raises:
            LeaseLostError: another run has taken over; nothing of the running transaction was purged.
            DatabaseError: the database is gone; what was committed before stands.
        """
        total, waits = BatchReport(), [list(proposals)]
        while waits:
            portion = waits.pop()
            report = self._portion(portion, waiting=waiting)
            total.add(report)
            if report.later:
                size = max(len(portion) - len(report.later), 1)  # about as many as fitted this time
                waits += [list(part) for part in portions(report.later, size)][::-1]
        return total

    def _portion(self, proposals: Sequence[Proposal], *, waiting: bool) -> BatchReport:
        attempts, started = count(), time.monotonic()

        def once() -> BatchReport:
            next(attempts)
            return self._once(proposals, waiting=waiting)

        try:
            report = self.job.database.retried(once, worth_it=lambda e: _worth_repeating(e, len(proposals)))
        except (ChangedError, purge.SlowError, purge.MismatchError, purge.ChildrenLockedError, DBAPIError) as error:
            self._raise_if_hopeless(error)
            if next(attempts) > 1:
                self._recount()
            return self._smaller(proposals, error, waiting=waiting)
        if next(attempts) == 1:
            self.pace.took(len(proposals) - len(report.later), time.monotonic() - started)
            self.done.update(report.counts.by_rule)
        else:
            self._recount()
        return report

    def _recount(self) -> None:
        """Count the tombstones of this run: after a lost answer only they say what it has purged."""
        purged = self.job.database.within(lambda c: evidence.purged_by_rule(c, self.run.id))
        self.done.clear()
        self.done.update(purged["conversation"])

    def purge_feedback(
        self, feedback: PhysicalTable, ids: Sequence[str], *, waiting: bool = False
    ) -> FeedbackBatchReport:
        """Purge the due feedback rows in the same way; with `waiting`, wait for locked rows."""
        try:
            return self.job.database.retried(
                lambda: self._feedback_once(feedback, ids, waiting=waiting),
                worth_it=lambda e: _worth_repeating(e, len(ids)),
            )
        except (ChangedError, purge.MismatchError, DBAPIError) as error:
            self._raise_if_hopeless(error)
            if len(ids) == 1 and isinstance(error, ChangedError):
                return FeedbackBatchReport(Counts().skip("feedback", Spared.CHANGED))
            if len(ids) == 1 and _state(error) == LOCK_NOT_AVAILABLE:
                return FeedbackBatchReport(Counts(), list(ids))
            if len(ids) == 1:
                return FeedbackBatchReport(self._failed(f"feedback {ids[0]}", error))
            half = len(ids) // 2
            first = self.purge_feedback(feedback, ids[:half], waiting=waiting)
            return first.add(self.purge_feedback(feedback, ids[half:], waiting=waiting))

    def _smaller(self, proposals: Sequence[Proposal], error: Exception, *, waiting: bool) -> BatchReport:
        """Repeat the work in halves; count a single row that fails."""
        if isinstance(error, purge.SlowError) or _state(error) in SLOW:
            self.pace.halve()
        if len(proposals) > 1:
            half = len(proposals) // 2
            return self.purge(proposals[:half], waiting=waiting).add(self.purge(proposals[half:], waiting=waiting))
        if isinstance(error, purge.ChildrenLockedError) or _state(error) == LOCK_NOT_AVAILABLE:
            return BatchReport(unlocked=list(proposals))
        if isinstance(error, ChangedError):
            return BatchReport(Counts().skip("conversation", Spared.CHANGED))
        return BatchReport(self._failed(f"conversation {proposals[0].conversation_id}", error))

    def _raise_if_hopeless(self, error: Exception) -> None:
        """Raise if every other row would fail too, or if the process must end and has cancelled its statements."""
        abandoned = self.job.database.stop.is_abandoned
        if isinstance(error, DBAPIError) and (abandoned or _is_hopeless(error)):
            raise unreachable(error) from None

    def _failed(self, what: str, error: Exception) -> Counts:
        """Count and record one record that could not be purged.

        Raises:
            HopelessError: so many failed and none could be purged that the rest would fare the same.
        """
        reason = databases.reason(error) if isinstance(error, DBAPIError) else str(error)
        log.get().error("not purged", record=what, reason=reason, run=self.run.id)
        details = {"record": what, "sqlstate": _state(error)}
        self.job.database.within(lambda c: evidence.record(c, "purge_failed", self.run.id, details))
        self.failures[_state(error) or "mismatch"] += 1
        if self.failures.total() >= HOPELESS_AFTER and not self.done:
            raise HopelessError(
                f"{self.failures.total()} records could not be purged and not one could: the run stops. The last said: {reason} "
                "The others are in the log and in sweeper.events. Run `sweeper check`, mend what it names, and run again."
            )
        return Counts(failed=1)

    def _once(self, proposals: Sequence[Proposal], *, waiting: bool) -> BatchReport:
        """Run one transaction, which commits everything or nothing."""
        started = time.monotonic()
        with self._transaction() as connection:
            self._enter(connection)
            lock_budget = LockBudget(self.lock_budget)
            ids = [proposal.conversation_id for proposal in proposals]
            locked = set(purge.lock(connection, self.job.contract.conversations, ids, waiting=waiting))
            facts = self.job.reader.conversations(connection, sorted(locked))
            report, to_delete = self._decide(proposals, self._unlocked(connection, ids, locked), facts)
            if to_delete:
                self._carry_out(connection, to_delete, lock_budget)
                self._refuse_changed(connection, to_delete)
        _say("batch", report.counts, report.counts.due, started, self.run.id)
        return report

    def _unlocked(self, connection: Connection, ids: Sequence[str], locked: Set[str]) -> set[str]:
        """Return those of the rows not locked that others hold; refuse the rest if the relation still shows them."""
        missing = [id_ for id_ in ids if id_ not in locked]
        there = purge.existing(connection, self.job.contract.conversations, missing)
        purge.refuse_rowless(connection, self.job.contract, [id_ for id_ in missing if id_ not in there])
        return there

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Open the transaction of a batch; if it waits too long for the fence, the error names the holder."""
        database = self.job.database
        try:
            with database.transaction(lock_timeout_ms=FENCE_WAIT_MS) as connection:
                yield connection
        except FenceBusyError:
            raise fence.busy(database, "Nothing more is purged while it lasts.") from None

    def _enter(self, connection: Connection) -> None:
        """Renew the lease and share the fence before any row is locked."""
        self.lease.renew(connection)
        fence.share(connection)
        purge.bound_lock_wait(connection, self.job.settings.database.lock_timeout_ms)

    def _decide(
        self, proposals: Sequence[Proposal], unlocked: Set[str], facts: Mapping[str, Facts]
    ) -> tuple[BatchReport, list[ToDelete]]:
        """Evaluate each proposal; return no more conversations to delete than fit in one transaction."""
        job, report = self.job, BatchReport()
        to_delete: list[ToDelete] = []
        room = job.settings.purge.batch_children
        for number, proposal in enumerate(proposals):
            known = facts.get(proposal.conversation_id)
            if known is None:
                if proposal.conversation_id in unlocked:
                    report.unlocked.append(proposal)
                continue  # gone: somebody else has deleted it
            evaluation = self._evaluated(known, proposal)
            if evaluation.outcome is Outcome.PURGE:
                if to_delete and known.messages > room:
                    report.later = list(proposals[number:])
                    break
                if self._is_over_ceiling(evaluation.verdict, report):
                    report.counts.skip("conversation", Spared.NOT_APPROVED)
                    continue
                room -= known.messages
                to_delete.append(ToDelete(proposal, known, evaluation.verdict))
            odd = anomalies(known, job.policy, job.as_of, present=job.is_present)
            report.counts.count("conversation", evaluation, odd)
        return report, to_delete

    def _evaluated(self, known: Facts, proposal: Proposal) -> Evaluation:
        job = self.job
        if self.evaluate is not None:
            found = self.evaluate(known, proposal)
        else:
            found = evaluate(known, proposal, job.policy, job.as_of, job.window)
        if found.outcome is Outcome.NOT_DUE and proposal.conversation_id in self.changed:
            return replace(found, outcome=Outcome.SPARED, spared=Spared.CHANGED)
        return found

    def _refuse_changed(self, connection: Connection, to_delete: Sequence[ToDelete]) -> None:
        """Read again, last before the commit, the facts that no lock covers, and evaluate again those that changed.

        A view or a table of histories cannot be locked row by row: whoever inserts waits for nobody. What commits after this
        has read it comes after the purge.

        Raises:
            ChangedError: something would not be purged any more, or for another reason; the batch is to be undone.
        """
        purge.run_deferred(connection)
        unfenced = not self.job.settings.guards.fence
        again = self.job.reader.anew(connection, [each.facts for each in to_delete], held=unfenced)
        changed = {
            each.proposal.conversation_id
            for each, now in zip(to_delete, again, strict=True)
            if not each.facts.reads_as(now) and not self._is_still(each, now)
        }
        if changed:
            self.changed.update(changed)
            raise ChangedError(f"facts of {len(changed)} conversations changed while they were purged")

    def _refuse_written(self, known: Sequence[Facts], connection: Connection) -> None:
        """Refuse to commit if messages came to the conversations after their facts were read.

        Raises:
            ChangedError: there are such.
        """
        if self.job.reader.messages_changed(connection, known):
            raise ChangedError("messages came while their conversations were purged")

    def _is_still(self, each: ToDelete, now: Facts) -> bool:
        found = self._evaluated(now, each.proposal)
        same = (found.verdict.rule, found.verdict.due) == (each.verdict.rule, each.verdict.due)
        return found.outcome is Outcome.PURGE and same

    def _is_over_ceiling(self, verdict: Verdict, report: BatchReport) -> bool:
        """Return True if the approval allows no more of this rule; without an approval, refuse to exceed the weighed number.

        Raises:
            RefusedError: more is due than when the run began.
        """
        if self.ceilings is None:
            if self.limit is not None and self.done.total() + report.counts.by_rule.total() >= self.limit:
                raise guards.more_than_weighed(self.limit, self.done.total())
            return False
        rule = str(verdict.rule)
        return self.done[rule] + report.counts.by_rule[rule] >= self.ceilings.get(rule, 0)

    def _carry_out(self, connection: Connection, to_delete: Sequence[ToDelete], lock_budget: LockBudget) -> None:
        ids = [each.facts.conversation.id for each in to_delete]

        def counted() -> None:
            self._refuse_written([each.facts for each in to_delete], connection)

        children = purge.delete(connection, self.job.contract, ids, self.run.id, lock_budget, counted)
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

    def _feedback_once(self, feedback: PhysicalTable, ids: Sequence[str], *, waiting: bool) -> FeedbackBatchReport:
        job, started, counts = self.job, time.monotonic(), Counts()
        with self._transaction() as connection:
            self._enter(connection)
            locked = purge.lock(connection, feedback, ids, waiting=waiting)
            others = purge.existing(connection, feedback, [id_ for id_ in ids if id_ not in set(locked)])
            facts = job.reader.feedback(connection, locked)
            to_delete = []
            for known in facts.values():
                evaluation = self._evaluated_feedback(known)
                counts.count("feedback", evaluation, feedback_anomalies(known, job.policy))
                if evaluation.outcome is Outcome.PURGE:
                    to_delete.append((known, evaluation.verdict))
            if to_delete:
                purge.delete_feedback(connection, feedback, [known.feedback.id for known, _ in to_delete])
                evidence.insert_tombstones(
                    connection, self.run, "feedback", list(starmap(_tombstone, to_delete)), job.clock.now()
                )
                self._refuse_changed_feedback(connection, to_delete)
        _say("feedback batch", counts, counts.feedback_by_rule.total(), started, self.run.id)
        return FeedbackBatchReport(counts, sorted(others))

    def _refuse_changed_feedback(
        self, connection: Connection, to_delete: Sequence[tuple[FeedbackFacts, Verdict]]
    ) -> None:
        """As `_refuse_changed`, for feedback rows.

        Raises:
            ChangedError: something would not be purged any more, or for another reason; the batch is to be undone.
        """
        purge.run_deferred(connection)
        again = self.job.reader.feedback_anew(connection, [known for known, _ in to_delete])
        if any(
            now != known and self._evaluated_feedback(now) != Evaluation(Outcome.PURGE, verdict)
            for now, (known, verdict) in zip(again, to_delete, strict=True)
        ):
            raise ChangedError("holds or orders changed while feedback was purged")

    def _evaluated_feedback(self, known: FeedbackFacts) -> Evaluation:
        if self.evaluate_feedback is not None:
            return self.evaluate_feedback(known)
        return evaluate_feedback(known, self.job.policy, self.job.as_of)


def _tombstone(known: FeedbackFacts, verdict: Verdict) -> Tombstone:
    row = known.feedback
    return Tombstone(row.id, row.conversation_id, row.account_id, str(verdict.rule), _due(verdict), {})


def _due(verdict: Verdict) -> datetime:
    if verdict.due is None:
        raise ValueError("a record without a due is never purged")
    return verdict.due


def _worth_repeating(error: BaseException, size: int) -> bool:
    if isinstance(error, FenceBusyError | ChangedError):
        return True
    return databases.is_retryable(error) and not (size > 1 and _state(error) in SLOW)


def _state(error: BaseException) -> str | None:
    return databases.sqlstate(error) if isinstance(error, DBAPIError) else None


def _is_hopeless(error: DBAPIError) -> bool:
    """Return True if every other row would fail as well: connection lost, privilege or table missing."""
    return databases.is_disconnected(error) or (_state(error) or "").startswith("42")


def _say(event: str, counts: Counts, purged: int, started: float, run_id: int) -> None:
    log.get().info(
        event,
        run=run_id,
        purged=purged,
        held=counts.held + counts.feedback.held_past_due,
        spared=dict(counts.skipped),
        unclassified=counts.unclassified.total(),
        milliseconds=round((time.monotonic() - started) * 1000),
    )

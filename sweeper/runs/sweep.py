"""Runs one sweep from beginning to end; the module to read first.

    lease → guards → plan → purge in batches → locked rows again → feedback → orphans → objects → redact what stays → close
    → checkpoint → copies

`policy/decide.py` alone decides what is due. `postgres/proposals.py` proposes, `plan.py` makes it a plan for a preview or a
run, `batch.py` purges one batch of it, and `throttle.py` decides whether there is a next batch and how large it is.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from sqlalchemy import Connection

from sweeper import log
from sweeper.copies import delivery, sender
from sweeper.encoding import to_json
from sweeper.errors import PausedError
from sweeper.evidence import keys
from sweeper.objects import removal
from sweeper.policy.counts import Counts, Kind
from sweeper.policy.evaluate import Outcome, Proposal, Spared
from sweeper.policy.facts import Facts
from sweeper.policy.feedback import FeedbackFacts
from sweeper.policy.window import Window
from sweeper.postgres import backfills, evidence, hazards, purge, store_counts, vacuum
from sweeper.postgres.backfills import BackfillPlan
from sweeper.postgres.proposals import Page
from sweeper.runs import guards, policy_change, record_kind
from sweeper.runs.approval import Approval
from sweeper.runs.backfill import BackfillScope
from sweeper.runs.batch import Purger
from sweeper.runs.job import Job
from sweeper.runs.plan import PurgePlan
from sweeper.runs.record_kind import RecordKind
from sweeper.runs.result import ActiveBackfill, Result
from sweeper.runs.scan import page_portions, scan
from sweeper.runs.session import HURRIED_SECONDS, RunKind, Session, refuse_paused, session
from sweeper.runs.throttle import STEP_SECONDS, Budget, ProgressListener, StopReason, Throttle

LOCKED_AT_MOST = 10_000
"""The most rows locked by others that are tried again at the end; further ones wait for the next run."""


def preview(
    job: Job,
    watch: ProgressListener | None = None,
    scope: BackfillScope | None = None,
    accept_policy: str | None = None,
) -> PurgePlan:
    """Return the plan of a run, or of the backfill that `scope` names, with its statistics; nothing is locked or written.

    Raises:
        ConfigurationError: the key that signs checkpoints, or what a copy needs, cannot be used, and no run would begin.
    """
    keys.read(job.settings)
    sender.senders(job.settings)
    watch, started = watch or ProgressListener(), time.monotonic()
    job = replace(job, window=scope.window) if scope else without(job, find_active_backfill(job))
    plan = PurgePlan(job, scope, policy_change=policy_change.find(job))
    plan.propose(watch)
    watch.expect(plan.free + plan.held)
    plan.decide(watch.advance)
    if scope is None:
        feedback = record_kind.feedback(job)
        plan.counts.add(scan(feedback, feedback.pages()))
        histories = job.database.within(store_counts.histories)
        plan.refusals += guards.before(job, histories, plan.policy_change, accept_policy=accept_policy)
        plan.refusals += guards.volume(job, plan.counts.due, plan.counts.redacted_by_rule.total())
    else:
        plan.refusals += policy_change.refusals(job, plan.policy_change, accept_policy)
    plan.seconds = time.monotonic() - started
    return plan


def sweep(
    job: Job,
    *,
    approval: Approval | None = None,
    accept_history: bool = False,
    accept_policy: str | None = None,
    watch: ProgressListener | None = None,
    budget: Budget | None = None,
    run_kind: RunKind | None = None,
) -> Result:
    """Purge what is due at as-of, and record it.

    Raises:
        LeaseHeldError: another run holds the lease.
        RefusedError: a guard refused; nothing was purged.
        LeaseLostError: the lease expired and another run took over.
        SweeperError: the database failed; what was committed before stands.
    """
    run_kind, watch, budget = run_kind or RunKind(), watch or ProgressListener(), budget or Budget()
    refuse_paused(job)
    active_backfill = None if run_kind.preemptible else find_active_backfill(job)
    plan = PurgePlan(without(job, active_backfill), memory=budget.memory)
    with session(plan.job, run_kind, approval) as opened:
        left = _remaining_approval(job, approval)
        watch = watch.signed(opened.sign)
        result = _Sweep(plan, opened, left, accept_history, accept_policy, watch, budget, active_backfill).run()
    if not run_kind.preemptible:  # a backfill does both at its end: no slice waits for a copy
        vacuum.after_run(job.database, job.contract)
        delivery.deliver_after_run(job.database, job.clock)
    return result


def find_active_backfill(job: Job) -> ActiveBackfill | None:
    """Return the store's approved and unfinished backfill; a run leaves its range of due dates out."""
    now = job.clock.now()
    plan = job.database.within(lambda c: backfills.alive(c, job.contract.schema, now))
    if plan is None:
        return None
    silent = plan.is_silent(now)
    active_backfill = ActiveBackfill(plan, silent, silent and _has_backlog(job, plan))
    log.get().info("leaves to a backfill what is due there", **to_json(active_backfill))
    return active_backfill


def _has_backlog(job: Job, plan: BackfillPlan) -> bool:
    """Return whether anything that no hold covers is proposed in the range of the plan."""
    its_own = replace(job, window=Window(plan.done_until, plan.until))
    return any(page.free for page in its_own.selector.pages())


def without(job: Job, active_backfill: ActiveBackfill | None) -> Job:
    """Return the job without the range of due dates that it leaves to a backfill."""
    if active_backfill is None:
        return job
    plan = active_backfill.plan
    return replace(job, window=Window(excluded_window=(plan.done_until, plan.until)))


def _remaining_approval(job: Job, approval: Approval | None) -> Approval | None:
    """Return the approval less what earlier runs have purged under it."""
    if approval is None:
        return None
    return approval.remaining(job.database.within(lambda c: evidence.purged_under(c, approval.token())))


class _InterruptedError(Exception):
    """The run must stop before it purges; `throttle.stopped` has the reason."""


@dataclass
class _Sweep:
    plan: PurgePlan
    session: Session
    approval: Approval | None
    accept_history: bool
    accept_policy: str | None
    watch: ProgressListener
    budget: Budget
    active_backfill: ActiveBackfill | None
    counts: Counts = field(default_factory=Counts)
    done: Counter[str] = field(default_factory=Counter)
    objects_kept: Counter[str] = field(default_factory=Counter)
    orphans: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def job(self) -> Job:
        """The job of the plan."""
        return self.plan.job

    def run(self) -> Result:
        """Execute all steps in order, until done or stopped."""
        try:
            self._work()
        except PausedError as paused:
            self.throttle.stopped = StopReason.PAUSED
            log.get().warning("paused; what was committed stands", reason=str(paused), run=self.session.run.id)
        except _InterruptedError:
            log.get().warning(
                "stopped before anything was purged", reason=self.throttle.stopped, run=self.session.run.id
            )
        return self._finish()

    def _work(self) -> None:
        if not self.session.run_kind.preemptible:  # a backfill warns once, not with each slice
            hazards.warn(self.job.database, self.job.contract)
        histories = self.job.database.within(store_counts.histories)
        change = policy_change.find(self.job)
        for refusal in guards.before(
            self.job, histories, change, accept_history=self.accept_history, accept_policy=self.accept_policy
        ):
            raise refusal
        policy_change.record(self.job, self.session.run.id, change, self.accept_policy)
        self.session.histories = histories
        purger = self._purger(self._weigh())
        self._purge_kind(purger)
        if not self.session.run_kind.preemptible:
            self._purge_feedback(purger.of(record_kind.feedback(self.job)))
        self.orphans = self._purge_orphans()
        self._remove_objects()
        if not self.session.run_kind.preemptible:
            self._redact(purger)  # last: redactions that all fail hold up nothing else

    def _remove_objects(self) -> None:
        database, run, renew, over = self.job.database, self.session.run, self.session.renew, self.throttle.is_cut_short
        removal.remove_pending(database, run.id, self.job.clock.now(), renew, over, self.objects_kept)

    @cached_property
    def throttle(self) -> Throttle:
        """The throttle of this run."""
        return self.session.throttle_for(self.watch, self.budget, self.done.total)

    def _weigh(self) -> int | None:
        """Refuse the plan if too much is due; return how many conversations may be purged, None for no limit in total."""
        if self.session.run_kind.preemptible:
            return None  # a backfill was weighed as a whole, and its approval bounds every batch
        self.plan.propose(self.watch, self._renew_or_stop)
        self.watch.expect(self.plan.free)
        return guards.limit(self.job, self.plan.weigh(self.approval, self._renew_or_stop))

    def _purger(self, limit: int | None) -> Purger[Facts]:
        lock_budget = self.job.database.within(purge.read_lock_budget)
        ceilings = self.approval.due if self.approval else None
        return Purger(
            record_kind.conversations(self.job),
            self.session.run,
            self.session.lease,
            lock_budget,
            self.throttle.pace,
            ceilings,
            limit,
            done=self.done,
        )

    def _redact(self, purger: Purger[Facts]) -> None:
        """Redact what is due for that and was not purged, within the same limits."""
        if self.job.policy.redacting is not None:
            approved = self.approval.redact if self.approval else None
            ceilings = approved and {rule: count + self.done[rule] for rule, count in approved.items()}
            self._purge_kind(purger.sharing(record_kind.redactions(self.job), ceilings))

    def _purge_kind(self, purger: Purger[Facts]) -> None:
        locked = self._purge(purger)
        self._purge_locked(purger, locked)

    def _purge(self, purger: Purger[Facts]) -> list[Proposal]:
        """Purge the free proposals and count the held ones; return those whose rows others hold locked."""
        locked: list[Proposal] = []
        for page in self.plan.pages(purger.kind):
            rest = page.free
            while rest:
                size = self.throttle.next_batch()
                if not size:
                    return locked
                report = purger.purge(rest[:size])
                self.counts.add(report.counts)
                locked += report.unlocked
                self.watch.advance(len(rest[:size]))
                rest = rest[size:]
            if page.held:
                self.counts.add(scan(purger.kind, [Page((), page.held)], lambda _: self.session.renew()))
            if len(locked) > LOCKED_AT_MOST:
                self._skip_locked(purger.kind.name, len(locked) - LOCKED_AT_MOST)
                del locked[LOCKED_AT_MOST:]
        return locked

    def _purge_locked(self, purger: Purger[Facts], locked: list[Proposal]) -> None:
        """Try locked rows again, waiting for one at a time and for at most [purge] locked_wait_seconds in total."""
        deadline = time.monotonic() + self.job.settings.purge.locked_wait_seconds
        while locked and (size := self.throttle.next_batch()):
            report = purger.purge(locked[:1], waiting=True)
            if locked[1:size]:
                report.add(purger.purge(locked[1:size]))
            self.counts.add(report.counts)
            locked = [*locked[size:], *report.unlocked[1:], *report.unlocked[:1]]
            if time.monotonic() > deadline:
                break
        self._skip_locked(purger.kind.name, len(locked))

    def _skip_locked(self, kind: Kind, count: int) -> None:
        if count:
            log.get().warning(
                "rows stayed locked by others; the next run tries again", rows=count, run=self.session.run.id
            )
            self.counts.skip(kind, Spared.LOCKED, count)

    def _purge_feedback(self, purger: Purger[FeedbackFacts]) -> None:
        if purger.kind.table is None:
            self._refuse_feedback(purger.kind)
            return
        locked: list[Proposal] = []
        for portion in page_portions(self.job, purger.kind.pages()):
            room = self._feedback_room()
            if not room:
                return
            report = purger.purge(portion[:room])
            self.counts.add(report.counts)
            locked = [*locked, *report.unlocked][:LOCKED_AT_MOST]
        if locked:
            again = purger.purge(locked, waiting=True)
            self.counts.add(again.counts)
            self._skip_locked("feedback", len(again.unlocked))

    def _feedback_room(self) -> int:
        """Return how many feedback rows a batch may take; the budget allows as many of them as of conversations."""
        if self.throttle.is_cut_short():
            return 0
        most = self.budget.purges
        batch = self.job.settings.purge.batch
        return batch if most is None else max(0, min(batch, most - self.counts.feedback_by_rule.total()))

    def _refuse_feedback(self, kind: RecordKind[FeedbackFacts]) -> None:
        """Count due feedback rows as failed: rows behind a view cannot be purged."""
        found = scan(kind, kind.pages())
        due = found.feedback_by_rule.total()
        if due:
            log.get().error(
                "feedback is due but was not purged: the relation is a view. Name its table in [purge.feedback]",
                rows=due,
            )
        for outcomes in found.feedback.by_rule.values():
            del outcomes[Outcome.PURGE]
        found.failed = due
        self.counts.add(found)

    def _purge_orphans(self) -> int:
        """Delete children that were inserted while their conversation was purged, in tables without a foreign key."""
        if not purge.is_open(self.job.contract):
            return 0
        database = self.job.database
        orphans = 0
        for run_id in database.within(lambda c: evidence.unfinished_runs(c, self.session.lease.store)):
            for ids in evidence.purged_by(database, run_id):
                if self.throttle.is_cut_short():
                    return orphans  # this run does not complete, so that the next one looks again
                orphans += self._delete_orphans(ids)
        return orphans

    def _delete_orphans(self, ids: list[str]) -> int:
        def delete(connection: Connection) -> int:
            self.session.lease.renew(connection)
            return purge.delete_orphans(connection, self.job.contract, ids, self.session.run.id)

        return self.job.database.within(delete)

    def _finish(self) -> Result:
        purged = self.job.database.within(lambda c: evidence.purged_by_rule(c, self.session.run.id))
        pending = removal.count_pending(self.job.database)
        outcome: evidence.Outcome = "completed"
        self.active_backfill = self.active_backfill and self._settled(self.active_backfill, purged)
        if self.throttle.stopped:
            outcome, self.session.checkpoint_seconds = "stopped", HURRIED_SECONDS
        elif self.counts.failed:
            outcome = "failed"
        seconds = time.monotonic() - self.started
        result = Result(
            self.job,
            self.session.run.id,
            outcome,
            self.counts,
            purged,
            pending,
            self.orphans,
            seconds,
            self.throttle,
            self.active_backfill,
            self.objects_kept,
        )
        for advice in result.advice:
            log.get().warning("more records were kept than purged", advice=advice, run=self.session.run.id)
        self.session.close(outcome, result)
        return result

    def _settled(self, found: ActiveBackfill, purged: Mapping[str, Mapping[str, int]]) -> ActiveBackfill:
        """Return the backfill as it is at the end of the run.

        Another heartbeat proves that somebody is at work. The age of the last one does not: a process may have been killed a
        moment ago, and the clocks of two machines may differ. So a run that leaves a backlog, and purged nothing or finds the
        last heartbeat old, waits for the next one: without one for `SILENT`, nobody is at work.
        """
        plan = last = self._reread(found)
        until = time.monotonic() + backfills.SILENT.total_seconds()
        backlog = _has_backlog(self.job, plan)
        while plan.finished_at is None and plan.seen_at == last.seen_at:
            if plan.stopped_at is not None or time.monotonic() > until:
                return ActiveBackfill(plan, silent=True, backlog=backlog)
            is_old = plan.is_silent(self.job.clock.now())
            if self.job.stop_reason() or not backlog or (any(purged.values()) and not is_old):
                return ActiveBackfill(plan, silent=is_old, backlog=backlog and is_old)
            self.job.database.within(self.session.lease.keep)
            time.sleep(STEP_SECONDS)
            plan = self._reread(found)
        return ActiveBackfill(plan, silent=False, backlog=False)

    def _reread(self, found: ActiveBackfill) -> BackfillPlan:
        return self.job.database.within(lambda c: backfills.by_approval(c, found.plan.approval)) or found.plan

    def _renew_or_stop(self, _: int) -> None:
        self.session.renew()
        if self.throttle.is_over():
            raise _InterruptedError

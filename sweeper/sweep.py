"""The page to read first: one sweep from beginning to end.

    lease → guards → propose → purge in batches → rows that were locked → feedback → strays → objects → close → checkpoint

What is due is decided in `core/decide.py` alone; what is proposed comes from `store/select.py`; one batch is `batch.py`;
how large the next one is, and whether there is one, `steering.py` says.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sweeper import approval as approvals
from sweeper import guards, log
from sweeper.approval import Approval
from sweeper.batch import Purger
from sweeper.core.instant import rfc3339
from sweeper.core.recheck import Proposal, Spared
from sweeper.core.window import Window
from sweeper.errors import LeaseLostError, PausedError, RefusedError, SweeperError
from sweeper.job import Job, unreachable
from sweeper.pace import Pace
from sweeper.steering import ORDERED, Budget, Steering, Stop, Watch
from sweeper.store import backfills, census, evidence, objects, pauses, purge
from sweeper.store import lease as leases
from sweeper.store.evidence import Run
from sweeper.store.lease import Lease
from sweeper.store.pressure import Gauge
from sweeper.store.select import Page
from sweeper.survey import portions, survey, survey_feedback
from sweeper.tally import Tally

KEPT_PAGES = 3
"""So many pages of proposals are kept between counting and purging; where there are more, they are proposed again."""
LOCKED_AT_MOST = 10_000
"""So many rows that others hold locked are tried again at the end; the others wait for the next run."""


@dataclass(frozen=True)
class Errand:
    """What a sweep is for: the nightly run, or one slice of a backfill, whose plan was weighed as a whole and approved."""

    kind: Literal["run", "backfill"] = "run"
    backfill_id: int | None = None

    @property
    def is_slice(self) -> bool:
        """Whether it gives way to a run, and leaves feedback to it."""
        return self.kind == "backfill"


@dataclass
class Result:
    """What a run did, as its evidence says."""

    job: Job
    run_id: int
    outcome: str
    tally: Tally
    purged: dict[str, dict[str, int]]
    objects_pending: int
    strays: int
    seconds: float
    steering: Steering

    @property
    def count(self) -> int:
        """How many conversations were purged."""
        return sum(self.purged["conversation"].values())

    @property
    def overdue(self) -> int:
        """How many records are known to be due and were left: they failed, stayed locked or were not approved."""
        left = (Spared.LOCKED, Spared.NOT_APPROVED)
        return self.tally.failed + sum(self.tally.spared[reason.value] for reason in left)

    @property
    def is_stalled(self) -> bool:
        """Whether nothing at all was purged although something was left: nobody may take that for a night without work."""
        nothing = self.count + sum(self.purged["feedback"].values()) == 0
        return nothing and (self.overdue > 0 or bool(self.steering.stopped))

    @property
    def is_done(self) -> bool:
        """Whether the run did all that was asked of it; one that used up its budget did."""
        in_order = self.outcome == "completed" or (self.outcome == "stopped" and self.steering.stopped in ORDERED)
        return in_order and not self.is_stalled

    def as_json(self) -> dict[str, Any]:
        """The result for machines."""
        conversations, feedback = self.purged["conversation"], self.purged["feedback"]
        return {
            "run": self.run_id,
            "as_of": rfc3339(self.job.as_of),
            "policy": self.job.policy.digest,
            "outcome": self.outcome,
            "stop_reason": self.steering.stopped or None,
            "stalled": self.is_stalled,
            "purged": self.count,
            **self.tally.as_json(),
            "by_rule": dict(sorted(conversations.items())),
            "feedback_purged": sum(feedback.values()),
            "feedback_by_rule": dict(sorted(feedback.items())),
            "strays": self.strays,
            "objects_pending": self.objects_pending,
            "batches": self.steering.pace.times.as_json(),
            "pauses": self.steering.waits.as_json(),
            "duration_s": round(self.seconds, 3),
        }


@dataclass
class Preview:
    """What a run would do now."""

    job: Job
    tally: Tally
    approval: Approval
    refusals: list[RefusedError]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The preview for machines; `digest` is what `run --approve` takes."""
        return {
            "as_of": rfc3339(self.job.as_of),
            "policy": self.job.policy.digest,
            "would_purge": self.tally.due,
            **self.tally.as_json(),
            "feedback_would_purge": self.tally.feedback_by_rule.total(),
            "would_refuse": [refusal.guard for refusal in self.refusals],
            "digest": self.approval.token(),
            "duration_s": round(self.seconds, 3),
        }


def preview(job: Job, watch: Watch | None = None) -> Preview:
    """What a run would purge, keep and refuse now; nothing is locked or written."""
    watch, started, job = watch or Watch(), time.monotonic(), beside_backfill(job)
    tally = survey(job, job.selector.pages(), watch.advance)
    tally.add(survey_feedback(job))
    refusals = [*guards.before(job, job.database.within(census.histories)), *guards.volume(job, tally.due, None)]
    store = job.database.within(lambda c: census.identity(c, job.settings.store.schema_name))
    approval = Approval(store, job.policy.digest, job.as_of, job.clock.now(), dict(tally.by_rule))
    return Preview(job, tally, approval, refusals, time.monotonic() - started)


def sweep(
    job: Job,
    *,
    approval: Approval | None = None,
    accept_history: bool = False,
    watch: Watch | None = None,
    budget: Budget | None = None,
    errand: Errand | None = None,
) -> Result:
    """One sweep: purge what is due at as-of, and record it.

    Raises:
        LeaseHeldError: another run is at work.
        RefusedError: a guard refused; nothing was purged.
        LeaseLostError: this run was taken for dead and replaced.
        SweeperError: the database failed; what was committed before stands.
    """
    errand = errand or Errand()
    refuse_paused(job)
    job = job if errand.is_slice else beside_backfill(job)
    lease = leases.take(job.database, yields=errand.is_slice)
    opened = _open(job, lease, approval, errand)
    left = _left_of(job, approval)
    sweeping = _Sweep(job, lease, opened, left, accept_history, watch or Watch(), budget or Budget(), errand)
    try:
        return sweeping.run()
    except LeaseLostError:
        raise  # the run that took over has recorded this one as interrupted
    except RefusedError as refusal:
        sweeping.close("refused", {"guard": refusal.guard, "text": str(refusal)})
        raise
    except SweeperError as error:
        sweeping.close_if_possible("failed", {"error": str(error)})
        raise
    except DBAPIError as error:
        sweeping.close_if_possible("failed", {"error": type(error).__name__})
        raise unreachable(error) from None
    except Exception:
        sweeping.close_if_possible("failed", {"error": "unforeseen"})
        raise


def beside_backfill(job: Job) -> Job:
    """The job without what a backfill at work has been approved for: a run neither weighs nor purges that."""
    plan = job.database.within(lambda c: backfills.alive(c, job.contract.schema, job.clock.now()))
    if plan is None:
        return job
    log.get().info("leaves to a backfill what is due before its end", backfill=plan.id, due_before=rfc3339(plan.until))
    return replace(job, window=Window(since=plan.until))


def refuse_paused(job: Job) -> None:
    """Do not begin while somebody has paused the sweeper.

    Raises:
        RefusedError: it is paused; nothing was purged.
    """
    for pause in pauses.in_force(job.database):
        raise RefusedError(
            "paused",
            f"paused since {rfc3339(pause['paused_at'])}: {pause['reason']}. Nothing was purged. "
            "When that is over, `sweeper resume`, and run again.",
        )


def _left_of(job: Job, approval: Approval | None) -> Approval | None:
    """What earlier runs under the same approval have left of it."""
    if approval is None:
        return None
    return approval.less(job.database.within(lambda c: evidence.purged_under(c, approval.token())))


def _open(job: Job, lease: Lease, approval: Approval | None, errand: Errand) -> Run:
    def open_run(connection: Connection) -> int:
        lease.run_id = evidence.open_run(
            connection,
            store=lease.store,
            as_of=job.as_of,
            policy_name=job.policy.name,
            policy_digest=job.policy.digest,
            token=lease.token,
            approval=approval.token() if approval else None,
            started_at=job.clock.now(),
            kind=errand.kind,
            backfill_id=errand.backfill_id,
        )
        lease.keep(connection)
        return lease.run_id

    run_id = job.database.within(open_run)
    log.get().info("run opened", run=run_id, as_of=rfc3339(job.as_of), policy=job.policy.digest[:12])
    return Run(run_id, lease.store, job.as_of, job.policy.digest, approval is not None)


class _InterruptedError(Exception):
    """The run is to stop, and `steering.stopped` says why."""


@dataclass
class _Sweep:
    job: Job
    lease: Lease
    opened: Run
    approval: Approval | None
    accept_history: bool
    watch: Watch
    budget: Budget
    errand: Errand
    tally: Tally = field(default_factory=Tally)
    done: Counter[str] = field(default_factory=Counter)
    histories: census.Histories | None = None
    strays: int = 0
    started: float = field(default_factory=time.monotonic)

    def run(self) -> Result:
        """All steps, in order, as far as nobody stops it."""
        try:
            self._work()
        except PausedError as paused:
            self.steering.stopped = Stop.PAUSED
            log.get().warning("paused; what was committed stands", reason=str(paused), run=self.opened.id)
        except _InterruptedError:
            log.get().warning("stops before anything was purged", reason=self.steering.stopped, run=self.opened.id)
        return self._finish()

    def _work(self) -> None:
        histories = self.job.database.within(census.histories)
        for refusal in guards.before(self.job, histories, accept_history=self.accept_history):
            raise refusal
        self.histories = histories
        pages, limit = self._guarded()
        purger = self._purger(limit)
        locked = self._purge(purger, pages)
        self._purge_locked(purger, locked)
        if not self.errand.is_slice:
            self._purge_feedback(purger)
        self.strays = self._sweep_strays()
        over = self.steering.is_cut_short
        objects.remove_pending(self.job.database, self.opened.id, self.job.clock.now(), self._renew, over)

    @cached_property
    def steering(self) -> Steering:
        """Steers this run: its watch, its budget, and whoever waits for the lease of a slice."""
        settings, watch = self.job.settings, self.watch
        pace = Pace(settings.pace.target_batch_ms / 1000, settings.purge.batch)
        gauge = Gauge(self.job.database, self._tables())
        stopping = replace(watch, stopping=lambda: watch.stopping() or self._given_way())
        return Steering(settings, stopping, self.budget, gauge, self._renew, self.done.total, pace)

    def _given_way(self) -> str:
        return Stop.YIELDED if self.errand.is_slice and self.lease.wanted else ""

    def _tables(self) -> list[int]:
        root = self.job.contract.conversations
        return [root.oid, *(key.oid for key in root.children)]

    def close(self, outcome: evidence.Outcome, result: dict[str, Any]) -> None:
        """Record how the run ended and give the lease back, in one transaction.

        Raises:
            LeaseLostError: another run has taken over, and has recorded this one as interrupted.
        """
        self.job.database.within(lambda connection: self._close(connection, outcome, result))
        told = {"guard": result["guard"]} if "guard" in result else {}
        log.get().info("run closed", run=self.opened.id, outcome=outcome, **told)

    def _close(self, connection: Connection, outcome: evidence.Outcome, result: dict[str, Any]) -> None:
        seen, now = self.histories, self.job.clock.now()
        plan_changes, consent_events = (seen.plan_changes, seen.consent_events) if seen else (None, None)
        self.lease.keep(connection)
        evidence.close_run(connection, self.opened.id, outcome, now, result, plan_changes, consent_events)
        if outcome == "refused":
            evidence.record(connection, "refusal", self.opened.id, {"guard": result.get("guard")})
        self.lease.give_back(connection)

    def close_if_possible(self, outcome: evidence.Outcome, result: dict[str, Any]) -> None:
        """As `close`; a database that is gone leaves the run open, and the next run records it as interrupted."""
        try:
            self.close(outcome, result)
        except Exception:  # the first error is the one to tell
            log.get().warning("run left open; the next run records it as interrupted", run=self.opened.id)

    def _guarded(self) -> tuple[Iterable[Page], int | None]:
        """The proposals, once it is known that no more is due than may be purged, and how many that is."""
        pages = self.job.selector.pages()
        if self.errand.is_slice:
            return pages, None  # the plan was weighed as a whole, and its approval bounds every batch
        kept = list(islice(pages, KEPT_PAGES))
        count = sum(len(page.free) for page in kept)
        more = len(kept) == KEPT_PAGES
        if more:
            count += sum(self._counted(page) for page in pages)
        self.watch.expect(count)
        weighed = self._refuse_volume(count, kept, more=more)
        return self.job.selector.pages() if more else kept, guards.limit(self.job, weighed)

    def _counted(self, page: Page) -> int:
        self._renew_or_stop()
        return len(page.free)

    def _refuse_volume(self, proposed: int, kept: list[Page], *, more: bool) -> int:
        """Weigh what is proposed, which is at least what is due; only where that is too much, decide every proposal.

        Returns:
            The number that was weighed and is not too much.
        """
        if self.approval is None and not any(guards.volume(self.job, proposed, None)):
            return proposed
        pages = self.job.selector.pages() if more else kept
        due = survey(self.job, pages, lambda _: self._renew_or_stop())
        if self.approval is not None:
            approvals.refuse_more(self.approval, due.by_rule)
        for refusal in guards.volume(self.job, due.due, self.approval):
            raise refusal
        return due.due

    def _purger(self, limit: int | None) -> Purger:
        patience = self.job.database.within(purge.read_patience)
        ceilings = self.approval.due if self.approval else None
        return Purger(self.job, self.opened, self.lease, patience, self.steering.pace, ceilings, limit, done=self.done)

    def _purge(self, purger: Purger, pages: Iterable[Page]) -> list[Proposal]:
        """Purge the free proposals and count the held ones; returns those whose rows others hold locked."""
        locked: list[Proposal] = []
        for page in pages:
            rest = page.free
            while rest:
                size = self.steering.next_batch()
                if not size:
                    return locked
                report = purger.purge(rest[:size])
                self.tally.add(report.tally)
                locked += report.unlocked
                self.watch.advance(len(rest[:size]))
                rest = rest[size:]
            if page.held:
                self.tally.add(survey(self.job, [Page((), page.held)], lambda _: self._renew()))
            if len(locked) > LOCKED_AT_MOST:
                self._spare_locked(len(locked) - LOCKED_AT_MOST)
                del locked[LOCKED_AT_MOST:]
        return locked

    def _purge_locked(self, purger: Purger, locked: list[Proposal]) -> None:
        """Try again what others had locked, waiting for one row at a time, no longer than [purge] locked_wait_seconds."""
        deadline = time.monotonic() + self.job.settings.purge.locked_wait_seconds
        while locked and (size := self.steering.next_batch()):
            report = purger.purge(locked[:1], waiting=True)
            if locked[1:size]:
                report.add(purger.purge(locked[1:size]))
            self.tally.add(report.tally)
            locked = [*locked[size:], *report.unlocked[1:], *report.unlocked[:1]]
            if time.monotonic() > deadline:
                break
        self._spare_locked(len(locked))

    def _spare_locked(self, count: int) -> None:
        if count:
            log.get().warning("rows stayed locked by others; the next run tries again", rows=count, run=self.opened.id)
            self.tally.spared[Spared.LOCKED.value] += count

    def _purge_feedback(self, purger: Purger) -> None:
        feedback = self.job.contract.feedback
        if feedback is None:
            self._refuse_feedback()
            return
        locked: list[str] = []
        for page in self.job.selector.feedback():
            for ids in portions(page, self.job.settings.purge.batch):
                room = self._feedback_room()
                if not room:
                    return
                report = purger.purge_feedback(feedback, ids[:room])
                self.tally.add(report.tally)
                locked = [*locked, *report.unlocked][:LOCKED_AT_MOST]
        if locked:
            again = purger.purge_feedback(feedback, locked, waiting=True)
            self.tally.add(again.tally)
            self._spare_locked(len(again.unlocked))

    def _feedback_room(self) -> int:
        """How many feedback rows a batch may take: the budget allows as many of them as of conversations."""
        if self.steering.is_cut_short():
            return 0
        most = self.budget.purges
        batch = self.job.settings.purge.batch
        return batch if most is None else max(0, min(batch, most - self.tally.feedback_by_rule.total()))

    def _refuse_feedback(self) -> None:
        """Feedback behind a view cannot be purged: what is due of it has failed."""
        found = survey_feedback(self.job)
        if found.due_feedback:
            log.get().error(
                "feedback is due but was not purged: the relation is a view. Name its table in [purge.feedback]",
                rows=found.due_feedback,
            )
        self.tally.add(replace(found, feedback_by_rule=Counter(), failed=found.due_feedback))

    def _sweep_strays(self) -> int:
        """Children without a key may have been inserted while their conversation was deleted: delete them now."""
        if not any(key.declared for key in self.job.contract.conversations.children):
            return 0
        database = self.job.database
        strays = 0
        for run_id in database.within(lambda c: evidence.unfinished_runs(c, self.lease.store)):
            for ids in evidence.purged_by(database, run_id):
                strays += self._delete_strays(ids)
        return strays

    def _delete_strays(self, ids: list[str]) -> int:
        def delete(connection: Connection) -> int:
            self.lease.renew(connection)
            return purge.delete_strays(connection, self.job.contract, ids, self.opened.id)

        return self.job.database.within(delete)

    def _finish(self) -> Result:
        purged = self.job.database.within(lambda c: evidence.purged_by_rule(c, self.opened.id))
        pending = objects.count_pending(self.job.database)
        outcome: evidence.Outcome = "completed"
        if self.steering.stopped:
            outcome = "stopped"
        elif self.tally.failed:
            outcome = "failed"
        seconds = time.monotonic() - self.started
        result = Result(
            self.job, self.opened.id, outcome, self.tally, purged, pending, self.strays, seconds, self.steering
        )
        self.close(outcome, result.as_json())
        return result

    def _renew(self) -> None:
        self.job.database.within(self.lease.renew)

    def _renew_or_stop(self) -> None:
        self._renew()
        if self.steering.is_over():
            raise _InterruptedError

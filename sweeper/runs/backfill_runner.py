"""Executes the plan of a backfill slice by slice, the oldest due date first.

    allowed hours → lease → sweep the slice's window → record progress → release the lease

Invariants: each slice is an ordinary sweep, decided again under lock and with its own evidence. A nightly run preempts a slice.
A backfill that was killed resumes at its last slice.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import inf
from typing import Any

from sqlalchemy.exc import DBAPIError

from sweeper import log
from sweeper.copies import delivery
from sweeper.errors import LeaseHeldError, LeaseLostError, RefusedError
from sweeper.policy.hours import Hours
from sweeper.policy.instant import rfc3339
from sweeper.policy.window import Window, slices
from sweeper.postgres import backfills, evidence, hazards, pace, pauses, vacuum
from sweeper.postgres.backfills import BackfillPlan
from sweeper.postgres.run_sign import RunSign
from sweeper.runs import approval as approvals
from sweeper.runs.backfill import refuse_other_policy
from sweeper.runs.heartbeat import heartbeat
from sweeper.runs.job import Job, read_contract
from sweeper.runs.result import Result
from sweeper.runs.session import RunKind
from sweeper.runs.sweep import sweep
from sweeper.runs.throttle import STEP_SECONDS, Budget, ProgressListener, StopReason
from sweeper.settings import load_policy

LOG_SECONDS = 60.0
"""How often a waiting backfill logs why it waits."""
LOOK_SECONDS = 2.0
"""Seconds between checks whether the lease is free, the allowed hours have begun or a pause has ended."""


@dataclass
class BackfillOutcome:
    """The result of one execution of a plan. `left`: due conversations that failed, stayed locked or were skipped."""

    plan: BackfillPlan
    outcome: str
    stop_reason: str
    purged: int
    purged_now: int
    failed: int
    left: int
    done_until: datetime
    seconds: float

    @property
    def is_stalled(self) -> bool:
        """True if the execution purged nothing although records were due. Reported as a failure."""
        return self.purged_now == 0 and (self.left > 0 or bool(self.stop_reason))

    def as_json(self) -> dict[str, Any]:
        """Return the outcome for machines."""
        return {
            "backfill": self.plan.id,
            "since": self.plan.since,
            "until": self.plan.until,
            "by": self.plan.by,
            "outcome": self.outcome,
            "stop_reason": self.stop_reason or None,
            "expected": self.plan.expected,
            "purged": self.purged,
            "purged_now": self.purged_now,
            "failed": self.failed,
            "left": self.left,
            "stalled": self.is_stalled,
            "done_until": self.done_until,
            "duration_s": round(self.seconds, 3),
        }


@dataclass
class BackfillRunner:
    """Executes one plan slice by slice until it is complete or must stop."""

    job: Job
    plan: BackfillPlan
    watch: ProgressListener = field(default_factory=ProgressListener)
    budget: Budget = field(default_factory=Budget)
    hours: Hours | None = None
    accept_history: bool = False
    accept_policy: str | None = None
    stopped: str = ""
    failed: int = 0
    left: int = 0
    before: int = 0
    purged_now: int = 0
    logged: float = -inf
    free_at: float = -inf
    started: float = field(default_factory=time.monotonic)
    between: ProgressListener = field(default_factory=ProgressListener)

    def run(self) -> BackfillOutcome:
        """Sweep the remaining slices; however that ends, record that nobody works on the plan any more.

        Raises:
            LeaseHeldError: another process executes a backfill of the store.
            RefusedError: a guard refused, or the policy has changed since the approval; earlier purges stand.
            ConfigurationError: the policy can no longer be read; earlier purges stand.
        """
        sign = RunSign(self.job.database, f"backfill {self.plan.id}")
        self.between = self.watch.signed(sign)
        try:
            with heartbeat(self.job.database, self.plan, self.job.clock):
                outcome = self._run()
                vacuum.after_run(self.job.database, self.job.contract)
        finally:
            sign.close()
            with suppress(DBAPIError):  # a server that is gone: the heartbeat grows old instead
                backfills.stopped(self.job.database, self.plan, self.job.clock.now())
        delivery.deliver_after_run(self.job.database, self.job.clock)
        return outcome

    def _run(self) -> BackfillOutcome:
        hazards.warn(self.job.database, self.job.contract)
        self.before = self._purged()
        self.watch.expect(self.plan.expected)
        self.watch.advance(self.before)
        done_until = self.plan.done_until
        for window in slices(done_until, self.plan.until, self.plan.by):
            while not self._sweep_slice(window):
                if self.stopped:
                    return self._outcome("stopped", done_until)
            done_until = window.until or done_until
            if not self._record_progress(done_until):
                self.stopped = StopReason.GIVEN_UP
                return self._outcome("stopped", done_until)
        backfills.finish(self.job.database, self.plan, self.job.clock.now(), self._purged())
        return self._outcome("failed" if self.failed else "completed", done_until)

    def _record_progress(self, done_until: datetime) -> bool:
        """Record how far the plan has come; return False if it was given up in the meantime."""
        now = self.job.clock.now()
        return self.job.database.within(lambda c: backfills.record_seen(c, self.plan, now, done_until))

    def _sweep_slice(self, window: Window) -> bool:
        """Sweep a slice; False means try it again, unless `stopped` has a reason to stop."""
        self._wait_until_free()
        if self.stopped:
            return False
        refuse_other_policy(
            self.plan,
            load_policy(self.job.settings).digest,
            lambda: f"{self._purged()} were purged before it changed; no more was.",
        )
        job = replace(
            self.job,
            as_of=self.job.clock.now(),
            contract=read_contract(self.job.database, self.job.policy),
            window=window,
            further_reason=self._outside_hours,
        )
        if not any(page.free for page in job.selector.pages()):
            return True
        try:
            return self._is_complete(self._sweep_window(job), window)
        except LeaseHeldError:
            if backfills.holder(job.database, job.contract.schema) == "backfill":
                raise
            self._sleep("a run holds the lease", LOOK_SECONDS)
        except LeaseLostError:  # this process was frozen for longer than the lease, and a run took it over
            log.get().warning("a run has taken the lease over; the slice is tried again", backfill=self.plan.id)
            self.purged_now = self._purged() - self.before
        except RefusedError as refusal:
            if refusal.guard != "paused":
                raise
        return False

    def _sweep_window(self, job: Job) -> Result:
        watch = replace(self.watch, expect=lambda _: None)
        run_kind, approval = RunKind("backfill", self.plan.id), approvals.read(self.plan.approval)
        result = sweep(
            job,
            approval=approval,
            accept_history=self.accept_history,
            accept_policy=self.accept_policy,
            watch=watch,
            budget=self._remaining_budget(),
            run_kind=run_kind,
        )
        self.purged_now += result.count
        self.failed += result.counts.failed
        self.left += result.overdue if result.outcome != "stopped" else 0
        self.free_at = result.throttle.earliest
        return result

    def _is_complete(self, result: Result, window: Window) -> bool:
        self._log_slice(result, window)
        if result.outcome != "stopped":
            return True
        if result.throttle.stopped in (StopReason.SIGNAL, StopReason.MAX_RUNTIME, StopReason.MAX_PURGE):
            self.stopped = result.throttle.stopped
        return False

    def _log_slice(self, result: Result, window: Window) -> None:
        purged, now = self._purged(), self.job.clock.now()
        rate = self.job.database.within(lambda c: pace.recent(c, self.job.contract.schema, now))
        remaining = pace.remaining_seconds(self.plan.expected - purged, rate)
        log.get().info(
            "slice",
            backfill=self.plan.id,
            since=_rfc3339_or_none(window.since),
            until=_rfc3339_or_none(window.until),
            outcome=result.outcome,
            stop_reason=result.throttle.stopped or None,
            purged=result.count,
            purged_in_all=purged,
            expected=self.plan.expected,
            per_second=round(rate, 1) if rate else None,
            remaining_seconds=round(remaining) if remaining is not None else None,
        )

    def _outside_hours(self) -> str:
        is_outside = self.hours is not None and not self.hours.holds(self.job.clock.now())
        return self.job.further_reason() or (StopReason.HOURS if is_outside else "")

    def _remaining_budget(self) -> Budget:
        """Return the budget less the time and the purges already used."""
        seconds, purges = self.budget.seconds, self.budget.purges
        return replace(
            self.budget,
            seconds=None if seconds is None else max(seconds - (time.monotonic() - self.started), 0.0),
            purges=None if purges is None else max(purges - self.purged_now, 0),
        )

    def _wait_until_free(self) -> None:
        """Wait, without the lease, for the allowed hours, the rate and the end of a pause; set `stopped` on a reason to stop."""
        while not self._must_stop() and (reason := self._reason_to_wait()):
            early = self.free_at - time.monotonic()
            self._sleep(reason, min(LOOK_SECONDS, early) if early > 0 else LOOK_SECONDS)
        self.between.waits("")

    def _must_stop(self) -> bool:
        left = self._remaining_budget()
        spent = StopReason.MAX_RUNTIME if left.seconds == 0.0 else StopReason.MAX_PURGE if left.purges == 0 else ""
        self.stopped = self.stopped or self.job.stop_reason() or spent
        return bool(self.stopped)

    def _reason_to_wait(self) -> str:
        now = self.job.clock.now()
        if self.hours is not None and not self.hours.holds(now):
            return f"until {self.hours}, in {self.hours.until_open(now)}"
        for pause in pauses.in_force(self.job.database):
            return f"paused: {pause['reason']}"
        if time.monotonic() < self.free_at:
            return f"no more than {self.budget.per_second:g} a second"
        return ""

    def _sleep(self, reason: str, seconds: float) -> None:
        self.between.waits(reason)
        if time.monotonic() - self.logged > LOG_SECONDS:
            self.logged = time.monotonic()
            log.get().info("backfill waits", backfill=self.plan.id, because=reason)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.job.stop_reason():
            time.sleep(min(STEP_SECONDS, left))

    def _purged(self) -> int:
        under: Callable[[Any], dict[str, int]] = lambda c: evidence.purged_under(c, self.plan.approval)  # noqa: E731
        return sum(self.job.database.within(under).values())

    def _outcome(self, outcome: str, done_until: datetime) -> BackfillOutcome:
        seconds = time.monotonic() - self.started
        return BackfillOutcome(
            plan=self.plan,
            outcome=outcome,
            stop_reason=self.stopped,
            purged=self._purged(),
            purged_now=self.purged_now,
            failed=self.failed,
            left=self.left,
            done_until=done_until,
            seconds=seconds,
        )


def _rfc3339_or_none(instant: datetime | None) -> str | None:
    return rfc3339(instant) if instant is not None else None

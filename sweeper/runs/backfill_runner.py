"""Runs a backfill plan slice by slice, the oldest due dates first.

    hours → lease → sweep the slice's window → note how far → give the lease back

Invariant: a slice is a sweep like any other (decided again under lock, with evidence of its own); a nightly run always
goes first; killed anywhere and started again, it goes on where it was.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import inf
from typing import Any

from sweeper import log
from sweeper.errors import LeaseHeldError, LeaseLostError, RefusedError
from sweeper.policy.hours import Hours
from sweeper.policy.instant import rfc3339
from sweeper.policy.window import Window, slices
from sweeper.postgres import backfills, evidence, hazards, pauses
from sweeper.postgres.backfills import BackfillPlan
from sweeper.runs import approval as approvals
from sweeper.runs.backfill import refuse_other_policy
from sweeper.runs.job import Job, read_contract
from sweeper.runs.result import Result
from sweeper.runs.session import RunKind
from sweeper.runs.sweep import sweep
from sweeper.runs.throttle import STEP_SECONDS, Budget, ProgressListener, StopReason
from sweeper.settings import load_policy

LOOK_SECONDS = 2.0
"""How often a waiting backfill checks whether it may continue: for the lease, the hours, the end of a pause."""
SEEN = timedelta(seconds=60)
"""How often a backfill records its heartbeat, whether it works or waits."""


@dataclass
class BackfillOutcome:
    """The progress of a backfill. `left`: due, but failed, locked, not approved or skipped."""

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
        """True if nothing was purged although conversations were due. Reported as a failure."""
        return self.purged_now == 0 and (self.left > 0 or bool(self.stop_reason))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "backfill": self.plan.id,
            "since": rfc3339(self.plan.since),
            "until": rfc3339(self.plan.until),
            "by": self.plan.by.value,
            "outcome": self.outcome,
            "stop_reason": self.stop_reason or None,
            "expected": self.plan.expected,
            "purged": self.purged,
            "purged_now": self.purged_now,
            "failed": self.failed,
            "left": self.left,
            "stalled": self.is_stalled,
            "done_until": rfc3339(self.done_until),
            "duration_s": round(self.seconds, 3),
        }


@dataclass
class BackfillRunner:
    """Works on one plan, slice by slice, until it is done or asked to stop."""

    job: Job
    plan: BackfillPlan
    watch: ProgressListener = field(default_factory=ProgressListener)
    budget: Budget = field(default_factory=Budget)
    hours: Hours | None = None
    accept_history: bool = False
    stopped: str = ""
    failed: int = 0
    left: int = 0
    before: int = 0
    purged_now: int = 0
    seen: datetime | None = None
    free_at: float = -inf
    working: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def run(self) -> BackfillOutcome:
        """Sweep all remaining slices.

        Raises:
            LeaseHeldError: another process is at work on a backfill of the store.
            RefusedError: a guard refused, or the policy is another than was approved; what was purged before stands.
            ConfigurationError: the policy cannot be read any more; what was purged before stands.
        """
        self._be_seen()
        hazards.warn(self.job.database, self.job.contract)
        self.before = self._purged()
        self.watch.expect(self.plan.expected)
        self.watch.advance(self.before)
        done_until = self.plan.done_until
        for window in slices(done_until, self.plan.until, self.plan.by):
            while not self._is_swept(window):
                if self.stopped:
                    return self._ended("stopped", done_until)
            done_until = window.until or done_until
            if not backfills.seen(self.job.database, self.plan, self.job.clock.now(), done_until):
                self.stopped = StopReason.GIVEN_UP
                return self._ended("stopped", done_until)
        backfills.finish(self.job.database, self.plan, self.job.clock.now(), self._purged())
        return self._ended("failed" if self.failed else "completed", done_until)

    def _is_swept(self, window: Window) -> bool:
        """Sweep one slice; return False if it must be tried again, unless `stopped` holds a reason to stop."""
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
            return self._is_done(self._swept(job), window)
        except LeaseHeldError:
            if backfills.holder(job.database, job.contract.schema) == "backfill":
                raise
            self._sleep("a run holds the lease", LOOK_SECONDS)
        except LeaseLostError:  # this process was frozen for longer than a lease lasts, and a run went first
            log.get().warning("a run has taken the lease over; the slice is tried again", backfill=self.plan.id)
            self.purged_now = self._purged() - self.before
        except RefusedError as refusal:
            if refusal.guard != "paused":
                raise
        return False

    def _swept(self, job: Job) -> Result:
        watch = replace(self.watch, expect=lambda _: None, advance=self._advance)
        run_kind, approval = RunKind("backfill", self.plan.id), approvals.read(self.plan.approval)
        result = sweep(
            job,
            approval=approval,
            accept_history=self.accept_history,
            watch=watch,
            budget=self._left(),
            run_kind=run_kind,
        )
        self.purged_now += result.count
        self.failed += result.counts.failed
        self.left += result.overdue if result.outcome != "stopped" else 0
        self.working += result.seconds
        self.free_at = result.throttle.earliest
        return result

    def _advance(self, count: int) -> None:
        self.watch.advance(count)
        self._be_seen()

    def _be_seen(self) -> bool:
        """Record the heartbeat if the last one is old enough; return True if it was recorded."""
        now = self.job.clock.now()
        if self.seen is not None and now - self.seen < SEEN:
            return False
        self.seen = now
        backfills.seen(self.job.database, self.plan, now)
        return True

    def _is_done(self, result: Result, window: Window) -> bool:
        self._tell(result, window)
        if result.outcome != "stopped":
            return True
        if result.throttle.stopped in (StopReason.SIGNAL, StopReason.MAX_RUNTIME, StopReason.MAX_PURGE):
            self.stopped = result.throttle.stopped
        return False

    def _tell(self, result: Result, window: Window) -> None:
        purged, rate = self._purged(), self.purged_now / self.working if self.working else 0.0
        left = max(self.plan.expected - purged, 0)
        log.get().info(
            "slice",
            backfill=self.plan.id,
            since=_said(window.since),
            until=_said(window.until),
            outcome=result.outcome,
            stop_reason=result.throttle.stopped or None,
            purged=result.count,
            purged_in_all=purged,
            expected=self.plan.expected,
            per_second=round(rate, 1),
            remaining_seconds=round(left / rate) if rate else None,
        )

    def _outside_hours(self) -> str:
        is_outside = self.hours is not None and not self.hours.holds(self.job.clock.now())
        return self.job.further_reason() or (StopReason.HOURS if is_outside else "")

    def _left(self) -> Budget:
        """Return the rest of the budget."""
        seconds, purges = self.budget.seconds, self.budget.purges
        return replace(
            self.budget,
            seconds=None if seconds is None else max(seconds - (time.monotonic() - self.started), 0.0),
            purges=None if purges is None else max(purges - self.purged_now, 0),
        )

    def _wait_until_free(self) -> None:
        """Wait for the hours, the rate and the end of a pause, without the lease; a reason to stop is put in `stopped`."""
        while not self._is_spent() and (reason := self._reason_to_wait()):
            early = self.free_at - time.monotonic()
            self._sleep(reason, min(LOOK_SECONDS, early) if early > 0 else LOOK_SECONDS)
        self.watch.waits("")

    def _is_spent(self) -> bool:
        left = self._left()
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
        self.watch.waits(reason)
        if self._be_seen():
            log.get().info("backfill waits", backfill=self.plan.id, because=reason)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.job.stop_reason():
            time.sleep(min(STEP_SECONDS, left))

    def _purged(self) -> int:
        under: Callable[[Any], dict[str, int]] = lambda c: evidence.purged_under(c, self.plan.approval)  # noqa: E731
        return sum(self.job.database.within(under).values())

    def _ended(self, outcome: str, done_until: datetime) -> BackfillOutcome:
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


def _said(instant: datetime | None) -> str | None:
    return rfc3339(instant) if instant is not None else None

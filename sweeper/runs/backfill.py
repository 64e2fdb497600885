"""The plan of a backfill: years of what is overdue, previewed as a whole, approved once, begun, gone on with, given up.

The law of this file: nothing is purged here; `drain.py` does that, and only what a plan's approval covers.
"""

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sweeper.errors import ConfigurationError, RefusedError
from sweeper.policy.anomaly import anomalies
from sweeper.policy.counts import Counts
from sweeper.policy.evaluate import Outcome
from sweeper.policy.instant import rfc3339
from sweeper.policy.window import Slice, Window, slices
from sweeper.postgres import backfills, store_counts
from sweeper.postgres.backfills import BackfillPlan
from sweeper.runs import approval as approvals
from sweeper.runs.approval import Approval
from sweeper.runs.job import Job
from sweeper.runs.scan import evaluations, portions
from sweeper.runs.throttle import ProgressListener


@dataclass(frozen=True)
class BackfillScope:
    """What a backfill is about: dues from `since` to `until` (UTC), in slices."""

    since: datetime
    until: datetime
    by: Slice

    @property
    def window(self) -> Window:
        """All its dues."""
        return Window(self.since, self.until)

    def __str__(self) -> str:
        return f"backfill {rfc3339(self.since)}/{rfc3339(self.until)}/{self.by.value}"


def refuse_future(scope: BackfillScope, now: datetime) -> None:
    """A backfill is about what is overdue.

    Raises:
        ConfigurationError: its end lies ahead, or its beginning is not before its end.
    """
    if scope.until > now:
        raise ConfigurationError(
            f"--until {rfc3339(scope.until)} is later than now, {rfc3339(now)}: what is not due yet is no backfill. "
            "Nothing was done. Give an --until that is not in the future."
        )
    if scope.since >= scope.until:
        raise ConfigurationError("--since is not before --until. Nothing was done.")


@dataclass
class BackfillPreview:
    """What a backfill would purge now: in all, and by slice."""

    job: Job
    scope: BackfillScope
    counts: Counts
    by_slice: list[tuple[Window, int]]
    approval: Approval
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """For machines; `digest` is what `backfill --approve` takes."""
        return {
            "as_of": rfc3339(self.job.as_of),
            "policy": self.job.policy.digest,
            "since": rfc3339(self.scope.since),
            "until": rfc3339(self.scope.until),
            "by": self.scope.by.value,
            "would_purge": self.counts.due,
            **self.counts.as_json(),
            "slices": [
                {"since": _said(window.since), "until": _said(window.until), "would_purge": count}
                for window, count in self.by_slice
                if count
            ],
            "digest": self.approval.token(),
            "duration_s": round(self.seconds, 3),
        }


def preview(job: Job, scope: BackfillScope, watch: ProgressListener | None = None) -> BackfillPreview:
    """What a backfill would purge now; nothing is locked or written."""
    watch, started, counts = watch or ProgressListener(), time.monotonic(), Counts()
    windows = list(slices(scope.since, scope.until, scope.by))
    begins = [window.since for window in windows if window.since]
    by_day: Counter[int] = Counter()
    within = replace(job, window=scope.window)
    for page in within.selector.pages():
        for portion in portions((*page.free, *page.held), job.settings.purge.batch):
            for known, evaluation in evaluations(within, portion):
                counts.count(
                    "conversation", evaluation, anomalies(known, job.policy, job.as_of, present=job.is_present)
                )
                if evaluation.outcome is Outcome.PURGE and evaluation.verdict.due:
                    by_day[bisect_right(begins, evaluation.verdict.due) - 1] += 1
            watch.advance(len(portion))
    by_slice = [(window, by_day[number]) for number, window in enumerate(windows)]
    approval = Approval(_store(job), job.policy.digest, job.as_of, job.clock.now(), dict(counts.by_rule), str(scope))
    return BackfillPreview(job, scope, counts, by_slice, approval, time.monotonic() - started)


def begin(job: Job, scope: BackfillScope, token: str | None) -> BackfillPlan:
    """The plan to work on: begun under the approval of its preview, or one that was begun before and has not ended.

    Raises:
        RefusedError: nothing was approved for it, or something else was, or the policy has changed since.
    """
    approval = approvals.read(token) if token is not None else None
    if approval is not None:
        approvals.refuse_other(approval, _store(job), job.policy.digest, str(scope))
    with job.database.transaction() as connection:
        plan = _begun(connection, job, scope, token)
    if plan is None:
        if approval is None or token is None:
            raise RefusedError(
                "approval",
                f"no {scope} has been approved.",
                "",
                "Preview it with --dry-run, and begin it with --approve DIGEST; after that it goes on without.",
            )
        approvals.refuse_lapsed(approval, job.clock.now())
        plan = _recorded(job, scope, approval)
    refuse_other_policy(plan, job.policy.digest, lambda: "Nothing was purged.")
    return plan


def refuse_other_policy(plan: BackfillPlan, digest: str, done: Callable[[], str]) -> None:
    """What was approved under one policy is not purged under another; `done` tells what has been purged, where it is asked.

    Raises:
        RefusedError: the policy is another.
    """
    if plan.policy_digest != digest:
        raise RefusedError(
            "approval",
            f"{BackfillScope(plan.since, plan.until, plan.by)} was approved under policy {plan.policy_digest[:12]}.",
            f"This is policy {digest[:12]}.",
            "Preview again with --dry-run, and approve what it finds.",
            done(),
        )


def _begun(connection: Any, job: Job, scope: BackfillScope, token: str | None) -> BackfillPlan | None:
    if token is not None:
        return backfills.by_approval(connection, token.strip())
    return backfills.of_scope(connection, job.contract.schema, scope.since, scope.until, scope.by)


def give_up(job: Job, scope: BackfillScope) -> BackfillPlan:
    """End a plan that nobody goes on with; runs take what it has left.

    Raises:
        ConfigurationError: there is none to be given up.
    """
    with job.database.transaction() as connection:
        plan = _begun(connection, job, scope, None)
        if plan is None or plan.finished_at is not None:
            raise ConfigurationError(f"no unfinished {scope} is there. Nothing was given up. See `sweeper status`.")
        backfills.give_up(connection, plan, job.clock.now())
    return plan


def _recorded(job: Job, scope: BackfillScope, approval: Approval) -> BackfillPlan:
    with job.database.transaction() as connection:
        return backfills.begin(
            connection,
            store=job.contract.schema,
            since=scope.since,
            until=scope.until,
            by=scope.by.value,
            policy_digest=approval.policy,
            approval=approval.token(),
            expected=sum(approval.due.values()),
            now=job.clock.now(),
        )


def _store(job: Job) -> str:
    return job.database.within(lambda c: store_counts.identity(c, job.settings.store.schema_name))


def _said(instant: datetime | None) -> str | None:
    return rfc3339(instant) if instant is not None else None

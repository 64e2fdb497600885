"""Begins, resumes and gives up the plan of a backfill: a long range of overdue records that is previewed and approved once.

Nothing is purged here; `backfill_runner.py` does that, within the plan's approval.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sweeper.errors import ConfigurationError, RefusedError
from sweeper.policy.instant import parse, rfc3339
from sweeper.policy.window import Slice, Window
from sweeper.postgres import backfills, store_counts
from sweeper.postgres.backfills import BackfillPlan
from sweeper.runs import approval as approvals
from sweeper.runs import policy_change
from sweeper.runs.approval import Approval
from sweeper.runs.job import Job


@dataclass(frozen=True)
class BackfillScope:
    """The due dates that a backfill covers, from `since` to before `until` (UTC), divided into slices."""

    since: datetime
    until: datetime
    by: Slice

    @property
    def window(self) -> Window:
        """The whole range of due dates."""
        return Window(self.since, self.until)

    @classmethod
    def parse(cls, text: str) -> "BackfillScope":
        """Return the scope from the text that `str` returns.

        Raises:
            ValueError: the text is no scope.
        """
        since, until, by = text.removeprefix("backfill ").split("/")
        return cls(parse(since), parse(until), Slice(by))

    def __str__(self) -> str:
        return f"backfill {rfc3339(self.since)}/{rfc3339(self.until)}/{self.by.value}"


def scope_of(approval: Approval) -> BackfillScope:
    """Return the scope of the backfill that an approval is for.

    Raises:
        RefusedError: the approval is for a run.
    """
    if not approval.scope:
        raise RefusedError("approval", "the approval is for a run.", "This is a backfill.", approvals.REMEDY)
    return BackfillScope.parse(approval.scope)


def refuse_future(scope: BackfillScope, now: datetime) -> None:
    """Refuse a scope that ends in the future or is empty: a backfill purges overdue records only.

    Raises:
        ConfigurationError: `until` is in the future, or `since` is not before it.
    """
    if scope.until > now:
        raise ConfigurationError(
            f"--until {rfc3339(scope.until)} is later than now, {rfc3339(now)}: a backfill covers only what is overdue. "
            "Nothing was done. Give an --until that is not in the future."
        )
    if scope.since >= scope.until:
        raise ConfigurationError("--since is not before --until. Nothing was done.")


def begin(job: Job, scope: BackfillScope, approval: Approval | None, accept_policy: str | None = None) -> BackfillPlan:
    """Begin a plan under `approval`, or return the unfinished plan that was begun before.

    Raises:
        RefusedError: the scope was not approved, the approval is for something else, the policy has changed since, or it is not
            that of the last run and nobody has accepted it.
    """
    if approval is not None:
        approvals.refuse_other(approval, _store_identity(job), job.policy.digest, str(scope))
    with job.database.transaction() as connection:
        plan = _find_plan(connection, job, scope, approval)
    if plan is None:
        if approval is None:
            raise RefusedError(
                "approval",
                f"no {scope} has been approved.",
                "",
                "Preview it with --dry-run, and begin it with --approve DIGEST or --plan FILE; after that it goes on without.",
            )
        approvals.refuse_lapsed(approval, job.clock.now())
        for refusal in policy_change.refusals(job, policy_change.find(job), accept_policy):
            raise refusal
        plan = _record_plan(job, scope, approval)
    refuse_other_policy(plan, job.policy.digest, lambda: "Nothing was purged.")
    return plan


def refuse_other_policy(plan: BackfillPlan, digest: str, done: Callable[[], str]) -> None:
    """Refuse a plan that was approved under another policy; `done` is called only then and returns what was purged so far.

    Raises:
        RefusedError: the policy has changed.
    """
    if plan.policy_digest != digest:
        raise RefusedError(
            "approval",
            f"{BackfillScope(plan.since, plan.until, plan.by)} was approved under policy {plan.policy_digest[:12]}.",
            f"This is policy {digest[:12]}.",
            "Preview again with --dry-run, and approve what it finds.",
            done(),
        )


def _find_plan(connection: Any, job: Job, scope: BackfillScope, approval: Approval | None) -> BackfillPlan | None:
    if approval is not None:
        return backfills.by_approval(connection, approval.token())
    return backfills.of_scope(connection, job.contract.schema, scope.since, scope.until, scope.by)


def give_up(job: Job, scope: BackfillScope) -> BackfillPlan:
    """End an unfinished plan, so that runs purge the rest of its range.

    Raises:
        ConfigurationError: the scope has no unfinished plan.
    """
    with job.database.transaction() as connection:
        plan = _find_plan(connection, job, scope, None)
        if plan is None or plan.finished_at is not None:
            raise ConfigurationError(f"no unfinished {scope} is there. Nothing was given up. See `sweeper status`.")
        backfills.give_up(connection, plan, job.clock.now())
    return plan


def _record_plan(job: Job, scope: BackfillScope, approval: Approval) -> BackfillPlan:
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


def _store_identity(job: Job) -> str:
    return job.database.within(lambda c: store_counts.identity(c, job.settings.store.schema_name))

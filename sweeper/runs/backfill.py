"""The life of a backfill plan: previewed as a whole, approved once, begun, continued, and finished or given up.

Invariant: nothing is purged here; `drain.py` does that, and only what a plan's approval covers.
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
from sweeper.runs.approval import Approval
from sweeper.runs.job import Job


@dataclass(frozen=True)
class BackfillScope:
    """The scope of a backfill: due dates from `since` to `until` (UTC), in slices of `by`."""

    since: datetime
    until: datetime
    by: Slice

    @property
    def window(self) -> Window:
        """The window of its due dates."""
        return Window(self.since, self.until)

    @classmethod
    def parse(cls, text: str) -> "BackfillScope":
        """Parse a scope as `str` writes it.

        Raises:
            ValueError: the text is none.
        """
        since, until, by = text.removeprefix("backfill ").split("/")
        return cls(parse(since), parse(until), Slice(by))

    def __str__(self) -> str:
        return f"backfill {rfc3339(self.since)}/{rfc3339(self.until)}/{self.by.value}"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"since": rfc3339(self.since), "until": rfc3339(self.until), "by": self.by.value}


def scope_of(approval: Approval) -> BackfillScope:
    """Return the scope of the backfill that an approval is for.

    Raises:
        RefusedError: it is for a run.
    """
    if not approval.scope:
        raise RefusedError("approval", "the approval is for a run.", "This is a backfill.", approvals.REMEDY)
    return BackfillScope.parse(approval.scope)


def refuse_future(scope: BackfillScope, now: datetime) -> None:
    """Refuse a scope that ends in the future.

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


def begin(job: Job, scope: BackfillScope, approval: Approval | None) -> BackfillPlan:
    """Return the plan to work on: a new one under the approval, or one that was begun before and has not ended.

    Raises:
        RefusedError: nothing was approved for it, or something else was, or the policy has changed since.
    """
    if approval is not None:
        approvals.refuse_other(approval, _store(job), job.policy.digest, str(scope))
    with job.database.transaction() as connection:
        plan = _begun(connection, job, scope, approval)
    if plan is None:
        if approval is None:
            raise RefusedError(
                "approval",
                f"no {scope} has been approved.",
                "",
                "Preview it with --dry-run, and begin it with --approve DIGEST or --plan FILE; after that it goes on without.",
            )
        approvals.refuse_lapsed(approval, job.clock.now())
        plan = _recorded(job, scope, approval)
    refuse_other_policy(plan, job.policy.digest, lambda: "Nothing was purged.")
    return plan


def refuse_other_policy(plan: BackfillPlan, digest: str, done: Callable[[], str]) -> None:
    """Refuse to continue a plan under another policy than it was approved under; `done` says what has been purged.

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


def _begun(connection: Any, job: Job, scope: BackfillScope, approval: Approval | None) -> BackfillPlan | None:
    if approval is not None:
        return backfills.by_approval(connection, approval.token())
    return backfills.of_scope(connection, job.contract.schema, scope.since, scope.until, scope.by)


def give_up(job: Job, scope: BackfillScope) -> BackfillPlan:
    """Give up a plan; runs purge what remains of it.

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

"""The plan of a backfill: years of what is overdue, previewed as a whole, approved once, begun, gone on with, given up.

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
    """What a backfill is about: dues from `since` to `until` (UTC), in slices."""

    since: datetime
    until: datetime
    by: Slice

    @property
    def window(self) -> Window:
        """All its dues."""
        return Window(self.since, self.until)

    @classmethod
    def parse(cls, text: str) -> "BackfillScope":
        """The scope that `str` wrote.

        Raises:
            ValueError: the text is none.
        """
        since, until, by = text.removeprefix("backfill ").split("/")
        return cls(parse(since), parse(until), Slice(by))

    def __str__(self) -> str:
        return f"backfill {rfc3339(self.since)}/{rfc3339(self.until)}/{self.by.value}"

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {"since": rfc3339(self.since), "until": rfc3339(self.until), "by": self.by.value}


def scope_of(approval: Approval) -> BackfillScope:
    """The backfill that an approval is for.

    Raises:
        RefusedError: it is for a run.
    """
    if not approval.scope:
        raise RefusedError("approval", "the approval is for a run.", "This is a backfill.", approvals.REMEDY)
    return BackfillScope.parse(approval.scope)


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


def begin(job: Job, scope: BackfillScope, approval: Approval | None) -> BackfillPlan:
    """The plan to work on: begun under the approval of its preview, or one that was begun before and has not ended.

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


def _begun(connection: Any, job: Job, scope: BackfillScope, approval: Approval | None) -> BackfillPlan | None:
    if approval is not None:
        return backfills.by_approval(connection, approval.token())
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

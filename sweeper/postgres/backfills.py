"""The recorded plans of backfills: begun under an approval, advanced slice by slice, finished or given up.

Beginning and end are recorded as events.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from sweeper.policy.instant import rfc3339
from sweeper.policy.window import Slice, Window
from sweeper.postgres import evidence
from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement

ALIVE = timedelta(hours=24)
"""A plan whose process was not seen for this long counts as given up: runs purge what remains of it."""

HEARTBEAT = timedelta(seconds=5)
"""How often the process of a backfill records that it is alive, whatever it does or waits for."""
SILENT = 3 * HEARTBEAT
"""A process whose heartbeat is older than this has died, or its machine has stopped."""


@dataclass(frozen=True)
class BackfillPlan:
    """One recorded plan. `expected` is how many conversations were due under it when it was approved."""

    id: int
    since: datetime
    until: datetime
    by: Slice
    policy_digest: str
    approval: str
    expected: int
    done_until: datetime
    begun_at: datetime
    seen_at: datetime
    stopped_at: datetime | None
    finished_at: datetime | None

    @property
    def command(self) -> str:
        """The command that continues the plan."""
        span = f"--since {rfc3339(self.since)} --until {rfc3339(self.until)}"
        return f"sweeper backfill {span}{'' if self.by is Slice.MONTH else f' --by {self.by.value}'}"

    def is_silent(self, now: datetime) -> bool:
        """Return True if nobody works on the plan: its process has ended, or its heartbeat is older than `SILENT`."""
        return self.stopped_at is not None or now - self.seen_at > SILENT

    @property
    def window(self) -> Window:
        """The window of due dates that the plan covers."""
        return Window(self.since, self.until)


def begin(connection: Connection, **columns: Any) -> BackfillPlan:
    """Record a plan and return it; if the approval already has one, return that plan with its progress."""
    is_new = connection.execute(statement("backfill_begin"), columns).rowcount
    plan = by_approval(connection, columns["approval"])
    if plan is None:
        raise AssertionError("the plan that was just recorded is missing")
    if not is_new:
        return plan
    details = {"backfill": plan.id, "since": rfc3339(plan.since), "until": rfc3339(plan.until), "by": plan.by.value}
    evidence.record(connection, "backfill_begun", None, {**details, "expected": plan.expected})
    return plan


def by_approval(connection: Connection, approval: str) -> BackfillPlan | None:
    """Return the plan that was begun under an approval, if there is one."""
    return _one(connection, "r.approval = :approval", approval=approval)


def unfinished(connection: Connection, store: str) -> list[BackfillPlan]:
    """Return the unfinished plans of a store, oldest first."""
    rows = connection.execute(
        statement("backfills", condition="r.store = :store AND r.finished_at IS NULL"), {"store": store}
    )
    return [_plan(row) for row in rows]


def alive(connection: Connection, store: str, now: datetime) -> BackfillPlan | None:
    """Return the store's plan that binds its runs at `now` (see `binding`)."""
    return binding(unfinished(connection, store), now)


def binding(plans: Iterable[BackfillPlan], now: datetime) -> BackfillPlan | None:
    """Return the plan that binds the runs: of those whose process was seen lately, the one that reaches furthest."""
    living = [plan for plan in plans if now - plan.seen_at < ALIVE]
    return max(living, key=lambda plan: plan.until, default=None)


def record_seen(connection: Connection, plan: BackfillPlan, now: datetime, done_until: datetime | None = None) -> bool:
    """Record that the plan's process is alive and how far it has come, which only grows.

    Returns:
        False if the plan was given up in the meantime.
    """
    values = {"id": plan.id, "now": now, "done_until": done_until or plan.done_until}
    return bool(connection.execute(statement("backfill_seen"), values).rowcount)


def stopped(database: Database, plan: BackfillPlan, now: datetime) -> None:
    """Record that the plan's process ends although the plan is not finished."""
    values = {"id": plan.id, "now": now}
    database.within(lambda connection: connection.execute(statement("backfill_stopped"), values))


def give_up(connection: Connection, plan: BackfillPlan, now: datetime) -> None:
    """Record that nobody continues a plan, so that runs purge what remains of it."""
    if connection.execute(statement("backfill_give_up"), {"id": plan.id, "now": now}).rowcount:
        details = {"backfill": plan.id, "done_until": rfc3339(plan.done_until)}
        evidence.record(connection, "backfill_given_up", None, details)


def of_scope(connection: Connection, store: str, since: datetime, until: datetime, by: Slice) -> BackfillPlan | None:
    """Return the newest plan of a store with exactly this window and slicing; None if that one was given up."""
    condition = "r.store = :store AND r.since = :since AND r.until = :until AND r.slices = :by"
    parameters = {"store": store, "since": since, "until": until, "by": by.value}
    rows = connection.execute(statement("backfills", condition=condition), parameters).all()
    plan = _plan(rows[-1]) if rows else None
    given_up = plan is not None and plan.finished_at is not None and plan.done_until < plan.until
    return None if given_up else plan


def finish(database: Database, plan: BackfillPlan, now: datetime, purged: int) -> None:
    """Record that every slice has been swept, and how many conversations the plan purged."""

    def record_end(connection: Connection) -> None:
        if connection.execute(statement("backfill_finish"), {"id": plan.id, "now": now}).rowcount:
            evidence.record(connection, "backfill_finished", None, {"backfill": plan.id, "purged": purged})

    database.within(record_end)


def holder(database: Database, store: str) -> str | None:
    """Return the kind of run that holds the store's lease now; None if no known run does."""
    rows = database.fetched(statement("lease_holder"), {"store": store})
    return rows[0].kind if rows else None


def _one(connection: Connection, condition: str, **parameters: Any) -> BackfillPlan | None:
    row = connection.execute(statement("backfills", condition=condition), parameters).one_or_none()
    return _plan(row) if row is not None else None


def _plan(row: Any) -> BackfillPlan:
    values = dict(row._mapping)
    return BackfillPlan(**{**values, "by": Slice(values["by"])})

"""Records of backfill plans: begun under an approval, advanced slice by slice, finished. Begin and end leave an event."""

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
"""A plan without a heartbeat for this long counts as given up: runs purge what remains of it."""

SILENT = timedelta(minutes=10)
"""A running or waiting backfill records a heartbeat every minute; without one for this long it counts as absent."""


@dataclass(frozen=True)
class BackfillPlan:
    """A recorded backfill plan. `expected` is the number of conversations due when it was approved."""

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
    finished_at: datetime | None

    @property
    def command(self) -> str:
        """The command that continues it."""
        span = f"--since {rfc3339(self.since)} --until {rfc3339(self.until)}"
        return f"sweeper backfill {span}{'' if self.by is Slice.MONTH else f' --by {self.by.value}'}"

    @property
    def window(self) -> Window:
        """The window of its due dates."""
        return Window(self.since, self.until)


def begin(connection: Connection, **columns: Any) -> BackfillPlan:
    """Record a plan; return the existing one if it was begun under the same approval."""
    is_new = connection.execute(statement("backfill_begin"), columns).rowcount
    plan = by_approval(connection, columns["approval"])
    if plan is None:
        raise AssertionError("a plan that was just recorded is there")
    if not is_new:
        return plan
    told = {"backfill": plan.id, "since": rfc3339(plan.since), "until": rfc3339(plan.until), "by": plan.by.value}
    evidence.record(connection, "backfill_begun", None, {**told, "expected": plan.expected})
    return plan


def by_approval(connection: Connection, approval: str) -> BackfillPlan | None:
    """Return the plan begun under an approval."""
    return _one(connection, "r.approval = :approval", approval=approval)


def unfinished(connection: Connection, store: str) -> list[BackfillPlan]:
    """Return the unfinished plans of a store, oldest first."""
    rows = connection.execute(
        statement("backfills", condition="r.store = :store AND r.finished_at IS NULL"), {"store": store}
    )
    return [_plan(row) for row in rows]


def alive(connection: Connection, store: str, now: datetime) -> BackfillPlan | None:
    """Return, of a store's plans with a recent heartbeat, the one that reaches furthest."""
    return binding(unfinished(connection, store), now)


def binding(plans: Iterable[BackfillPlan], now: datetime) -> BackfillPlan | None:
    """Return the unfinished plan that runs respect: of those with a recent heartbeat, the one that reaches furthest."""
    found = [plan for plan in plans if now - plan.seen_at < ALIVE]
    return max(found, key=lambda plan: plan.until, default=None)


def seen(database: Database, plan: BackfillPlan, now: datetime, done_until: datetime | None = None) -> bool:
    """Record the heartbeat of a plan and its progress, which only grows; return False if it was given up meanwhile."""
    values = {"id": plan.id, "now": now, "done_until": done_until or plan.done_until}
    return bool(database.within(lambda connection: connection.execute(statement("backfill_seen"), values).rowcount))


def give_up(connection: Connection, plan: BackfillPlan, now: datetime) -> None:
    """Record that a plan is given up; runs purge what remains of it."""
    if connection.execute(statement("backfill_give_up"), {"id": plan.id, "now": now}).rowcount:
        told = {"backfill": plan.id, "done_until": rfc3339(plan.done_until)}
        evidence.record(connection, "backfill_given_up", None, told)


def of_scope(connection: Connection, store: str, since: datetime, until: datetime, by: Slice) -> BackfillPlan | None:
    """Return the newest plan of a store with exactly this scope, unless it was given up."""
    condition = "r.store = :store AND r.since = :since AND r.until = :until AND r.slices = :by"
    names = {"store": store, "since": since, "until": until, "by": by.value}
    rows = connection.execute(statement("backfills", condition=condition), names).all()
    plan = _plan(rows[-1]) if rows else None
    given_up = plan is not None and plan.finished_at is not None and plan.done_until < plan.until
    return None if given_up else plan


def finish(database: Database, plan: BackfillPlan, now: datetime, purged: int) -> None:
    """Record that every slice has been swept."""

    def note(connection: Connection) -> None:
        if connection.execute(statement("backfill_finish"), {"id": plan.id, "now": now}).rowcount:
            evidence.record(connection, "backfill_finished", None, {"backfill": plan.id, "purged": purged})

    database.within(note)


def holder(database: Database, store: str) -> str | None:
    """Return the kind of run that holds the store's lease; None if unknown."""
    rows = database.fetched(statement("lease_holder"), {"store": store})
    return rows[0].kind if rows else None


def _one(connection: Connection, condition: str, **parameters: Any) -> BackfillPlan | None:
    row = connection.execute(statement("backfills", condition=condition), parameters).one_or_none()
    return _plan(row) if row is not None else None


def _plan(row: Any) -> BackfillPlan:
    values = dict(row._mapping)
    return BackfillPlan(**{**values, "by": Slice(values["by"])})

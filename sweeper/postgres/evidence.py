"""Writes and reads runs, tombstones and events. Each is written in the transaction that it records and holds no content."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection

from sweeper.encoding import to_json
from sweeper.policy.schema import Policy
from sweeper.postgres import store_counts
from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement

Outcome = Literal["completed", "failed", "refused", "stopped"]


OPENED = (
    *("identity", "store", "as_of", "policy", "kind"),
    *("policy_name", "token", "approval", "started_at", "backfill_id"),
)
"""Keys of the event `run_opened`: columns of the run, except `identity` and `policy` (its policy_digest)."""


@dataclass(frozen=True)
class RunRecord:
    """The columns of a run that its batches need."""

    id: int
    store: str
    as_of: datetime
    policy_digest: str
    approved: bool


@dataclass(frozen=True)
class Tombstone:
    """The evidence of one purged record, with the columns' names."""

    record_id: str
    conversation_id: str | None
    account_id: str | None
    rule: str
    due_at: datetime
    children: Mapping[str, int]


@dataclass(frozen=True)
class LastCompleted:
    """What the last completed run counted, for the guards to compare with; all None if no run has completed."""

    as_of: datetime | None
    plan_changes: int | None
    consent_events: int | None


@dataclass(frozen=True)
class LastPolicy:
    """The policy of the last run that completed or purged anything.

    `accepted`: whether a later run has accepted the present policy in its place.
    """

    digest: str
    name: str
    accepted: bool


def open_run(connection: Connection, **columns: Any) -> int:
    """Record that a run has begun and mark earlier runs as interrupted; return the run's id.

    The event holds every column of the run, so that `audit verify` finds an edited row. `identity` binds the ledger to this
    database, so that `reapply` refuses it elsewhere.
    """
    run_id: int = connection.execute(statement("run_open"), columns).scalar_one()
    interrupted = connection.execute(
        statement("runs_interrupt"),
        {"store": columns["store"], "token": columns["token"], "now": columns["started_at"]},
    )
    for row in interrupted.all():
        ended = {"outcome": "interrupted", "finished_at": columns["started_at"]}
        record(connection, "run_interrupted", row.id, {"found_by": run_id, **ended})
    details = {**columns, "policy": columns["policy_digest"], "identity": store_counts.database_identity(connection)}
    record(connection, "run_opened", run_id, {name: details[name] for name in OPENED})
    return run_id


def close_run(
    connection: Connection,
    run_id: int,
    outcome: Outcome,
    finished_at: datetime,
    result: Mapping[str, Any],
    plan_changes: int | None,
    consent_events: int | None,
) -> None:
    """Record how a run ended."""
    details = {
        "outcome": outcome,
        "finished_at": finished_at,
        "plan_changes": plan_changes,
        "consent_events": consent_events,
    }
    columns = {"run_id": run_id, "result": json.dumps(result), **details}
    closed = connection.execute(statement("run_close"), columns).one_or_none()
    if closed is not None:  # None on a retry after the first answer was lost
        record(connection, "run_closed", run_id, {**details, "result": closed.result})


def record(connection: Connection, kind: str, run_id: int | None, details: Mapping[str, Any]) -> None:
    """Record an event; `encoding.to_json` encodes the details."""
    text = json.dumps(to_json(details))
    connection.execute(statement("insert_event"), {"kind": kind, "run_id": run_id, "details": text})


def last_completed(connection: Connection, store: str) -> LastCompleted:
    """Return what the last completed run of the store counted."""
    row = connection.execute(statement("run_last_completed"), {"store": store}).one()
    return LastCompleted(row.as_of, row.plan_changes, row.consent_events)


def last_policy(connection: Connection, store: str, digest: str) -> LastPolicy | None:
    """Return the policy of the last run that completed or purged anything; None if there is no such run.

    Args:
        connection: a connection to the store's database.
        store: the store.
        digest: the digest of the present policy, which a later run may have accepted.
    """
    row = connection.execute(statement("run_last_policy"), {"store": store, "digest": digest}).one_or_none()
    return LastPolicy(row.digest, row.name, row.accepted) if row is not None else None


def recorded_policy(connection: Connection, digest: str) -> str | None:
    """Return the normal form of a policy that a run has recorded; None if none has."""
    found: str | None = connection.execute(statement("policy_recorded"), {"digest": digest}).scalar_one_or_none()
    return found


def record_policy(connection: Connection, run_id: int, policy: Policy) -> None:
    """Record what a policy says, unless a run has recorded it. The text's SHA-256 is the digest."""
    if recorded_policy(connection, policy.digest) is None:
        details = {"digest": policy.digest, "name": policy.name, "policy": policy.normal_form}
        record(connection, "policy_recorded", run_id, details)


def insert_tombstones(
    connection: Connection,
    run: RunRecord,
    record_kind: Literal["conversation", "redaction", "feedback"],
    tombstones: Sequence[Tombstone],
    purged_at: datetime,
) -> None:
    """Insert one tombstone for each purged record."""
    connection.execute(
        statement("insert_tombstones"),
        {
            "record": record_kind,
            "as_of": run.as_of,
            "run_id": run.id,
            "policy_digest": run.policy_digest,
            "approved": run.approved,
            "purged_at": purged_at,
            "tombstones": json.dumps(to_json(tombstones)),
        },
    )


def purged_by_rule(connection: Connection, run_id: int) -> dict[str, dict[str, int]]:
    """Return how many records a run purged, from its tombstones: kind of record → rule → count."""
    purged: dict[str, dict[str, int]] = {"conversation": {}, "redaction": {}, "feedback": {}}
    for row in connection.execute(statement("purged_by_rule"), {"run_id": run_id}):
        purged[row.record][row.rule] = row.purged
    return purged


def purged_under(connection: Connection, approval: str) -> dict[str, int]:
    """Return how many conversations the runs under an approval have purged and redacted, by rule."""
    return {row.rule: row.purged for row in connection.execute(statement("purged_under"), {"approval": approval})}


def tombstone_of(connection: Connection, store: str, conversation_id: str) -> Mapping[str, Any] | None:
    """Return the newest tombstone of a conversation; None if there is none."""
    row = connection.execute(statement("tombstone_of"), {"store": store, "id": conversation_id}).one_or_none()
    return dict(row._mapping) if row is not None else None


def purged_lately(connection: Connection, store: str, since: datetime, until: datetime) -> Counter[str]:
    """Return how many conversations of the store were purged (`conversation`) and redacted (`redaction`) without an approval.

    Counted is what was purged after `since`, up to `until`.
    """
    rows = connection.execute(statement("purged_lately"), {"store": store, "since": since, "until": until})
    return Counter({row.record: row.purged for row in rows})


def unfinished_runs(connection: Connection, store: str) -> list[int]:
    """Return the ids of the runs since the last completed one, the current run included."""
    return [row.id for row in connection.execute(statement("runs_unfinished"), {"store": store})]


def purged_by(database: Database, run_id: int, page: int = 1_000) -> Iterator[list[str]]:
    """Yield the ids of the conversations that a run purged, in pages."""
    after = 0
    while True:
        rows = database.fetched(statement("purged_by_run"), {"run_id": run_id, "after": after, "limit": page})
        if rows:
            yield [row.record_id for row in rows]
            after = rows[-1].id
        if len(rows) < page:
            return

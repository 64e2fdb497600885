"""Manifests and what left them, as recorded: every change in one transaction with its event."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection

from sweeper.postgres import evidence, fence
from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement

ManifestState = Literal["frozen", "started", "completed"]
ManifestRow = Literal["freeze", "start", "recall"]
TRANSITION_MS = 60_000
"""How long a transition may keep batches and holds waiting, at the very most; it takes well under a second, too."""


@dataclass(frozen=True)
class RevokedRow:
    """A row of a manifest that may not be trained on any more, why, and since when (UTC)."""

    message_id: str
    conversation_id: str
    reason: str
    since: datetime


@contextmanager
def transition(database: Database) -> Iterator[Connection]:
    """A transaction that may wait for the batch at work, and has a minute for what it then does."""
    with fence.transaction(database, "Nothing was changed.", statement_timeout_ms=TRANSITION_MS) as connection:
        yield connection


@contextmanager
def fenced(database: Database) -> Iterator[Connection]:
    """A transaction that has the fence alone."""
    with transition(database) as connection:
        fence.take_exclusively(connection)
        yield connection


def add(connection: Connection, values: Mapping[str, Any]) -> bool:
    """Record a manifest as frozen; False where it is recorded already: built before with the same content."""
    return connection.execute(statement("manifest_add"), values).scalar_one_or_none() is not None


def tell(
    connection: Connection,
    kind: str,
    manifest_id: str,
    directory: str,
    revoked: Mapping[str, str],
    columns: Mapping[str, Any] = {},
) -> None:
    """Record that a manifest was frozen, copied or moved on, with the files that name what left it and their hashes.

    `columns` are those written to its row, so that `audit verify` finds a later edit of them.
    """
    details = {"manifest": manifest_id, "directory": directory, "revoked": dict(revoked), **columns}
    evidence.record(connection, f"manifest_{kind}", None, details)


def records(connection: Connection, manifest_id: str) -> list[dict[str, Any]]:
    """What was recorded of a manifest when it was frozen, copied and started: directory, files of what left, their hashes."""
    return [row.details for row in connection.execute(statement("manifest_records"), {"id": manifest_id})]


def get(connection: Connection, store: str, manifest_id: str | None = None) -> list[dict[str, Any]]:
    """The manifests of a store, oldest first, or the one of that id."""
    rows = connection.execute(statement("manifest_get"), {"store": store, "id": manifest_id})
    return [dict(row._mapping) for row in rows]


def move(
    connection: Connection,
    store: str,
    manifest_id: str,
    before: ManifestState,
    after: ManifestState,
    now: datetime,
) -> bool:
    """Move a manifest on; False where it is not in the state before."""
    asked = {"id": manifest_id, "store": store, "from": before, "state": after, "now": now}
    return connection.execute(statement("manifest_move"), asked).scalar_one_or_none() is not None


def revoke(
    connection: Connection, manifest_id: str, lost: Sequence[RevokedRow], now: datetime, found_by: ManifestRow
) -> None:
    """Record what left a manifest."""
    rows = [{**vars(row), "since": row.since.isoformat()} for row in lost]
    connection.execute(
        statement("manifest_revoke"),
        {"manifest_id": manifest_id, "rows": json.dumps(rows), "now": now, "found_by": found_by},
    )


def revoked(connection: Connection, manifest_id: str) -> int:
    """How many rows are recorded as having left a manifest before it was frozen or started."""
    found: int = connection.execute(statement("manifest_revoked"), {"manifest_id": manifest_id}).scalar_one()
    return found


def recalled(connection: Connection, store: str, manifest_id: str, now: datetime, reasons: Mapping[str, int]) -> None:
    """Record that a manifest was looked through, and how many rows were handed over by the reason why they left."""
    connection.execute(statement("manifest_recalled"), {"id": manifest_id, "now": now})
    told = {"store": store, "manifest": manifest_id, "reasons": dict(reasons), "recalled_at": now}
    evidence.record(connection, "recalled", None, told)


def last_tombstone(connection: Connection) -> int:
    """The newest tombstone to be seen."""
    found: int = connection.execute(statement("tombstones_last")).scalar_one()
    return found


def purged_since(connection: Connection, store: str, last: int) -> dict[str, datetime]:
    """The conversations of a store purged after a tombstone, with when."""
    rows = connection.execute(statement("purged_since"), {"store": store, "last": last})
    return {row.record_id: row.purged_at for row in rows}

"""Records of manifests and their revoked rows; each change is in one transaction with its event."""

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
"""Time limit of a transition, during which batches and holds wait; it usually takes well under a second."""


@dataclass(frozen=True)
class RevokedRow:
    """A row of a manifest that may no longer be trained on, with the reason and the time (UTC)."""

    message_id: str
    conversation_id: str
    reason: str
    since: datetime


@contextmanager
def transition(database: Database) -> Iterator[Connection]:
    """Open a transaction that may wait for the current batch and then has a minute."""
    with fence.transaction(database, "Nothing was changed.", statement_timeout_ms=TRANSITION_MS) as connection:
        yield connection


@contextmanager
def fenced(database: Database) -> Iterator[Connection]:
    """Open a transaction that takes the fence exclusively."""
    with transition(database) as connection:
        fence.take_exclusively(connection)
        yield connection


def add(connection: Connection, values: Mapping[str, Any]) -> bool:
    """Record a manifest as frozen; return False if one with the same content is recorded already."""
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
    """Return what was recorded when a manifest was frozen, copied and started: directories, files and their hashes."""
    return [row.details for row in connection.execute(statement("manifest_records"), {"id": manifest_id})]


def get(connection: Connection, store: str, manifest_id: str | None = None) -> list[dict[str, Any]]:
    """Return the manifests of a store, oldest first, or the one with this id."""
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
    """Move a manifest to its next state; return False if it is not in the expected one."""
    asked = {"id": manifest_id, "store": store, "from": before, "state": after, "now": now}
    return connection.execute(statement("manifest_move"), asked).scalar_one_or_none() is not None


def revoke(
    connection: Connection, manifest_id: str, lost: Sequence[RevokedRow], now: datetime, found_by: ManifestRow
) -> None:
    """Record the revoked rows of a manifest."""
    rows = [{**vars(row), "since": row.since.isoformat()} for row in lost]
    connection.execute(
        statement("manifest_revoke"),
        {"manifest_id": manifest_id, "rows": json.dumps(rows), "now": now, "found_by": found_by},
    )


def revoked(connection: Connection, manifest_id: str) -> int:
    """Return how many rows were revoked before the manifest was frozen or started."""
    found: int = connection.execute(statement("manifest_revoked"), {"manifest_id": manifest_id}).scalar_one()
    return found


def recalled(connection: Connection, store: str, manifest_id: str, now: datetime, reasons: Mapping[str, int]) -> None:
    """Record that a manifest was recalled, with the number of rows handed over by reason."""
    connection.execute(statement("manifest_recalled"), {"id": manifest_id, "now": now})
    told = {"store": store, "manifest": manifest_id, "reasons": dict(reasons), "recalled_at": now}
    evidence.record(connection, "recalled", None, told)


def last_tombstone(connection: Connection) -> int:
    """Return the id of the newest visible tombstone."""
    found: int = connection.execute(statement("tombstones_last")).scalar_one()
    return found


def purged_since(connection: Connection, store: str, last: int) -> dict[str, datetime]:
    """Return the conversations of a store purged after a tombstone, with the time."""
    rows = connection.execute(statement("purged_since"), {"store": store, "last": last})
    return {row.record_id: row.purged_at for row in rows}

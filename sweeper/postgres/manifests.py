"""Records manifests and the rows that left them; every change is written in one transaction with its event."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, TextClause

from sweeper.encoding import to_json
from sweeper.postgres import evidence, fence
from sweeper.postgres.database import Database
from sweeper.postgres.statement import array, filled, statement

ManifestState = Literal["frozen", "started", "completed"]
ManifestRow = Literal["freeze", "start", "recall"]
TRANSITION_MS = 60_000
"""The longest that a transition may keep batches and holds waiting; it usually takes well under a second."""


@dataclass(frozen=True)
class RevokedRow:
    """A row of a manifest that may no longer be used for training, with the reason and since when (UTC)."""

    message_id: str
    conversation_id: str
    reason: str
    since: datetime


@contextmanager
def transition(database: Database) -> Iterator[Connection]:
    """Open a transaction that may wait for the current batch and has a minute for its own work."""
    with fence.transaction(database, "Nothing was changed.", statement_timeout_ms=TRANSITION_MS) as connection:
        yield connection


@contextmanager
def fenced(database: Database) -> Iterator[Connection]:
    """Open a transaction that holds the fence exclusively."""
    with transition(database) as connection:
        fence.take_exclusively(connection)
        yield connection


def add(connection: Connection, values: Mapping[str, Any]) -> bool:
    """Record a manifest as frozen; return False if one with the same content is already recorded."""
    return connection.execute(statement("manifest_add"), values).scalar_one_or_none() is not None


def record_change(
    connection: Connection,
    kind: str,
    manifest_id: str,
    directory: str,
    revoked: Mapping[str, str],
    columns: Mapping[str, Any] = {},
) -> None:
    """Record the event of a manifest that was frozen, copied, relocated, retired or changed state.

    `revoked` maps each file that names rows which left to its hash. `columns` are those written to the manifest's row, so that
    `audit verify` finds a later edit of them, and what else belongs to the event.
    """
    details = {"manifest": manifest_id, "directory": directory, "revoked": dict(revoked), **columns}
    evidence.record(connection, f"manifest_{kind}", None, details)


@dataclass(frozen=True)
class PlaceRecord:
    """What one event recorded of a manifest's directory: the files of rows that left, and their hashes."""

    directory: str
    revoked: Mapping[str, str]
    adds: bool
    """True if the files were added to those before; False if the directory was new."""


def records(connection: Connection, manifest_id: str) -> list[PlaceRecord]:
    """Return what the events of a manifest recorded of its directories, in order."""
    rows = connection.execute(statement("manifest_records"), {"id": manifest_id})
    return [
        PlaceRecord(details["directory"], details["revoked"], adds=kind == "manifest_started") for kind, details in rows
    ]


def lock(connection: Connection, manifest_id: str) -> None:
    """Lock a manifest until the transaction ends."""
    connection.execute(statement("manifest_lock"), {"id": manifest_id})


def stored(name: str) -> TextClause:
    """Return a statement that reads manifests with the places and retirements that the events record."""
    return statement(name, stored=filled("manifest_stored"))


def get(connection: Connection, store: str, manifest_id: str | None = None) -> list[dict[str, Any]]:
    """Return the manifests of a store, oldest first, or only the one with that id."""
    rows = connection.execute(stored("manifest_get"), {"store": store, "id": manifest_id})
    return [dict(row._mapping) for row in rows]


def move(
    connection: Connection,
    store: str,
    manifest_id: str,
    before: ManifestState,
    after: ManifestState,
    now: datetime,
) -> bool:
    """Change a manifest's state from `before` to `after`; return False if it is not in state `before`."""
    parameters = {"id": manifest_id, "store": store, "from": before, "state": after, "now": now}
    return connection.execute(statement("manifest_move"), parameters).scalar_one_or_none() is not None


def revoke(
    connection: Connection, manifest_id: str, lost: Sequence[RevokedRow], now: datetime, found_by: ManifestRow
) -> None:
    """Record the rows that left a manifest."""
    connection.execute(
        statement("manifest_revoke"),
        {"manifest_id": manifest_id, "rows": json.dumps(to_json(lost)), "now": now, "found_by": found_by},
    )


def revoked(connection: Connection, manifest_id: str) -> int:
    """Return how many rows are recorded as having left a manifest before it was frozen or started."""
    found: int = connection.execute(statement("manifest_revoked"), {"manifest_id": manifest_id}).scalar_one()
    return found


def revoked_of(connection: Connection, manifest_id: str, message_ids: Sequence[str]) -> Counter[str]:
    """Count the messages, of some of a manifest, that are recorded as having left it, by who found that first."""
    asked = {"manifest_id": manifest_id, "ids": array(message_ids)}
    return Counter({row.found_by: row.messages for row in connection.execute(statement("manifest_revoked_of"), asked)})


def recalled(connection: Connection, store: str, manifest_id: str, now: datetime, reasons: Mapping[str, int]) -> None:
    """Record that a manifest was recalled, and how many rows were handed over for each reason."""
    connection.execute(statement("manifest_recalled"), {"id": manifest_id, "now": now})
    details = {"store": store, "manifest": manifest_id, "reasons": dict(reasons), "recalled_at": now}
    evidence.record(connection, "recalled", None, details)


def last_tombstone(connection: Connection) -> int:
    """Return the id of the newest visible tombstone."""
    found: int = connection.execute(statement("tombstones_last")).scalar_one()
    return found


def purged_since(connection: Connection, store: str, last: int) -> dict[str, tuple[str, datetime]]:
    """Return the conversations of a store purged or redacted after tombstone `last`, with the reason and the time (UTC)."""
    rows = connection.execute(statement("purged_since"), {"store": store, "last": last})
    return {row.record_id: (row.reason, row.purged_at) for row in rows}

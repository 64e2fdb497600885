"""Finds the differences between the sweeper's own tables and the events that recorded their changes.

Invariant: it only reads, within one snapshot, and keeps at most a page of differences in memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, TextClause

from sweeper.postgres.statement import filled, statement

PREFIXES = {
    "legal_holds": "hold",
    "erasure_orders": "order",
    "plan_changes": "plan",
    "consent_events": "consent",
    "pauses": "pause",
}
"""Tables whose trigger records every change of a row, with the prefix of the kinds of those events."""
TABLES = ("runs", *PREFIXES, "manifests")
"""The tables that can be derived from events."""

How = Literal["missing", "untold", "dropped", "changed"]


@dataclass(frozen=True)
class Difference:
    """One row or column that differs from the events.

    `how`: the row is missing; no event records its insertion; an event records its deletion; a column was changed.
    """

    id: str
    event_id: int | None
    how: How
    name: str | None
    recorded: str | None
    here: str | None


def differences(connection: Connection, table: str) -> Iterator[Difference]:
    """Yield the differences of one of `TABLES`, in order of id."""
    rows = connection.execute(_comparison(table), execution_options={"stream_results": True, "max_row_buffer": 500})
    for row in rows:
        found = Difference(**row._mapping)
        if not _is_same_instant(found):
            yield found


def counts(connection: Connection) -> dict[str, int]:
    """The number of rows of each of `TABLES`."""
    return {table: connection.execute(statement("state_count", table=table)).scalar_one() for table in TABLES}


def orphans(connection: Connection) -> Sequence[Row[Any]]:
    """The missing runs that tombstones name: `run_id`, the count of `tombstones` and the `first_id` of them."""
    return connection.execute(statement("state_orphans")).all()


def identities(connection: Connection) -> dict[str | None, int]:
    """The database identities in the events of runs, each with the first event that has it."""
    return {row.identity: row.event_id for row in connection.execute(statement("state_identities"))}


def identity_rows(connection: Connection) -> list[str]:
    """The rows of sweeper.identity; other than one if somebody altered the table."""
    return [row.id for row in connection.execute(statement("identity"))]


def _comparison(table: str) -> TextClause:
    prefix = PREFIXES.get(table)
    recorded = filled("state_rows_recorded", prefix=prefix) if prefix else filled(f"state_{table}_recorded")
    found = filled("state_runs_found") if table == "runs" else filled("state_rows_found", table=table)
    return statement("state_differences", recorded=recorded, found=found)


def _is_same_instant(found: Difference) -> bool:
    """True if both values are one instant: an event has it in the time zone of the session that wrote it."""
    if found.name is None or found.recorded is None or found.here is None or not is_instant(found.name):
        return False
    try:
        recorded, here = datetime.fromisoformat(found.recorded), datetime.fromisoformat(found.here)
        return recorded.tzinfo is not None and recorded == here
    except ValueError:
        return False


def is_instant(column: str) -> bool:
    """True if a column of these tables holds an instant, by its name."""
    return column == "as_of" or column.endswith("_at")

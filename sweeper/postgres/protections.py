"""Places, releases and lists legal holds and erasure orders. A trigger records every change as an event."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DataError

from sweeper.errors import ConfigurationError
from sweeper.policy.instant import StoredTimestamp
from sweeper.postgres import fence
from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement

STATEMENT_MS = fence.WAIT_MS + 5_000
"""Statement time-out of a placement: longer than its wait, so that a wait in vain fails as a lock time-out."""


def canonical(database: Database, type_: str, value: str | None, what: str) -> str | None:
    """Return an id as the store would write it.

    Raises:
        ConfigurationError: it cannot be an id of that type.
    """
    if value is None:
        return None
    try:
        with database.transaction() as connection:
            found: str = connection.execute(
                text(f"SELECT CAST(CAST(:value AS {type_}) AS text)"), {"value": value}
            ).scalar_one()
    except DataError:
        raise ConfigurationError(
            f"{what} {value!r} is no {type_}. Nothing was done. Give the id as the store writes it."
        ) from None
    return found


def place_hold(
    database: Database, matter: str, account_id: str | None, conversation_id: str | None, placed_at: datetime
) -> dict[str, Any]:
    """Place a legal hold; when this returns, no purge violates it."""
    with fence.transaction(database, "No hold was placed.", statement_timeout_ms=STATEMENT_MS) as connection:
        row = connection.execute(
            statement("hold_place"),
            {"matter": matter, "account_id": account_id, "conversation_id": conversation_id, "placed_at": placed_at},
        ).one()
    return dict(row._mapping)


def release_holds(
    database: Database, matter: str | None, hold_id: int | None, released_at: datetime
) -> list[dict[str, Any]]:
    """Release the holds of a matter, or one by its id; return those released."""
    with fence.transaction(database, "No hold was released.", statement_timeout_ms=STATEMENT_MS) as connection:
        rows = connection.execute(
            statement("hold_release"),
            {"matter": matter, "id": hold_id, "released_at": released_at},
        ).all()
    return [dict(row._mapping) for row in rows]


def list_holds(database: Database, *, released: bool) -> list[dict[str, Any]]:
    """Return the holds in force, and with `released` also the released ones."""
    return _rows(database, "hold_list", {"all": released})


def add_order(
    database: Database,
    reference: str,
    account_id: str | None,
    conversation_id: str | None,
    recorded_at: datetime,
    due_at: datetime | None,
) -> dict[str, Any]:
    """Record an erasure order; with both ids it covers only records that have both."""
    with database.transaction() as connection:
        row = connection.execute(
            statement("order_add"),
            {
                "reference": reference,
                "account_id": account_id,
                "conversation_id": conversation_id,
                "recorded_at": recorded_at,
                "due_at": due_at,
                "store": database.settings.store.schema_name,
            },
        ).one()
    return dict(row._mapping)


def list_orders(database: Database) -> list[dict[str, Any]]:
    """Return the erasure orders, newest first."""
    return _rows(database, "order_list", {"store": database.settings.store.schema_name})


def _rows(database: Database, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    with database.transaction() as connection:
        return [dict(row._mapping) for row in connection.execute(statement(name), parameters)]


Known = dict[str, Counter[tuple[Any, ...]]]
"""By kind (`hold`, `order`): how many there are of each name, account and conversation; of the holds, those in force."""


def known_protections(database: Database, stands: Callable[[StoredTimestamp], bool]) -> Known:
    """Return the holds in force and all orders; `stands` decides from the release time whether a hold is in force."""
    known: Known = {"hold": Counter(), "order": Counter()}
    for row in database.fetched(statement("known_protections"), {}):
        if stands(row.released_at):
            known[row.kind][(row.name, row.account_id, row.conversation_id)] += 1
    return known

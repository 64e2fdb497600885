"""Places, releases and lists holds; adds, withdraws and lists erasure orders. A trigger records every change as an event."""

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
"""Statement time-out of a placement: longer than its wait for the fence, which therefore fails as a lock time-out."""


def canonical(database: Database, type_: str, value: str | None, what: str) -> str | None:
    """Return an id as the store would write it.

    Raises:
        ConfigurationError: the value is not of that type.
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
            f"{what} {value!r} is not of type {type_}. Nothing was done. Give the id as the store writes it."
        ) from None
    return found


def place_hold(
    database: Database, matter: str, account_id: str | None, conversation_id: str | None, placed_at: datetime
) -> dict[str, Any]:
    """Place a legal hold and return its row; once this returns, no purge violates it."""
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
    """Return the holds in force, and with `released` also those already released."""
    return _rows(database, "hold_list", {"all": released})


def add_order(
    database: Database,
    reference: str,
    account_id: str | None,
    conversation_id: str | None,
    recorded_at: datetime,
    due_at: datetime | None,
) -> dict[str, Any]:
    """Record an erasure order and return its row; with both ids it covers only what matches both."""
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


def withdraw_orders(
    database: Database, reference: str | None, order_id: int | None, withdrawn_at: datetime
) -> list[dict[str, Any]]:
    """Withdraw the orders of a reference, or one by its id; return those withdrawn, with the due dates that they had.

    Once this returns, no purge is due because of them.
    """
    with fence.transaction(database, "No order was withdrawn.", statement_timeout_ms=STATEMENT_MS) as connection:
        store = database.settings.store.schema_name
        parameters = {"reference": reference, "id": order_id, "withdrawn_at": withdrawn_at, "store": store}
        rows = connection.execute(statement("order_withdraw"), parameters).all()
    return [dict(row._mapping) for row in rows]


def list_orders(database: Database) -> list[dict[str, Any]]:
    """Return the erasure orders, newest first."""
    return _rows(database, "order_list", {"store": database.settings.store.schema_name})


def _rows(database: Database, name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    with database.transaction() as connection:
        return [dict(row._mapping) for row in connection.execute(statement(name), parameters)]


Known = dict[str, Counter[tuple[Any, ...]]]
"""For each kind (`hold`, `order`, `withdrawn` order) the number by name, account and conversation; only holds in force count."""


def known_protections(database: Database, is_in_force: Callable[[StoredTimestamp], bool]) -> Known:
    """Count the holds in force and the orders; `is_in_force` decides from a hold's `released_at`."""
    known: Known = {"hold": Counter(), "order": Counter(), "withdrawn": Counter()}
    for row in database.fetched(statement("known_protections"), {}):
        if is_in_force(row.released_at):
            known["withdrawn" if row.is_withdrawn else row.kind][(row.name, row.account_id, row.conversation_id)] += 1
    return known

"""Finds holds and orders without effect, because the store has nothing under the ids that they name.

A hold finds what is spelt alike. An order erases only what is written exactly as the store writes it; one that is spelt in
another way erases nothing, and what it may mean is not trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sweeper.postgres import contract as contracts
from sweeper.postgres.database import Database, sqlstate
from sweeper.postgres.proposals import exactly
from sweeper.postgres.statement import filled, statement

T = TypeVar("T")
Kind = Literal["holds", "orders", "pending_orders"]
_STATEMENTS: Mapping[Kind, tuple[str, ...]] = {
    "holds": ("unmatched_holds",),
    "orders": ("unmatched_orders",),
    "pending_orders": ("unmatched_orders", "unmatched_carried_out"),
}
STATEMENT_MS = 60_000
"""Time limit of one search in milliseconds; with many holds and orders it reads all keys of the store once."""
TEXTUAL = frozenset({"text", "character varying", "bpchar"})


NAMED = ("account_id", "conversation_id", "owner")
"""What a hold or an order names; `owner`: the account that an order of a conversation names as well."""


@dataclass(frozen=True)
class UnmatchedProtections:
    """The ids of holds in force and of orders that match nothing; `misspelt` orders match records under another spelling."""

    holds: tuple[int, ...] = ()
    orders: tuple[int, ...] = ()
    misspelt: tuple[int, ...] = ()

    def as_json(self) -> dict[str, int]:
        """Return the numbers for JSON."""
        return {"holds": len(self.holds), "orders": len(self.orders), "misspelt_orders": len(self.misspelt)}


Types = Mapping[str, Mapping[str, str]]
"""The types of the store's columns, by relation and column."""


def attempt(database: Database, now: datetime) -> UnmatchedProtections | None:
    """Find the holds in force at `now` (UTC) and the orders that match nothing.

    Returns:
        None where this role may not look at the store or its tombstones, or the store has not what is looked at.

    Raises:
        DBAPIError: the database failed.
    """
    holds, orders = attempt_holds(database, now), attempt_orders(database, purged=False)
    return None if holds is None or orders is None else UnmatchedProtections(holds, *orders)


def attempt_holds(database: Database, now: datetime) -> tuple[int, ...] | None:
    """Find the holds that match nothing."""
    return _attempt(database, lambda connection, types: _holds(connection, types, now))


def attempt_orders(database: Database, *, purged: bool) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """As `attempt`, the orders alone: those that find nothing, and those that would if they were spelt as the store spells.

    An order that names what was purged has done its work; it is among them only with `purged`, for a role that may not read the
    tombstones.
    """
    store = database.settings.store.schema_name
    return _attempt(database, lambda connection, types: _orders(connection, types, store, purged=purged))


_LOOKED_AT = frozenset({"accounts", "conversations", "feedback"})


def _attempt(database: Database, look: Callable[[Connection, Types], T]) -> T | None:
    schema = database.settings.store.schema_name
    try:
        with database.transaction(statement_timeout_ms=STATEMENT_MS) as connection:
            types, _ = contracts.relations(connection, schema)
            return look(connection, types) if types.keys() >= _LOOKED_AT else None
    except DBAPIError as error:
        if sqlstate(error) == "42501":  # insufficient_privilege
            return None
        raise


def _holds(connection: Connection, types: Types, now: datetime) -> tuple[int, ...]:
    textual = any(types[relation]["id"] in TEXTUAL for relation in ("accounts", "conversations"))
    found = _find(connection, types, "holds", {"now": now}, exact=textual)
    if found and textual:  # only for what is not found by an index the ids of the store are spelt one by one
        found = _find(connection, types, "holds", {"now": now, "ids": found}, exact=False)
    return tuple(found)


def _orders(
    connection: Connection, types: Types, store: str, *, purged: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    inexact = _find(connection, types, "orders" if purged else "pending_orders", {"store": store}, exact=True)
    if not inexact:
        return (), ()
    lost = _find(connection, types, "orders", {"store": store, "ids": inexact}, exact=False)
    return tuple(lost), tuple(sorted(set(inexact) - set(lost)))


def _find(connection: Connection, types: Types, kind: Kind, asked: dict[str, Any], *, exact: bool) -> Sequence[int]:
    compared = exactly if exact else _alike
    conversations, feedback = types["conversations"], types["feedback"]
    owner = conversations["account_id"]
    of_owner = f"(p.owner IS NULL OR {compared('p.owner', 'r.account_id', owner)})"
    sql = statement(
        "unmatched",
        protections="".join(map(filled, _STATEMENTS[kind])),
        spelt="1" if exact else ", ".join(f"sweeper.spelling(p.{name}) AS {name}_spelt" for name in NAMED),
        account=compared("p.account_id", "r.id", types["accounts"]["id"]),
        conversation=f"{compared('p.conversation_id', 'r.id', conversations['id'])} AND {of_owner}",
        of_account=compared("p.account_id", "r.account_id", owner),
        feedback=compared("p.conversation_id", "r.conversation_id", feedback["conversation_id"])
        + f" AND (p.owner IS NULL OR {compared('p.owner', 'r.account_id', feedback['account_id'])})",
        feedback_of_account=compared("p.account_id", "r.account_id", feedback["account_id"]),
    )
    return [row.id for row in connection.execute(sql, {"ids": None, **asked})]


def _alike(named: str, key: str, type_: str) -> str:
    """How the spelling of a text finds a key, through its index where the type allows."""
    spelt = f"{named}_spelt"
    if type_ == "uuid":
        return f"{key} = CASE WHEN {spelt} ~ '^[0-9a-f]{{1,32}}$' THEN CAST(lpad({spelt}, 32, '0') AS uuid) END"
    if type_ in TEXTUAL:
        return f"sweeper.spelling({key}::text) = {spelt}"
    number = f"CASE WHEN {spelt} ~ '^[0-9]{{1,18}}$' THEN CAST({spelt} AS bigint) END"  # which is of every sign
    return f"{key} = ANY(ARRAY[{number}, -{number}])"

"""Finds holds and orders that have no effect because nothing in the store has the ids that they name.

A hold matches ids that are spelt alike. An order erases only records whose ids it writes exactly as the store does; one with
another spelling erases nothing, and the records that it may mean are not used for training.
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
"""Statement time-out: with many holds and orders, a statement reads all of the store's keys once."""
TEXTUAL = frozenset({"text", "character varying", "bpchar"})


NAMED = ("account_id", "conversation_id", "owner")
"""The ids that a hold or an order names; `owner` is the account named in addition to a conversation."""


@dataclass(frozen=True)
class UnmatchedProtections:
    """The ids of holds in force and of orders that match nothing; `misspelt` orders would match if spelt as in the store."""

    holds: tuple[int, ...] = ()
    orders: tuple[int, ...] = ()
    misspelt: tuple[int, ...] = ()

    def as_json(self) -> dict[str, int]:
        """Return the counts as a JSON object."""
        return {"holds": len(self.holds), "orders": len(self.orders), "misspelt_orders": len(self.misspelt)}


Types = Mapping[str, Mapping[str, str]]
"""The types of the store's columns, by relation and column."""


def attempt(database: Database, now: datetime) -> UnmatchedProtections | None:
    """Return the holds in force at `now` (UTC) and the orders that match nothing.

    Returns:
        None if this role may not read the store or its tombstones, or the store lacks a relation.

    Raises:
        DBAPIError: the database failed.
    """
    holds, orders = attempt_holds(database, now), attempt_orders(database, purged=False)
    return None if holds is None or orders is None else UnmatchedProtections(holds, *orders)


def attempt_holds(database: Database, now: datetime) -> tuple[int, ...] | None:
    """Like `attempt`, for the holds alone."""
    return _attempt(database, lambda connection, types: _holds(connection, types, now))


def attempt_orders(database: Database, *, purged: bool) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Like `attempt`, for the orders alone: those that match nothing, and those that are misspelt.

    An order whose records were purged has been carried out; it is included only with `purged`, for a role that may not read the
    tombstones.
    """
    store = database.settings.store.schema_name
    return _attempt(database, lambda connection, types: _orders(connection, types, store, purged=purged))


_RELATIONS = frozenset({"accounts", "conversations", "feedback"})


def _attempt(database: Database, find: Callable[[Connection, Types], T]) -> T | None:
    schema = database.settings.store.schema_name
    try:
        with database.transaction(statement_timeout_ms=STATEMENT_MS) as connection:
            types, _ = contracts.relations(connection, schema)
            return find(connection, types) if types.keys() >= _RELATIONS else None
    except DBAPIError as error:
        if sqlstate(error) == "42501":  # insufficient_privilege
            return None
        raise


def _holds(connection: Connection, types: Types, now: datetime) -> tuple[int, ...]:
    textual = any(types[relation]["id"] in TEXTUAL for relation in ("accounts", "conversations"))
    found = _find(connection, types, "holds", {"now": now}, exact=textual)
    if (
        found and textual
    ):  # a scan that computes the spelling of every id of the store, only for holds that no index matches
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
    """Return the condition that a key is spelt like a named id, in a form that can use the key's index if its type allows."""
    spelt = f"{named}_spelt"
    if type_ == "uuid":
        return f"{key} = CASE WHEN {spelt} ~ '^[0-9a-f]{{1,32}}$' THEN CAST(lpad({spelt}, 32, '0') AS uuid) END"
    if type_ in TEXTUAL:
        return f"sweeper.spelling({key}::text) = {spelt}"
    number = f"CASE WHEN {spelt} ~ '^[0-9]{{1,18}}$' THEN CAST({spelt} AS bigint) END"  # a spelling has no sign
    return f"{key} = ANY(ARRAY[{number}, -{number}])"

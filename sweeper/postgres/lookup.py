"""Finds out what an id names if it is not a conversation: an account, a message, feedback, a tombstone, a manifest.

Invariant: it looks in every place that it names, and a look-up that fails is an error, never "not found".
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, TextClause

from sweeper.errors import ConfigurationError
from sweeper.policy.instant import rfc3339
from sweeper.policy.window import Window
from sweeper.postgres import protections
from sweeper.postgres.contract import Contract
from sweeper.postgres.database import Database
from sweeper.postgres.statement import filled, spelling, statement

STATEMENT_MS = 60_000
"""Statement time-out: a person waits for the answer, and an account may have many rows."""
PAGE = 500
"""The number of rows that are in memory at a time."""


@dataclass(frozen=True)
class AccountKey:
    """The id of an account as each relation writes it; None if no row of that relation can have it."""

    account: str | None
    of_conversation: str | None
    of_feedback: str | None
    given: str

    @property
    def id(self) -> str:
        """The id as `accounts` writes it, and so as holds, orders and tombstones do."""
        return self.account or self.given


@dataclass(frozen=True)
class TombstoneTotals:
    """How many tombstones of an account there are of one kind of record and one rule, and their first and last dates."""

    record: str
    rule: str
    purged: int
    earliest_due_at: datetime
    latest_due_at: datetime
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True)
class StoredAccount:
    """What is stored of an account, what names it, and what was purged."""

    id: str
    is_stored: bool
    conversations: int
    feedback: int
    holds: int
    orders: int
    tombstones: tuple[TombstoneTotals, ...]
    redactions: tuple[TombstoneTotals, ...] = ()
    """The tombstones of redactions, which are no purges."""

    @property
    def purged(self) -> dict[str, dict[str, int]]:
        """Kind of record → rule → number of tombstones."""
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for totals in self.tombstones:
            found[totals.record][totals.rule] = totals.purged
        return found

    @property
    def redacted(self) -> dict[str, int]:
        """How many conversations were redacted, by rule; they need not be gone."""
        return {totals.rule: totals.purged for totals in self.redactions}

    @property
    def last_purged_at(self) -> datetime | None:
        """When the last record of the account was purged."""
        return max((totals.last_at for totals in self.tombstones), default=None)

    @property
    def is_known(self) -> bool:
        """True if anything is, or was, the account's; a hold or an order alone may name a mistyped id."""
        return bool(self.is_stored or self.conversations or self.feedback or self.tombstones or self.redactions)


def account_key(database: Database, contract: Contract, id_: str) -> AccountKey:
    """Return an account's id as the relations write it."""
    types = (
        contract.type("accounts"),
        contract.type("conversations", "account_id"),
        contract.type("feedback", "account_id"),
    )
    account, of_conversation, of_feedback = (id_or_none(database, type_, id_) for type_ in types)
    return AccountKey(account, of_conversation, of_feedback, id_)


def account(connection: Connection, contract: Contract, key: AccountKey, now: datetime) -> StoredAccount:
    """Look for an account in the store, in holds, orders and tombstones."""
    asked = {**_asked(contract, key), "account": key.account, "now": now}
    sql = statement("lookup_account", account=contract.type("accounts"), **_owners(contract))
    row = connection.execute(sql, asked).one()
    found = [TombstoneTotals(**stone._mapping) for stone in connection.execute(statement("lookup_tombstones"), asked)]
    redactions = tuple(totals for totals in found if totals.record == "redaction")
    purges = tuple(totals for totals in found if totals.record != "redaction")
    counts = (row.is_stored, row.conversations, row.feedback, row.holds, row.orders)
    return StoredAccount(key.id, *counts, purges, redactions)


def keys(
    connection: Connection, contract: Contract, key: AccountKey, relation: Literal["conversations", "feedback"]
) -> Iterator[list[str]]:
    """Yield the ids of an account's conversations or feedback rows in order, a page at a time."""
    sql = statement("lookup_keys", relation=relation, type=contract.type(relation, "account_id"))
    id_ = key.of_conversation if relation == "conversations" else key.of_feedback
    return ([row.id for row in page] for page in _pages(connection, sql, {"id": id_}))


def purges(connection: Connection, contract: Contract, key: AccountKey, window: Window) -> Iterator[Row[Any]]:
    """Yield the tombstones of an account with a due date in a window, in order of due date; `leaf` is None without a number."""
    asked = {**_asked(contract, key), "since": window.since, "until": window.until}
    for page in _pages(connection, statement("lookup_purges"), asked):
        yield from page


def holds(connection: Connection, contract: Contract, key: AccountKey) -> list[dict[str, Any]]:
    """Return the legal holds that reach an account or its conversations, stored or purged; released ones too."""
    return _protections(connection, contract, key, "lookup_holds")


def orders(connection: Connection, contract: Contract, key: AccountKey) -> list[dict[str, Any]]:
    """Return the erasure orders that may mean an account or its conversations, stored or purged; withdrawn ones too."""
    return _protections(connection, contract, key, "lookup_orders")


def _protections(connection: Connection, contract: Contract, key: AccountKey, name: str) -> list[dict[str, Any]]:
    named = filled(
        "lookup_named",
        conversation=spelling("c.id", contract.type("conversations")),
        about=spelling("f.conversation_id", contract.type("feedback", "conversation_id")),
        **_owners(contract),
    )
    rows = connection.execute(statement(name, named=named), _asked(contract, key))
    return [dict(row._mapping) for row in rows]


def _owners(contract: Contract) -> dict[str, str]:
    return {
        "of_conversation": contract.type("conversations", "account_id"),
        "of_feedback": contract.type("feedback", "account_id"),
    }


def _asked(contract: Contract, key: AccountKey) -> dict[str, str | None]:
    owners = {"of_conversation": key.of_conversation, "of_feedback": key.of_feedback}
    return {"store": contract.schema, "id": key.id, **owners}


def _pages(connection: Connection, sql: TextClause, asked: Mapping[str, Any]) -> Iterator[Sequence[Row[Any]]]:
    """Yield the rows of a statement in pages, by a cursor of the server."""
    return connection.execute(sql, asked, execution_options={"yield_per": PAGE}).partitions(PAGE)


def other(database: Database, contract: Contract, id_: str) -> str | None:
    """Say what an id names that is neither a conversation nor an account, and what to ask; None if it names nothing."""
    if message := _row(database, contract, "message", id_):
        whose = message.conversation_id
        return f"{id_} is a message of conversation {whose}. Ask `sweeper explain {whose}`."
    if feedback := _row(database, contract, "feedback", id_):
        of = f" on conversation {feedback.conversation_id}" if feedback.conversation_id else ""
        by = f" of account {feedback.account_id}" if feedback.account_id else ""
        return f"{id_} is a feedback row{by}{of}, which is stored. Its retention is its own: see `sweeper report`."
    asked = {"id": id_, "store": contract.schema}
    with database.transaction(statement_timeout_ms=STATEMENT_MS) as connection:
        tombstone = connection.execute(statement("lookup_purged"), asked).one_or_none()
        is_manifest = connection.execute(statement("lookup_manifest"), asked).scalar_one()
    if tombstone is not None:
        return _purged(id_, tombstone, contract.schema)
    if is_manifest:
        return f"{id_} is a training manifest. See `sweeper manifest list`."
    return None


def _purged(id_: str, tombstone: Row[Any], store: str) -> str:
    elsewhere = f" in store {tombstone.store}" if tombstone.store != store else ""
    when = f"on {rfc3339(tombstone.purged_at)} by run {tombstone.run_id}, rule {tombstone.rule}"
    if tombstone.record == "redaction":
        return (
            f"{id_} is a conversation{elsewhere} whose content was REDACTED {when}. It was not purged: something else "
            "deleted it."
        )
    if tombstone.record_id == id_:
        return (
            f"{id_} is a {tombstone.record} that was PURGED{elsewhere} {when}. Its tombstone is all that is left of it."
        )
    return (
        f"{id_} is a conversation{elsewhere} of which a tombstone of feedback tells: feedback {tombstone.record_id} on it was "
        f"purged {when}. The conversation itself has no tombstone: something else deleted it."
    )


def _row(database: Database, contract: Contract, what: str, id_: str) -> Row[Any] | None:
    """Return the row of a message or of feedback with an id, if there is one."""
    type_ = contract.type("messages" if what == "message" else what)
    found = id_or_none(database, type_, id_)
    if found is None:
        return None
    return next(iter(database.fetched(statement(f"lookup_{what}", type=type_), {"id": found})), None)


def id_or_none(database: Database, type_: str, id_: str) -> str | None:
    """Return an id as a relation with ids of that type would write it; None if none of its rows can have it."""
    try:
        return protections.canonical(database, type_, id_, "id")
    except ConfigurationError:
        return None

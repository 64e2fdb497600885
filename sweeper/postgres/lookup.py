"""Finds out what an id names if it is not a conversation: an account, a message, feedback, a tombstone, a manifest.

Invariant: it looks in every place that it names, and a look-up that fails is an error, never "not found".
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from sweeper.errors import ConfigurationError
from sweeper.policy.instant import rfc3339
from sweeper.postgres import protections
from sweeper.postgres.contract import Contract
from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement

STATEMENT_MS = 60_000
"""Statement time-out: the tombstones of an account are found by reading all of them."""


@dataclass(frozen=True)
class StoredAccount:
    """What is stored of an account, what names it, and what was purged: kind of record → rule → count.

    `redacted`: how many of its conversations were redacted, by rule; they need not be gone.
    """

    id: str
    is_stored: bool
    conversations: int
    feedback: int
    holds: int
    orders: int
    purged: dict[str, dict[str, int]]
    last_purged_at: datetime | None
    redacted: dict[str, int] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        """True if anything is, or was, the account's; a hold or an order alone may name a mistyped id."""
        return bool(self.is_stored or self.conversations or self.feedback or self.purged or self.redacted)


def account(database: Database, contract: Contract, id_: str, now: datetime) -> StoredAccount:
    """Look for an account in the store, in holds, orders and tombstones."""
    types = {
        "account": contract.type("accounts"),
        "of_conversation": contract.type("conversations", "account_id"),
        "of_feedback": contract.type("feedback", "account_id"),
    }
    ids = {name: id_or_none(database, type_, id_) for name, type_ in types.items()}
    named = ids["account"] or id_
    asked = {"store": contract.schema, "id": named}
    with database.transaction(statement_timeout_ms=STATEMENT_MS) as connection:
        row = connection.execute(statement("lookup_account", **types), {**asked, **ids, "now": now}).one()
        tombstones = connection.execute(statement("lookup_tombstones"), asked).all()
    purged: dict[str, dict[str, int]] = defaultdict(dict)
    for stone in tombstones:
        purged[stone.record][stone.rule] = stone.purged
    last = max((stone.last_at for stone in tombstones if stone.record != "redaction"), default=None)
    redacted = purged.pop("redaction", {})
    counts = (row.is_stored, row.conversations, row.feedback, row.holds, row.orders)
    return StoredAccount(named, *counts, dict(purged), last, redacted)


def conversations_of(database: Database, contract: Contract, account_id: str, most: int) -> list[str]:
    """Return the ids of the first conversations of an account."""
    type_ = contract.type("conversations", "account_id")
    id_ = id_or_none(database, type_, account_id)
    rows = database.fetched(statement("lookup_conversations", type=type_), {"id": id_, "limit": most})
    return [row.id for row in rows]


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

"""Legal holds and erasure orders whose ids no record has: a hold that protects nothing, an order that erases nothing."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from sweeper.store.finding import Finding, warning
from sweeper.store.scene import Scene
from sweeper.store.statement import statement

LIMIT = 10_000
"""How many of the newest entries are looked at."""
PATTERNS = {
    "uuid": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
    "bigint": "^-?[1-8]?[0-9]{1,18}$",
    "integer": "^-?1?[0-9]{1,9}$",
    "smallint": "^-?[0-9]{1,4}$",
    "text": "",
    "character varying": "",
}
"""What certainly can be cast to a type; ids of other types are not looked at."""


@dataclass(frozen=True)
class Entries:
    """A table of entries: what they are called, which are open, how an id in them is read."""

    table: str
    called: str
    open: str
    spelt: str


ENTRIES = (
    Entries("legal_holds", "legal holds in force", "e.released_at IS NULL", "sweeper.spelling(e.{column})"),
    Entries("erasure_orders", "erasure orders", "true", "e.{column}"),
)
KNOWN = {
    "account_id": "EXISTS (SELECT 1 FROM accounts a WHERE a.id = r.key)"
    " OR EXISTS (SELECT 1 FROM conversations c WHERE c.account_id = r.key)"
    " OR r.spelt IN (SELECT t.account_id FROM sweeper.tombstones t WHERE t.account_id IS NOT NULL)",
    "conversation_id": "EXISTS (SELECT 1 FROM conversations c WHERE c.id = r.key)"
    " OR EXISTS (SELECT 1 FROM sweeper.tombstones t WHERE t.record_id = r.spelt)",
}
"""That a record has the id, or had it and was purged."""


def named(scene: Scene, connection: Connection) -> Iterator[Finding]:
    """Entries that name what no record has, or name it in a way that is not the store's."""
    relations = {"account_id": "accounts", "conversation_id": "conversations"}
    for entries in ENTRIES:
        for column, relation in relations.items():
            type_ = scene.types.get(relation, {}).get("id")
            if type_ in PATTERNS and {entries.table, "tombstones"} <= scene.readable:
                yield from _strange(connection, entries, column, type_)


def _strange(connection: Connection, entries: Entries, column: str, type_: str) -> Iterator[Finding]:
    textual = not PATTERNS[type_]
    names = {
        "table": entries.table,
        "column": column,
        "spelt": f"btrim(e.{column})" if textual else entries.spelt.format(column=column),
        "open": entries.open,
        "pattern": PATTERNS[type_],
        "type": type_,
        "known": KNOWN[column],
    }
    rows = connection.execute(statement("check_named", **names), {"limit": LIMIT}).all()
    faults = Counter(row.fault for row in rows)
    if rows:
        counted = ", ".join(f"{count} {fault}" for fault, count in sorted(faults.items()))
        numbers = ", ".join(str(row.id) for row in rows[:10])
        yield warning(
            f"sweeper.{entries.table}",
            f"{len(rows)} of the {entries.called} name a {column} that no record has ({counted}).",
            f"look at sweeper.{entries.table} id {numbers}{', …' if len(rows) > 10 else ''} and correct the {column}.",
        )

"""The indexes without which a sweep's cost follows what is stored, not what is due."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row

from sweeper.store.finding import Finding, ok, warning
from sweeper.store.scene import Scene, quoted_if_odd
from sweeper.store.statement import statement


@dataclass(frozen=True)
class Wanted:
    """An index: columns in order and a predicate. `strict`: an index over all rows does not replace it."""

    relation: str
    columns: tuple[str, ...]
    predicate: str = ""
    strict: bool = False


SEARCHED = (
    Wanted("accounts", ("id",)),
    Wanted("plan_changes", ("account_id", "effective_at")),
    Wanted("consent_events", ("account_id", "recorded_at")),
    Wanted("conversations", ("id",)),
    Wanted("conversations", ("account_id", "last_activity_at")),
    Wanted("conversations", ("account_id", "deleted_at"), "deleted_at IS NOT NULL"),
    Wanted("conversations", ("account_id", "last_activity_at"), "incognito", strict=True),
    Wanted("conversations", ("account_id", "last_activity_at"), "zero_retention", strict=True),
    Wanted("messages", ("conversation_id",)),
    Wanted("attachments", ("conversation_id",)),
    Wanted("attachments", ("uri",)),
    Wanted("feedback", ("id",)),
    Wanted("feedback", ("kind", "submitted_at")),
    Wanted("feedback", ("account_id",)),
    Wanted("feedback", ("conversation_id",)),
)
"""What the proposing statements and the reading of facts search by: the indexes of sweeper/demo/reference.sql."""


def indexes(scene: Scene, connection: Connection) -> Iterator[Finding]:
    """Every index that is missing, on keys and for the search."""
    wanted = dict.fromkeys([*_searches(scene), *_keys(scene)])
    oids = sorted({oid for oid, _, _ in wanted})
    found: dict[int, list[Row[tuple[int, list[str], str]]]] = {}
    for row in connection.execute(statement("check_indexes"), {"oids": oids}):
        found.setdefault(row.oid, []).append(row)
    kinds = {row.oid: row.kind for row in connection.execute(statement("check_touched"), {"oids": oids})}
    lacking = [(table, index, oid) for oid, table, index in wanted if not _is_there(index, found.get(oid, []))]
    for table, index, oid in lacking:
        columns = ", ".join(map(quoted_if_odd, index.columns))
        where = f" WHERE {index.predicate}" if index.predicate else ""
        concurrently = (
            "" if kinds.get(oid) == "p" else "CONCURRENTLY "
        )  # PostgreSQL has no such build for partitioned tables
        yield warning(
            f"index {table} ({columns})",
            f"{table} has no usable index on ({columns}){where}, so that a sweep reads the whole table.",
            f"CREATE INDEX {concurrently}ON {table} ({columns}){where};",
        )
    if not lacking:
        yield ok("indexes", "every key and every search has its index.")


def _searches(scene: Scene) -> Iterator[tuple[int, str, Wanted]]:
    for index in SEARCHED:
        relation = scene.relations.get(index.relation)
        if relation and relation.is_table and scene.types[index.relation].keys() >= set(index.columns):
            yield relation.oid, relation.name, Wanted("", index.columns, index.predicate, index.strict)


def _keys(scene: Scene) -> Iterator[tuple[int, str, Wanted]]:
    for table in (scene.root, scene.feedback):
        if table is not None:
            yield table.oid, table.table, Wanted("", (table.key,))
    for _, key in scene.every_key:
        yield key.oid, key.table, Wanted("", key.columns)


def _is_there(index: Wanted, found: Sequence[Row[tuple[int, list[str], str]]]) -> bool:
    return any(_leads(index, list(row.columns)) and _covers(index, row.predicate) for row in found)


def _leads(index: Wanted, columns: list[str]) -> bool:
    return tuple(columns[: len(index.columns)]) == index.columns


def _covers(index: Wanted, predicate: str) -> bool:
    bare = predicate.strip("()").lower()
    if bare == index.predicate.lower() or (not bare and not index.strict):
        return True
    return bare == f"{index.columns[0].lower()} is not null"

"""Finds the indexes that runs need and the store lacks, each once; it reads nothing but the catalogue."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from sweeper.postgres import hazards
from sweeper.postgres.branches import branches, redactions
from sweeper.postgres.contract import CONTRACT, Contract
from sweeper.postgres.related_tables import TABLES, reference
from sweeper.postgres.statement import quoted, statement
from sweeper.uri import NON_CANONICAL

SEARCHED: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("conversations", ("account_id", "last_activity_at"), ""),
    ("conversations", ("account_id", "deleted_at"), "deleted_at IS NOT NULL"),
    ("conversations", ("account_id", "last_activity_at"), "incognito"),
    ("conversations", ("account_id", "last_activity_at"), "zero_retention"),
    ("plan_changes", ("account_id",), ""),
    ("consent_events", ("account_id",), ""),
    ("messages", ("conversation_id",), ""),
    ("attachments", ("conversation_id",), ""),
    ("attachments", ("uri",), ""),
    ("attachments", ("uri",), f"uri ~ '{NON_CANONICAL}'::text"),
    ("feedback", ("kind", "submitted_at"), ""),
)
"""The searches of the proposing and reading statements: relation, columns in order, predicate of a partial index."""


@dataclass(frozen=True)
class MissingIndex:
    """An index that a table lacks: on which columns (quoted) or expression, and what runs do without it."""

    table: str
    columns: tuple[str, ...]
    predicate: str
    effect: str

    @property
    def create(self) -> str:
        """The statement that creates it."""
        where = f" WHERE {self.predicate}" if self.predicate else ""
        return f"CREATE INDEX CONCURRENTLY ON {self.table} ({', '.join(self.columns)}){where}"


def missing(connection: Connection, schema: str, contract: Contract | None) -> list[MissingIndex]:
    """Return the missing indexes; one that a foreign key and a search both need is returned once.

    Without a contract, because the store does not fulfil it, only the searches of its relations are looked at.
    """
    of_keys = (*_of_keys(connection, contract), *_of_expressions(connection, contract)) if contract else ()
    found: dict[tuple[str, tuple[str, ...], str], MissingIndex] = {}
    for index in (*of_keys, *_of_searches(connection, schema)):
        found.setdefault((index.table, index.columns, index.predicate), index)
    return list(found.values())


def unseen(connection: Connection, schema: str) -> list[str]:
    """Return the searched relations that are views: which index a search behind them needs is not known."""
    searched = {relation for relation, _, _ in SEARCHED}
    return [
        row.relation for row in _relations(connection, schema) if row.kind not in TABLES and row.relation in searched
    ]


def _relations(connection: Connection, schema: str) -> Sequence[Any]:
    return connection.execute(statement("check_relations"), {"schema": schema, "relations": list(CONTRACT)}).all()


def _of_keys(connection: Connection, contract: Contract) -> Iterator[MissingIndex]:
    redacted = [branch.key.oid for branch in redactions(contract.conversations)]
    indexes = _stored(connection, [*hazards.purged_tables(contract), *redacted])
    root = contract.conversations
    for branch in (*branches(root), *redactions(root)):
        if not branch.key.expression and not _is_indexed(indexes, branch.key.oid, branch.key.columns, ""):
            columns = tuple(map(quoted, branch.key.columns))
            effect = f"{branch.key.name} ({', '.join(columns)}) has no index: every batch would read the whole table"
            yield MissingIndex(branch.table, columns, "", effect)


def _of_expressions(connection: Connection, contract: Contract) -> Iterator[MissingIndex]:
    """Yield the indexes that keys by expression lack, by what the planner does if it may not read a table whole."""
    root = contract.conversations
    keys = [(root.table, root.key)] if root.is_expression else []
    keys += [
        (branch.table, branch.key.expression)
        for branch in (*branches(root), *redactions(root))
        if branch.key.expression
    ]
    for table, expression in keys:
        names = {"table": table, "key": reference("t", None, expression), "type": root.type}
        with connection.begin_nested() as savepoint:
            connection.execute(statement("forbid_whole_reads"))
            plan = connection.execute(statement("explain_key", **names)).scalar_one()
            savepoint.rollback()
        if "Seq Scan" in json.dumps(plan):
            effect = f"its key {expression} has no index: every batch would read the whole table"
            yield MissingIndex(table, (f"({expression})",), "", effect)


def _of_searches(connection: Connection, schema: str) -> Iterator[MissingIndex]:
    relations = {row.relation: row for row in _relations(connection, schema) if row.kind in TABLES}
    indexes = _stored(connection, [row.oid for row in relations.values()])
    for relation, columns, predicate in SEARCHED:
        if relation in relations and not _is_indexed(indexes, relations[relation].oid, columns, predicate):
            searched = f"({', '.join(columns)})" + (f" WHERE {predicate}" if predicate else "")
            effect = f"is searched by {searched} without an index: the table would be read whole"
            yield MissingIndex(relations[relation].name, tuple(map(quoted, columns)), predicate, effect)


def _stored(connection: Connection, oids: Sequence[int]) -> Sequence[Any]:
    return connection.execute(statement("check_indexes"), {"oids": oids}).all()


def _is_indexed(indexes: Sequence[Any], oid: int, columns: Sequence[str], predicate: str) -> bool:
    """True if an index begins with the columns, in any order, and has that predicate."""
    expected = _bare(predicate)
    return any(
        index.oid == oid and set(index.columns[: len(columns)]) == set(columns) and _bare(index.predicate) == expected
        for index in indexes
    )


def _bare(predicate: str) -> str:
    """Return a predicate without what the server adds: outer brackets, and a cast of the column to text."""
    inner = predicate[1:-1] if predicate.startswith("(") and predicate.endswith(")") else predicate
    return re.sub(r"\((\w+)\)::text", r"\1", inner).replace(" ", "").lower()

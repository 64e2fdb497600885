"""Finds the indexes that runs need and the store lacks, each once; it reads nothing but the catalogue."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from sweeper.postgres import hazards
from sweeper.postgres.branches import branches, redactions
from sweeper.postgres.contract import CONTRACT, Contract, relations
from sweeper.postgres.related_tables import TABLES, reference
from sweeper.postgres.statement import identifier, quoted, statement
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

VIEW = "v"


@dataclass(frozen=True)
class MissingIndex:
    """An index that a table lacks: on which columns (quoted) or expression, and what runs do without it."""

    table: str
    columns: tuple[str, ...]
    predicate: str
    effect: str
    view: str = ""
    """The view that computes what is searched, if no columns can be named; it has to be looked at."""

    @property
    def create(self) -> str:
        """The statement that creates it; a comment if only the definition of a view tells on what."""
        if not self.columns:
            return f"-- give {self.table} an index on what view {self.view} compares, or let the view compute less"
        where = f" WHERE {self.predicate}" if self.predicate else ""
        return f"CREATE INDEX CONCURRENTLY ON {self.table} ({', '.join(self.columns)}){where}"


def missing(connection: Connection, schema: str, contract: Contract | None) -> list[MissingIndex]:
    """Return the missing indexes; one that a foreign key and a search both need is returned once.

    Without a contract, because the store does not fulfil it, only the searches of its relations are looked at.
    """
    of_keys = (*_of_keys(connection, contract), *_of_expressions(connection, contract)) if contract else ()
    found: dict[tuple[str, tuple[str, ...], str], MissingIndex] = {}
    for index in (*of_keys, *_of_searches(connection, schema), *_of_views(connection, schema)):
        found.setdefault((index.table, index.columns, index.predicate), index)
    return list(found.values())


def unseen(connection: Connection, schema: str) -> list[str]:
    """Return the searched relations that are materialized views or foreign tables: their indexes are not looked for."""
    searched, seen = {relation for relation, _, _ in SEARCHED}, {*TABLES, VIEW}
    return [row.relation for row in _relations(connection, schema) if row.kind not in seen and row.relation in searched]


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
    partial = _partial(connection)
    for table, expression in keys:
        names = {"table": table, "key": reference("t", None, expression), "type": root.type}
        if _read_whole(_plan(connection, "explain_key", **names), partial):
            effect = f"its key {expression} has no index: every batch would read the whole table"
            yield MissingIndex(table, (f"({expression})",), "", effect)


def _of_searches(connection: Connection, schema: str) -> Iterator[MissingIndex]:
    tables = {row.relation: row for row in _relations(connection, schema) if row.kind in TABLES}
    indexes = _stored(connection, [row.oid for row in tables.values()])
    for relation, columns, predicate in SEARCHED:
        if relation in tables and not _is_indexed(indexes, tables[relation].oid, columns, predicate):
            effect = f"is searched by {_words(columns, predicate)} without an index: the table would be read whole"
            yield MissingIndex(tables[relation].name, tuple(map(quoted, columns)), predicate, effect)


def _of_views(connection: Connection, schema: str) -> Iterator[MissingIndex]:
    """Yield the indexes that searches of views lack, by what the planner does if it may not read a table whole.

    For a table that is known to be small the plan says nothing: all ways to read it cost the same.
    """
    small, partial = set(connection.execute(statement("small_tables")).scalars()), _partial(connection)
    views = {row.relation: row.name for row in _relations(connection, schema) if row.kind == VIEW}
    types, _ = relations(connection, schema)
    for relation, columns, predicate in SEARCHED:
        if relation not in views:
            continue
        unknown = [f"(SELECT CAST(NULL AS {types[relation][column]}))" for column in columns]
        compared = [] if _is_pattern(predicate) else [f"r.{columns[0]} = {unknown[0]}"]
        compared += [f"r.{column} <= {value}" for column, value in zip(columns[1:], unknown[1:], strict=True)]
        condition = " AND ".join([*compared, *([f"r.{predicate}"] if predicate else [])])
        plan = _plan(connection, "explain_search", relation=views[relation], condition=condition)
        for table in sorted(_read_whole(plan, partial) - small):
            found, kept = _computed(connection, views[relation], columns, predicate, table)
            effect = f"view {views[relation]} is searched by {_words(columns, predicate)}, and the table is read whole for it"
            yield MissingIndex(table, found, kept, effect, views[relation])


def _words(columns: Sequence[str], predicate: str) -> str:
    """Return a search in words."""
    where = "for URIs that are not canonical" if _is_pattern(predicate) else f"WHERE {predicate}" if predicate else ""
    return f"({', '.join(columns)}) {where}".rstrip()


def _is_pattern(predicate: str) -> bool:
    """True if the predicate is searched alone: the columns are what it is about."""
    return NON_CANONICAL in predicate


def _plan(connection: Connection, name: str, **names: str) -> Mapping[str, Any]:
    """Return the plan of an EXPLAIN statement, made while no table may be read whole."""
    with connection.begin_nested() as savepoint:
        connection.execute(statement("forbid_whole_reads"))
        plan: Mapping[str, Any] = connection.execute(statement(name, **names)).scalar_one()[0]["Plan"]
        savepoint.rollback()
    return plan


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _partial(connection: Connection) -> set[str]:
    """Return the names of all partial indexes."""
    return set(connection.execute(statement("partial_indexes")).scalars())


def _read_whole(plan: Mapping[str, Any], partial: set[str]) -> set[str]:
    """Return the tables that a plan reads whole: row by row, or through an index without a condition, unless it is partial."""
    return {
        _table(node)
        for node in _nodes(plan)
        if _table(node) and not node.keys() & {"Index Cond", "Recheck Cond"} and node.get("Index Name") not in partial
    }


def _table(node: Mapping[str, Any]) -> str:
    """Return the table that a node of a plan reads; "" if it reads none."""
    return f"{identifier(node['Schema'])}.{identifier(node['Relation Name'])}" if "Relation Name" in node else ""


def _computed(
    connection: Connection, view: str, columns: Sequence[str], predicate: str, table: str
) -> tuple[tuple[str, ...], str]:
    """Return what an index on the table behind a view must hold, and where; nothing if the view does more than show its rows."""
    selected = ", ".join([*(f"r.{column}" for column in columns), *([f"r.{predicate}"] if predicate else [])])
    plan = connection.execute(statement("explain_output", relation=view, selected=selected)).scalar_one()[0]["Plan"]
    if plan.get("Plans") or _table(plan) != table:
        return (), ""
    own = re.compile(rf"\b{re.escape(plan['Alias'])}\.")
    shown = [own.sub("", text) if own.search(text) else "" for text in plan["Output"]]
    kept = shown.pop() if predicate else ""
    return tuple(text if re.fullmatch(r'\w+|"[^"]+"', text) else f"({text})" for text in shown if text), kept


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

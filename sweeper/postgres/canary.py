"""A conversation that nobody wrote: one marked row in each table of a conversation, to be deleted and looked for.

Invariant: it is inserted in a transaction that is rolled back. Nothing of the row it is copied from leaves the database.
"""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from secrets import token_hex
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError

from sweeper.errors import SweeperError
from sweeper.policy.instant import rfc3339
from sweeper.postgres.branches import DELETED, everything_below
from sweeper.postgres.contract import CONTRACT, Contract
from sweeper.postgres.database import is_disconnected, wordless_reason
from sweeper.postgres.related_tables import Key, PhysicalTable
from sweeper.postgres.statement import quoted, statement

CONTENT_COLUMNS = frozenset({"body", "uri", "transcript"})
MARK_LENGTH = 18
PLAIN = {column for columns in CONTRACT.values() for column in columns} - CONTENT_COLUMNS
"""Columns of the contract that hold no content: a trigger may write them down."""


class NotMadeError(SweeperError):
    """A row of the canary could not be inserted."""


@dataclass
class Canary:
    """A marked conversation, and a feedback row where the store has a table of those, as they were inserted.

    `sources`: the column for which each mark was made. `marked`: the columns in which marks were stored. `own`: how many rows of
    it each table or partition has. `missing`: the tables in which it has no row, or content tables without a mark, with why.
    """

    contract: Contract
    at: datetime
    name: str = field(default_factory=lambda: f"canary{token_hex(5)}")
    id: str = ""
    feedback_id: str = ""
    sources: dict[str, str] = field(default_factory=dict)
    marked: list[str] = field(default_factory=list)
    own: Counter[int] = field(default_factory=Counter)
    missing: dict[str, str] = field(default_factory=dict)

    def insert(self, connection: Connection) -> None:
        """Insert the conversation, its children as far as they can be made, and the feedback row.

        Raises:
            NotMadeError: the conversation cannot be made.
        """
        root, feedback = self.contract.conversations, self.contract.feedback
        if root.is_expression:
            raise NotMadeError(f"the key of {root.table} is an expression, for which no value can be made up")
        needed = [root.key, *(column for key in root.children for column in key.parent_columns)]
        row = self._row(connection, root, {}, needed)
        self.id = row[root.key]
        self._children(connection, root.children, row)
        if feedback is not None:
            try:
                self.feedback_id = self._row(connection, feedback, {}, [feedback.key])[feedback.key]
            except NotMadeError as error:
                self.missing[feedback.table] = str(error)

    def _children(self, connection: Connection, keys: Sequence[Key], parent: Mapping[str, str]) -> None:
        for key in keys:
            if key.leads_back or key.action not in DELETED:
                continue
            if key.expression is not None:
                self.missing[key.table] = "its key is an expression, for which no value can be made up"
                continue
            fixed = {own: parent[above] for own, above in zip(key.columns, key.parent_columns, strict=True)}
            try:
                needed = [column for child in key.children for column in child.parent_columns]
                row = self._row(connection, key, fixed, needed)
            except NotMadeError as error:
                self.missing[key.table] = str(error)
            else:
                self._children(connection, key.children, row)

    def _row(
        self, connection: Connection, table: PhysicalTable | Key, fixed: Mapping[str, str], needed: Sequence[str]
    ) -> dict[str, str]:
        """Insert a row with the fixed columns; returns the `needed` columns as text."""
        if not connection.execute(statement("canary_may_write"), {"oid": table.oid}).scalar_one():
            raise NotMadeError(f"the role may not both read and fill {table.table}")
        below = [branch.key.oid for branch in everything_below(self.contract.conversations)]
        tree = {self.contract.conversations.oid, *below}
        columns = connection.execute(statement("canary_columns"), {"oid": table.oid, "oids": sorted(tree)}).all()
        values: dict[str, str] = {}
        bound: dict[str, Any] = {"at": rfc3339(self.at), "marks": []}
        for number, column in enumerate(columns):
            if column.name in fixed:
                bound[f"fixed{number}"] = fixed[column.name]
                value: str | None = f":fixed{number}"
            else:
                mark = f"{self.name}{len(self.sources):02x}"
                value = _value(column, tree)
                if value is not None and ":mark" in value:
                    self.sources[mark] = f"{table.table}.{column.name}"
                    bound[f"mark{number}"] = mark
                    value = value.replace(":mark", f":mark{number}")
                    bound["marks"].append(mark)
            if value is not None:
                values[quoted(column.name)] = f"CAST({value} AS {column.type})"
        sql = statement(
            "canary_row",
            table=table.table,
            columns=", ".join(values),
            values=", ".join(values.values()),
            returned="".join(f", canary_row.{quoted(c)}::text AS {quoted(c)}" for c in dict.fromkeys(needed)),
        )
        try:
            with connection.begin_nested():
                row = connection.execute(sql, bound).one_or_none()
        except DBAPIError as error:
            if is_disconnected(error):
                raise
            raise NotMadeError(wordless_reason(error)) from None
        if row is None:
            raise NotMadeError("a trigger or a rule kept the row from being inserted")
        self.own[row.canary_oid] += 1
        self.marked += [self.sources[mark] for mark in row.canary_marks]
        if not row.canary_marks and isinstance(table, Key) and table.content:
            self.missing[table.table] = "none of its columns keeps a mark as it is"
        return {column: row._mapping[column] for column in needed}


def _value(column: Row[Any], tree: Set[int]) -> str | None:
    """The value of a column as SQL, made from the row `r` that is copied; None: it is left out."""
    copied = f"r.{quoted(column.name)}"
    if column.identity or column.reference in tree:
        return None  # the database numbers it, or it would point to somebody's conversation
    if column.reference is not None:
        some = f"(SELECT p.{column.parent_column} FROM {column.parent} p LIMIT 1)"  # noqa: S608 — quoted identifiers only
        return f"COALESCE({copied}, {some})"
    if column.in_unique and column.defaulted:
        return None
    partitioning = column.partitioning and not column.alone_unique  # its rows must fall into a partition that there is
    if column.in_unique and not partitioning and (column.base == "uuid" or column.category in "NS"):
        return "-1 - floor(random() * 32000)::integer" if column.category == "N" else _default(column)
    if not column.checked and not partitioning and not _is_plain(column) and (marked := _marked(column)):
        return marked
    return f"COALESCE({copied}, {_default(column)})" if column.required else copied


def _is_plain(column: Row[Any]) -> bool:
    name: str = column.name
    return name in PLAIN or name.lower().endswith("id")


def _marked(column: Row[Any]) -> str:
    """The mark as a value of the column's type; empty where that type cannot hold one."""
    if column.category == "S" and (column.length or MARK_LENGTH) >= MARK_LENGTH:
        return "CAST(:mark AS text)"
    return MARKED.get(column.base, "")


def _default(column: Row[Any]) -> str:
    """A value of the column's type where there is no row to copy."""
    if column.category == "S":
        return f"left(gen_random_uuid()::text, {column.length or 36})"
    label: str | None = column.label
    if label is not None:
        return "'" + label.replace("'", "''").replace(":", "\\:") + "'"
    return DEFAULTS.get(column.base) or DEFAULTS.get(column.category, "NULL")


MARKED = {
    "json": "jsonb_build_object('text', CAST(:mark AS text))",
    "jsonb": "jsonb_build_object('text', CAST(:mark AS text))",
    "bytea": "convert_to(:mark, 'UTF8')",
    "_text": "ARRAY[CAST(:mark AS text)]",
    "_varchar": "ARRAY[CAST(:mark AS text)]",
}
DEFAULTS = {
    "uuid": "gen_random_uuid()",
    "json": "'{}'",
    "jsonb": "'{}'",
    "bytea": "''",
    "A": "'{}'",
    "B": "false",
    "D": "CAST(:at AS timestamptz)",
    "I": "'0.0.0.0'",
    "N": "0",
    "R": "'empty'",
    "T": "'0'",
}
"""By name of the type, or by its category (pg_type.typcategory)."""

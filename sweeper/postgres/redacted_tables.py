"""Finds the tables and columns that a redaction empties, and refuses settings that could not be carried out.

Invariant: what is found here can be written to every row: the columns exist, none is a key, and what they get fits.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError

from sweeper.errors import ConfigurationError
from sweeper.postgres.branches import branches, redactions
from sweeper.postgres.database import reason
from sweeper.postgres.related_tables import PhysicalTable, escaped
from sweeper.postgres.statement import literal, quoted, quoted_path, statement
from sweeper.settings import RedactSettings


@dataclass(frozen=True)
class RedactedTable:
    """A table with columns that hold content of conversations.

    Attributes:
        table: its quoted name.
        oid: its oid in the catalogue.
        key: SQL of the key of the conversation that row `t` belongs to.
        key_type: the type of the conversations' key.
        values: by column, the SQL of what it gets.
    """

    table: str
    oid: int
    key: str
    key_type: str
    values: Mapping[str, str]

    __hash__ = object.__hash__

    @property
    def label(self) -> str:
        """What tombstones count its rows under."""
        return f"{self.table} ({', '.join(self.values)})"

    @property
    def assignments(self) -> str:
        """SQL: empty the columns."""
        return ", ".join(f"{quoted(column)} = {value}" for column, value in self.values.items())

    @property
    def left(self) -> str:
        """SQL: row `t` has content in any of the columns."""
        return " OR ".join(_differs(f"t.{quoted(column)}", value) for column, value in self.values.items())

    @property
    def belongs(self) -> str:
        """SQL: row `t` belongs to a conversation of the batch (:ids)."""
        return f"{self.key} = ANY(CAST(:ids AS {self.key_type}[]))"


def _differs(column: str, value: str) -> str:
    """SQL: a column has content. `IS NOT NULL` is false of a row with a NULL in it; of many types only texts are comparable."""
    return f"{column} IS DISTINCT FROM NULL" if value == "NULL" else f"{column}::text IS DISTINCT FROM {value}::text"


def find(
    connection: Connection,
    root: PhysicalTable,
    schema: str,
    named: Sequence[RedactSettings],
    read: Collection[str] = (),
) -> Iterator[RedactedTable]:
    """Yield each table of the settings with what its columns get; `read`: the columns of conversations that rules read.

    Raises:
        ConfigurationError: a table or column does not exist, is no conversation's, or cannot be emptied.
    """
    for setting in named:
        name = setting.table if "." in setting.table else f"{schema}.{setting.table}"
        rows = connection.execute(statement("redacted_columns"), {"table": quoted_path(name)}).all()
        if not rows:
            _refuse(setting, f"there is no table {name}", "Name a table of the application")
        key = _key(root, setting, rows[0].oid, rows[0].name)
        known = {row.column: row for row in rows}
        found = {column: _column(setting, known.get(column), column, key) for column in setting.columns}
        for column in found:
            if rows[0].oid == root.oid and column in read:
                _refuse(setting, f"rules of the policy read {column}", "Leave it out: due dates follow from it")
        values = {column: _value(connection, setting, row) for column, row in found.items()}
        yield RedactedTable(rows[0].name, rows[0].oid, key, root.type, values)


def _key(root: PhysicalTable, setting: RedactSettings, oid: int, table: str) -> str:
    """Return the SQL of the key of the conversation that row `t` of a table belongs to."""
    if oid == root.oid:
        return root.reference("t")
    found = [branch for branch in (*branches(root), *redactions(root)) if branch.key.oid == oid]
    ties = {branch.key.reference("t") for branch in found if branch.key.owns} or {
        branch.key.reference("t") for branch in found if branch.is_direct
    }
    if len(ties) != 1 or not all(branch.is_direct for branch in found):
        why = "several keys tie" if len(ties) > 1 else "no column of its own ties"
        _refuse(setting, f"{why} the rows of {table} to a conversation", "Name such a column in [[purge.children]]")
    return ties.pop()


def _column(setting: RedactSettings, row: Row[Any] | None, column: str, key: str) -> Row[Any]:
    """Return the column as the catalogue has it, if it can be written to."""
    if row is None:
        _refuse(setting, f"there is no column {column}", "Name a column of that table")
    if row.keyed or re.search(rf"\b{re.escape(column)}\b", key):
        _refuse(setting, f"{column} is part of a key", "Leave it out, and name columns that hold content")
    if row.generated:
        _refuse(setting, f"{column} is a generated column", "Name the columns that it is generated from")
    if row.required and column not in setting.values:
        remedy = f"Give it a value: values = {{ {column} = … }}"
        _refuse(setting, f"{column} is NOT NULL, and no value is set for it", remedy)
    return row


def _value(connection: Connection, setting: RedactSettings, row: Row[Any]) -> str:
    """Return the SQL of what a column gets, if the server takes it for a value of its type."""
    if row.column not in setting.values:
        return "NULL"
    value = escaped(literal(setting.values[row.column], row.type))
    try:
        with connection.begin_nested():
            connection.execute(statement("cast_value", value=value))
    except DBAPIError as error:
        _refuse(
            setting, f"the value of {row.column} is no {row.type} ({reason(error)})", "Give it a value of that type"
        )
    return value


def _refuse(setting: RedactSettings, why: str, remedy: str) -> NoReturn:
    raise ConfigurationError(
        f"[[purge.redact]] table = {setting.table!r}: {why}. Nothing was purged or redacted. {remedy}."
    )

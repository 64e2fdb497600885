"""Deletes rows that several records may name, such as files: with the last record that names them.

Invariant: such a row is deleted only while it is locked and no key refers to it. A key that is inserted meanwhile waits for the
lock, and then fails or finds the row. What a condition of the settings looks at does not wait: it is looked at once.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from sweeper.errors import ConfigurationError
from sweeper.postgres.branches import Branch, branches, everything_below
from sweeper.postgres.related_tables import PhysicalTable, reference, type_of
from sweeper.postgres.statement import array, quoted, statement
from sweeper.settings import SharedSettings


@dataclass(frozen=True)
class Link:
    """A foreign key that refers to a shared table."""

    table: str
    oid: int
    column: str
    owner: Branch | None = None
    """What ties its table to conversations; None if its rows belong to something else, which keeps the shared rows."""


@dataclass(frozen=True)
class SharedTable:
    """A table whose rows several records may name, with all the keys that refer to it."""

    rows: PhysicalTable
    links: tuple[Link, ...]
    unless: str | None = None
    """An SQL condition of the settings: rows for which it is not false stay."""


def find(
    connection: Connection, root: PhysicalTable, tables: Sequence[tuple[SharedSettings, PhysicalTable]]
) -> Iterator[SharedTable]:
    """Yield each shared table of the settings with the keys that refer to it.

    Raises:
        ConfigurationError: a table belongs to conversations itself, no table of theirs refers to it, or its `unless` is no
            condition.
    """
    owners = {branch.key.oid: branch for branch in branches(root) if branch.is_direct}
    below = {root.oid, *(branch.key.oid for branch in everything_below(root))}
    for setting, table in tables:
        links = tuple(_links(connection, table, owners))
        if table.oid in below:
            raise ConfigurationError(
                f"[[purge.shared]]: {table.table} belongs to conversations itself, and its rows go with them. "
                "Nothing was purged. Remove the entry."
            )
        if not any(link.owner for link in links):
            raise ConfigurationError(
                f"[[purge.shared]]: no table whose rows belong to a conversation by one column refers to {table.table}. "
                "Nothing was purged. Name the table that such rows refer to by a foreign key."
            )
        _refuse_no_condition(connection, setting, table)
        yield SharedTable(table, links, setting.unless)


def _refuse_no_condition(connection: Connection, setting: SharedSettings, table: PhysicalTable) -> None:
    name = f"[[purge.shared]] table = {setting.table!r}, unless"
    if setting.unless is not None and type_of(connection, table.table, setting.unless, name) != "boolean":
        raise ConfigurationError(
            f"{name}: {setting.unless} is neither true nor false. Nothing was purged. Write a condition over the table's columns."
        )


def _links(connection: Connection, table: PhysicalTable, owners: Mapping[int, Branch]) -> Iterator[Link]:
    for row in connection.execute(statement("foreign_keys"), {"oid": table.oid}):
        if list(row.parent_columns) != [table.key]:
            raise ConfigurationError(
                f"[[purge.shared]]: foreign key {row.name} of {row.table_name} refers to {table.table} by "
                f"({', '.join(row.parent_columns)}), not by {table.key}. "
                "Nothing was purged. Name the column that all keys refer to."
            )
        yield Link(row.table_name, row.oid, row.columns[0], owners.get(row.oid))


Named = Mapping[str, str]
"""Ids of shared rows, each with a conversation of the batch that names it."""


def named_by(connection: Connection, shared: SharedTable, ids: Sequence[str]) -> Named:
    """Return the shared rows that the conversations of a batch name; read before the batch deletes anything."""
    found: dict[str, str] = {}
    for link in shared.links:
        if link.owner is not None:
            names = {"table": link.table, "column": quoted(link.column), "condition": link.owner.condition}
            sql = statement("shared_rows", key=link.owner.key.reference("t"), **names)
            found |= {row.shared: row.conversation for row in connection.execute(sql, {"ids": array(ids)})}
    return found


def delete_unnamed(connection: Connection, shared: SharedTable, named: Named) -> Mapping[str, Counter[str]]:
    """Lock the shared rows that a batch named, and delete those that nothing refers to any more.

    Returns:
        By conversation, how many rows of the table were deleted.
    """
    rows, counts = shared.rows, defaultdict[str, Counter[str]](Counter)
    if not named:
        return counts
    table = {"table": rows.table, "key": rows.reference("t"), "type": rows.type}
    asked = {"ids": array(named)}
    connection.execute(statement("lock_rows_waiting", **table), asked)
    others = [
        f"NOT EXISTS (SELECT FROM {link.table} l WHERE l.{quoted(link.column)} = t.{quoted(rows.key)})"
        for link in shared.links
    ]
    if shared.unless is not None:
        others.append(f"{reference('t', None, shared.unless)} IS FALSE")
    for row in connection.execute(statement("delete_unnamed", others=" AND ".join(others), **table), asked):
        counts[named[row.id]][rows.table] += 1
    return counts

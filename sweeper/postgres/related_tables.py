"""Finds the tables whose rows are deleted with a conversation: the tree of foreign keys, completed by the settings.

Invariants: messages and attachments are always deleted; accounts, histories and feedback never are; rows whose key is set to
NULL stay; if it is in doubt to which conversation rows belong, nothing is purged.
"""

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError

from sweeper.errors import ConfigurationError
from sweeper.postgres.database import reason
from sweeper.postgres.statement import quoted, quoted_path, statement
from sweeper.settings import ChildSettings, is_column

OUTLIVING = ("accounts", "plan_changes", "consent_events", "feedback")
CONTENT = ("messages", "attachments")
"""Relations whose rows are always deleted with their conversation, whatever their foreign keys say."""
OWNER = "conversation_id"
TEXTUAL = frozenset({"text", "character varying"})
"""Types of keys that PostgreSQL compares as text, with the same indexes."""
TABLES = frozenset({"r", "p"})
"""Values of pg_class.relkind whose rows can be locked: tables, partitioned or not."""


@dataclass(frozen=True)
class Key:
    """A foreign key or a declared child table, and what a delete of the parent does to its rows."""

    name: str
    table: str
    oid: int
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    action: Literal["cascade", "explicit", "unset", "redact"]
    """PostgreSQL deletes the rows (cascade), the purge does (explicit), PostgreSQL sets the key to NULL and the rows stay
    (unset), or the purge sets the columns `redacted` to NULL and the rows stay (redact)."""
    stored_action: str
    indexed: bool
    declared: bool
    leads_back: bool = False
    """True if its table is already above it in the tree: a record that refers to another record."""
    owns: bool = False
    """True if this key alone decides to which conversation a row belongs: the contract's own, or a declared one."""
    content: bool = False
    """True if its table holds messages or attachments."""
    children: tuple["Key", ...] = ()
    expression: str | None = None
    """What gives the record's key, for a declared child without a column for it."""
    redacted: tuple[str, ...] = ()

    def reference(self, alias: str) -> str:
        """Return SQL: the key of row `alias`, for a key of one column or an expression."""
        return reference(alias, self.columns[0] if self.expression is None else None, self.expression)


@dataclass(frozen=True)
class PhysicalTable:
    """A physical table: its quoted name, key column or expression, type of the key, oid, and the keys that refer to it."""

    table: str
    key: str
    type: str
    oid: int
    children: tuple[Key, ...] = ()
    is_expression: bool = False
    """True if `key` is an SQL expression over the table's columns, not the name of a column."""
    many_rows: bool = False
    """True if several rows with one key are one record."""

    def reference(self, alias: str) -> str:
        """Return SQL: the key of row `alias`."""
        return reference(alias, None if self.is_expression else self.key, self.key)


def reference(alias: str, column: str | None, expression: str | None) -> str:
    """Return SQL for a column of row `alias`, or for an expression, in which no colon begins a parameter."""
    if column is not None:
        return f"{alias}.{quoted(column)}"
    return f"({escaped(expression or '')})"


def escaped(sql: str) -> str:
    """Return SQL in which no colon begins a parameter."""
    return _LONE_COLON.sub(r"\\:", sql)


_LONE_COLON = re.compile(r"(?<!:):(?!:)")


def physical(connection: Connection, table: str, key: str, schema: str, setting: str) -> PhysicalTable:
    """Look up a physical table and its key, which is a column or an expression.

    Raises:
        ConfigurationError: it does not exist, is not a table, has no such key column, or cannot evaluate the expression.
    """
    name = table if "." in table else f"{schema}.{table}"
    row = connection.execute(statement("physical"), {"table": quoted_path(name), "key": key}).one_or_none()
    if row is None:
        raise ConfigurationError(f"{setting}: there is no table {name}. Nothing was purged. Name the physical table.")
    if row.kind not in TABLES:
        raise ConfigurationError(
            f"{setting}: {name} is not a table but a view or the like, whose rows cannot be locked. Nothing was purged. "
            "Name the physical table behind it."
        )
    if not is_column(key):
        return PhysicalTable(row.name, key, type_of(connection, row.name, key, setting), row.oid, is_expression=True)
    if row.type is None:
        raise ConfigurationError(f"{setting}: {name} has no column {key}. Nothing was purged. Name its key column.")
    return PhysicalTable(row.name, key, row.type, row.oid)


def type_of(connection: Connection, table: str, expression: str, setting: str) -> str:
    """Return the type of an expression over the columns of a table.

    Raises:
        ConfigurationError: the server does not accept the expression.
    """
    try:
        with connection.begin_nested():
            result = connection.execute(
                statement("expression_of", table=table, expression=reference("t", None, expression))
            )
            oid = result.cursor.description[0][1]
    except DBAPIError as error:
        raise ConfigurationError(
            f"{setting}: {table} cannot evaluate the expression {expression}: {reason(error)}. Nothing was purged. "
            "Write an expression over its columns."
        ) from None
    name: str = connection.execute(statement("type_name"), {"oid": oid}).scalar_one()
    return name


def columns_of(connection: Connection, table: str, oid: int, expression: str) -> tuple[str, ...]:
    """Return the columns of a table that an expression reads; none if the role may not make the temporary view that tells."""
    try:
        with connection.begin_nested() as savepoint:
            names = {"table": table, "expression": reference("t", None, expression)}
            connection.execute(statement("show_expression", **names))
            found = tuple(connection.execute(statement("columns_of_expression"), {"oid": oid}).scalars())
            savepoint.rollback()
            return found
    except DBAPIError:
        return ()


@dataclass
class RelatedTables:
    """The tables related to a conversation, found in the catalogue and completed by the settings."""

    connection: Connection
    root: PhysicalTable
    named: tuple[tuple[ChildSettings, PhysicalTable], ...]
    bases: Mapping[str, frozenset[int]]
    tables: Set[str]
    feedback: PhysicalTable | None
    _found: list[Key] = field(default_factory=list)

    def children(self) -> tuple[Key, ...]:
        """Return the keys directly below a conversation: foreign keys, declared children, and the contract's own.

        Raises:
            ConfigurationError: rows that must outlive a conversation would be deleted, or it is in doubt to which conversation
                rows belong.
        """
        if not self._found:
            self._refuse_settings()
            self._found.extend(self._below(self.root.oid, frozenset()))
            self._found.extend(self._declared(table, child) for child, table in self.named)
            self._found.extend(self._keyless())
            self._refuse_doubt()
        return tuple(self._found)

    def covers(self, relation: str) -> bool:
        """Return True if deleting from the physical tables proves that nothing of the relation remains."""
        if relation == "conversations":
            return relation in self.tables and self.root.oid in self.bases[relation] and self.root.key == "id"
        return relation in self.tables and any(
            key.oid in self.bases[relation] and OWNER in key.columns for key in self.children()
        )

    def _refuse_settings(self) -> None:
        """Refuse settings that name a wrong table."""
        for setting, table, why in self._misnamed():
            raise ConfigurationError(
                f"{setting}: {table} cannot be meant, because {why}. Nothing was purged. Mend the setting."
            )

    def _misnamed(self) -> Iterator[tuple[str, str, str]]:
        """Yield each setting that names a wrong table or column, with the table and the reason."""
        conversations, feedback = self.bases.get("conversations"), self.bases.get("feedback")
        if conversations and self.root.oid not in conversations:
            yield "[purge] table", self.root.table, "the relation conversations does not come from it"
        if feedback and self.feedback is not None and self.feedback.oid not in feedback:
            yield "[purge.feedback] table", self.feedback.table, "the relation feedback does not come from it"
        for child, table in self.named:
            why = self._why_no_child(child, table)
            if why:
                yield f"[[purge.children]] key = {child.key!r}", table.table, why

    def _why_no_child(self, child: ChildSettings, table: PhysicalTable) -> str | None:
        if table.oid == self.root.oid:
            return "it holds the conversations themselves"
        if child.action == "delete" and table.oid in self._outliving - self._content_bases:
            return "its rows must outlive a conversation"
        if child.action != "delete" and table.oid in self._content_bases:
            return "its rows are messages or attachments, which are always deleted"
        if table.type != self.root.type and not {table.type, self.root.type} <= TEXTUAL:
            return f"it is {table.type} there, and a conversation's key is {self.root.type}"
        rows = self.connection.execute(statement("foreign_keys"), {"oid": self.root.oid})
        tied = [table.key in row.columns for row in rows if row.oid == table.oid]
        if tied and not any(tied):
            return "a foreign key ties it to conversations by another column"
        if table.is_expression and sum(other.oid == table.oid for _, other in self.named) > 1:
            return "another entry names that table as well"
        return None

    @property
    def _content_bases(self) -> frozenset[int]:
        return frozenset().union(*(self.bases.get(relation, frozenset()) for relation in CONTENT))

    @property
    def _outliving(self) -> frozenset[int]:
        return frozenset().union(*(self.bases.get(relation, frozenset()) for relation in OUTLIVING))

    @property
    def content(self) -> frozenset[int]:
        """The oids of the tables that hold messages and attachments."""
        return self._content_bases - self.spared - {self.root.oid}

    @property
    def spared(self) -> frozenset[int]:
        """The oids of the tables whose rows always stay: accounts, their histories, and feedback, which has its own retention."""
        declared = {table.oid for child, table in self.named if child.action == "delete"}
        return (self._outliving | ({self.feedback.oid} if self.feedback else set())) - declared - {self.root.oid}

    def _below(self, oid: int, above: frozenset[int]) -> Iterator[Key]:
        for row in self.connection.execute(statement("foreign_keys"), {"oid": oid}):
            if row.oid in self.spared:
                _refuse_taking(row)
                continue  # the database itself unsets it; a key that forbids the delete makes it fail, and is counted
            yield self._key(row, oid, above)

    def _key(self, row: Row[Any], parent: int, above: frozenset[int]) -> Key:
        leads_back = row.oid == parent or row.oid in above
        content = parent == self.root.oid and row.oid in self.content
        owns = content and self._is_owner(row)
        action = self._action(row.action, owns=owns)
        ends = leads_back or action == "unset"
        return Key(
            row.name,
            row.table_name,
            row.oid,
            tuple(row.columns),
            tuple(row.parent_columns),
            action,
            row.action,
            row.indexed,
            declared=False,
            leads_back=leads_back,
            owns=owns,
            content=content,
            children=() if ends else tuple(self._below(row.oid, above | {parent})),
        )

    def _is_owner(self, row: Row[Any]) -> bool:
        """Return True if a key of a content table decides ownership; for a table behind a view only the settings can say so."""
        in_tables = any(row.oid in self.bases[relation] for relation in CONTENT if relation in self.tables)
        columns = {table.key for _, table in self.named if table.oid == row.oid} or ({OWNER} if in_tables else set())
        return not columns or not columns.isdisjoint(row.columns)

    def _action(self, stored: str, *, owns: bool) -> Literal["cascade", "explicit", "unset"]:
        """Return what happens to the rows of a key: with SET NULL or SET DEFAULT they stay, unless they are content."""
        if stored == "c":
            return "cascade"
        return "unset" if stored in ("n", "d") and not owns else "explicit"

    def _declared(self, table: PhysicalTable, child: ChildSettings | None = None) -> Key:
        """Return the key of a declared child; its rows go before their conversation does, and again at the end."""
        deletes = child is None or child.action == "delete"
        return Key(
            f"declared {table.table}",
            table.table,
            table.oid,
            () if table.is_expression else (table.key,),
            (self.root.key,),
            "explicit" if deletes else "redact",
            "declared",
            indexed=True,
            declared=True,
            owns=deletes,
            content=table.oid in self.content,
            children=tuple(self._below(table.oid, frozenset({self.root.oid}))) if deletes else (),
            expression=table.key if table.is_expression else None,
            redacted=() if child is None or deletes else child.columns or (table.key,),
        )

    def _keyless(self) -> Iterator[Key]:
        """Yield keys for content tables without a foreign key or setting; the contract names their column."""
        known = {key.oid for key in self._found if key.owns}
        for relation in CONTENT:
            for oid in (
                sorted(self.bases.get(relation, frozenset()) - known - self.spared) if relation in self.tables else ()
            ):
                table = self.connection.execute(statement("table_of"), {"oid": oid, "key": OWNER}).one()
                yield self._declared(PhysicalTable(table.name, OWNER, table.type, oid))

    def _refuse_doubt(self) -> None:
        """Refuse content behind a view unless exactly one key ties it to its conversation."""
        for relation in CONTENT:
            bases = self.bases.get(relation, frozenset()) - self.spared - {self.root.oid}
            owners = [key for key in self._found if key.owns and key.oid in bases]
            columns = {(key.oid, key.expression or key.columns) for key in owners}
            if relation in self.tables or not bases or len({oid for oid, _ in columns}) == len(columns) > 0:
                continue
            raise ConfigurationError(
                f"{relation} is a view, and {'several keys tie' if owners else 'no key ties'} the table behind it to the "
                "conversations: its rows would stay behind, or others would go. Nothing was purged. "
                "Name the table and the column that says whose a row is in [[purge.children]]."
            )


def _refuse_taking(row: Row[Any]) -> None:
    if row.action == "c":
        raise ConfigurationError(
            f"foreign key {row.name} of {row.table_name} would delete its rows together with a conversation, and they "
            "must outlive it. Nothing was purged. Give the key ON DELETE SET NULL."
        )

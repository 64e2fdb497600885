"""What the store offers: the seven contract relations with their types, and the physical tables behind the purge.

The law of this file: what is not found is an error that names it; nothing is guessed about a table that will be deleted from.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection

from sweeper.core.policy import Policy
from sweeper.errors import ConfigurationError
from sweeper.settings import Child, Settings
from sweeper.store.statement import quoted, statement

INSTANT = "timestamp with time zone"
ANY = ""

CONTRACT: Mapping[str, Mapping[str, str]] = {
    "accounts": {"id": ANY, "created_at": INSTANT, "closed_at": INSTANT},
    "plan_changes": {"id": "bigint", "account_id": ANY, "effective_at": INSTANT, "plan": "text"},
    "consent_events": {
        "id": "bigint",
        "account_id": ANY,
        "purpose": "text",
        "granted": "boolean",
        "recorded_at": INSTANT,
        "effective_at": INSTANT,
    },
    "conversations": {
        "id": ANY,
        "account_id": ANY,
        "kind": "text",
        "platform": "text",
        "incognito": "boolean",
        "zero_retention": "boolean",
        "created_at": INSTANT,
        "last_activity_at": INSTANT,
        "deleted_at": INSTANT,
        "restored_at": INSTANT,
        "flagged_at": INSTANT,
    },
    "messages": {"id": ANY, "conversation_id": ANY, "author": "text", "created_at": INSTANT, "body": ANY},
    "attachments": {"id": ANY, "conversation_id": ANY, "uri": "text"},
    "feedback": {
        "id": ANY,
        "account_id": ANY,
        "conversation_id": ANY,
        "kind": "text",
        "submitted_at": INSTANT,
        "rating": ANY,
        "transcript": ANY,
    },
}
ALIKE = {
    "bigint": frozenset({"bigint", "integer", "smallint"}),
    "text": frozenset({"text", "character varying", "bpchar", "citext"}),
}
"""Types that read the same; any other type must be the contract's own."""
OUTLIVING = ("accounts", "plan_changes", "consent_events", "feedback")
TABLES = frozenset({"r", "p"})
"""Kinds of relation whose rows can be locked: a table, partitioned or not."""


@dataclass(frozen=True)
class Key:
    """A foreign key or a declared child: whose rows go with the parent's, and how."""

    name: str
    table: str
    oid: int
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    action: Literal["cascade", "explicit"]
    stored_action: str
    indexed: bool
    declared: bool
    leads_back: bool = False
    """Whether the table it points from is already above it: a record that points to another one."""
    children: tuple["Key", ...] = ()


@dataclass(frozen=True)
class Physical:
    """A physical table: quoted name, key column and its type."""

    table: str
    key: str
    type: str
    oid: int
    children: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Contract:
    """The store as found: types of the relations' columns, and what is deleted from."""

    schema: str
    types: Mapping[str, Mapping[str, str]]
    conversations: Physical
    feedback: Physical | None
    """None: the relation is a view and [purge.feedback] names no table, so that no feedback can be purged."""

    def type(self, relation: str, column: str = "id") -> str:
        """The type of a contract column, to cast parameters to."""
        return self.types[relation][column]


def read(connection: Connection, settings: Settings, policy: Policy | None = None) -> Contract:
    """The contract as the database offers it.

    Raises:
        ConfigurationError: a relation, a column or a type is missing; all of them are listed, nothing was done.
    """
    schema = settings.store.schema_name
    types, kinds = relations(connection, schema)
    found = list(faults(types, schema, policy))
    if found:
        listed = "\n".join(f"  {fault}" for fault in found)
        raise ConfigurationError(
            f"the store does not fulfil the contract; nothing was done. Add, for instance as views:\n{listed}"
        )
    conversations = settings.purge.table or f"{schema}.conversations"
    root = physical(connection, conversations, settings.purge.key, schema, "[purge] table")
    feedback = _feedback(connection, settings, kinds)
    spared = _outlive(connection, schema, kinds, feedback)
    children = (*keys(connection, root.oid, spared=spared), *_declared(connection, settings, root, schema))
    return Contract(
        schema,
        types,
        Physical(root.table, root.key, root.type, root.oid, children),
        feedback,
    )


def _feedback(connection: Connection, settings: Settings, kinds: Mapping[str, str]) -> Physical | None:
    named, schema = settings.purge.feedback, settings.store.schema_name
    if named is None and kinds["feedback"] not in TABLES:
        return None
    table, key = (named.table, named.key) if named else (f"{schema}.feedback", "id")
    return physical(connection, table, key, schema, "[purge.feedback] table")


def relations(connection: Connection, schema: str) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """The types by relation and column, and the kind of each relation, of the contract relations that exist."""
    types: dict[str, dict[str, str]] = {}
    kinds: dict[str, str] = {}
    for row in connection.execute(statement("columns"), {"schema": schema, "relations": list(CONTRACT)}):
        types.setdefault(row.relation, {})[row.column] = row.type
        kinds[row.relation] = row.kind
    return types, kinds


def faults(types: Mapping[str, Mapping[str, str]], schema: str, policy: Policy | None) -> Iterator[str]:
    """All that the contract, or the policy, asks for and the store does not have."""
    yield from missing(types, schema)
    if policy is not None:
        yield from _further(types, policy)


def missing(types: Mapping[str, Mapping[str, str]], schema: str) -> Iterator[str]:
    """What the contract asks for and the store does not have."""
    for relation, columns in CONTRACT.items():
        if relation not in types:
            yield f"relation {schema}.{relation} is missing"
            continue
        for column, wanted in columns.items():
            found = types[relation].get(column)
            if found is None:
                yield f"column {schema}.{relation}.{column} is missing{f' ({wanted})' if wanted else ''}"
            elif wanted and found not in ALIKE.get(wanted, {wanted}):
                yield f"column {schema}.{relation}.{column} is {found}, must be {wanted}"


def _further(types: Mapping[str, Mapping[str, str]], policy: Policy) -> Iterator[str]:
    singular: tuple[tuple[Literal["account", "conversation"], str], ...] = (
        ("account", "accounts"),
        ("conversation", "conversations"),
    )
    for holder, relation in singular:
        for column in policy.columns(holder):
            if relation in types and column not in types[relation]:
                yield f"column {relation}.{column} is missing (the policy reads it)"


def physical(connection: Connection, table: str, key: str, schema: str, setting: str) -> Physical:
    """The physical table of that name.

    Raises:
        ConfigurationError: there is none, it is no table, or it has no such key column.
    """
    name = table if "." in table else f"{schema}.{table}"
    row = connection.execute(statement("physical"), {"table": quoted(name), "key": key}).one_or_none()
    if row is None:
        raise ConfigurationError(f"{setting}: there is no table {name}. Nothing was purged. Name the physical table.")
    if row.kind not in TABLES:
        raise ConfigurationError(
            f"{setting}: {name} is not a table but a view or the like, whose rows cannot be locked. Nothing was purged. "
            "Name the physical table behind it."
        )
    if row.type is None:
        raise ConfigurationError(f"{setting}: {name} has no column {key}. Nothing was purged. Name its key column.")
    return Physical(row.name, key, row.type, row.oid)


def _outlive(
    connection: Connection, schema: str, kinds: Mapping[str, str], feedback: Physical | None
) -> frozenset[int]:
    """The tables whose rows never go with a conversation: accounts, their histories, and feedback with its own clock."""
    named = [relation for relation in OUTLIVING if kinds[relation] in TABLES]
    found = [physical(connection, f"{schema}.{relation}", "id", schema, relation).oid for relation in named]
    return frozenset([*found, *([feedback.oid] if feedback else [])])


def keys(
    connection: Connection, oid: int, above: frozenset[int] = frozenset(), spared: frozenset[int] = frozenset()
) -> tuple[Key, ...]:
    """The foreign keys that point to a table, with those that point to the pointing tables below them.

    Raises:
        ConfigurationError: a key with ON DELETE CASCADE would take rows of a `spared` table along.
    """
    found = []
    for row in connection.execute(statement("foreign_keys"), {"oid": oid}):
        if row.oid in spared:
            if row.action == "c":
                raise ConfigurationError(
                    f"foreign key {row.name} of {row.table_name} would delete its rows together with a conversation, and they "
                    "must outlive it. Nothing was purged. Give the key ON DELETE SET NULL."
                )
            continue  # the database itself unsets it; a key that forbids the delete makes it fail, and is counted
        leads_back = row.oid == oid or row.oid in above
        found.append(
            Key(
                row.name,
                row.table_name,
                row.oid,
                tuple(row.columns),
                tuple(row.parent_columns),
                "cascade" if row.action == "c" else "explicit",
                row.action,
                row.indexed,
                declared=False,
                leads_back=leads_back,
                children=() if leads_back else keys(connection, row.oid, above | {oid}, spared),
            )
        )
    return tuple(found)


def _declared(connection: Connection, settings: Settings, root: Physical, schema: str) -> Iterator[Key]:
    for child in settings.purge.children:
        yield declared(connection, child, root, schema)


def declared(connection: Connection, child: Child, root: Physical, schema: str) -> Key:
    """A child that no foreign key declares; its rows are deleted before their conversation, and once more at the end."""
    table = physical(connection, child.table, child.key, schema, "[[purge.children]] table")
    return Key(
        f"declared {child.table}",
        table.table,
        table.oid,
        (child.key,),
        (root.key,),
        "explicit",
        "declared",
        indexed=True,
        declared=True,
        children=keys(connection, table.oid, frozenset({root.oid})),
    )

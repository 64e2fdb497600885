"""Reads the contract: the seven relations with their types, and the physical tables that the purge deletes from.

Whatever is missing is an error that names it; nothing is guessed about a table that rows are deleted from.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import Connection

from sweeper.errors import ConfigurationError
from sweeper.policy.schema import Policy
from sweeper.postgres import redacted_tables, shared
from sweeper.postgres.redacted_tables import RedactedTable
from sweeper.postgres.related_tables import CONTENT, TABLES, PhysicalTable, RelatedTables, physical
from sweeper.postgres.shared import SharedTable
from sweeper.postgres.statement import statement
from sweeper.settings import ChildSettings, Settings, SharedSettings

INSTANT = "timestamp with time zone"
ANY = ""
ID = "an id"

CONTRACT: Mapping[str, Mapping[str, str]] = {
    "accounts": {"id": ID, "created_at": INSTANT, "closed_at": INSTANT},
    "plan_changes": {"id": "bigint", "account_id": ID, "effective_at": INSTANT, "plan": "text"},
    "consent_events": {
        "id": "bigint",
        "account_id": ID,
        "purpose": "text",
        "granted": "boolean",
        "recorded_at": INSTANT,
        "effective_at": INSTANT,
    },
    "conversations": {
        "id": ID,
        "account_id": ID,
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
    "messages": {"id": ID, "conversation_id": ID, "author": "text", "created_at": INSTANT, "body": ANY},
    "attachments": {"id": ANY, "conversation_id": ID, "uri": "text"},
    "feedback": {
        "id": ID,
        "account_id": ID,
        "conversation_id": ID,
        "kind": "text",
        "submitted_at": INSTANT,
        "rating": ANY,
        "transcript": ANY,
    },
}
ALIKE = {
    "bigint": frozenset({"bigint", "integer", "smallint"}),
    "text": frozenset({"text", "character varying", "bpchar", "citext"}),
    ID: frozenset({"uuid", "text", "character varying", "bpchar", "bigint", "integer", "smallint"}),
}
"""Types that are accepted in place of a contract type. Ids are compared as text here and by their type in SQL, so a type that
takes two spellings for one, such as citext or numeric, is not accepted."""


@dataclass(frozen=True)
class Contract:
    """The store as found: the types of the relations' columns, and the tables to delete from."""

    schema: str
    types: Mapping[str, Mapping[str, str]]
    conversations: PhysicalTable
    feedback: PhysicalTable | None
    """None if the relation is a view and [purge.feedback] names no table: then no feedback can be purged."""
    shared: tuple[SharedTable, ...] = ()
    """Tables whose rows go with the last conversation that names them."""
    redacted: tuple[RedactedTable, ...] = ()
    """Tables with the columns that hold content, which rules that redact empty."""
    unkeyed: frozenset[str] = frozenset()
    """Those of accounts and conversations that have no unique index, and so may show a row more than once."""
    unproven: frozenset[str] = frozenset()
    """Relations that are checked after each delete, since deleting from the physical tables does not prove them empty."""

    def type(self, relation: str, column: str = "id") -> str:
        """Return the type of a contract column, to cast parameters to."""
        return self.types[relation][column]


def read(connection: Connection, settings: Settings, policy: Policy | None = None) -> Contract:
    """Read the contract from the database.

    Raises:
        ConfigurationError: relations, columns or types are missing; all are listed, and nothing was done.
    """
    schema = settings.store.schema_name
    if policy is not None and policy.redacting is not None and not settings.purge.redact:
        rule = policy.redacting.rules[0].name
        raise ConfigurationError(
            f'rule {rule} of the policy has action = "redact", and no [[purge.redact]] in the settings says which columns hold '
            "content. Nothing was purged or redacted. Name the tables and their columns there."
        )
    types, kinds = relations(connection, schema)
    found = list(faults(types, schema, policy))
    if found:
        raise ConfigurationError(
            "the store does not fulfil the contract; nothing was done. Add, for instance as views:",
            *(f"  {fault}" for fault in found),
        )
    conversations = settings.purge.table or f"{schema}.conversations"
    root = physical(connection, conversations, settings.purge.key, schema, "[purge] table")
    feedback = _feedback(connection, settings, kinds)
    tree = RelatedTables(
        connection,
        root,
        named=tuple(_named(connection, settings, schema)),
        bases=_bases(connection, schema),
        tables=frozenset(relation for relation in kinds if kinds[relation] in TABLES),
        feedback=feedback,
    )
    read_columns = policy.columns("conversation") if policy is not None else ()
    root = replace(root, children=tree.children(), many_rows=settings.purge.many_rows)
    return Contract(
        schema,
        types,
        root,
        feedback,
        tuple(shared.find(connection, root, tuple(_shared(connection, settings, schema)))),
        tuple(redacted_tables.find(connection, root, schema, settings.purge.redact, read_columns)),
        unkeyed=frozenset(("accounts", "conversations")) - _keyed(connection, schema),
        unproven=frozenset(relation for relation in (*CONTENT, "conversations") if not tree.covers(relation)),
    )


def _feedback(connection: Connection, settings: Settings, kinds: Mapping[str, str]) -> PhysicalTable | None:
    named, schema = settings.purge.feedback, settings.store.schema_name
    if named is None and kinds["feedback"] not in TABLES:
        return None
    table, key = (named.table, named.key) if named else (f"{schema}.feedback", "id")
    return physical(connection, table, key, schema, "[purge.feedback] table")


def _shared(connection: Connection, settings: Settings, schema: str) -> Iterator[tuple[SharedSettings, PhysicalTable]]:
    for each in settings.purge.shared:
        yield each, physical(connection, each.table, each.key, schema, "[[purge.shared]] table")


def relations(connection: Connection, schema: str) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return the column types and the kind (pg_class.relkind) of each contract relation that exists."""
    types: dict[str, dict[str, str]] = {}
    kinds: dict[str, str] = {}
    for row in connection.execute(statement("columns"), {"schema": schema, "relations": list(CONTRACT)}):
        types.setdefault(row.relation, {})[row.column] = row.type
        kinds[row.relation] = row.kind
    return types, kinds


def faults(types: Mapping[str, Mapping[str, str]], schema: str, policy: Policy | None) -> Iterator[str]:
    """Yield whatever the contract or the policy requires and the store lacks."""
    yield from missing(types, schema)
    if policy is not None:
        yield from _further(types, policy)


def missing(types: Mapping[str, Mapping[str, str]], schema: str) -> Iterator[str]:
    """Yield whatever the contract requires and the store lacks."""
    for relation, columns in CONTRACT.items():
        if relation not in types:
            yield f"relation {schema}.{relation} is missing"
            continue
        for column, expected in columns.items():
            found = types[relation].get(column)
            if found is None:
                yield f"column {schema}.{relation}.{column} is missing{f' ({_type_text(expected)})' if expected else ''}"
            elif expected and found not in ALIKE.get(expected, {expected}):
                yield f"column {schema}.{relation}.{column} is {found}, must be {_type_text(expected)}"


def _type_text(expected: str) -> str:
    return f"one of {', '.join(sorted(ALIKE[ID]))}" if expected == ID else expected


def _further(types: Mapping[str, Mapping[str, str]], policy: Policy) -> Iterator[str]:
    singular: tuple[tuple[Literal["account", "conversation"], str], ...] = (
        ("account", "accounts"),
        ("conversation", "conversations"),
    )
    for holder, relation in singular:
        for column in policy.columns(holder):
            if relation in types and column not in types[relation]:
                yield f"column {relation}.{column} is missing (the policy reads it)"


def _keyed(connection: Connection, schema: str) -> frozenset[str]:
    rows = connection.execute(statement("unique_by_id"), {"schema": schema, "relations": list(CONTRACT)})
    return frozenset(row.relation for row in rows)


def _bases(connection: Connection, schema: str) -> dict[str, frozenset[int]]:
    """Return the oids of the tables that each contract relation reads; none if a view reads no table."""
    found: dict[str, set[int]] = defaultdict(set)
    for row in connection.execute(statement("base_tables"), {"schema": schema, "relations": list(CONTRACT)}):
        found[row.relation].add(row.oid)
    return {relation: frozenset(oids) for relation, oids in found.items()}


def _named(connection: Connection, settings: Settings, schema: str) -> Iterator[tuple[ChildSettings, PhysicalTable]]:
    for child in settings.purge.children:
        yield child, physical(connection, child.table, child.key, schema, "[[purge.children]] table")

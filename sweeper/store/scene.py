"""The store as `sweeper check` looks at it: read from the catalogue alone, so that a broken store can be described too.

The law of this file: what is not there is left out and said, never raised; nothing here needs more than a connection.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Row

from sweeper.clock import Clock
from sweeper.core.policy import Policy
from sweeper.settings import Child, Settings
from sweeper.store.contract import CONTRACT, TABLES, Key, Physical, keys, relations
from sweeper.store.family import Branch, branches
from sweeper.store.finding import Finding, fault, warning
from sweeper.store.statement import quoted, statement


@dataclass(frozen=True)
class Relation:
    """A table or view: quoted name, kind and oid."""

    name: str
    oid: int
    kind: str

    @property
    def is_table(self) -> bool:
        """Whether its rows can be locked and it can have indexes."""
        return self.kind in TABLES


@dataclass(frozen=True)
class Scene:
    """All that several checks look at."""

    settings: Settings
    policy: Policy
    clock: Clock
    session: Row[Any]
    types: Mapping[str, Mapping[str, str]]
    relations: Mapping[str, Relation]
    behind: Mapping[str, Sequence[Relation]]
    """For each contract relation, the physical tables that it is read from, itself included."""
    own: Mapping[str, Relation]
    """The sweeper's own tables that exist."""
    readable: frozenset[str]
    """Those of them that the role may read."""
    root: Physical | None
    feedback: Physical | None
    astray: tuple[Finding, ...]
    """What is wrong with the tables that the settings name."""

    @property
    def schema(self) -> str:
        """The schema of the contract relations."""
        return self.settings.store.schema_name

    @property
    def role(self) -> str:
        """The role that the sweeper runs as, quoted."""
        return str(self.session.role)

    @cached_property
    def family(self) -> tuple[Branch, ...]:
        """The tables below conversations."""
        return branches(self.root) if self.root else ()

    @cached_property
    def every_key(self) -> tuple[tuple[str, Key], ...]:
        """Every key below conversations and feedback, with the table that it points to."""
        roots = [table for table in (self.root, self.feedback) if table]
        return tuple(pair for table in roots for pair in _below(table.table, table.children))

    @cached_property
    def touched(self) -> list[int]:
        """The oids of the tables that a purge deletes from."""
        roots = [table.oid for table in (self.root, self.feedback) if table]
        return sorted({*roots, *(key.oid for _, key in self.every_key)})


def look(connection: Connection, settings: Settings, policy: Policy, clock: Clock) -> Scene:
    """The store as it is."""
    session = connection.execute(statement("check_session")).one()
    types, _ = relations(connection, settings.store.schema_name)
    found, behind = _relations(connection, settings.store.schema_name)
    own = connection.execute(statement("check_own")).all()
    astray: list[Finding] = []
    root = _root(connection, settings, behind, astray)
    return Scene(
        settings,
        policy,
        clock,
        session,
        types,
        found,
        behind,
        {row.table: Relation(f"sweeper.{quoted_if_odd(row.table)}", row.oid, "r") for row in own},
        frozenset(row.table for row in own if row.readable),
        root,
        _feedback(connection, settings, found, astray),
        tuple(astray),
    )


def quoted_if_odd(name: str) -> str:
    """An identifier or a dotted pair, quoted only where PostgreSQL would need it."""
    return ".".join(
        part if part.isidentifier() and part.isascii() and part.islower() else quoted(part) for part in name.split(".")
    )


def _relations(connection: Connection, schema: str) -> tuple[dict[str, Relation], dict[str, list[Relation]]]:
    found: dict[str, Relation] = {}
    behind: dict[str, list[Relation]] = {}
    for row in connection.execute(statement("check_behind"), {"schema": schema, "relations": list(CONTRACT)}):
        relation = Relation(row.name, row.oid, row.kind)
        if row.itself:
            found[row.relation] = relation
        if relation.is_table:
            behind.setdefault(row.relation, []).append(relation)
    return found, behind


def _root(
    connection: Connection, settings: Settings, behind: Mapping[str, Sequence[Relation]], astray: list[Finding]
) -> Physical | None:
    named = settings.purge.table or "conversations"
    root = _named(connection, settings, "[purge] table", named, settings.purge.key, astray, behind.get("conversations"))
    if root is None:
        return None
    declared = [
        _declared(child, table, root, connection)
        for child in settings.purge.children
        if (table := _named(connection, settings, "[[purge.children]] table", child.table, child.key, astray))
    ]
    return Physical(root.table, root.key, root.type, root.oid, (*keys(connection, root.oid), *declared))


def _declared(child: Child, table: Physical, root: Physical, connection: Connection) -> Key:
    below = keys(connection, table.oid, frozenset({root.oid}))
    return Key(
        f"declared {child.table}",
        table.table,
        table.oid,
        (child.key,),
        (root.key,),
        "explicit",
        "declared",
        indexed=False,
        declared=True,
        children=below,
    )


def _feedback(
    connection: Connection, settings: Settings, found: Mapping[str, Relation], astray: list[Finding]
) -> Physical | None:
    named = settings.purge.feedback
    if named is None and "feedback" in found and not found["feedback"].is_table:
        astray.append(
            warning(
                "[purge.feedback]",
                f"{found['feedback'].name} is a view and no physical table is named, so that no feedback can be purged.",
                '[purge.feedback] table = "…", key = "id"',
            )
        )
        return None
    table, key = (named.table, named.key) if named else ("feedback", "id")
    physical = _named(connection, settings, "[purge.feedback] table", table, key, astray)
    if physical is None:
        return None
    return Physical(physical.table, physical.key, physical.type, physical.oid, keys(connection, physical.oid))


def _named(
    connection: Connection,
    settings: Settings,
    setting: str,
    name: str,
    key: str,
    astray: list[Finding],
    behind: Sequence[Relation] | None = None,
) -> Physical | None:
    """The physical table that a setting names; if there is none, that is added to `astray`."""
    schema, _, table = (name if "." in name else f"{settings.store.schema_name}.{name}").partition(".")
    full = f"{schema}.{table}"
    row = connection.execute(statement("check_table"), {"schema": schema, "table": table, "key": key}).one_or_none()
    if row is not None and row.kind in TABLES and row.type is not None:
        return Physical(row.name, key, row.type, row.oid)
    if row is None:
        astray.append(fault(setting, f"there is no table {full}.", f"{setting} must name the physical table."))
    elif row.kind not in TABLES:
        known = " or ".join(f'"{relation.name}"' for relation in behind or ()) or '"…"'
        text = f"{full} is a view or the like, whose rows cannot be locked or deleted."
        astray.append(fault(setting, text, f"{setting} = {known}"))
    else:
        astray.append(fault(setting, f"{full} has no column {key}.", f"name its key column beside {setting}."))
    return None


def _below(parent: str, children: Sequence[Key]) -> Iterator[tuple[str, Key]]:
    for key in children:
        yield parent, key
        yield from _below(key.table, key.children)

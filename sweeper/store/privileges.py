"""What the role must be allowed to do, and the GRANT for each thing that it is not."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from sweeper.core.policy import Policy
from sweeper.store.contract import CONTRACT
from sweeper.store.finding import Finding, fault, ok
from sweeper.store.scene import Scene, quoted_if_odd
from sweeper.store.statement import statement

OWN = {
    "runs": ("SELECT", "INSERT", "UPDATE"),
    "lease": ("SELECT", "INSERT", "UPDATE"),
    "object_purges": ("SELECT", "INSERT", "UPDATE"),
    "tombstones": ("SELECT", "INSERT"),
    "events": ("INSERT",),
    "legal_holds": ("SELECT",),
    "erasure_orders": ("SELECT",),
    "schema_version": ("SELECT",),
}
UNREAD = {"messages": {"body"}, "feedback": {"rating"}}
"""Contract columns that no statement reads: a role may be kept from them."""


@dataclass(frozen=True)
class Need:
    """A privilege on a table. With `columns`, SELECT on these alone is enough."""

    oid: int
    table: str
    privilege: str
    columns: tuple[str, ...] = ()


def privileges(scene: Scene, connection: Connection) -> Iterator[Finding]:
    """Every privilege that a run needs and the role lacks."""
    needs = list(dict.fromkeys(_needs(scene)))
    schemas = connection.execute(statement("check_schemas"), {"oids": sorted({need.oid for need in needs})}).all()
    for row in schemas:
        text = f"{scene.role} lacks USAGE on the schema {row.schema}."
        yield fault(f"privileges {row.schema}", text, f"GRANT USAGE ON SCHEMA {row.schema} TO {scene.role};")
    asked = [
        {"number": number, "oid": need.oid, "privilege": need.privilege, "columns": need.columns}
        for number, need in enumerate(needs)
    ]
    lacking = connection.execute(statement("check_privileges"), {"needs": json.dumps(asked)}).all()
    said = {(needs[row.number].table, needs[row.number].privilege) for row in lacking}
    for table, privilege in sorted(said):
        text = f"{scene.role} lacks {privilege} on {table}."
        yield fault(f"privileges {table}", text, f"GRANT {privilege} ON {table} TO {scene.role};")
    if not schemas and not said:
        yield ok("privileges", f"{scene.role} may do all that a run needs.")


def _needs(scene: Scene) -> Iterator[Need]:
    for name, relation in scene.relations.items():
        read = {*CONTRACT[name], *further(scene.policy, name)} - UNREAD.get(name, set())
        yield Need(relation.oid, relation.name, "SELECT", tuple(sorted(read & scene.types[name].keys())))
    for table in (scene.root, scene.feedback):
        if table is not None:
            yield Need(table.oid, table.table, "SELECT", (table.key,))
            yield Need(table.oid, table.table, "DELETE")
            yield Need(table.oid, table.table, f"UPDATE ({quoted_if_odd(table.key)})")
    for branch in scene.family:
        key = branch.key
        yield Need(key.oid, key.table, "SELECT", key.columns if branch.is_direct else ())
        yield Need(key.oid, key.table, f"UPDATE ({quoted_if_odd(key.columns[0])})")
        if key.action == "explicit":
            yield Need(key.oid, key.table, "DELETE")
    for name, wanted in OWN.items():
        if name in scene.own:
            yield from (Need(scene.own[name].oid, scene.own[name].name, privilege) for privilege in wanted)


def further(policy: Policy, relation: str) -> tuple[str, ...]:
    """The columns of a relation that the policy reads beyond the contract's."""
    if relation == "accounts":
        return policy.columns("account")
    return policy.columns("conversation") if relation == "conversations" else ()

"""The privileges that a role needs to sweep one store, and those that the commands for people need.

Invariant: every privilege listed here is used by a statement, column by column. Those on the sweeper's own tables are read
from roles.sql, the script that grants them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sweeper.policy.schema import Policy
from sweeper.postgres.branches import Branch, branches, redactions
from sweeper.postgres.contract import CONTRACT, Contract
from sweeper.postgres.related_tables import Key, PhysicalTable
from sweeper.postgres.shared import SharedTable
from sweeper.postgres.statement import quoted

ROLES = Path(__file__).with_name("roles.sql")
"""The script that grants them. deploy/postgres/roles.sql is a link to it."""
_GRANT = re.compile(r"\('(\w+)', 'sweeper\.(\w+)', '([A-Z]+)',\s+(?:NULL|'([\w, ]+)')\)")
COMMANDS = {
    ("legal_holds", "INSERT"): "hold place",
    ("legal_holds", "UPDATE"): "hold release",
    ("erasure_orders", "INSERT"): "order add",
    ("erasure_orders", "UPDATE"): "order withdraw",
    ("plan_changes", "INSERT"): "plan record",
    ("consent_events", "INSERT"): "consent record",
}
"""The commands for people that write to these tables. The role that sweeps is safer without these privileges."""
UNREAD: Mapping[str, frozenset[str]] = {
    "messages": frozenset({"body"}),
    "attachments": frozenset({"id"}),
    "feedback": frozenset({"rating"}),
}
"""Columns of the contract that no sweep reads."""


@dataclass(frozen=True)
class Need:
    """A privilege on a table: on all the columns named, on any of them, or (where none is) on the whole table."""

    oid: int
    table: str
    privilege: str
    columns: tuple[str, ...] = ()
    any_column: bool = False

    @property
    def grant(self) -> str:
        """The privilege in the syntax of GRANT."""
        columns = ", ".join(map(quoted, self.columns))
        return f"{self.privilege} ({columns})" if columns else self.privilege


class Grant(NamedTuple):
    """What roles.sql grants on one of the sweeper's own tables; no columns: on the whole table."""

    table: str
    privilege: str
    columns: tuple[str, ...]


@cache
def grants(role: str) -> tuple[Grant, ...]:
    """Return what roles.sql grants to a role on the sweeper's own tables."""
    found = (match.groups() for match in _GRANT.finditer(ROLES.read_text(encoding="utf-8")))
    return tuple(
        Grant(table, privilege, tuple(columns.split(", ")) if columns else ())
        for to, table, privilege, columns in found
        if to == role
    )


def own_tables() -> frozenset[str]:
    """Return the names of the sweeper's own tables."""
    return frozenset(grant.table for grant in grants("sweeper"))


def of_own_tables(oids: Mapping[str, int]) -> Iterator[Need]:
    """Yield what a sweep and a manifest need on those of the sweeper's own tables that exist, given by name with their oids."""
    return (_own(oids, grant) for grant in grants("sweeper") if grant.table in oids)


def of_people(oids: Mapping[str, int]) -> dict[Need, str]:
    """Return what commands for people need on those tables, each with its command."""
    needs = (grant for grant in grants("sweeper_officer") if grant[:2] in COMMANDS and grant.table in oids)
    return {_own(oids, grant): COMMANDS[grant[:2]] for grant in needs}


def to_read(oid: int, table: str, relation: str, policy: Policy) -> Need:
    """Return what a sweep needs to read a relation of the contract; all columns of conversations, since it selects whole rows."""
    if relation == "conversations":
        return Need(oid, table, "SELECT")
    further = policy.columns("account") if relation == "accounts" else ()
    columns = [column for column in CONTRACT[relation] if column not in UNREAD.get(relation, ())]
    return Need(oid, table, "SELECT", tuple(dict.fromkeys([*columns, *further])))


def to_read_text(oid: int, table: str) -> Need:
    """Return what a manifest with text needs beyond `to_read`."""
    return Need(oid, table, "SELECT", ("body",))


def to_purge(contract: Contract, read_by: Mapping[tuple[int, str], tuple[str, ...]]) -> Iterator[Need]:
    """Yield what a purge needs on the physical tables; a cascade needs nothing, since it runs as the child table's owner.

    Args:
        contract: the store as found.
        read_by: the columns that each key reads that is an expression, by table and expression; none: the whole table.
    """
    for root in (contract.conversations, contract.feedback):
        if root is not None:
            key = read_by[root.oid, root.key] if root.is_expression else (root.key,)
            read = (*key, *_referenced_columns(root)) if key else ()
            yield Need(root.oid, root.table, "SELECT", tuple(dict.fromkeys(read)))
            yield Need(root.oid, root.table, "DELETE")
            yield _to_lock(root.oid, root.table, read[:1])
    for branch in branches(contract.conversations):
        yield from _of_branch(branch, read_by)
    for branch in redactions(contract.conversations):
        key = _key_columns(branch.key, read_by)
        read = (*key, *branch.key.redacted) if key else ()
        yield Need(branch.key.oid, branch.table, "SELECT", tuple(dict.fromkeys(read)))
        yield Need(branch.key.oid, branch.table, "UPDATE", branch.key.redacted)
    for shared in contract.shared:
        yield from _of_shared(shared)
    for redacted in contract.redacted:
        columns = tuple(redacted.values)
        yield Need(redacted.oid, redacted.table, "SELECT", columns)
        yield Need(redacted.oid, redacted.table, "UPDATE", columns)


def _of_shared(shared: SharedTable) -> Iterator[Need]:
    rows = shared.rows
    yield Need(rows.oid, rows.table, "SELECT", (rows.key,))
    yield Need(rows.oid, rows.table, "DELETE")
    yield _to_lock(rows.oid, rows.table, (rows.key,))
    for link in shared.links:
        yield Need(link.oid, link.table, "SELECT", (link.column,))


def _of_branch(branch: Branch, read_by: Mapping[tuple[int, str], tuple[str, ...]]) -> Iterator[Need]:
    key = branch.key
    place = () if branch.is_direct else ("ctid", "tableoid")
    own = _key_columns(key, read_by)
    read = (*own, *(column for child in key.children for column in child.parent_columns), *place) if own else ()
    yield Need(key.oid, branch.table, "SELECT", tuple(dict.fromkeys(read)))
    yield _to_lock(key.oid, branch.table, own[:1])
    if key.action == "explicit":
        yield Need(key.oid, branch.table, "DELETE")


def _key_columns(key: Key, read_by: Mapping[tuple[int, str], tuple[str, ...]]) -> tuple[str, ...]:
    return read_by[key.oid, key.expression] if key.expression else key.columns


def _referenced_columns(root: PhysicalTable) -> Iterator[str]:
    """Yield the columns of a record that its children refer to, beside a key that is an expression."""
    referenced = (column for child in root.children for column in child.parent_columns)
    return (column for column in referenced if column != root.key)


def _to_lock(oid: int, table: str, columns: tuple[str, ...]) -> Need:
    """Return what FOR UPDATE needs: UPDATE on any column."""
    return Need(oid, table, "UPDATE", columns, any_column=bool(columns))


def _own(oids: Mapping[str, int], grant: Grant) -> Need:
    return Need(oids[grant.table], f"sweeper.{grant.table}", grant.privilege, grant.columns)

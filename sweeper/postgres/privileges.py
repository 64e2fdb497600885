"""What a role must be allowed: to sweep one store, and beyond that for the commands that are for people.

The law of this file: it asks for no more than the statements use, column by column; deploy/postgres/roles.sql grants no more.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.policy.schema import Policy
from sweeper.postgres.branches import Branch, branches
from sweeper.postgres.contract import CONTRACT, Contract
from sweeper.postgres.related_tables import Key
from sweeper.postgres.statement import quoted

OWN_NEEDS = {
    "identity": ("SELECT",),
    "schema_version": ("SELECT",),
    "runs": ("SELECT", "INSERT", "UPDATE (started_at, finished_at, outcome, result, plan_changes, consent_events)"),
    "lease": ("SELECT", "INSERT", "UPDATE (run_id, token, expires_at, yields, wanted_at)"),
    "object_purges": (
        "SELECT",
        "INSERT (uri, conversation_id, run_id)",
        "UPDATE (outcome, done_at, attempts, last_run_id, last_error)",
    ),
    "tombstones": (
        "SELECT",
        "INSERT (record, record_id, conversation_id, account_id, rule, due_at, as_of, run_id, policy_digest, children, "
        "approved, purged_at)",
    ),
    "events": ("SELECT", "INSERT (kind, run_id, details)"),
    "fence": ("UPDATE",),
    "legal_holds": ("SELECT",),
    "erasure_orders": ("SELECT",),
    "manifests": ("SELECT", "INSERT", "UPDATE (state, started_at, completed_at, recalled_at)"),
    "revocations": (
        "SELECT",
        "INSERT (manifest_id, message_id, conversation_id, reason, since, found_at, found_by)",
    ),
    "pauses": ("SELECT", "INSERT (reason, paused_at)", "UPDATE (resumed_at)"),
    "backfills": ("SELECT", "INSERT", "UPDATE (done_until, seen_at, finished_at)"),
    "ledger_sources": ("SELECT", "UPDATE (unnumbered)"),
    "leaves": ("SELECT", "INSERT"),
    "tiles": ("SELECT", "INSERT"),
    "checkpoints": ("SELECT", "INSERT (size, root, note, signed_by, taken_at)"),
}
"""What a sweep and a manifest need on the sweeper's own tables, as GRANT has it: on these columns, or on the whole table."""
PEOPLE_NEED = (
    ("legal_holds", "INSERT (matter, account_id, conversation_id, placed_at)", "hold place"),
    ("legal_holds", "UPDATE (released_at)", "hold release"),
    ("erasure_orders", "INSERT (reference, account_id, conversation_id, recorded_at, due_at, store)", "order add"),
)
"""What commands need that are for people: table, privilege, command. The role that sweeps does better without."""
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
        """The privilege in the words of GRANT."""
        columns = ", ".join(map(quoted, self.columns))
        return f"{self.privilege} ({columns})" if columns else self.privilege

    @property
    def asked(self) -> dict[str, Any]:
        """The need as the statement `check_privileges` takes it."""
        return {
            "oid": self.oid,
            "privilege": self.privilege,
            "columns": self.columns,
            "any_column": self.any_column,
        }


def of_own_tables(oids: Mapping[str, int]) -> Iterator[Need]:
    """What a sweep needs on those of the sweeper's own tables that exist, given by name with their oids."""
    for table, grants in OWN_NEEDS.items():
        if table in oids:
            yield from (_own(oids, table, grant) for grant in grants)


def of_people(oids: Mapping[str, int]) -> dict[Need, str]:
    """What commands for people need on those tables, each with its command."""
    return {_own(oids, table, grant): command for table, grant, command in PEOPLE_NEED if table in oids}


def to_read(oid: int, table: str, relation: str, policy: Policy) -> Need:
    """What a sweep needs to read a relation of the contract; of conversations all, for proposing hands whole rows on."""
    if relation == "conversations":
        return Need(oid, table, "SELECT")
    further = policy.columns("account") if relation == "accounts" else ()
    columns = [column for column in CONTRACT[relation] if column not in UNREAD.get(relation, ())]
    return Need(oid, table, "SELECT", tuple(dict.fromkeys([*columns, *further])))


def to_read_text(oid: int, table: str) -> Need:
    """What a manifest with text needs beyond that."""
    return Need(oid, table, "SELECT", ("body",))


def to_purge(contract: Contract) -> Iterator[Need]:
    """What a purge needs on the physical tables; the triggers of a cascade run as the owners of the tables below."""
    for root in (contract.conversations, contract.feedback):
        if root is not None:
            yield Need(root.oid, root.table, "SELECT", tuple(dict.fromkeys([root.key, *_led_to(root.children)])))
            yield Need(root.oid, root.table, "DELETE")
            yield _to_lock(root.oid, root.table, root.key)
    for branch in branches(contract.conversations):
        yield from _of_branch(branch)


def _of_branch(branch: Branch) -> Iterator[Need]:
    key = branch.key
    place = () if branch.is_direct else ("ctid", "tableoid")
    yield Need(key.oid, branch.table, "SELECT", tuple(dict.fromkeys([*key.columns, *_led_to(key.children), *place])))
    yield _to_lock(key.oid, branch.table, key.columns[0])
    if key.action == "explicit":
        yield Need(key.oid, branch.table, "DELETE")


def _led_to(children: Sequence[Key]) -> Iterator[str]:
    """The columns of a table by which its children are found."""
    return (column for child in children for column in child.parent_columns)


def _to_lock(oid: int, table: str, key: str) -> Need:
    """FOR UPDATE asks for UPDATE on a column, whichever."""
    return Need(oid, table, "UPDATE", (key,), any_column=True)


def _own(oids: Mapping[str, int], table: str, grant: str) -> Need:
    privilege, _, columns = grant.rstrip(")").partition(" (")
    return Need(oids[table], f"sweeper.{table}", privilege, tuple(columns.split(", ")) if columns else ())

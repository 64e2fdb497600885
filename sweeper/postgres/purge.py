"""Locks, counts and deletes the rows of a batch. It knows nothing of the policy: the caller has decided what to delete.

Invariants: only DELETE … RETURNING says what was deleted, and a count that does not match rolls the batch back. While rows are
locked, no statement waits long enough for PostgreSQL to abort an application's transaction as a deadlock victim.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, TextClause, text

from sweeper.errors import SweeperError
from sweeper.postgres import shared
from sweeper.postgres.branches import Branch, branches, conflicts, cycles, redactions
from sweeper.postgres.contract import Contract
from sweeper.postgres.related_tables import PhysicalTable
from sweeper.postgres.statement import array, quoted, statement


class MismatchError(SweeperError):
    """Other rows were deleted than were asked for; the batch was rolled back and purged nothing."""


class SlowError(SweeperError):
    """The batch took too long to continue safely; it was rolled back and is repeated in smaller portions."""


class ChildrenLockedError(SweeperError):
    """Another transaction holds locks on children of the conversation; nothing was purged, and it is tried again at the end."""


class ChangedError(SweeperError):
    """Facts that no lock covers changed during the batch; it was rolled back and is decided again."""


Asked = Mapping[str, str | list[str | None]]
LEAST_SECONDS = 0.05
"""No DELETE begins with less time left than this."""


@dataclass
class LockBudget:
    """How long (seconds) a transaction that holds row locks may run before its last DELETE ends, below `deadlock_timeout`."""

    limit: float
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.limit - (time.monotonic() - self.started)


def read_lock_budget(connection: Connection) -> float:
    """Return how long (seconds) a batch may take from its first row lock to its last DELETE: half of `deadlock_timeout`."""
    milliseconds: int = connection.execute(
        text("SELECT setting::integer FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'")
    ).scalar_one()
    return milliseconds / 1000 * 0.5


def bound_lock_wait(connection: Connection, milliseconds: int) -> None:
    """Limit how long a statement of this transaction waits for a lock."""
    connection.execute(text("SELECT set_config('lock_timeout', :limit, true)"), {"limit": str(milliseconds)})


def bound_statement(connection: Connection, milliseconds: int) -> None:
    """Let no statement of the transaction take longer than this."""
    connection.execute(text("SELECT set_config('statement_timeout', :limit, true)"), {"limit": str(milliseconds)})


def run_deferred(connection: Connection) -> None:
    """Run deferred triggers now instead of at the commit, so that the checks that follow see what they did."""
    connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))


def lock(connection: Connection, table: PhysicalTable, ids: Sequence[str], *, waiting: bool = False) -> Counter[str]:
    """Lock the physical rows and return the ids of those locked, with the number of their rows.

    Rows locked by others are skipped, or waited for. A record of many rows counts as locked only if all of its rows are.
    """
    name = "lock_rows_waiting" if waiting else "lock_rows"
    locked = Counter(_ids(connection, name, table, ids))
    if not table.many_rows:
        return locked
    present = existing(connection, table, list(locked))
    return Counter({id_: rows for id_, rows in locked.items() if present[id_] == rows})


def existing(connection: Connection, table: PhysicalTable, ids: Sequence[str]) -> Counter[str]:
    """Return the ids that have physical rows, with their number; the others have been deleted."""
    return Counter(_ids(connection, "existing", table, ids) if ids else ())


def _ids(connection: Connection, name: str, table: PhysicalTable, ids: Sequence[str]) -> Iterator[str]:
    """Execute one of the statements on the rows of records, and yield the id of each row that it returns."""
    sql = statement(name, table=table.table, key=table.reference("t"), type=table.type)
    return (row.id for row in connection.execute(sql, {"ids": array(ids)}))


def refuse_rowless(connection: Connection, contract: Contract, ids: Sequence[str]) -> None:
    """Refuse conversations that a view shows and that have no physical row under their key.

    Raises:
        MismatchError: there are such conversations; nothing was purged.
    """
    if ids and "conversations" in contract.unproven and _is_shown(connection, contract, "conversations", ids):
        raise MismatchError(
            f"conversations shows rows that {contract.conversations.table} does not have by its key column "
            f"{contract.conversations.key}. Nothing of them was purged. Name the right column in [purge] key."
        )


def _is_shown(connection: Connection, contract: Contract, relation: str, ids: Sequence[str]) -> bool:
    column = "id" if relation == "conversations" else "conversation_id"
    names = {"relation": relation, "column": column, "type": contract.type(relation, column)}
    found: bool = connection.execute(statement("left_in_relation", **names), {"ids": array(ids)}).scalar_one()
    return found


def delete(
    connection: Connection,
    contract: Contract,
    ids: Sequence[str],
    run_id: int,
    lock_budget: LockBudget,
    counted: Callable[[], None] = lambda: None,
    locked: Mapping[str, int] | None = None,
) -> dict[str, dict[str, int]]:
    """Delete conversations with all their children, redact what stays, and record the objects behind their attachments.

    A child table without a foreign key can receive rows although the conversation is locked. `counted` is called after the
    children are counted, to check that the facts are still those decided on; deleting more rows than were counted fails too.
    `locked` has the number of rows that `lock` locked, by conversation; it matters where one may have many rows.

    Returns:
        The number of children in each table, by conversation.

    Raises:
        MismatchError: other rows were deleted than were asked for, children remain, or other records would be deleted.
        SlowError: the batch must be smaller.
        ChildrenLockedError: others hold locks on children of a single conversation.
        ChangedError: children were inserted during the batch.
    """
    root, asked = contract.conversations, {"ids": array(ids)}
    family = (*branches(root), *redactions(root))
    _refuse_other_records(connection, root, asked)
    children = count_children(connection, root, ids)
    remember_objects(connection, contract, ids, run_id)
    if is_open(contract):
        counted()
    deleted: Counter[str] = Counter()
    places = _places(connection, family, asked)
    named = [(each, shared.named_by(connection, each, ids)) for each in contract.shared]
    if len(ids) == 1:
        for branch in family:
            lock_all(connection, branch.table, branch.condition, ids)
    for branch in family:
        if branch.key.action != "cascade":
            bound_by_budget(connection, ids, lock_budget)
            deleted[branch.label] += connection.execute(_removing(branch), asked).rowcount
    _refuse_more(family, children, deleted)
    bound_by_budget(connection, ids, lock_budget)
    delete_exactly(connection, root, ids, locked)
    _refuse_left_behind(connection, family, asked, places)
    _refuse_unproven(connection, contract, ids)
    for each, by_rows in named:
        for id_, deleted_rows in shared.delete_unnamed(connection, each, by_rows).items():
            children[id_].update(deleted_rows)
    for id_, rows in (locked or {}).items() if root.many_rows else ():
        children.get(id_, {})[root.table] = rows
    return children


def _removing(branch: Branch) -> TextClause:
    """Return the statement that deletes or redacts the rows of a branch."""
    if branch.key.action != "redact":
        return statement("delete_children", table=branch.table, condition=branch.condition)
    columns = ", ".join(f"{quoted(column)} = NULL" for column in branch.key.redacted)
    return statement("redact_children", table=branch.table, columns=columns, condition=branch.condition)


def is_open(contract: Contract) -> bool:
    """Return True if children can be inserted under a locked conversation, because a child table has no foreign key."""
    return any(key.declared for key in contract.conversations.children)


def _refuse_more(
    family: Sequence[Branch], children: Mapping[str, Mapping[str, int]], deleted: Mapping[str, int]
) -> None:
    for label in {branch.label for branch in family if branch.key.declared and len(branch.path) == 1}:
        if deleted[label] > sum(found.get(label, 0) for found in children.values()):
            raise ChangedError(f"{label}: rows came while their conversations were deleted")


def remember_objects(connection: Connection, contract: Contract, ids: Sequence[str], run_id: int) -> None:
    """Record the objects behind the attachments of conversations, before these are deleted."""
    conversation = contract.type("attachments", "conversation_id")
    connection.execute(statement("remember_objects", conversation=conversation), {"ids": array(ids), "run_id": run_id})


def delete_orphans(connection: Connection, contract: Contract, ids: Sequence[str], run_id: int) -> int:
    """Delete or redact rows that were inserted under purged conversations in tables without a foreign key; return their number.

    A conversation that exists again, because the application has used its id anew, keeps its rows.
    """
    root = contract.conversations
    again = existing(connection, root, ids)
    purged = [id_ for id_ in ids if id_ not in again]
    remember_objects(connection, contract, purged, run_id)
    return sum(
        connection.execute(_removing(branch), {"ids": array(purged)}).rowcount
        for branch in (*branches(root), *redactions(root))
        if branch.key.declared
    )


def count_children(connection: Connection, root: PhysicalTable, ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return how many children each record has in each table that refers to it; a row with two keys to it counts once."""
    found: dict[str, dict[str, int]] = {id_: {} for id_ in ids}
    tables: dict[str, list[Branch]] = {}
    for branch in (*branches(root), *redactions(root)):
        if len(branch.path) == 1:
            tables.setdefault(branch.label, []).append(branch)
    for label, over in tables.items():
        for row in connection.execute(_counting(root, over), {"ids": array(ids)}):
            found[row.id][label] = row.children
    return found


def _counting(root: PhysicalTable, over: Sequence[Branch]) -> TextClause:
    first = over[0]
    if len(over) == 1 and first.is_direct:
        key = first.key.reference("t")
        return statement("count_direct_children", table=first.table, key=key, condition=first.condition)
    joined = " OR ".join(branch.joined() for branch in over)
    read = dict.fromkeys(column for branch in over for column in branch.key.parent_columns)
    columns = ", ".join(f"t.{quoted(column)}" for column in read)
    names = {"root": root.table, "key": root.reference("t"), "type": root.type, "columns": columns}
    return statement("count_children", table=first.table, joined=joined, **names)


def bound_by_budget(connection: Connection, ids: Sequence[str], lock_budget: LockBudget) -> None:
    """Limit the next statement to the time left, so that no application that waits for our locks is aborted.

    A single conversation needs no limit: its children were locked beforehand without waiting.
    """
    if len(ids) == 1:
        return
    if lock_budget.left <= LEAST_SECONDS:
        raise SlowError("the batch took too long; it was rolled back and is done in smaller portions")
    bound_statement(connection, int(lock_budget.left * 1000))


def lock_all(connection: Connection, table: str, condition: str, ids: Sequence[str]) -> None:
    """Lock those rows of a table that fulfil a condition on the conversations `ids`, without waiting.

    Raises:
        ChildrenLockedError: others hold locks on some of them.
    """
    counts = connection.execute(statement("lock_children", table=table, condition=condition), {"ids": array(ids)}).one()
    if counts.present != counts.locked:
        raise ChildrenLockedError(f"{counts.present - counts.locked} rows in {table} are locked by others")


def delete_exactly(
    connection: Connection, table: PhysicalTable, ids: Sequence[str], locked: Mapping[str, int] | None = None
) -> None:
    """Delete the rows of records by their keys.

    Raises:
        MismatchError: other rows were deleted than were asked for.
    """
    deleted = Counter(_ids(connection, "delete_rows", table, ids))
    if table.many_rows:
        _refuse_new_rows(connection, table, ids, deleted, locked)
    elif deleted != Counter(ids):
        raise MismatchError(
            f"{table.table}: {len(ids)} rows were to be deleted, {deleted.total()} were. The batch was rolled back. "
            "A trigger or a rule on the table may keep rows back: run `sweeper check`."
        )


def _refuse_new_rows(
    connection: Connection,
    table: PhysicalTable,
    ids: Sequence[str],
    deleted: Mapping[str, int],
    locked: Mapping[str, int] | None,
) -> None:
    """Refuse to delete a record of many rows that has got a row since its rows were locked, or that still has one.

    Raises:
        ChangedError: rows came, or were kept back; the caller undoes the batch.
    """
    expected = {id_: deleted.get(id_, 0) if locked is None else locked[id_] for id_ in ids}
    if deleted != expected or existing(connection, table, ids):
        raise ChangedError(f"{table.table}: rows came while their conversations were deleted")


def _refuse_other_records(connection: Connection, root: PhysicalTable, asked: Asked) -> None:
    """Refuse to delete other conversations, or their children, that refer to the batch."""
    for branch in cycles(root):
        names = {"table": branch.table, "condition": branch.condition, "own_condition": branch.own_condition}
        if connection.execute(statement("other_records", **names), asked).scalar_one():
            raise MismatchError(
                f"{branch.table}: rows of other conversations point to the batch by {branch.key.name} with ON DELETE CASCADE "
                "and would go with it. The batch was rolled back. Give that key ON DELETE SET NULL."
            )
    for branch, others in conflicts(root):
        elsewhere = " OR ".join(other.elsewhere for other in others)
        names = {"table": branch.table, "condition": branch.condition, "elsewhere": elsewhere}
        if connection.execute(statement("other_records_by_key", **names), asked).scalar_one():
            raise MismatchError(
                f"{branch.table}: rows of other conversations point to the batch by {branch.key.name} and would go with it. "
                "The batch was rolled back. Give that key ON DELETE SET NULL, or name it in [[purge.children]] if they should."
            )


Places = list[tuple[Branch, list[str], list[str]]]


def _places(connection: Connection, family: Sequence[Branch], asked: Asked) -> Places:
    """Return the physical locations of rows that cannot be found by the record's key once their parents are deleted."""
    found: Places = []
    for branch in family:
        if not branch.is_direct:
            rows = connection.execute(
                statement("row_locations", table=branch.table, condition=branch.condition), asked
            ).all()
            if rows:
                found.append((branch, [row.place for row in rows], [row.mark for row in rows]))
    return found


def _refuse_unproven(connection: Connection, contract: Contract, ids: Sequence[str]) -> None:
    """Check that relations that read other tables than were deleted from show nothing of the batch any more."""
    for relation in sorted(contract.unproven):
        if _is_shown(connection, contract, relation, ids):
            raise MismatchError(
                f"{relation}: rows of the batch are still there after the delete. The batch was rolled back. "
                "Name the physical table and key behind it in [purge] or [[purge.children]]."
            )


def _refuse_left_behind(connection: Connection, family: Sequence[Branch], asked: Asked, places: Places) -> None:
    left = [
        branch.table
        for branch in family
        if branch.is_direct
        and connection.execute(
            statement("left_behind", table=branch.table, condition=branch.condition), asked
        ).scalar_one()
    ]
    left += [
        branch.table
        for branch, where, marks in places
        if connection.execute(
            statement("left_in_place", table=branch.table), {"places": where, "marks": marks}
        ).scalar_one()
    ]
    if left:
        raise MismatchError(
            f"{', '.join(left)}: rows stayed behind when their conversation was deleted. The batch was rolled back. "
            "A trigger on the table may keep them back: run `sweeper check`."
        )

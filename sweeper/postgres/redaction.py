"""Empties the content columns of a batch's conversations; their rows stay. The caller has decided what to redact.

Invariants: only UPDATE … RETURNING says what was emptied. Content that came since the rows were counted, or that stays, rolls the
batch back.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from sweeper.postgres import purge
from sweeper.postgres.contract import Contract
from sweeper.postgres.purge import ChangedError, LockBudget, MismatchError
from sweeper.postgres.redacted_tables import RedactedTable
from sweeper.postgres.statement import array, statement


def with_content(connection: Connection, contract: Contract, ids: Sequence[str]) -> set[str]:
    """Return the conversations that have content left in any of the columns."""
    return {id_ for table in contract.redacted for id_ in _rows(connection, "content_left", table, ids)}


def redact(
    connection: Connection,
    contract: Contract,
    ids: Sequence[str],
    lock_budget: LockBudget,
    counted: Callable[[], None],
) -> dict[str, dict[str, int]]:
    """Empty the columns of locked conversations.

    `counted` is called after the rows are counted, to check that the facts are still those decided on.

    Returns:
        How many rows were emptied in each table, by conversation.

    Raises:
        MismatchError: content stays.
        SlowError: the batch must be smaller.
        ChildrenLockedError: others hold locks on rows of a single conversation.
        ChangedError: rows came during the batch.
    """
    if len(ids) == 1:
        _lock(connection, contract, ids)
    rows = {table: Counter(_rows(connection, "content_left", table, ids)) for table in contract.redacted}
    counted()
    found: dict[str, dict[str, int]] = {id_: {} for id_ in ids}
    for table, left in rows.items():
        purge.bound_by_budget(connection, ids, lock_budget)
        emptied = Counter(_rows(connection, "empty_columns", table, ids, assignments=table.assignments))
        if emptied - left:
            raise ChangedError(f"{table.table}: rows came while their conversations were redacted")
        if _rows(connection, "content_left", table, ids):
            raise MismatchError(
                f"{table.table}: content stayed when its conversation was redacted. The batch was rolled back. "
                "A trigger on the table may keep it: look at its triggers."
            )
        for id_, count in emptied.items():
            found[id_][table.label] = count
    return found


def _rows(connection: Connection, name: str, table: RedactedTable, ids: Sequence[str], **names: str) -> list[str]:
    """Execute one of the statements on the rows with content, and return the conversation of each row that it returns."""
    names |= {"table": table.table, "key": table.key, "belongs": table.belongs, "left": table.left}
    return [row.id for row in connection.execute(statement(name, **names), {"ids": array(ids)})] if ids else []


def _lock(connection: Connection, contract: Contract, ids: Sequence[str]) -> None:
    for table in contract.redacted:
        purge.lock_all(connection, table.table, f"{table.belongs} AND ({table.left})", ids)

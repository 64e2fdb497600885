"""Locks, deletes, counts. What is to go was decided elsewhere; this file has no opinion.

The law of this file: what was deleted is what DELETE … RETURNING says, and a count that does not fit undoes the batch.
While rows are locked it never waits long enough for PostgreSQL to call an application the victim of a deadlock.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from sweeper.errors import SweeperError
from sweeper.store.contract import Contract, Key, Physical
from sweeper.store.statement import quoted, statement


class MismatchError(SweeperError):
    """What was deleted is not what was to be deleted; the batch was rolled back and nothing of it was purged."""


class SlowError(SweeperError):
    """The batch took too long to go on safely; it was rolled back and is done in smaller portions."""


class ChildrenLockedError(SweeperError):
    """Children of the conversation are locked by another transaction; nothing was purged, it is tried again at the end."""


@dataclass
class Patience:
    """How long a transaction that holds row locks may still wait for others, in seconds, below `deadlock_timeout`."""

    limit: float
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.limit - (time.monotonic() - self.started)


def read_patience(connection: Connection) -> float:
    """How long a batch may take from its first row lock to the end of its DELETE, in seconds."""
    milliseconds: int = connection.execute(
        text("SELECT setting::integer FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'")
    ).scalar_one()
    return milliseconds / 1000 * 0.8


def fence(connection: Connection) -> None:
    """Share the fence of legal holds until the transaction ends."""
    connection.execute(statement("fence"))


def bound_lock_wait(connection: Connection, milliseconds: int) -> None:
    """Let no statement of the transaction wait longer than this for a lock."""
    connection.execute(text("SELECT set_config('lock_timeout', :limit, true)"), {"limit": str(milliseconds)})


def lock(connection: Connection, table: Physical, ids: Sequence[str], *, waiting: bool = False) -> list[str]:
    """The ids whose physical rows are now locked; others' locks are left out, or waited for up to lock_timeout."""
    name = "lock_waiting" if waiting else "lock"
    rows = connection.execute(
        statement(name, table=table.table, key=quoted(table.key), type=table.type), {"ids": list(ids)}
    )
    return [row.id for row in rows]


def delete(
    connection: Connection, contract: Contract, ids: Sequence[str], run_id: int, patience: Patience
) -> dict[str, dict[str, int]]:
    """Delete conversations with all their children and write down their objects.

    Returns:
        For each conversation, how many children it had in each table.

    Raises:
        MismatchError: something else was deleted than was asked for, or children stayed behind.
        SlowError: the batch must be smaller.
        ChildrenLockedError: a single conversation has children that others hold locked.
    """
    root = contract.conversations
    asked = {"ids": list(ids)}
    connection.execute(
        statement("remember_objects", conversation=contract.type("attachments", "conversation_id")),
        {**asked, "run_id": run_id},
    )
    children = count_children(connection, root, ids)
    _bound_waiting(connection, root, asked, patience)
    for key, path in _explicit(root):
        connection.execute(statement("delete_children", table=key.table, condition=_condition(root, path)), asked)
    _delete_exactly(connection, root, ids)
    for key in root.children:
        _refuse_left_behind(connection, root, key, asked)
    return children


def delete_feedback(connection: Connection, feedback: Physical, ids: Sequence[str]) -> None:
    """Delete feedback rows.

    Raises:
        MismatchError: something else was deleted than was asked for.
    """
    _delete_exactly(connection, feedback, ids)


def delete_strays(connection: Connection, contract: Contract, ids: Sequence[str]) -> int:
    """Delete what was inserted meanwhile under purged conversations in tables that no foreign key guards; returns how many."""
    root = contract.conversations
    return sum(
        connection.execute(
            statement("delete_children", table=key.table, condition=_condition(root, path)), {"ids": list(ids)}
        ).rowcount
        for key, path in _explicit(root)
        if key.declared
    )


def count_children(connection: Connection, root: Physical, ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many children each record has in each table that points to it."""
    found: dict[str, dict[str, int]] = {id_: {} for id_ in ids}
    for key in root.children:
        if not _points_to_key(root, key):
            continue
        rows = connection.execute(
            statement(
                "count_children", table=key.table, column=quoted(key.columns[0]), condition=_condition(root, (key,))
            ),
            {"ids": list(ids)},
        )
        for row in rows:
            found[row.id][key.table] = row.children
    return found


def _bound_waiting(connection: Connection, root: Physical, asked: Mapping[str, list[str]], patience: Patience) -> None:
    """See to it that the DELETE ends before an application that waits for us could be made to give up.

    Many conversations: the statement is given what is left of the patience. One conversation, however many children: they
    are locked beforehand without waiting, so that its DELETE has nobody to wait for.
    """
    if len(asked["ids"]) > 1:
        if patience.left <= 0.05:
            raise SlowError(
                "reading the facts of the batch took too long; it was rolled back and is done in smaller portions"
            )
        connection.execute(
            text("SELECT set_config('statement_timeout', :left, true)"),
            {"left": str(max(1, int(patience.left * 1000)))},
        )
        return
    for key in root.children:
        counts = connection.execute(
            statement("lock_children", table=key.table, condition=_condition(root, (key,))), asked
        ).one()
        if counts.present != counts.locked:
            raise ChildrenLockedError(f"{counts.present - counts.locked} rows in {key.table} are locked by others")


def _delete_exactly(connection: Connection, table: Physical, ids: Sequence[str]) -> None:
    rows = connection.execute(
        statement("delete", table=table.table, key=quoted(table.key), type=table.type), {"ids": list(ids)}
    )
    deleted = sorted(row.id for row in rows)
    if deleted != sorted(ids):
        raise MismatchError(
            f"{table.table}: {len(ids)} rows were to be deleted, {len(deleted)} were. The batch was rolled back. "
            "A trigger or a rule on the table may keep rows back: run `sweeper check`."
        )


def _refuse_left_behind(connection: Connection, root: Physical, key: Key, asked: Mapping[str, list[str]]) -> None:
    if (
        _points_to_key(root, key)
        and connection.execute(
            statement("left_behind", table=key.table, condition=_condition(root, (key,))), asked
        ).scalar_one()
    ):
        raise MismatchError(
            f"{key.table}: rows stayed behind when their conversation was deleted. The batch was rolled back. "
            "A trigger on the table may keep them back: run `sweeper check`."
        )


def _explicit(root: Physical) -> Iterator[tuple[Key, tuple[Key, ...]]]:
    """The keys whose rows must be deleted by us, deepest first, each with its path from the root."""
    yield from _below(root.children, ())


def _below(keys: Sequence[Key], above: tuple[Key, ...]) -> Iterator[tuple[Key, tuple[Key, ...]]]:
    for key in keys:
        path = (*above, key)
        yield from _below(key.children, path)
        if key.action == "explicit":
            yield key, path


def _points_to_key(root: Physical, key: Key) -> bool:
    return key.parent_columns == (root.key,)


def _condition(root: Physical, path: Sequence[Key], alias: str = "t") -> str:
    """That a row of the last table of the path belongs, over the tables before it, to a record of the batch."""
    *above, key = path
    columns = ", ".join(f"{alias}.{quoted(column)}" for column in key.columns)
    if not above and _points_to_key(root, key):
        return f"{columns} = ANY(CAST(:ids AS {root.type}[]))"
    table = above[-1].table if above else root.table
    inner = _condition(root, above, "u") if above else f"u.{quoted(root.key)} = ANY(CAST(:ids AS {root.type}[]))"
    parents = ", ".join(f"u.{quoted(column)}" for column in key.parent_columns)
    return f"({columns}) IN (SELECT {parents} FROM {table} u WHERE {inner})"  # noqa: S608 — quoted identifiers only

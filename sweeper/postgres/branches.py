"""Turns the tree of foreign keys and declared children below a table into SQL conditions.

Invariant: a condition selects rows that belong to the records of the batch, and no row of any other record.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sweeper.postgres.related_tables import Key, PhysicalTable
from sweeper.postgres.statement import quoted


@dataclass(frozen=True)
class Branch:
    """A table below the root, reached by a path of keys."""

    root: PhysicalTable
    path: tuple[Key, ...]

    @property
    def key(self) -> Key:
        """The last key of the path."""
        return self.path[-1]

    @property
    def table(self) -> str:
        """The table whose rows are deleted."""
        return self.key.table

    @property
    def is_direct(self) -> bool:
        """True if one column of its rows holds the record's own key."""
        return len(self.path) == 1 and self.key.parent_columns == (self.root.key,)

    @property
    def condition(self) -> str:
        """SQL: row `t` of the table belongs to a record of the batch (:ids), and has something that is to be redacted."""
        belongs = _belongs(self.root, self.path, "t")
        if self.key.action != "redact":
            return belongs
        return f"{belongs} AND ({' OR '.join(f't.{quoted(column)} IS NOT NULL' for column in self.key.redacted)})"

    @property
    def label(self) -> str:
        """What tombstones count its rows under: the table, with the columns that are redacted."""
        return f"{self.table} ({', '.join(self.key.redacted)})" if self.key.redacted else self.table

    @property
    def own_condition(self) -> str:
        """SQL, for a key that leads back to a table of its path: row `t` belongs to the batch by its first occurrence."""
        for depth, key in enumerate(self.path[:-1]):
            if key.oid == self.key.oid:
                return _belongs(self.root, self.path[: depth + 1], "t")
        return _is_record(self.root, "t")

    @property
    def elsewhere(self) -> str:
        """SQL: row `t` of the table belongs, by this key, to a record outside of the batch."""
        known = " AND ".join(f"t.{quoted(column)} IS NOT NULL" for column in self.key.columns)
        return f"({known} AND ({self.condition}) IS NOT TRUE)"

    def joined(self) -> str:
        """Return SQL: row `t` of the table belongs to record `p` of the root."""
        pairs = zip(self.key.columns, self.key.parent_columns, strict=True)
        return "(" + " AND ".join(f"t.{quoted(own)} = p.{quoted(parent)}" for own, parent in pairs) + ")"


DELETED = ("cascade", "explicit")


def redactions(root: PhysicalTable) -> tuple[Branch, ...]:
    """Return the branches whose rows stay and lose columns."""
    return tuple(Branch(root, (key,)) for key in root.children if key.action == "redact")


def branches(root: PhysicalTable) -> tuple[Branch, ...]:
    """Return all branches whose rows are deleted, deepest first, which is the order in which rows may be deleted."""
    return tuple(b for b in _below(root, root.children, ()) if not b.key.leads_back and b.key.action in DELETED)


def everything_below(root: PhysicalTable) -> tuple[Branch, ...]:
    """Return every key below a record, including those whose rows stay."""
    return tuple(_below(root, root.children, ()))


def cycles(root: PhysicalTable) -> tuple[Branch, ...]:
    """Return the keys with ON DELETE CASCADE that lead back into the tree; they could delete other records."""
    return tuple(b for b in _below(root, root.children, ()) if b.key.leads_back and b.key.stored_action == "c")


def conflicts(root: PhysicalTable) -> Iterator[tuple[Branch, tuple[Branch, ...]]]:
    """Yield each branch that could delete a row which another key assigns to another record, with those other keys.

    In content tables and declared tables the owning key decides; elsewhere a cascading key is taken at its word.
    """
    family = branches(root)
    for branch in family:
        others = tuple(b for b in family if b.key.oid == branch.key.oid and b is not branch)
        owners = tuple(b for b in others if b.key.owns)
        if branch.key.owns or not others:
            continue
        if owners:
            yield branch, owners
        elif branch.key.action == "explicit":
            yield branch, others


def _below(root: PhysicalTable, keys: Sequence[Key], above: tuple[Key, ...]) -> Iterator[Branch]:
    for key in keys:
        path = (*above, key)
        yield from _below(root, key.children, path)
        yield Branch(root, path)


def _is_record(root: PhysicalTable, alias: str) -> str:
    return f"{root.reference(alias)} = ANY(CAST(:ids AS {root.type}[]))"


def _belongs(root: PhysicalTable, path: Sequence[Key], alias: str) -> str:
    *above, key = path
    if not above and key.parent_columns == (root.key,):
        return f"{key.reference(alias)} = ANY(CAST(:ids AS {root.type}[]))"
    parent = f"{alias}{alias[0]}"
    table = above[-1].table if above else root.table
    inner = _belongs(root, above, parent) if above else _is_record(root, parent)
    columns = ", ".join(f"{alias}.{quoted(column)}" for column in key.columns)
    parents = ", ".join(f"{parent}.{quoted(column)}" for column in key.parent_columns)
    return f"({columns}) IN (SELECT {parents} FROM {table} {parent} WHERE {inner})"  # noqa: S608 — quoted identifiers only

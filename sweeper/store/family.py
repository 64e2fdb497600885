"""Which rows go with a record: the tree of foreign keys and declared children below a table, as conditions in SQL.

The law of this file: a condition selects what belongs to the records of the batch and nothing of any other record.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sweeper.store.contract import Key, Physical
from sweeper.store.statement import quoted


@dataclass(frozen=True)
class Branch:
    """One table below the root, reached over a path of keys."""

    root: Physical
    path: tuple[Key, ...]

    @property
    def key(self) -> Key:
        """The last key of the path."""
        return self.path[-1]

    @property
    def table(self) -> str:
        """The table whose rows go."""
        return self.key.table

    @property
    def is_direct(self) -> bool:
        """Whether its rows hold the record's own key in one column."""
        return len(self.path) == 1 and self.key.parent_columns == (self.root.key,)

    @property
    def condition(self) -> str:
        """That a row `t` of the table belongs to a record of the batch (:ids)."""
        return _belongs(self.root, self.path, "t")

    @property
    def own_condition(self) -> str:
        """For a key that leads back to a table of its path: that a row `t` belongs to the batch by that table's own place."""
        for depth, key in enumerate(self.path[:-1]):
            if key.oid == self.key.oid:
                return _belongs(self.root, self.path[: depth + 1], "t")
        return _is_record(self.root, "t")

    def joined(self) -> str:
        """That a row `t` of the table belongs to the record `p` of the root."""
        pairs = zip(self.key.columns, self.key.parent_columns, strict=True)
        return "(" + " AND ".join(f"t.{quoted(own)} = p.{quoted(parent)}" for own, parent in pairs) + ")"


def branches(root: Physical) -> tuple[Branch, ...]:
    """All branches, deepest first: the order in which rows may be deleted."""
    return tuple(b for b in _below(root, root.children, ()) if not b.key.leads_back)


def ways_back(root: Physical) -> tuple[Branch, ...]:
    """The keys with ON DELETE CASCADE that lead from a table of the tree back into it: over them other records could go."""
    return tuple(b for b in _below(root, root.children, ()) if b.key.leads_back and b.key.stored_action == "c")


def _below(root: Physical, keys: Sequence[Key], above: tuple[Key, ...]) -> Iterator[Branch]:
    for key in keys:
        path = (*above, key)
        yield from _below(root, key.children, path)
        yield Branch(root, path)


def _is_record(root: Physical, alias: str) -> str:
    return f"{alias}.{quoted(root.key)} = ANY(CAST(:ids AS {root.type}[]))"


def _belongs(root: Physical, path: Sequence[Key], alias: str) -> str:
    *above, key = path
    if not above and key.parent_columns == (root.key,):
        return f"{alias}.{quoted(key.columns[0])} = ANY(CAST(:ids AS {root.type}[]))"
    parent = f"{alias}{alias[0]}"
    table = above[-1].table if above else root.table
    inner = _belongs(root, above, parent) if above else _is_record(root, parent)
    columns = ", ".join(f"{alias}.{quoted(column)}" for column in key.columns)
    parents = ", ".join(f"{parent}.{quoted(column)}" for column in key.parent_columns)
    return f"({columns}) IN (SELECT {parents} FROM {table} {parent} WHERE {inner})"  # noqa: S608 — quoted identifiers only

"""Reads which tables a database has, with their columns and keys; not a row of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from sweeper.postgres.statement import quoted, statement


@dataclass(frozen=True)
class CatalogueTable:
    """A table as the catalogue describes it."""

    schema: str
    name: str
    columns: Mapping[str, str]
    """Types by column."""
    key: tuple[str, ...]
    """The columns of its primary key."""
    parents: Mapping[str, tuple[str, str]]
    """Foreign keys of one column: the schema and table that each column refers to."""

    @property
    def path(self) -> tuple[str, str]:
        """Schema and name."""
        return self.schema, self.name

    @property
    def sql(self) -> str:
        """The name as SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


def read(connection: Connection) -> list[CatalogueTable]:
    """Return all tables but the system's and the sweeper's own."""
    columns: dict[tuple[str, str], dict[str, str]] = {}
    ranks: dict[tuple[str, str], dict[int, str]] = {}
    for row in connection.execute(statement("catalogue_columns")):
        columns.setdefault((row.schema, row.table), {})[row.column] = row.type
        if row.key_rank is not None:
            ranks.setdefault((row.schema, row.table), {})[row.key_rank] = row.column
    parents: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    for row in connection.execute(statement("catalogue_keys")):
        parents.setdefault((row.schema, row.table), {})[row.column] = (row.parent_schema, row.parent)
    return [
        CatalogueTable(
            *path, found, tuple(name for _, name in sorted(ranks.get(path, {}).items())), parents.get(path, {})
        )
        for path, found in columns.items()
    ]

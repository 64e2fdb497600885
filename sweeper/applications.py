"""Reads the adapters in `sweeper/apps`: for each known application its views, settings and policy, and the tables it is known by.

An adapter is a folder of data. A further application is a further folder, and no code.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from sweeper import files, toml
from sweeper.errors import ConfigurationError
from sweeper.postgres.statement import identifier
from sweeper.settings import Identifier, Section

FOLDER = files.PACKAGE / "apps"
FILES = ("store.sql", "sweeper.toml", "policy.toml")
REFERENCE = "reference"

Schemas = Mapping[str, Mapping[str, Collection[str]]]
"""The tables of a database: by schema and table, the names of the columns."""


class PurgedTable(Section):
    """A row of part 1 of roles.sql: a table that the job deletes from or locks, and the columns that it needs for that."""

    relation: str
    """The table, as `schema.table`, quoted as SQL needs it."""
    key: str
    """The column that says whose a row is."""
    further: str = ""
    """Other columns that are read in a delete, separated by commas."""
    deletes: bool = True
    """False if ON DELETE CASCADE deletes the rows."""
    locks: str = ""
    """The column that the job may write because it could not lock rows otherwise."""

    def row(self) -> str:
        """Return the row as SQL."""
        texts = (self.relation, self.key, self.further)
        written = [*map(_literal, texts), str(self.deletes).lower(), _literal(self.locks)]
        return f"    ({', '.join(written)})"


class Application(Section):
    """An application whose store sweeper knows: `app.toml` of an adapter."""

    name: str
    """The name of the adapter's folder."""
    title: str
    """The name of the application."""
    package: str
    """The package whose tables these are."""
    version: str
    """The version that was tested."""
    schema_name: Identifier = Field(default="public", alias="schema")
    """The schema in which the files of the adapter look for the application's tables."""
    tables: dict[Identifier, tuple[Identifier, ...]]
    """The tables and columns that the adapter needs; the first is that of the conversations."""
    purged: tuple[PurgedTable, ...] = ()
    """What the job deletes from, for roles.sql; empty if that is what roles.sql says as shipped."""

    @property
    def shape(self) -> str:
        """The package and version that the adapter was tested with."""
        return f"{self.package} {self.version}"

    def missing(self, tables: Mapping[str, Collection[str]]) -> list[str]:
        """Return the tables and columns that the adapter needs and a schema lacks."""
        found = []
        for table, columns in self.tables.items():
            if table not in tables:
                found.append(f"table {table} is missing")
            else:
                found += [f"column {table}.{column} is missing" for column in columns if column not in tables[table]]
        return found

    def resembles(self, tables: Mapping[str, Collection[str]]) -> bool:
        """Return True if a schema has all of the tables by name, or the first one and most of the others."""
        found = [table for table in self.tables if table in tables]
        return next(iter(self.tables)) in found and 2 * len(found) > len(self.tables)

    def files(self, schema: str) -> dict[str, str]:
        """Return the files of the adapter by name, for an application whose tables are in that schema."""
        texts = {name: files.read_text(self._path(name)) for name in FILES} | {"roles.sql": self._roles()}
        if schema == self.schema_name:
            return texts
        # SQL needs quotes around some names, TOML around none; the policy names no table
        sql = identifier(schema)
        names = {"store.sql": sql, "roles.sql": sql, "sweeper.toml": schema, "policy.toml": self.schema_name}
        return {file: self._in_schema(text, names[file]) for file, text in texts.items()}

    def _in_schema(self, text: str, name: str) -> str:
        named = re.compile(rf"""\b{self.schema_name}(?=\.[A-Za-z_"]|["';])""")
        return named.sub(lambda _: name, text)

    def _path(self, name: str) -> Path:
        """Return a file of the adapter; where it has none of its own, the shipped one."""
        own = FOLDER / self.name / name
        return own if own.is_file() else files.shipped(name)

    def _roles(self) -> str:
        text = files.read_text(files.shipped("roles.sql"))
        if not self.purged:
            return text
        rows = ",\n".join(table.row() for table in self.purged)
        return re.sub(r"(?<=INSERT INTO purged VALUES\n).*?;", lambda _: f"{rows};", text, count=1, flags=re.DOTALL)


def names() -> list[str]:
    """Return the names of the applications that are shipped."""
    return sorted(path.parent.name for path in FOLDER.glob("*/app.toml"))


def load(name: str) -> Application:
    """Load an adapter by its name.

    Raises:
        ConfigurationError: there is no such adapter, or its app.toml is faulty.
    """
    if name not in names():
        raise ConfigurationError(
            f"init: there is no application {name!r}. Nothing was written. Known are {', '.join(names())}; "
            "for another one leave --app out, and views are drafted from its tables."
        )
    path = FOLDER / name / "app.toml"
    try:
        raw = {"name": name, **toml.parse(files.read_text(path))}
        return Application.model_validate(raw)
    except (files.UnreadableError, toml.TomlError) as error:
        raise ConfigurationError(f"{path}: cannot be read ({error}). Nothing was written. Fix the file.") from None
    except ValidationError as error:
        faults = (f"  {fault.line(raw)}" for fault in toml.faults_of(error, Application))
        raise ConfigurationError(f"{path}: nothing was written. Fix:", *faults) from None


def recognised(schemas: Schemas) -> Iterator[tuple[Application, str]]:
    """Yield each known application that the tables of a schema resemble, with the schema; complete ones first."""
    found = [
        (application, schema)
        for application in map(load, names())
        for schema, tables in schemas.items()
        if application.resembles(tables)
    ]
    yield from sorted(found, key=lambda each: (len(each[0].missing(schemas[each[1]])), each[0].name, each[1]))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

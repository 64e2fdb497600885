"""`init`: write the views, settings, policy and roles for an application's store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, Output
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError

if TYPE_CHECKING:
    from sweeper.applications import Application, Schemas
    from sweeper.postgres.catalogue import CatalogueTable

DRAFT = "draft"


@dataclass(frozen=True)
class _Chosen:
    """What is to be written, and why."""

    application: str
    found: str
    files: Mapping[str, str]


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where to write them; commands look in ./config by default.")
    ] = Path("config"),
    application: Annotated[
        str | None,
        typer.Option("--app", metavar="NAME", help="The application; draft: any other. Default: as the tables tell."),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the applications that are known.")] = False,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """Write the views, settings, policy and roles for a store.

    They are there to be edited; nothing is replaced. Without --app the tables of SWEEPER_DATABASE_URL are looked at. If no known
    application has such tables, views are drafted, with `-- CHOOSE` on each line that you must decide. Without a database the
    files are for sweeper's own tables.

    Example: sweeper init --app open-webui config
    """
    if listed:
        _list(output=output)
        return
    _refuse_filled(directory)
    chosen = _choose(application, _tables())
    _write(directory, chosen.files)
    commands = _commands(directory, chosen.files)
    with console.afterwards():
        if output.is_data:
            written = {"directory": str(directory), "files": list(chosen.files)}
            console.print_data(
                {**written, "application": chosen.application, "found": chosen.found, "next": commands}, output
            )
        else:
            console.say(f"{chosen.found}.", f"{', '.join(chosen.files)} are in {directory}. Read and edit them. Then:")
            console.say(*(f"  {command}" for command in commands))


def _list(*, output: OutputFormat) -> None:
    from sweeper import applications

    shipped = [applications.load(name) for name in applications.names()]
    if output.is_data:
        console.print_data([{"name": each.name, "title": each.title, "tested": each.shape} for each in shipped], output)
    else:
        console.print_table(("name", "application", "tested with"), [(a.name, a.title, a.shape) for a in shipped])


def _refuse_filled(directory: Path) -> None:
    """Refuse a directory that holds anything, or is none.

    Raises:
        ConfigurationError: it does.
    """
    try:
        taken = sorted(path.name for path in directory.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError(
            f"init: {directory} cannot be used ({error.strerror}). Nothing was written. Name another directory."
        ) from None
    if taken:
        raise ConfigurationError(
            f"init: {directory} is not empty: it has {', '.join(taken[:5])}{', …' if len(taken) > 5 else ''}. "
            "Nothing was written. Name another directory."
        )


def _tables() -> "list[CatalogueTable] | None":
    """Return the tables of the database of the settings; None if none is named."""
    from sweeper.postgres import catalogue
    from sweeper.settings import load

    if not load(None).database.url:
        return None
    with context.connected(None) as database:
        return database.within(catalogue.read)


def _choose(name: str | None, tables: "list[CatalogueTable] | None") -> _Chosen:
    """Return the files of the application of that name, or of the one whose tables these are, or a draft.

    Raises:
        ConfigurationError: it is not known, the tables lack what it needs, or there is nothing to draft from.
    """
    from sweeper import applications

    if name == DRAFT:
        return _draft(tables)
    known = applications.load(name) if name else None
    if tables is None:
        known = known or applications.load(applications.REFERENCE)
        found = f"no database was looked at, as SWEEPER_DATABASE_URL is not set: these are for {known.title} ({known.shape})"
        return _Chosen(known.name, found, known.files(known.schema_name))
    schemas = _schemas(tables)
    found_ = [each for each in applications.recognised(schemas) if known is None or each[0] == known]
    if found_:
        return _adapted(*found_[0], schemas)
    if known is None:
        return _draft(tables)
    if known.name == applications.REFERENCE:
        return _Chosen(known.name, "sweeper's own tables are not there yet", known.files(known.schema_name))
    raise ConfigurationError(
        f"init: no schema of the database has the tables of {known.title} ({', '.join(known.tables)}). Nothing was written. "
        "Name the application's own database in SWEEPER_DATABASE_URL, or unset it to have the files without a look at one."
    )


def _schemas(tables: "Sequence[CatalogueTable]") -> "Schemas":
    found: dict[str, dict[str, frozenset[str]]] = {}
    for table in tables:
        found.setdefault(table.schema, {})[table.name] = frozenset(table.columns)
    return found


def _adapted(application: "Application", schema: str, schemas: "Schemas") -> _Chosen:
    from sweeper.applications import REFERENCE

    if missing := application.missing(schemas[schema]):
        raise ConfigurationError(
            f"init: schema {schema} has tables of {application.title}, but not in the known shape of {application.shape}:",
            *(f"  {fault}" for fault in missing),
            f"Nothing was written. Use a version of that shape, or `--app {DRAFT}` to write views from the tables as they are.",
        )
    files = application.files(schema)
    if application.name == REFERENCE:
        del files["store.sql"]  # the tables are there
    return _Chosen(
        application.name, f"{application.title} found in schema {schema}, in the shape of {application.shape}", files
    )


def _draft(tables: "list[CatalogueTable] | None") -> _Chosen:
    """Return drafted views.

    Raises:
        ConfigurationError: there is no database to look at, or no table in it looks like conversations.
    """
    from sweeper import applications, files
    from sweeper.postgres import draft

    drafted = draft.draft(tables or [])
    if drafted is None:
        why = (
            "SWEEPER_DATABASE_URL is not set" if tables is None else "no table of the database looks like conversations"
        )
        raise ConfigurationError(
            f"init: {why}, so that no views can be drafted. Nothing was written. "
            f"Name the application's database, or an application with --app: {', '.join(applications.names())}."
        )
    found = f"no known application was found; views were drafted from table {'.'.join(drafted.root.path)}"
    return _Chosen(DRAFT, found, drafted.files() | {"roles.sql": files.read_text(files.shipped("roles.sql"))})


def _write(directory: Path, texts: Mapping[str, str]) -> None:
    """Write the files, all or none.

    Raises:
        ConfigurationError: one cannot be written.
    """
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with (directory / name).open("x", encoding="utf-8") as file:
                written.append(directory / name)
                file.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise ConfigurationError(
            f"init: {directory} cannot be written to ({error.strerror}). Nothing was written. Name another directory."
        ) from None


def _commands(directory: Path, texts: Mapping[str, str]) -> list[str]:
    """Return the commands that come next."""
    config = "" if directory == Path("config") else f" --config {directory / 'sweeper.toml'}"
    views = (
        [f'psql -v ON_ERROR_STOP=1 -f {directory / "store.sql"} "$SWEEPER_DATABASE_URL"']
        if "store.sql" in texts
        else []
    )
    return [*views, *(f"sweeper {command}{config}" for command in ("migrate", "check", "run --dry-run"))]

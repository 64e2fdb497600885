"""What commands share: common options, the clock, and access to settings, database or job; parsing of instants and ids.

Invariant: a command opens only what it needs, so that a hold can be placed while the policy file is broken.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper.clock import Clock
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError
from sweeper.policy.instant import aware, rfc3339

if TYPE_CHECKING:
    from sweeper.policy.schema import Plausible
    from sweeper.postgres.database import Database
    from sweeper.runs.job import Job
    from sweeper.settings import Settings

Config = Annotated[
    Path | None, typer.Option("--config", help="Settings file. Default: SWEEPER_CONFIG, then config/sweeper.toml.")
]
AsJson = Annotated[bool, typer.Option("--json", is_eager=True, help="Print JSON for machines: --output json.")]
"""An option of every command that has `Output`, whose value then is JSON; nothing else needs to read it."""


def _output(context: typer.Context, output: OutputFormat) -> OutputFormat:
    """Return what --output and --json, which typer has parsed before, ask for together."""
    if not context.params.get("_json"):
        return output
    source = context.get_parameter_source("output")
    if output is not OutputFormat.JSON and source is not None and source.name == "COMMANDLINE":
        raise typer.BadParameter(f"--output {output} contradicts --json. Nothing was done. Give one of them.")
    return OutputFormat.JSON


Output = Annotated[
    OutputFormat, typer.Option("--output", callback=_output, help="Print text with tables, or data for machines.")
]
"""How a command prints its result; see `console.print_rows`."""
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of", metavar="INSTANT", help="Decide as of this instant, e.g. 2026-01-31T00:00:00Z. Default: now."
    ),
]
CLOCK = Clock()
EMBEDDED = "embedded:"


@contextmanager
def configured(config: Path | None) -> Iterator["Settings"]:
    """Yield the settings. A database URL of `embedded:DIR` starts the demo's own PostgreSQL while the command runs.

    Raises:
        DatabaseError: the database failed while the command ran, or a text is not UTF-8.
    """
    from sqlalchemy.exc import DBAPIError

    from sweeper import log
    from sweeper.postgres.database import DatabaseError
    from sweeper.runs.job import unreachable
    from sweeper.settings import load

    settings = load(config)
    log.get().debug("settings", store=settings.store.schema_name, policy=str(settings.policy.file.absolute()))
    with _with_server(settings) as settings:
        try:
            yield settings
        except DBAPIError as error:
            raise unreachable(error) from None
        except UnicodeError as error:
            raise DatabaseError(
                f"a text in the store or in an argument is not UTF-8 ({error}). What was committed before stands; nothing else "
                "was done. A database with encoding SQL_ASCII accepts any bytes: fix them there."
            ) from None


@contextmanager
def _with_server(settings: "Settings") -> Iterator["Settings"]:
    url = settings.database.url
    if not url.startswith(EMBEDDED):
        yield settings
        return
    from sweeper import embedded

    folder = url.removeprefix(EMBEDDED)
    if not folder or not _holds_database(Path(folder)):
        raise ConfigurationError(
            f"SWEEPER_DATABASE_URL is {url}, and there is no database of the demo in {folder or 'a directory without a name'}: "
            "nothing was done. Make one with `sweeper demo --keep DIR`, then set embedded:DIR."
        )
    with embedded.server(Path(folder)) as server:
        database = settings.database.model_copy(update={"url": server.url()})
        yield settings.model_copy(update={"database": database})


def _holds_database(folder: Path) -> bool:
    try:
        return (folder / "postgres" / "PG_VERSION").is_file()
    except OSError:
        return True  # not readable: the server reports what is wrong


@contextmanager
def prepared(config: Path | None, as_of: datetime | None = None, *, is_patient: bool = False) -> Iterator["Job"]:
    """Yield a job on the store of the settings, at `as_of` or now.

    With `is_patient` a server that does not answer yet is waited for, for [database] outage_seconds.
    """
    from sweeper.runs.job import prepare

    with configured(config) as settings:
        job = prepare(settings, CLOCK, as_of, is_patient=is_patient)
        try:
            yield job
        finally:
            job.database.engine.dispose()


@contextmanager
def connected(config: Path | None) -> Iterator["Database"]:
    """Yield the database of the settings, without a check of its contents."""
    from sweeper.postgres import database as databases

    with configured(config) as settings:
        database = databases.connect(settings)
        try:
            yield database
        finally:
            database.engine.dispose()


@contextmanager
def migrated(config: Path | None) -> Iterator["Database"]:
    """Yield the database of the settings if it has the sweeper's tables in this version; store and policy are not read."""
    from sweeper.postgres import migrate

    with connected(config) as database:
        migrate.refuse_other(migrate.revision(database))
        yield database


def instant(option: str, text: str | None) -> datetime | None:
    """Return the instant that an option names; None if the option is not given.

    Raises:
        ConfigurationError: the text is not an instant, or has no offset from UTC.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _invalid(option, text, "is not an instant") from None
    try:
        return aware(found)
    except ValueError as error:
        raise _invalid(option, text, f"cannot be used: {error}") from None


def moment(option: str, text: str | None) -> datetime | None:
    """Return the instant that an option names; a date is its first instant in UTC."""
    if text is not None and is_date(text):
        day = date.fromisoformat(text)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    return instant(option, text)


def is_date(text: str | None) -> bool:
    """Return whether a text is a date without a time."""
    try:
        return text is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _invalid(option: str, text: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{option} {text!r} {what}. Nothing was done. Write an instant with its offset, for instance 2026-01-31T00:00:00Z."
    )


def refuse_implausible(settings: "Settings", option: str, found: datetime | None, effect: str) -> None:
    """Refuse an instant outside the policy's plausible range, or outside a usual one if the policy cannot be read.

    Args:
        settings: name the policy.
        option: the option that gave the instant.
        found: the instant.
        effect: what would come of it, and the remedy.

    Raises:
        ConfigurationError: the instant is not plausible.
    """
    if found is None:
        return
    plausible = _plausible(settings)
    if not plausible.holds(found):
        raise ConfigurationError(
            f"{option} {rfc3339(found)} is implausible: the policy accepts instants from {rfc3339(plausible.since)} to before "
            f"{rfc3339(plausible.before)}, so {effect}"
        )


def _plausible(settings: "Settings") -> "Plausible":
    from sweeper.policy.schema import Plausible
    from sweeper.settings import load_policy

    try:
        return load_policy(settings).plausible
    except ConfigurationError:
        return Plausible.model_validate({"from": "2015-01-01T00:00:00Z", "before": "9999-01-01T00:00:00Z"})


def text_argument(what: str, text: str) -> str:
    """Return a text unchanged if it can be stored.

    Raises:
        ConfigurationError: the text is blank or not UTF-8.
    """
    if not text.strip():
        raise ConfigurationError(f"{what} is empty. Nothing was done. Name it.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{what} {text!r} is not UTF-8. Nothing was done. Write it in UTF-8.") from None
    return text


def known_id(database: "Database", type_: str, value: str | None, what: str) -> str | None:
    """Return an id as the store writes it; None stays None.

    Raises:
        ConfigurationError: the value is not an id of that type.
    """
    from sweeper.postgres import protections

    return None if value is None else protections.canonical(database, type_, text_argument(what, value), what)

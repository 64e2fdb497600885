"""Creates and changes the sweeper's own tables (schema `sweeper`) with Alembic; touches nothing else."""

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sweeper.errors import ConfigurationError, SweeperError
from sweeper.postgres import database as databases
from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0011"
FOLDER = Path(__file__).parent / "migrations"
REVISIONS = frozenset(file.stem[1:5] for file in (FOLDER / "versions").glob("r[0-9][0-9][0-9][0-9]_*.py"))
TAKEN = "Something else has that name: drop or rename it, then run `sweeper migrate` again."
BUSY = "Other sessions hold locks that the migration needs: find them in pg_stat_activity, then run `sweeper migrate` again."
ROOM = "Free disk space or memory on the server, then run `sweeper migrate` again."
WAYS_OUT = {
    "42501": "Run it as the owner of schema sweeper; if there is none yet, as a role with CREATE on the database.",
    **dict.fromkeys(("42P07", "42P06", "42723", "42710", "23505"), TAKEN),
    **dict.fromkeys(("55P03", "57014", "40P01"), BUSY),
    **dict.fromkeys(("53100", "53200", "53400"), ROOM),
    "25006": "The server or the role is read-only: connect to the primary, as a role that may write.",
}
"""The remedy for a server error, by SQLSTATE."""


class MigrationError(SweeperError):
    """The server refused a statement of a revision; the transaction was rolled back and nothing was changed."""


def migrate(database: Database) -> tuple[str | None, str]:
    """Bring the sweeper's tables to the newest revision; concurrent migrations wait for each other.

    Returns:
        The revision before (None if there was none) and after.

    Raises:
        ConfigurationError: a newer program made the tables, or this one does not know their revision.
        MigrationError: the server refused a statement; nothing was changed.
    """
    if revision(database) == HEAD:
        return HEAD, HEAD  # needs no privilege beyond those of the role that sweeps
    from alembic.config import Config  # slow to import, and needed only here

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    try:
        before = _upgrade(database, config)
    except (DBAPIError, psycopg.Error) as error:  # a revision runs its SQL file through the driver itself
        raise _failed(error) from None
    return before, HEAD


def _upgrade(database: Database, config: "Config") -> str | None:
    from alembic import command

    # a revision may compute for seconds on a busy machine and send nothing meanwhile
    with database.transaction(lock_timeout_ms=30_000, idle_timeout_ms=600_000) as connection:
        connection.execute(text("SELECT pg_catalog.pg_advisory_xact_lock(5857584, 2)"))
        _act_as_owner(connection)
        before = _revision(connection)  # a second transaction could wait for a pooler's last server connection
        _refuse_foreign(connection, before)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before


def _failed(error: DBAPIError | psycopg.Error) -> MigrationError:
    """Return an error that gives the server's message and its remedy."""
    state, reason = databases.sqlstate(error), databases.reason(error)
    if state is None or state.startswith(("08", "57P0")):
        return MigrationError(
            f"migrate: the server is gone ({reason}). Whether revision {HEAD} was reached is not known. Run `sweeper migrate` "
            "again when it is back: it does what remains."
        )
    way_out = WAYS_OUT.get(state, "Fix that, then run `sweeper migrate` again.")
    return MigrationError(
        f"migrate: revision {HEAD} was not reached: {reason} (SQLSTATE {state}). Nothing was changed: the transaction was rolled "
        f"back. {way_out}"
    )


def _act_as_owner(connection: Connection) -> None:
    """Create the schema if it is missing; otherwise act as its owner in this transaction, so that all in it has one owner."""
    owner = connection.execute(statement("schema_owner")).one_or_none()
    if owner is None:
        connection.execute(
            text("CREATE SCHEMA sweeper")
        )  # IF NOT EXISTS would ask for CREATE on the database every time
    elif owner.may_act:
        connection.execute(text("SELECT set_config('role', :owner, true)"), {"owner": owner.name})


def refuse_other(found: str | None) -> None:
    """Raise unless the tables' revision is the one that this program needs.

    Raises:
        ConfigurationError: the tables are missing, older or newer; nothing was done.
    """
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise ConfigurationError(
            f"the sweeper's own tables were made by a newer program (revision {found}, this one knows {HEAD}); "
            "nothing was done. Upgrade the program."
        )
    state = "missing" if found is None else f"at revision {found}"
    raise ConfigurationError(f"the sweeper's own tables are {state}; nothing was done. Run `sweeper migrate` first.")


def revision(database: Database) -> str | None:
    """Return the revision of the sweeper's tables, or None if there are none."""
    return database.within(_revision)


def _revision(connection: Connection) -> str | None:
    if connection.execute(text("SELECT to_regclass('sweeper.schema_version')")).scalar_one() is None:
        return None
    found = connection.execute(text("SELECT CAST(version_num AS text) FROM sweeper.schema_version")).scalars().all()
    if len(found) > 1:
        raise ConfigurationError(
            f"sweeper.schema_version holds {len(found)} rows ({', '.join(map(str, found))}) instead of 1: nothing was done. "
            "Delete the rows that are not the newest revision."
        )
    return found[0] if found else None


def _refuse_foreign(connection: Connection, found: str | None) -> None:
    """Raise if the tables are newer than this program or of an unknown revision."""
    if found is not None:
        if found > HEAD:
            refuse_other(found)
        if found not in REVISIONS:
            raise ConfigurationError(
                f"sweeper.schema_version says revision {found}, which this program does not know; nothing was changed. Restore "
                "that table from a backup."
            )
        return
    if connection.execute(text("SELECT to_regclass('sweeper.runs') IS NOT NULL")).scalar_one():
        raise ConfigurationError(
            "schema sweeper holds tables whose revision is not known (sweeper.schema_version is missing or empty); nothing was "
            "changed. Restore that table from a backup, or move the schema out of the way."
        )

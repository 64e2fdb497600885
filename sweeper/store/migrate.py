"""Creates and changes the sweeper's own tables (schema `sweeper`) by Alembic; touches nothing else."""

from pathlib import Path

from sqlalchemy import Connection, text

from sweeper.errors import ConfigurationError
from sweeper.store.database import Database
from sweeper.store.statement import statement

HEAD = "0005"
FOLDER = Path(__file__).parent / "migrations"


def migrate(database: Database) -> tuple[str | None, str]:
    """Bring the sweeper's tables to the newest revision; two at once wait for each other.

    Returns:
        The revision before (None: there was none) and after.

    Raises:
        ConfigurationError: the tables are of a newer program, or of none that this one knows.
    """
    if revision(database) == HEAD:
        return HEAD, HEAD  # a role that may only sweep is not asked for more
    from alembic import command  # slow to import, and needed here only
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    with database.transaction(lock_timeout_ms=30_000) as connection:
        connection.execute(text("SELECT pg_catalog.pg_advisory_xact_lock(5857584, 2)"))
        _act_as_owner(connection)
        before = _revision(connection)  # in a second transaction it could wait for a pooler's last server connection
        _refuse_foreign(connection, before)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, HEAD


def _act_as_owner(connection: Connection) -> None:
    """Make the schema; where it is another role's, be that role until the transaction ends, so that all in it has one owner."""
    owner = connection.execute(statement("schema_owner")).one_or_none()
    if owner is None:
        connection.execute(
            text("CREATE SCHEMA sweeper")
        )  # IF NOT EXISTS would ask for CREATE on the database every time
    elif owner.may_act:
        connection.execute(text("SELECT set_config('role', :owner, true)"), {"owner": owner.name})


def refuse_other(found: str | None) -> None:
    """Refuse to work on tables of another revision than this program's.

    Raises:
        ConfigurationError: they are missing, older or newer; nothing was done.
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
    """The revision that the sweeper's tables have, or None where there are none."""
    with database.transaction() as connection:
        return _revision(connection)


def _revision(connection: Connection) -> str | None:
    if connection.execute(text("SELECT to_regclass('sweeper.schema_version')")).scalar_one() is None:
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM sweeper.schema_version")).scalar_one_or_none()
    return found


def _refuse_foreign(connection: Connection, found: str | None) -> None:
    """Never build upon tables whose revision is not known."""
    if found is not None:
        if found > HEAD:
            refuse_other(found)
        return
    if connection.execute(text("SELECT to_regclass('sweeper.runs') IS NOT NULL")).scalar_one():
        raise ConfigurationError(
            "schema sweeper holds tables whose revision is not known (sweeper.schema_version is missing or empty); nothing was "
            "changed. Restore that table from a backup, or move the schema out of the way."
        )

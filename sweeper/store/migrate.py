"""Creates and changes the sweeper's own tables (schema `sweeper`) by Alembic; touches nothing else."""

from pathlib import Path

from sqlalchemy import text

from sweeper.store.database import Database

HEAD = "0002"
FOLDER = Path(__file__).parent / "migrations"


def migrate(database: Database) -> tuple[str | None, str]:
    """Bring the sweeper's tables to the newest revision; two at once wait for each other.

    Returns:
        The revision before (None: there was none) and after.
    """
    from alembic import command  # slow to import, and needed here only
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.set_main_option("path_separator", "os")
    with database.transaction(lock_timeout_ms=30_000) as connection:
        connection.execute(text("SELECT pg_catalog.pg_advisory_xact_lock(5857584, 2)"))
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS sweeper"))
        before = revision(database)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, HEAD


def revision(database: Database) -> str | None:
    """The revision that the sweeper's tables have, or None where there are none."""
    with database.transaction() as connection:
        if connection.execute(text("SELECT to_regclass('sweeper.schema_version')")).scalar_one() is None:
            return None
        found: str | None = connection.execute(
            text("SELECT version_num FROM sweeper.schema_version")
        ).scalar_one_or_none()
        return found

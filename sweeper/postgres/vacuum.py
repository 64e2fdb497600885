"""Counts the dead rows of the tables that a purge deletes from, and vacuums them after a run, if the settings say so.

What was purged stays readable in the files of the database until its dead rows are vacuumed.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sweeper import log
from sweeper.postgres import hazards
from sweeper.postgres.contract import Contract
from sweeper.postgres.database import Database, reason
from sweeper.postgres.statement import statement
from sweeper.settings import MaintenanceSettings


@dataclass(frozen=True)
class DeadRows:
    """The rows of a table, by the server's own statistics.

    Attributes:
        name: the table, quoted.
        live: how many rows it has.
        dead: how many deleted or replaced rows were not vacuumed yet.
        vacuumed_at: when it was vacuumed last (UTC), by whomever; None if that is not known.
        unvacuumed_since: the same, or else when the server started (UTC).
        allowed: whether this role may vacuum it.
    """

    name: str
    live: int
    dead: int
    vacuumed_at: datetime | None
    unvacuumed_since: datetime
    allowed: bool

    def is_past(self, limits: MaintenanceSettings) -> bool:
        """Return True if the table has more dead rows than the settings allow."""
        return self.dead > limits.dead_rows and self.dead > limits.dead_share * (self.live + self.dead)


def read(connection: Connection, contract: Contract) -> list[DeadRows]:
    """Return the dead rows of all tables that a purge deletes from; of a partitioned table those of each partition."""
    rows = connection.execute(statement("dead_rows"), {"oids": hazards.purged_tables(contract)})
    return [DeadRows(**row._mapping) for row in rows]


def after_run(database: Database, contract: Contract) -> list[str]:
    """Vacuum the tables past the limits of [maintenance], and return their names. What fails is logged: the purge stands."""
    limits = database.settings.maintenance
    if not limits.vacuum or database.stop.is_asked:
        return []
    with suppress(DBAPIError):  # PostgreSQL 14 has no such function, and counts a second later
        database.within(lambda connection: connection.execute(statement("flush_statistics")))
    try:
        tables = database.within(lambda connection: read(connection, contract))
    except DBAPIError as error:
        log.get().warning("nothing was vacuumed: dead rows cannot be counted", reason=reason(error))
        return []
    return list(_vacuumed(database, [table for table in tables if table.is_past(limits)]))


def _vacuumed(database: Database, tables: Sequence[DeadRows]) -> Iterator[str]:
    """Vacuum the tables one by one, and yield the names of those that were, until the job is asked to stop."""
    for table in tables:
        if database.stop.is_asked:
            return
        if not table.allowed:
            log.get().warning(
                "not vacuumed: the role may not; autovacuum frees its dead rows, or a superuser: "
                "GRANT MAINTAIN (PostgreSQL 17 or later)",
                table=table.name,
                dead=table.dead,
            )
            continue
        try:
            with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(statement("vacuum", table=table.name))
        except DBAPIError as error:
            log.get().warning("not vacuumed; what was purged stands", table=table.name, reason=reason(error))
            continue
        log.get().info("vacuumed", table=table.name, dead=table.dead)
        yield table.name

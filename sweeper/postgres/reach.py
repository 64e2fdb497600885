"""Says where purged content may live on that no purge reaches: backups, archives, standbys, logs, dead rows, hazards.

Invariant: it reads nothing but the catalogue and the server's settings and statistics.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection

from sweeper.postgres import hazards
from sweeper.postgres.contract import Contract
from sweeper.postgres.finding import CheckFinding, Level
from sweeper.postgres.statement import statement
from sweeper.postgres.vacuum import DeadRows
from sweeper.settings import Settings


def beyond(
    connection: Connection, contract: Contract, settings: Settings, tables: Sequence[DeadRows]
) -> list[CheckFinding]:
    """Return each place that a purge does not reach, with what to do about it; `tables` are those that are purged from."""
    return [*hazards.hazards(connection, contract), *outside(connection, settings, tables)]


def outside(connection: Connection, settings: Settings, tables: Sequence[DeadRows]) -> list[CheckFinding]:
    """Return the places outside of the tables; of each store some exist, so that none is a warning."""
    places = (*_backups(settings), *_server(connection), *_dead_rows(tables))
    return [CheckFinding(Level.OK, subject, text, remedy) for subject, text, remedy in places]


def _backups(settings: Settings) -> Iterator[tuple[str, str, str]]:
    days = settings.maintenance.backup_days
    if days is None:
        kept = "how long they are kept is not known here: what was purged can be restored from them for as long"
        yield "backups", kept, "set [maintenance] backup_days, and delete backups that are older"
    elif days:
        kept = f"they are kept for {days} days, so that what is purged on its due date is gone everywhere {days} days later"
        yield (
            "backups",
            kept,
            "add these days to what you promise, delete older backups, and run `sweeper reapply` after a restore",
        )


def _server(connection: Connection) -> Iterator[tuple[str, str, str]]:
    found = connection.execute(statement("reach")).one()
    if found.archives:
        yield (
            "WAL archive",
            "archive_mode is on: the archived WAL holds what was written",
            "delete it with the backup it continues",
        )
    if found.standbys or found.slots:
        text = f"{found.standbys} standbys are connected, {found.slots} replication slots exist: what was purged is there until "
        yield (
            "replicas",
            f"{text}they have replayed it",
            "drop slots and standbys that nobody uses; see their lag in pg_stat_replication",
        )
    if found.logs:
        text = f"{found.logs} lets the server log statements, with what people wrote in them"
        yield "query logs", text, "delete these logs in time, or log no parameters (log_parameter_max_length = 0)"


def _dead_rows(tables: Sequence[DeadRows]) -> Iterator[tuple[str, str, str]]:
    dead = [table for table in tables if table.dead]
    if dead:
        names = ", ".join(f"{table.name} ({table.dead})" for table in dead)
        text = f"deleted rows stay in the files of a table until it is vacuumed: {names}"
        yield "dead rows", text, "VACUUM them, or set [maintenance] vacuum = true"

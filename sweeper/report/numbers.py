"""Read all exported numbers at one instant: those in the sweeper's own tables, and what is overdue now.

Invariant: a number that cannot be read is None; it is never 0 and never an old value.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata

from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from sweeper.clock import Clock
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.postgres import database as databases
from sweeper.postgres import migrate, pace
from sweeper.postgres.database import Database
from sweeper.report import operation, totals, upkeep
from sweeper.report import overdue as overdues
from sweeper.report.operation import Covered, EndedRun, Reported
from sweeper.report.overdue import Overdue
from sweeper.report.totals import LifetimeTotals
from sweeper.report.upkeep import Upkeep
from sweeper.runs.job import unreachable
from sweeper.runs.throttle import ORDERED
from sweeper.settings import Settings, load_policy


@dataclass(frozen=True)
class Recorded:
    """Numbers from the sweeper's own tables."""

    totals: LifetimeTotals
    ended: EndedRun
    paused: bool
    purged_lately: Mapping[str, int]
    pace: float | None
    reported: Reported | None
    covered: Covered
    upkeep: Upkeep


@dataclass(frozen=True)
class Numbers:
    """The numbers of one store at one instant (UTC). None if they could not be read; `faults` says why."""

    store: str
    policy: str
    at: datetime
    recorded: Recorded | None = None
    overdue: Overdue | None = None
    faults: tuple[str, ...] = ()

    @property
    def drain_seconds(self) -> float | None:
        """How many seconds runs at their recent pace need for the overdue conversations; None if unknown."""
        if self.recorded is None or self.overdue is None:
            return None
        return pace.remaining_seconds(self.overdue.counts.due, self.recorded.pace)


def read(settings: Settings, clock: Clock, counting: Callable[[Numbers], None] = lambda _: None) -> Numbers:
    """Return the numbers as of now. An unusable database or policy is recorded in `faults`, not raised.

    `counting` gets what is known when the count of overdue records begins, which may take long.
    """
    now, store, policy = clock.now(), store_name(settings), _policy(settings)
    try:
        database = databases.connect(impatient(settings))
    except ConfigurationError as error:
        return Numbers(store, policy, now, faults=(str(error),))
    try:
        recorded = _recorded(database, now)
        if isinstance(recorded, str):
            return Numbers(store, policy, now, faults=(recorded,))
        if policy:
            counting(Numbers(store, policy, now, recorded))
        overdue = overdues.attempt(database, clock)
        if isinstance(overdue, str):
            return Numbers(store, policy, now, recorded, faults=(overdue,))
        return Numbers(store, policy, now, recorded, overdue)
    finally:
        database.engine.dispose()


def impatient(settings: Settings) -> Settings:
    """Return the settings for read-only commands: they do not wait for an unreachable server."""
    return settings.model_copy(
        update={"database": settings.database.model_copy(update={"attempts": 2, "outage_seconds": 0.0})}
    )


def store_name(settings: Settings) -> str:
    """Return the name of the store as database/schema, without connecting to it."""
    try:
        url = make_url(settings.database.url)
    except (ArgumentError, ValueError):
        return f"/{settings.store.schema_name}"
    return f"{url.database or url.username or ''}/{settings.store.schema_name}"


def version() -> str:
    """Return the version of the program."""
    return metadata.version("sweeper")


def _policy(settings: Settings) -> str:
    """Return the first 12 characters of the policy's digest; empty if the policy cannot be read."""
    try:
        return load_policy(settings).digest[:12]
    except ConfigurationError:
        return ""


def _recorded(database: Database, now: datetime) -> Recorded | str:
    try:
        migrate.refuse_other(migrate.revision(database))
        return database.within(lambda connection: _read(connection, database, now))
    except SweeperError as error:
        return str(error)
    except DBAPIError as error:
        return str(unreachable(error))


def _read(connection: Connection, database: Database, now: datetime) -> Recorded:
    store = database.settings.store.schema_name
    lately = operation.purged(connection, store, now - overdues.PATIENCE, now)
    return Recorded(
        totals=totals.read(connection, store),
        ended=operation.ended(connection, store, ORDERED),
        paused=bool(operation.pauses(connection)),
        purged_lately={record: by_rule.total() for record, by_rule in lately.items()},
        pace=pace.recent(connection, store, now),
        reported=operation.reported(connection, store),
        covered=operation.covered(connection),
        upkeep=upkeep.read(connection, database.settings, now),
    )

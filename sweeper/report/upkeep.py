"""Reads what needs mending although runs succeed: skipped records, doubt, manifests, guards, indexes and objects.

Reading it changes nothing and takes the catalogue, a few rows of the sweeper's own tables and the manifests' directories.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sweeper.copies import lag
from sweeper.copies.lag import CopyLag
from sweeper.errors import SweeperError
from sweeper.manifest import description
from sweeper.policy import remedies
from sweeper.policy.counts import Counts
from sweeper.policy.evaluate import Spared
from sweeper.policy.instant import rfc3339
from sweeper.postgres import contract as contracts
from sweeper.postgres import indexes, vacuum
from sweeper.postgres.database import reason
from sweeper.postgres.indexes import MissingIndex
from sweeper.postgres.manifests import stored
from sweeper.postgres.statement import statement
from sweeper.postgres.vacuum import DeadRows
from sweeper.report.operation import Reported
from sweeper.report.overdue import PATIENCE
from sweeper.settings import GuardSettings, Settings

COUNTED_NOW = (Spared.STALE, Spared.PROTECTED)
"""Reasons to skip a record that can be told without locking it."""


@dataclass(frozen=True)
class RunCounts:
    """What one sweep purged, skipped and found in doubt, by reason, and which guards were off in its settings."""

    run: int
    at: datetime
    purged: int
    skipped: Mapping[str, int]
    doubted: Mapping[str, int]
    guards_off: Sequence[str] = ()


@dataclass(frozen=True)
class Upkeep:
    """What needs mending.

    Attributes:
        schema: the schema of the store.
        counted: the two newest sweeps that recorded counts, newest first.
        manifests: how many manifests are in use.
        unreachable: the directories of those that cannot be read from this machine, by id.
        guards_off: the guards that are off in these settings, with what runs therefore do not refuse.
        indexes: the missing indexes, or why that could not be found out.
        views: relations behind which no index was looked for.
        tables: the dead rows of the tables that are purged from; empty if the store cannot be read.
        dead: those with more dead rows than [maintenance] allows.
        objects_pending: objects that are still to be removed.
        objects_behind: those of them that a run has tried in vain, that are old, or that no prefix allows to remove.
        copies: how far each copy elsewhere lags.
    """

    schema: str
    counted: Sequence[RunCounts]
    manifests: int
    unreachable: Mapping[str, str]
    guards_off: Mapping[str, str]
    indexes: Sequence[MissingIndex] | str
    views: Sequence[str]
    tables: Sequence[DeadRows]
    dead: Sequence[DeadRows]
    objects_pending: int
    objects_behind: int
    copies: Sequence[CopyLag] = ()

    @property
    def last(self) -> RunCounts | None:
        """The newest sweep that recorded counts."""
        return self.counted[0] if self.counted else None

    @property
    def guards_off_in_run(self) -> dict[str, str]:
        """The guards that were off in the last run, although they are not in these settings."""
        names = set(self.last.guards_off) - set(self.guards_off) if self.last else ()
        return {name: text for name, text in GuardSettings.switches().items() if name in names}

    def as_json(self) -> dict[str, Any]:
        """Return it for --json; `skipped` and `in_doubt` are of the last sweep with a full result."""
        last = self.last
        return {
            "run": last.run if last else None,
            "skipped": dict(last.skipped) if last else {},
            "in_doubt": dict(last.doubted) if last else {},
            "unreachable_manifests": dict(self.unreachable),
            "guards_off": [*self.guards_off, *self.guards_off_in_run],
            "missing_indexes": None if isinstance(self.indexes, str) else [index.create for index in self.indexes],
            "tables": self.tables,
            "objects_pending": self.objects_pending,
            "objects_behind": self.objects_behind,
            "copies": self.copies,
        }


def read(connection: Connection, settings: Settings, now: datetime) -> Upkeep:
    """Read what needs mending as of now."""
    schema = settings.store.schema_name
    counted = connection.execute(statement("operation_counted"), {"store": schema})
    places = connection.execute(stored("operation_manifest_places"), {"store": schema}).all()
    settled = now - PATIENCE - timedelta(seconds=settings.objects.grace_seconds)
    allowed = bool(settings.objects.prefixes)
    objects = connection.execute(
        statement("objects_behind"), {"store": schema, "before": settled, "allowed": allowed}
    ).one()
    missing, tables = _installed(connection, settings)
    return Upkeep(
        schema=schema,
        counted=[RunCounts(**row._mapping) for row in counted],
        manifests=len(places),
        unreachable={place.id: place.directory for place in places if not _is_there(place.directory)},
        guards_off=settings.guards.off,
        indexes=missing,
        views=indexes.unseen(connection, schema),
        tables=tables,
        dead=[table for table in tables if table.is_past(settings.maintenance)],
        objects_pending=objects.pending,
        objects_behind=objects.behind,
        copies=lag.read(connection, settings, now),
    )


def _is_there(directory: str) -> bool:
    try:
        return (Path(directory) / description.NAME).is_file()
    except OSError:
        return False


def _installed(connection: Connection, settings: Settings) -> tuple[list[MissingIndex] | str, list[DeadRows]]:
    """Return the missing indexes and the dead rows; without a store that can be read, why it cannot."""
    try:
        with connection.begin_nested():
            contract = contracts.read(connection, settings)
            return indexes.missing(connection, contract.schema, contract), vacuum.read(connection, contract)
    except SweeperError as error:
        return str(error), []
    except DBAPIError as error:
        return reason(error), []


def skipped(upkeep: Upkeep, now: Counts | None) -> Iterator[str]:
    """Yield advice on each reason for which records are skipped: as counted `now` if that is possible, else by the last run."""
    last = upkeep.last
    found = dict(last.skipped) if last else {}
    if now is not None:
        found |= {reason.value: now.skipped[reason.value] for reason in COUNTED_NOW}
    for why, count in found.items():
        if count and not remedies.is_usual(why, count, last.purged if last else 0):
            source = "counted now" if now is not None and why in COUNTED_NOW else f"by {_named(last)}"
            yield remedies.skipped(why, count, upkeep.schema, source)


def doubted(upkeep: Upkeep, now: Counts | None, reported: Reported | None) -> Iterator[str]:
    """Yield advice on each doubt, as counted `now` or by the last run; as counted by the last report, if that found more."""
    seen = dict(now.unclassified) if now is not None else dict(upkeep.last.doubted) if upkeep.last else {}
    everywhere = _reported(reported)
    for why in sorted({*seen, *everywhere}):
        count, of_all = seen.get(why, 0), everywhere.get(why, 0)
        if of_all > count and reported is not None:
            source = f"by the report of {rfc3339(reported.at)}; `sweeper report` counts again"
            yield remedies.in_doubt(why, of_all, upkeep.schema, source)
        elif count:
            source = "counted now among what may be due" if now is not None else f"by {_named(upkeep.last)}"
            yield remedies.in_doubt(why, count, upkeep.schema, source + _more(upkeep, why, count))


def _reported(reported: Reported | None) -> Mapping[str, int]:
    if reported is None:
        return {}
    return Counter(reported.details["conversations"]["unclassified"]) + Counter(
        reported.details["feedback"]["unclassified"]
    )


def _more(upkeep: Upkeep, why: str, count: int) -> str:
    """Return how many more are in doubt than by the sweep before."""
    if not upkeep.counted:
        return ""
    before = upkeep.counted[-1]
    more = count - before.doubted.get(why, 0)
    return f"; {more} more than by run {before.run}" if more > 0 else ""


def _named(last: RunCounts | None) -> str:
    return f"run {last.run} of {rfc3339(last.at)}" if last else "no run"


def installation(upkeep: Upkeep, now: datetime) -> Iterator[str]:
    """Yield advice on guards that are off, missing indexes, manifests that are gone and objects that are behind."""
    for guard, refused in upkeep.guards_off.items():
        yield f"Guard {guard} is off, so runs do not refuse {refused}: set [guards] {GuardSettings.line(guard)}."
    for guard, refused in upkeep.guards_off_in_run.items():
        yield (
            f"Guard {guard} was off in {_named(upkeep.last)}, which had other settings than these: it did not refuse {refused}. "
            f"Set [guards] {GuardSettings.line(guard)} there, and run again."
        )
    if not isinstance(upkeep.indexes, str):
        for index in upkeep.indexes:
            yield f"{index.table}: {index.effect}. Runs are slow until you create it: {index.create};"
    for table in upkeep.dead:
        yield from _not_vacuumed(table, now)
    for manifest, directory in upkeep.unreachable.items():
        yield (
            f"Manifest {manifest} cannot be reached: {directory} has no {description.NAME} on this machine, so no row is "
            f"recalled from it. Restore the directory from a copy, then `sweeper manifest verify {shlex.quote(directory)}` and "
            f"`sweeper manifest recall`. If it was moved, name its place: `sweeper manifest relocate {manifest} DIR`; if neither "
            f"it nor a model from it is used any more: `sweeper manifest retire {manifest}`."
        )
    if upkeep.objects_behind:
        yield (
            f"{upkeep.objects_behind:,} objects of purged attachments are still there: `sweeper check` says whether [objects] "
            "prefixes allows them, last_error in sweeper.object_purges says what failed; then `sweeper run`."
        )


def _not_vacuumed(table: DeadRows, now: datetime) -> Iterator[str]:
    """Yield advice on a table with many dead rows that nothing has vacuumed for a day."""
    if now - table.unvacuumed_since > PATIENCE:
        since = rfc3339(table.unvacuumed_since)
        who = "" if table.allowed else ", as its owner"
        yield (
            f"{table.name} has {table.dead:,} dead rows beside {table.live:,} others, and was not vacuumed since {since}: "
            f"searches slow down, and what was purged is still in its files. Run VACUUM (ANALYZE) {table.name}{who}, or set "
            "[maintenance] vacuum = true; find out why autovacuum does not reach it."
        )

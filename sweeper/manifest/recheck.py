"""Which rows of a manifest may not be trained on any more, and why: all at once, against the store as it is now.

The law of this file: whatever excludes counts whatever its instant, and a row that cannot be found is lost.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from sweeper.manifest import parquet
from sweeper.manifest.description import Description
from sweeper.manifest.eligibility import Eligibility
from sweeper.postgres import manifests
from sweeper.postgres.manifests import RevokedRow
from sweeper.runs.job import Job

PAGE = 20_000
PURGED = "purged"
"""A reason beside those of the policy, as are `gone` (deleted by somebody else) and `expired` by the row's own date."""
NAMES = ["message_id", "conversation_id", "expires_at"]


@dataclass(frozen=True)
class RecheckSnapshot:
    """One look at the store, in which manifests are checked."""

    connection: Connection
    now: datetime
    eligibility: Eligibility
    last_tombstone: int

    def lost(self, folder: Path, description: Description, *, only_new: bool = False) -> Iterator[list[RevokedRow]]:
        """The rows of a manifest that may not be trained on, page by page; with `only_new`, those not recorded yet."""
        self._load(folder, description)
        sql = self.eligibility.lost(description.id, only_new=only_new)
        streamed = self.connection.exec_driver_sql(sql, execution_options={"stream_results": True, "yield_per": PAGE})
        for page in streamed.partitions():
            yield [RevokedRow(*row) for row in page]

    def _load(self, folder: Path, description: Description) -> None:
        self.connection.exec_driver_sql("DROP TABLE IF EXISTS pg_temp.sweeper_manifest")
        self.connection.exec_driver_sql(self.eligibility.load())
        driver: Any = self.connection.connection.driver_connection
        with (
            driver.cursor() as cursor,
            cursor.copy("COPY pg_temp.sweeper_manifest FROM STDIN (FORMAT csv)") as copy,
        ):
            for text in parquet.csv(_files(folder, description), NAMES, PAGE):
                copy.write(text)
        self.connection.exec_driver_sql("ANALYZE pg_temp.sweeper_manifest")


@contextmanager
def look(job: Job, *, fenced: bool = False) -> Iterator[RecheckSnapshot]:
    """A look at the store as it is now, under the policy of the job.

    A `fenced` one begins while no batch is at work: a tombstone that it does not see has a higher number than all it sees.
    """
    now = job.clock.now()
    eligibility = Eligibility(job.contract, job.policy, now, ahead=True)
    with ExitStack() as stack:
        with manifests.fenced(job.database) if fenced else nullcontext():
            snapshot = job.database.snapshot(statement_timeout_ms=job.settings.manifest.statement_timeout_ms)
            connection = stack.enter_context(snapshot)
            last = manifests.last_tombstone(connection)
        for sql in eligibility.prepare():
            connection.exec_driver_sql(sql)
        yield RecheckSnapshot(connection, now, eligibility, last)


def of_purged(folder: Path, description: Description, purged: dict[str, datetime]) -> Iterator[RevokedRow]:
    """The rows of a manifest that belong to some purged conversations."""
    for page in parquet.holding(_files(folder, description), "conversation_id", list(purged), PAGE) if purged else ():
        for row in page.select(["message_id", "conversation_id"]).to_pylist():
            yield RevokedRow(**row, reason=PURGED, since=purged[row["conversation_id"]])


def _files(folder: Path, description: Description) -> Iterator[Path]:
    return (folder / file.name for file in description.files)

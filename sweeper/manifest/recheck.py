"""Finds the rows of a manifest that may no longer be trained on, by comparison with the current store.

Invariant: a fact that excludes a row counts even if its time is in the future, and a row that cannot be found is revoked.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from sweeper.log import Told, untold
from sweeper.manifest import parquet
from sweeper.manifest.description import Description
from sweeper.manifest.eligibility import Eligibility
from sweeper.postgres import manifests
from sweeper.postgres.manifests import RevokedRow
from sweeper.postgres.statement import NO_PARAMETERS
from sweeper.runs.job import Job

PAGE = 20_000
NAMES = ["message_id", "conversation_id", "expires_at"]
POSITION = ["turn", "split"]
"""Columns that a manifest of an earlier version does not have."""
TEXTS_PER_PAGE = 200


@dataclass(frozen=True, slots=True)
class TextRow:
    """A row of a manifest with its text, or with the reason why it may not be trained on any more."""

    conversation_id: str
    message_id: str
    turn: int | None
    split: str | None
    author: str | None
    body: str | None
    expires_at: datetime | None
    reason: str | None


@dataclass(frozen=True)
class RecheckSnapshot:
    """A transaction in which the rows of manifests can be checked."""

    connection: Connection
    now: datetime
    eligibility: Eligibility
    last_tombstone: int
    told: Told = untold

    def revoked_rows(
        self, folder: Path, description: Description, *, only_new: bool = False
    ) -> Iterator[list[RevokedRow]]:
        """Yield pages of the rows of a manifest that may not be trained on; with `only_new`, those not recorded yet."""
        self._load(folder, description, NAMES)
        for page in self._pages(self.eligibility.lost(description.id, only_new=only_new), PAGE):
            yield [RevokedRow(*row) for row in page]

    def text_rows(self, folder: Path, description: Description) -> Iterator[TextRow]:
        """Yield all rows of a manifest by conversation and time, with the text of those that may be trained on."""
        known = {column.name for column in description.schema_}
        self._load(folder, description, [*NAMES, *(name for name in POSITION if name in known)])
        for page in self._pages(self.eligibility.texts(description.id), TEXTS_PER_PAGE):
            yield from (TextRow(*row) for row in page)

    def _pages(self, sql: str, rows: int) -> Iterator[Sequence[Any]]:
        """Yield the rows of a statement in pages. `exec_driver_sql` ignores `yield_per`, so `partitions` gets the size."""
        options = {**NO_PARAMETERS, "stream_results": True, "max_row_buffer": rows}
        yield from self.connection.exec_driver_sql(sql, execution_options=options).partitions(rows)

    def _load(self, folder: Path, description: Description, names: list[str]) -> None:
        self.connection.exec_driver_sql("DROP TABLE IF EXISTS pg_temp.sweeper_manifest")
        self.connection.exec_driver_sql(self.eligibility.load())
        driver: Any = self.connection.connection.driver_connection
        with (
            driver.cursor() as cursor,
            cursor.copy(f"COPY pg_temp.sweeper_manifest ({', '.join(names)}) FROM STDIN (FORMAT csv)") as copy,
        ):
            for page, chunk in enumerate(parquet.to_csv(_files(folder, description), names, PAGE), 1):
                copy.write(chunk)
                self.told(min(page * PAGE, description.eligible), description.eligible)
        self.connection.exec_driver_sql("ANALYZE pg_temp.sweeper_manifest")


@contextmanager
def open_recheck(job: Job, *, fenced: bool = False, told: Told = untold) -> Iterator[RecheckSnapshot]:
    """Open a snapshot of the current store under the policy of the job.

    A `fenced` snapshot begins while no batch is open, so that every tombstone missing in it has a higher number than those in it.
    `told` is told how many rows of a manifest were handed to the database.
    """
    now = job.clock.now()
    eligibility = Eligibility(job.contract, job.policy, now, ahead=True)
    with ExitStack() as stack:
        with manifests.fenced(job.database) if fenced else nullcontext():
            snapshot = job.database.snapshot(statement_timeout_ms=job.settings.manifest.statement_timeout_ms)
            connection = stack.enter_context(snapshot)
            last = manifests.last_tombstone(connection)
        for sql in eligibility.prepare():
            connection.exec_driver_sql(sql, execution_options=NO_PARAMETERS)
        yield RecheckSnapshot(connection, now, eligibility, last, told)


def rows_of_purged(
    folder: Path, description: Description, purged: dict[str, tuple[str, datetime]]
) -> Iterator[RevokedRow]:
    """Yield the rows of a manifest that belong to purged or redacted conversations, given with the reason and the time.

    `purged` is a reason in addition to the policy's, like `gone` (deleted by others) and `expired` (past the row's own date).
    """
    for page in parquet.rows_with(_files(folder, description), "conversation_id", list(purged), PAGE) if purged else ():
        for row in page.select(["message_id", "conversation_id"]).to_pylist():
            yield RevokedRow(**row, reason=purged[row["conversation_id"]][0], since=purged[row["conversation_id"]][1])


def _files(folder: Path, description: Description) -> Iterator[Path]:
    return (folder / file.name for file in description.files)

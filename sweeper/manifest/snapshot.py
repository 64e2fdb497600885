"""Streams the eligible messages of the store into Arrow batches, within one REPEATABLE READ transaction.

Invariant: memory does not grow with the store. Statements contain their values as literals, because with a bound parameter the
driver fetches all rows at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import make_url

from sweeper.errors import ConfigurationError
from sweeper.manifest.eligibility import Eligibility
from sweeper.postgres.contract import ALIKE
from sweeper.postgres.database import DatabaseError, begin_values
from sweeper.postgres.statement import inlined, statement
from sweeper.runs.job import Job

BATCH_BYTES = 2 << 20
ELIGIBLE = "eligible"


@dataclass(frozen=True)
class Snapshot:
    """A transaction in which the eligibility of all messages can be queried."""

    connection: Any
    eligibility: Eligibility

    def counts(self) -> dict[str, int]:
        """Return the number of messages by the reason that excludes them, or `eligible`."""
        return {reason or ELIGIBLE: count for reason, count in self._fetch(self.eligibility.counts())}

    def rows(self, *, with_text: bool) -> Iterator[Any]:
        """Yield the eligible messages in total order, as record batches."""
        with self.connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)})
            cursor.execute(self.eligibility.rows(with_text=with_text))
            try:
                yield from cursor.fetch_record_batch()
            except OSError as error:  # Arrow raises it if the database fails while rows arrive
                raise _database_error(error) from None

    def _fetch(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows


@contextmanager
def open_snapshot(job: Job, *, with_text: bool = False) -> Iterator[Snapshot]:
    """Open a snapshot of the job's store at its as-of.

    Raises:
        ConfigurationError: the policy allows no training, or the packages for manifests are not installed.
        DatabaseError: the database failed.
    """
    driver = _driver()
    settings = job.settings
    if with_text:
        refuse_encoded(
            job, "No manifest was built. Give the relation a body of type text, or build without --with-text."
        )
    eligibility = Eligibility(job.contract, job.policy, job.as_of)
    begin = inlined("begin", begin_values(settings, statement_timeout_ms=settings.manifest.statement_timeout_ms))
    try:
        with driver.connect(_uri(job)) as connection, job.database.stop.also(connection.adbc_cancel):
            with connection.cursor() as cursor:
                for sql in ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", begin, *eligibility.prepare()):
                    cursor.execute(sql)
            yield Snapshot(connection, eligibility)
            connection.rollback()  # nothing was written but tables of its own: a pooler may keep the server connection
    except driver.Error as error:
        raise _database_error(error) from None


def refuse_encoded(job: Job, otherwise: str) -> None:
    """Raise if message bodies are not stored as text, because the filter would find nothing in them."""
    type_ = job.contract.type("messages", "body")
    if type_ not in ALIKE["text"]:
        raise ConfigurationError(f"messages.body is {type_}, and only text can be filtered. {otherwise}")


def _database_error(error: Exception) -> DatabaseError:
    """Return an error with the first line of the server's message, without DETAIL, which may contain values."""
    message = str(error).partition("ERROR:")[2] or str(error)
    return DatabaseError(
        f"database: {message.strip().splitlines()[0]}. No manifest was made. See `sweeper check`, and build again."
    )


def _driver() -> Any:
    try:
        from adbc_driver_postgresql import dbapi  # slow to import, and an extra
    except ImportError:
        raise ConfigurationError(
            "the packages for manifests are not installed: nothing was built. pip install '.[manifest]' in the program's checkout"
        ) from None
    return dbapi


def _uri(job: Job) -> str:
    """Return the connection URI for the driver.

    Before our transaction begins, the driver looks up types by function name, and finds none if quote_all_identifiers is on for
    the database or role. It is turned off only in that case, because some poolers refuse options.
    """
    url = make_url(job.settings.database.url).set(drivername="postgresql")
    if job.database.within(lambda c: c.execute(statement("names_are_quoted")).scalar_one()):
        given = url.query.get("options", ())
        options = [given] if isinstance(given, str) else [*given]
        url = url.update_query_dict({"options": " ".join([*options, "-cquote_all_identifiers=off"])})
    uri, _, query = url.render_as_string(hide_password=False).partition("?")
    return f"{uri}?{query.replace('+', '%20')}" if query else uri  # libpq does not decode a plus as a space

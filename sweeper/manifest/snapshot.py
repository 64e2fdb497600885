"""One look at the store: a REPEATABLE READ transaction whose rows stream into Arrow, batch by batch.

The law of this file: nothing grows with the store; statements carry their values as literals, because a bound parameter makes
the driver fetch everything at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import make_url

from sweeper.errors import ConfigurationError
from sweeper.manifest.eligibility import Eligibility
from sweeper.postgres.contract import ALIKE
from sweeper.postgres.database import DatabaseError, begin_values
from sweeper.postgres.statement import inlined, statement
from sweeper.runs.job import Job

OPEN: set[Any] = set()
"""The driver's connections of this process that are open now, for whoever must cancel what runs on them."""
BATCH_BYTES = 2 << 20
ELIGIBLE = "eligible"


@dataclass(frozen=True)
class Snapshot:
    """The store as one transaction sees it, with the policy's view of it laid out."""

    connection: Any
    eligibility: Eligibility

    def counts(self) -> dict[str, int]:
        """How many messages exist, by the reason that bars them; `eligible` for none."""
        return {reason or ELIGIBLE: count for reason, count in self._fetched(self.eligibility.counts())}

    def rows(self, *, with_text: bool) -> Iterator[Any]:
        """The eligible messages in total order, as record batches."""
        with self.connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)})
            cursor.execute(self.eligibility.rows(with_text=with_text))
            try:
                yield from cursor.fetch_record_batch()
            except OSError as error:  # that is how Arrow tells that the database failed while rows were coming
                raise _failed(error) from None

    def _fetched(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows


@contextmanager
def taken(job: Job, *, with_text: bool = False) -> Iterator[Snapshot]:
    """A snapshot of the job's store at its as-of.

    Raises:
        ConfigurationError: the policy trains on nothing, or the packages for manifests are not installed.
        DatabaseError: the database failed.
    """
    driver = _driver()
    settings = job.settings
    if with_text:
        _refuse_encoded(job.contract.type("messages", "body"))
    eligibility = Eligibility(job.contract, job.policy, job.as_of)
    begin = inlined("begin", begin_values(settings, statement_timeout_ms=settings.manifest.statement_timeout_ms))
    try:
        with driver.connect(_uri(job)) as connection:
            OPEN.add(connection)
            try:
                with connection.cursor() as cursor:
                    for sql in ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", begin, *eligibility.prepare()):
                        cursor.execute(sql)
                yield Snapshot(connection, eligibility)
                connection.rollback()  # nothing was written but tables of its own: a pooler may keep the server connection
            finally:
                OPEN.discard(connection)
    except driver.Error as error:
        raise _failed(error) from None


def cancel() -> None:
    """Cancel, from another thread, what every open snapshot runs now; the build fails, and nothing appears."""
    for connection in list(OPEN):
        with suppress(Exception):  # it has just ended, or the server is gone
            connection.adbc_cancel()


def _refuse_encoded(type_: str) -> None:
    """Text that is stored as something else cannot be filtered: what is sensitive in it would not be seen."""
    if type_ not in ALIKE["text"]:
        raise ConfigurationError(
            f"messages.body is {type_}, and only text can be filtered. No manifest was built. "
            "Give the relation a body of type text, or build without --with-text."
        )


def _failed(error: Exception) -> DatabaseError:
    """What the server said, in one line, without the statement and without DETAIL, which may hold values."""
    said = str(error).partition("ERROR:")[2] or str(error)
    return DatabaseError(
        f"database: {said.strip().splitlines()[0]}. No manifest was made. See `sweeper check`, and build again."
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
    """The connection URI of the driver.

    The driver looks up types by function name before our transaction begins, and finds none if quote_all_identifiers is on for
    the database or role. Some poolers refuse options, so they are sent only then.
    """
    url = make_url(job.settings.database.url).set(drivername="postgresql")
    if job.database.within(lambda c: c.execute(statement("names_are_quoted")).scalar_one()):
        given = url.query.get("options", ())
        options = [given] if isinstance(given, str) else [*given]
        url = url.update_query_dict({"options": " ".join([*options, "-cquote_all_identifiers=off"])})
    uri, _, query = url.render_as_string(hide_password=False).partition("?")
    return f"{uri}?{query.replace('+', '%20')}" if query else uri  # libpq does not decode a plus as a space

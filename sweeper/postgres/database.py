"""The database engine and its transactions.

Invariant: every transaction sets all it needs with SET LOCAL; no session state, no prepared statement, no WITH HOLD cursor. The
program therefore works behind a transaction pooler.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event
from typing import Any, TypeVar

import psycopg
from psycopg.adapt import Buffer, Loader
from sqlalchemy import Connection, Engine, Row, TextClause, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from sweeper import log
from sweeper.clock import Clock
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.policy.instant import OutOfRange, rfc3339
from sweeper.postgres.statement import statement
from sweeper.postgres.stop import StopRequest
from sweeper.settings import Settings

T = TypeVar("T")

PASSING = frozenset({"25006", "25P03", "40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "53300"})
"""SQLSTATEs worth a retry: read-only, idle too long, serialization, deadlock, time-outs, shutdown, too many connections."""
READ_ONLY = "25006"
"""SQLSTATE of a server that was the primary until a failover: a new connection may reach the new primary."""


class DatabaseError(SweeperError):
    """The database could not be reached or refused a statement; earlier commits stand, nothing else was done."""


@dataclass(frozen=True)
class Database:
    """A store's database: engine and settings.

    `expected` is set once the database has answered, or from the beginning for a command that is to wait for it; only then do
    retries wait for an outage to end. `stop` cancels statements.
    """

    engine: Engine
    settings: Settings
    expected: Event = field(default_factory=Event, compare=False)
    stop: StopRequest = field(default_factory=StopRequest, compare=False)

    @contextmanager
    def transaction(
        self,
        *,
        lock_timeout_ms: int | None = None,
        statement_timeout_ms: int | None = None,
        idle_timeout_ms: int | None = None,
    ) -> Iterator[Connection]:
        """Open a READ COMMITTED transaction in UTC with the store's schema as search path; commit unless the block raises."""
        with self.engine.begin() as connection:
            values = begin_values(self.settings, lock_timeout_ms, statement_timeout_ms, idle_timeout_ms)
            connection.execute(statement("begin"), values)
            self.expected.set()
            yield connection

    @contextmanager
    def snapshot(self, *, statement_timeout_ms: int) -> Iterator[Connection]:
        """Open a REPEATABLE READ transaction: every statement sees the store as it was at the first one."""
        with self.engine.execution_options(isolation_level="REPEATABLE READ").begin() as connection:
            connection.execute(
                statement("begin"), begin_values(self.settings, statement_timeout_ms=statement_timeout_ms)
            )
            yield connection

    def within(self, work: Callable[[Connection], T]) -> T:
        """Call `work` in a transaction of its own, with retries (see `retried`), and return its result."""

        def once() -> T:
            with self.transaction() as connection:
                return work(connection)

        return self.retried(once)

    def fetched(self, sql: TextClause, parameters: Mapping[str, Any]) -> Sequence[Row[Any]]:
        """Return the rows of one statement, run in a transaction of its own with retries."""
        return self.within(lambda connection: connection.execute(sql, parameters).all())

    def retried(self, work: Callable[[], T], *, worth_it: Callable[[BaseException], bool] | None = None) -> T:
        """Call `work`, with retries and growing pauses after transient failures, and return its result.

        If the server has answered before and is gone (a restart, a failover), retry for up to `outage_seconds`.

        Args:
            work: a whole transaction, which a failure rolls back.
            worth_it: which failures to retry; `is_retryable` by default.

        Raises:
            DBAPIError: the last failure, once the attempts are used up or if it is not transient.
        """
        retrying = Retrying(
            retry=retry_if_exception(worth_it or is_retryable),
            stop=self._is_enough,
            wait=wait_random_exponential(multiplier=0.05, max=2.0),
            before_sleep=self._before_another,
            reraise=True,
        )
        return retrying(work)

    def _is_enough(self, state: RetryCallState) -> bool:
        if self.stop.is_abandoned:
            return True
        error = state.outcome.exception() if state.outcome else None
        patient = error is not None and _is_outage(error) and self.expected.is_set()
        if patient and (state.seconds_since_start or 0.0) < self.settings.database.outage_seconds:
            return False
        enough = state.attempt_number >= self.settings.database.attempts
        if enough and patient:
            self.expected.clear()  # the next statement does not wait a second time
        return enough

    def _before_another(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, DBAPIError) and sqlstate(error) == READ_ONLY:
            self.engine.dispose()  # the pool's connections lead to a server that is no longer the primary
        self._log_retry(state)

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        text = {
            "reason": reason(error) if isinstance(error, DBAPIError) else str(error),
            "attempt": state.attempt_number,
        }
        if error is not None and _is_outage(error) and self.expected.is_set():
            left = self.settings.database.outage_seconds - (state.seconds_since_start or 0.0)
            until = rfc3339((Clock().now() + timedelta(seconds=max(left, 0.0))).replace(microsecond=0))
            log.get().warning("waiting for the database", until=until, at_most_seconds=round(max(left, 0.0), 1), **text)
        else:
            log.get().warning("retrying", sqlstate=sqlstate(error) if isinstance(error, DBAPIError) else None, **text)


IDLE_MS = 10_000
"""The server ends a transaction that is idle for this long by default, since its locks block others."""


def begin_values(
    settings: Settings,
    lock_timeout_ms: int | None = None,
    statement_timeout_ms: int | None = None,
    idle_timeout_ms: int | None = None,
) -> dict[str, str]:
    """Return the parameters of the statement `begin`; time-outs in milliseconds, by default those of the settings."""
    database = settings.database
    return {
        "idle_timeout": str(idle_timeout_ms or statement_timeout_ms or IDLE_MS),
        "search_path": f'"{settings.store.schema_name}", pg_temp',
        "lock_timeout": str(database.lock_timeout_ms if lock_timeout_ms is None else lock_timeout_ms),
        "statement_timeout": str(statement_timeout_ms or database.statement_timeout_ms),
    }


def connect(settings: Settings, stop: StopRequest | None = None) -> Database:
    """Return the database of the settings; nothing is connected yet.

    Raises:
        ConfigurationError: no URL is set, or it does not name a PostgreSQL database.
    """
    if not settings.database.url:
        raise ConfigurationError(
            "no database: nothing was done. Set SWEEPER_DATABASE_URL, for instance postgresql://user@host/database."
        )
    try:
        url = make_url(settings.database.url.encode().decode())  # the driver takes UTF-8 only
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "SWEEPER_DATABASE_URL is not a URL: nothing was done. Write postgresql://user@host/database."
        ) from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"SWEEPER_DATABASE_URL names {url.get_backend_name()!r}: nothing was done. Only PostgreSQL is supported."
        )
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="READ COMMITTED",
        pool_size=2,
        max_overflow=1,
        pool_pre_ping=True,
        connect_args={
            "prepare_threshold": None,
            "connect_timeout": 10,
            "client_encoding": "utf8",
            "keepalives_idle": 30,
            "tcp_user_timeout": 30_000,  # milliseconds: detects a broken network before the lease expires
        },
        hide_parameters=True,  # parameters may hold ids, which never belong in a log
    )
    event.listen(engine, "connect", _adapt)
    database = Database(engine, settings, stop=stop or StopRequest())
    database.stop.watch(engine)
    return database


def is_retryable(error: BaseException) -> bool:
    """True if the same work may succeed a moment later."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    state = sqlstate(error)
    if state is None:
        return isinstance(error, OperationalError)  # the connection broke before the server could say why
    return state in PASSING or state.startswith("08")


def is_disconnected(error: BaseException) -> bool:
    """True if the connection or the server is gone, so that other statements would fail too."""
    if not isinstance(error, DBAPIError):
        return False
    state = sqlstate(error)
    if state is None:
        return error.connection_invalidated or isinstance(error, OperationalError)
    return error.connection_invalidated or state == READ_ONLY or state.startswith(("08", "57P0"))


_REFUSED_LOGIN = re.compile(
    r"FATAL:\s+(?!\s|the database system is|sorry, too many clients|remaining connection slots)"
)


def _is_outage(error: BaseException) -> bool:
    """True if the server is gone for the moment; a login that it refuses (password, role, database) is no outage."""
    if not is_disconnected(error):
        return False
    return not (isinstance(error, DBAPIError) and sqlstate(error) is None and _REFUSED_LOGIN.search(str(error.orig)))


def sqlstate(error: DBAPIError | psycopg.Error) -> str | None:
    """Return the SQLSTATE of an error, if the server gave one."""
    return getattr(_driver_error(error), "sqlstate", None)


def reason(error: DBAPIError | psycopg.Error) -> str:
    """Return the error's primary message in one line, without parameters or the row values of DETAIL lines."""
    original = _driver_error(error)
    primary = getattr(getattr(original, "diag", None), "message_primary", None)
    if primary:
        return str(primary).strip()
    return next(iter(str(original).splitlines()), type(original).__name__).strip()


def wordless_reason(error: DBAPIError) -> str:
    """Like `reason`, but without text from a function of the application, which may quote content."""
    diagnostic = getattr(error.orig, "diag", None)
    state = sqlstate(error) or "without a SQLSTATE"
    from_language = (getattr(diagnostic, "source_file", None) or "").startswith("pl")
    if not from_language and (state in SERVERS_OWN or state.startswith("23")):
        return reason(error)
    frame = _FUNCTION.search(getattr(diagnostic, "context", None) or "")
    return f"{f'function {frame[1]}' if frame else 'a statement'} failed with SQLSTATE {state}, see the server's log"


SERVERS_OWN = frozenset({"0A000", "42501", "55000", "55P03", "57014"})
"""SQLSTATEs, besides the integrity violations (23...), whose messages name only tables, columns and keys."""
_FUNCTION = re.compile(r"function (\S+\([^)]*\))")


def _driver_error(error: DBAPIError | psycopg.Error) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


class _InstantLoader(Loader):
    """Loads timestamptz; a value that `datetime` cannot hold becomes an `OutOfRange` instead of failing the whole fetch."""

    def load(self, data: Buffer) -> datetime | OutOfRange:
        written = bytes(data).decode()
        try:
            return datetime.fromisoformat(written)
        except ValueError:
            return _out_of_range(written)


def _out_of_range(written: str) -> OutOfRange:
    if written in (OutOfRange.ALWAYS.value, OutOfRange.NEVER.value):
        return OutOfRange(written)
    return OutOfRange.ANCIENT if written.endswith("BC") else OutOfRange.DISTANT


def _adapt(connection: Any, _: object) -> None:
    driver: psycopg.Connection[Any] = (
        connection.driver_connection if hasattr(connection, "driver_connection") else connection
    )
    driver.adapters.register_loader("timestamptz", _InstantLoader)

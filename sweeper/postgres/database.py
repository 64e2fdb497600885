"""The database engine and its transactions.

Invariant: every transaction is READ COMMITTED and brings all it needs with SET LOCAL; no session state, no
prepared statement, no WITH HOLD cursor. A transaction pooler in front changes nothing.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event
from typing import Any, TypeVar

import psycopg
from psycopg.adapt import Buffer, Loader
from sqlalchemy import Connection, Engine, Row, TextClause, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from sweeper import log
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.policy.instant import OutOfRange
from sweeper.postgres.statement import statement
from sweeper.postgres.stop import StopRequest
from sweeper.settings import Settings

T = TypeVar("T")

PASSING = frozenset({"25006", "25P03", "40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "53300"})
"""SQLSTATEs that pass: read-only or idle too long, serialization, deadlock, time-outs, shutdown, too many connections."""
READ_ONLY = "25006"
"""What a server says that was the primary until a failover: another connection may lead to the new one."""


class DatabaseError(SweeperError):
    """The database could not be reached or refused a statement; what was committed before stands, nothing else was done."""


@dataclass(frozen=True)
class Database:
    """A store's database: engine and settings.

    `answered` is set once it has answered: only then is a server that is gone waited for. `stop` can end what runs there.
    """

    engine: Engine
    settings: Settings
    answered: Event = field(default_factory=Event, compare=False)
    stop: StopRequest = field(default_factory=StopRequest, compare=False)

    @contextmanager
    def transaction(
        self,
        *,
        lock_timeout_ms: int | None = None,
        statement_timeout_ms: int | None = None,
        idle_timeout_ms: int | None = None,
    ) -> Iterator[Connection]:
        """Open a READ COMMITTED transaction in UTC with the store's schema as search path; it commits unless the body raises."""
        with self.engine.begin() as connection:
            values = begin_values(self.settings, lock_timeout_ms, statement_timeout_ms, idle_timeout_ms)
            connection.execute(statement("begin"), values)
            self.answered.set()
            yield connection

    @contextmanager
    def snapshot(self, *, statement_timeout_ms: int) -> Iterator[Connection]:
        """Open a REPEATABLE READ transaction: every statement sees the store as of the first."""
        with self.engine.execution_options(isolation_level="REPEATABLE READ").begin() as connection:
            connection.execute(
                statement("begin"), begin_values(self.settings, statement_timeout_ms=statement_timeout_ms)
            )
            yield connection

    def within(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in its own transaction, repeat it on transient errors, and return its result."""

        def once() -> T:
            with self.transaction() as connection:
                return work(connection)

        return self.retried(once)

    def fetched(self, sql: TextClause, parameters: Mapping[str, Any]) -> Sequence[Row[Any]]:
        """Return the rows of a statement, run in its own transaction with retries."""
        return self.within(lambda connection: connection.execute(sql, parameters).all())

    def retried(self, work: Callable[[], T], *, worth_it: Callable[[BaseException], bool] | None = None) -> T:
        """Run `work`, repeat it with growing pauses on transient errors, and return its result.

        A server that has answered before and is gone (a restart, a failover) is waited for as long as outage_seconds.

        Args:
            work: a whole transaction, which a failure has undone.
            worth_it: which failures pass; unless given, `passes` says.

        Raises:
            DBAPIError: as it came, once the attempts are used up or for a reason that does not pass.
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
        patient = error is not None and is_disconnected(error) and self.answered.is_set()
        if patient and (state.seconds_since_start or 0.0) < self.settings.database.outage_seconds:
            return False
        enough = state.attempt_number >= self.settings.database.attempts
        if enough and patient:
            self.answered.clear()  # who waited in vain once is not waited with again, by the next statement
        return enough

    def _before_another(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, DBAPIError) and sqlstate(error) == READ_ONLY:
            self.engine.dispose()  # the pool's connections lead to a server that is no primary any more
        _say(state)


IDLE_MS = 10_000
"""Default idle time-out of a transaction, whose locks would otherwise block others."""


def begin_values(
    settings: Settings,
    lock_timeout_ms: int | None = None,
    statement_timeout_ms: int | None = None,
    idle_timeout_ms: int | None = None,
) -> dict[str, str]:
    """Return the parameters of the statement `begin`; times in milliseconds, from the settings unless given."""
    database = settings.database
    return {
        "idle_timeout": str(idle_timeout_ms or statement_timeout_ms or IDLE_MS),
        "search_path": f'"{settings.store.schema_name}", pg_temp',
        "lock_timeout": str(database.lock_timeout_ms if lock_timeout_ms is None else lock_timeout_ms),
        "statement_timeout": str(statement_timeout_ms or database.statement_timeout_ms),
    }


def connect(settings: Settings, stop: StopRequest | None = None) -> Database:
    """Return the database of the settings, without connecting.

    Raises:
        ConfigurationError: no URL is set, or it is not one of PostgreSQL.
    """
    if not settings.database.url:
        raise ConfigurationError(
            "no database: nothing was done. Set SWEEPER_DATABASE_URL, for instance postgresql://user@host/database."
        )
    try:
        url = make_url(settings.database.url.encode().decode())  # what is no UTF-8 cannot be sent to the driver
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
            "tcp_user_timeout": 30_000,  # milliseconds: a network that has gone is noticed while the lease lasts
        },
        hide_parameters=True,  # parameters may hold ids; they never belong in a log
    )
    event.listen(engine, "connect", _adapt)
    database = Database(engine, settings, stop=stop or StopRequest())
    database.stop.watch(engine)
    return database


def is_retryable(error: BaseException) -> bool:
    """Return True if the same work may succeed a moment later."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    state = sqlstate(error)
    if state is None:
        return isinstance(error, OperationalError)  # the connection broke before the server could say why
    return state in PASSING or state.startswith("08")


def is_disconnected(error: BaseException) -> bool:
    """Return True if the connection or the server is lost, so that other statements would fail too."""
    if not isinstance(error, DBAPIError):
        return False
    state = sqlstate(error)
    if state is None:
        return error.connection_invalidated or isinstance(error, OperationalError)
    return error.connection_invalidated or state == READ_ONLY or state.startswith(("08", "57P0"))


def sqlstate(error: DBAPIError | psycopg.Error) -> str | None:
    """The SQLSTATE of an error, if the server gave one."""
    return getattr(_driver_error(error), "sqlstate", None)


def reason(error: DBAPIError | psycopg.Error) -> str:
    """Return the error in one line without parameters and DETAIL, which may carry row values."""
    original = _driver_error(error)
    primary = getattr(getattr(original, "diag", None), "message_primary", None)
    if primary:
        return str(primary).strip()
    return next(iter(str(original).splitlines()), type(original).__name__).strip()


def wordless_reason(error: DBAPIError) -> str:
    """As `reason`, but without words that a function of the application chose or quotes: they may be content."""
    diagnostic = getattr(error.orig, "diag", None)
    state = sqlstate(error) or "without a SQLSTATE"
    from_language = (getattr(diagnostic, "source_file", None) or "").startswith("pl")
    if not from_language and (state in SERVERS_OWN or state.startswith("23")):
        return reason(error)
    frame = _FUNCTION.search(getattr(diagnostic, "context", None) or "")
    return f"{f'function {frame[1]}' if frame else 'a statement'} failed with SQLSTATE {state}, see the server's log"


SERVERS_OWN = frozenset({"0A000", "42501", "55000", "55P03", "57014"})
"""SQLSTATEs, beside those of integrity (23...), whose messages name tables, columns and keys only."""
_FUNCTION = re.compile(r"function (\S+\([^)]*\))")


def _driver_error(error: DBAPIError | psycopg.Error) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _say(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.get().warning(
        "retrying",
        attempt=state.attempt_number,
        sqlstate=sqlstate(error) if isinstance(error, DBAPIError) else None,
        reason=reason(error) if isinstance(error, DBAPIError) else str(error),
    )


class _InstantLoader(Loader):
    """timestamptz as text in UTC, with what `datetime` cannot hold as `OutOfRange` instead of an error for the whole fetch."""

    def load(self, data: Buffer) -> datetime | OutOfRange:
        written = bytes(data).decode()
        try:
            return datetime.fromisoformat(written)
        except ValueError:
            return _odd(written)


def _odd(written: str) -> OutOfRange:
    if written in (OutOfRange.ALWAYS.value, OutOfRange.NEVER.value):
        return OutOfRange(written)
    return OutOfRange.ANCIENT if written.endswith("BC") else OutOfRange.DISTANT


def _adapt(connection: Any, _: object) -> None:
    driver: psycopg.Connection[Any] = (
        connection.driver_connection if hasattr(connection, "driver_connection") else connection
    )
    driver.adapters.register_loader("timestamptz", _InstantLoader)

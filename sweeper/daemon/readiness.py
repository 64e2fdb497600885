"""Checks whether the next sweep could begin: the database answers, its tables fit, settings and policy can be read.

Invariant: whoever asks is answered within a bound, also where the database is not.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock, Thread

from sqlalchemy.exc import DBAPIError

from sweeper.errors import ConfigurationError
from sweeper.postgres import database as databases
from sweeper.postgres import migrate
from sweeper.postgres.database import Database
from sweeper.report import operation
from sweeper.settings import Settings, load_policy

BOUND_SECONDS = 2.0
"""Seconds to wait for an answer."""


@dataclass(frozen=True)
class ReadinessState:
    """The reasons why the daemon is not ready (none: it is), and the reason of a pause, which does not affect readiness."""

    reasons: tuple[str, ...] = ()
    paused: str | None = None


@dataclass
class Readiness:
    """Checks readiness on request; concurrent requests share one check."""

    fresh: Callable[[], Settings]
    database: Database
    bound_seconds: float = BOUND_SECONDS
    _lock: Lock = field(default_factory=Lock)
    _look: "_Look | None" = None

    def state(self) -> ReadinessState:
        """How things stand, within the bound."""
        with self._lock:
            if self._look is None or not self._look.is_alive():
                self._look = _Look(self.fresh, self.database)
                self._look.start()
            look = self._look
        look.join(self.bound_seconds)
        return look.found or ReadinessState((f"database: no answer within {self.bound_seconds:g} s",))


class _Look(Thread):
    """One look; where the database hangs, this thread hangs with it, and no other is begun."""

    def __init__(self, fresh: Callable[[], Settings], database: Database) -> None:
        super().__init__(name="readiness", daemon=True)
        self._fresh, self._database = fresh, database
        self.found: ReadinessState | None = None

    def run(self) -> None:
        unreadable = _unreadable(self._fresh)
        try:
            migrate.refuse_other(migrate.revision(self._database))
            with self._database.transaction() as connection:
                paused = next((pause.reason for pause in operation.pauses(connection)), None)
        except ConfigurationError as error:
            self.found = ReadinessState((*unreadable, str(error)))
        except DBAPIError as error:
            self.found = ReadinessState(
                (*unreadable, f"database: not reached (SQLSTATE {databases.sqlstate(error) or 'unknown'})")
            )
        else:
            self.found = ReadinessState(unreadable, paused)


def _unreadable(fresh: Callable[[], Settings]) -> tuple[str, ...]:
    """Yield the reasons why settings or policy cannot be used."""
    try:
        load_policy(fresh())
    except ConfigurationError as error:
        return (str(error),)
    return ()

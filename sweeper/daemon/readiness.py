"""Whether the next sweep could start: the database answers, its revision is right, settings and policy can be read.

Invariant: `Readiness.state` answers within its bound even if the database hangs.
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
"""How long `/readyz` waits for the database."""


@dataclass(frozen=True)
class ReadinessState:
    """Why the daemon is not ready (empty if it is), and why it is paused; a paused daemon is ready."""

    reasons: tuple[str, ...] = ()
    paused: str | None = None


@dataclass
class Readiness:
    """Checks readiness on request; simultaneous requests share one check."""

    fresh: Callable[[], Settings]
    database: Database
    bound_seconds: float = BOUND_SECONDS
    _lock: Lock = field(default_factory=Lock)
    _check: "_Check | None" = None

    def state(self) -> ReadinessState:
        """Return the state, after at most `bound_seconds`."""
        with self._lock:
            if self._check is None or not self._check.is_alive():
                self._check = _Check(self.fresh, self.database)
                self._check.start()
            check = self._check
        check.join(self.bound_seconds)
        return check.state or ReadinessState((f"database: no answer within {self.bound_seconds:g} s",))


class _Check(Thread):
    """One check in a thread of its own. If the database hangs, this thread hangs too, and no other is started."""

    def __init__(self, fresh: Callable[[], Settings], database: Database) -> None:
        super().__init__(name="readiness", daemon=True)
        self._fresh, self._database = fresh, database
        self.state: ReadinessState | None = None

    def run(self) -> None:
        unreadable = _unreadable(self._fresh)
        try:
            migrate.refuse_other(migrate.revision(self._database))
            with self._database.transaction() as connection:
                paused = next((pause.reason for pause in operation.pauses(connection)), None)
        except ConfigurationError as error:
            self.state = ReadinessState((*unreadable, str(error)))
        except DBAPIError as error:
            self.state = ReadinessState(
                (*unreadable, f"database: not reached (SQLSTATE {databases.sqlstate(error) or 'unknown'})")
            )
        else:
            self.state = ReadinessState(unreadable, paused)


def _unreadable(fresh: Callable[[], Settings]) -> tuple[str, ...]:
    """Return why settings or policy cannot be used; empty if they can."""
    try:
        load_policy(fresh())
    except ConfigurationError as error:
        return (str(error),)
    return ()

"""Shows other sessions why a process waits, as the `application_name` of a connection that is kept for as long as it waits.

Nothing is written. The sign is gone with the connection, however the process ends. It names no person and no content, because
every role of the server can read it. Behind a transaction pooler it may be missing or appear late.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement


@dataclass
class WaitSign:
    """The sign of one run or backfill, for instance `run 12`. A failure to show it is ignored: the work does not depend on it."""

    database: Database
    who: str
    _kept: Connection | None = None

    def show(self, reason: str) -> None:
        """Show why it waits now; "" takes the sign away."""
        if not reason:
            self._hide()
            return
        with suppress(SQLAlchemyError):
            if self._kept is None:
                self._kept = self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._kept.execute(statement("wait_show"), {"name": f"sweeper {self.who}: {reason}"})

    def _hide(self) -> None:
        if self._kept is None:
            return
        kept, self._kept = self._kept, None
        with suppress(SQLAlchemyError):
            kept.execute(statement("wait_hide"))
        with suppress(SQLAlchemyError):
            kept.close()


def read(connection: Connection) -> Mapping[str, str]:
    """Return why each run or backfill of this database waits, by its name, for instance `run 12`."""
    found = (row.name.removeprefix("sweeper ").partition(": ") for row in connection.execute(statement("waits")))
    return {who: reason for who, _, reason in found}

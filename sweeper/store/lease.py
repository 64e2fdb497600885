"""Who may purge: a lease with a growing token, kept in a row, so that it needs no session and survives a killed holder.

The law of this file: a batch renews the lease in its own transaction; if the token is no longer ours, nothing is committed.
The lease's end is the database's business and read from its clock: it says who may work, never what is due.
"""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from sweeper import log
from sweeper.errors import LeaseHeldError, LeaseLostError
from sweeper.store.database import Database
from sweeper.store.statement import statement

LOOK_EVERY_SECONDS = 0.25


@dataclass
class Lease:
    """The right to purge one store, under a fencing token."""

    store: str
    seconds: float
    token: int
    run_id: int | None = None

    def renew(self, connection: Connection) -> None:
        """Renew, and hold the lease's row until the transaction ends.

        Raises:
            LeaseLostError: another run has taken the lease over.
        """
        found = connection.execute(
            statement("lease_renew"),
            {"store": self.store, "token": self.token, "seconds": self.seconds, "run_id": self.run_id},
        ).scalar_one_or_none()
        if found is None:
            raise LeaseLostError(
                f"lease of store {self.store!r}: another run has taken it over, because this one did not renew it in time. "
                "The running batch was rolled back; what was committed before is recorded. Nothing more is done here."
            )

    def give_back(self, connection: Connection) -> None:
        """Let the next run start at once."""
        connection.execute(statement("lease_give_back"), {"store": self.store, "token": self.token})


def take(database: Database) -> Lease:
    """The lease of the store, taken.

    A lease whose holder still renews it is refused at once; one that nobody renews is waited for until it ends.

    Raises:
        LeaseHeldError: another run holds it.
    """
    store, seconds = database.settings.store.schema_name, database.settings.lease.seconds
    database.within(lambda connection: connection.execute(statement("lease_prepare"), {"store": store}))
    seen: datetime | None = None
    deadline = time.monotonic() + seconds + 1.0
    while True:
        found, token = database.within(lambda connection: _look(connection, store, seconds))
        if token is not None:
            return Lease(store, seconds, token)
        renewed = seen is not None and found is not None and found.expires_at != seen
        if found is None or renewed or time.monotonic() > deadline:
            raise LeaseHeldError(
                f"lease of store {store!r}: another run holds it and is at work. Nothing was done. Wait until it has ended; "
                "a run that died is replaced by the next one after "
                f"{seconds:g} s ([lease] seconds)."
            )
        if seen is None:
            log.get().info("waiting for the lease of a run that may have died", store=store, at_most_seconds=seconds)
        seen = found.expires_at
        time.sleep(LOOK_EVERY_SECONDS)


def _look(connection: Connection, store: str, seconds: float) -> tuple[Row[Any] | None, int | None]:
    """The lease as it is (None: a batch of its holder has it locked), and its token if it could be taken."""
    found = connection.execute(statement("lease_look"), {"store": store}).one_or_none()
    if found is None or not found.expired:
        return found, None
    return found, connection.execute(statement("lease_take"), {"store": store, "seconds": seconds}).scalar_one()

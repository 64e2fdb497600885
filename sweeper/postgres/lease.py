"""The lease: the right to purge a store, kept in a row with a growing fencing token.

A row needs no session and outlives a holder that is killed. Invariant: every batch renews the lease in its own transaction, and
commits nothing if the token has changed. Whether a lease has expired is read from the database's clock; that clock decides who
may work, never what is due.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from sweeper import log
from sweeper.errors import LeaseHeldError, LeaseLostError, PausedError
from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement

LOOK_EVERY_SECONDS = 0.25
FRESH_SECONDS = 5.0
"""A preemption request expires after this time; a waiting run renews it."""
ASKED_MS = 5_000
"""How long a preemption request waits for the current batch, which has locked the lease's row."""
GIVES_WAY_SECONDS = 10.0
"""How long, beyond the length of a lease, a run waits for a preemptible holder to finish its batch."""


@dataclass
class Lease:
    """The right to purge one store, under a fencing token.

    `preemption_requested`: another run was waiting for the lease when it was last renewed.
    """

    store: str
    seconds: float
    token: int
    run_id: int | None = None
    preemption_requested: bool = False

    def renew(self, connection: Connection) -> None:
        """Renew the lease and keep its row locked until the transaction ends.

        Raises:
            LeaseLostError: another run has taken over the lease.
            PausedError: the sweeper is paused.
        """
        paused = self.keep(connection)
        if paused is not None:
            raise PausedError(f"paused: {paused}")

    def keep(self, connection: Connection) -> str | None:
        """Renew the lease even while the sweeper is paused, to record how a run ended; return the reason of the pause, if any.

        Raises:
            LeaseLostError: another run has taken over the lease.
        """
        found = connection.execute(
            statement("lease_renew"),
            {
                "store": self.store,
                "token": self.token,
                "seconds": self.seconds,
                "run_id": self.run_id,
                "fresh": FRESH_SECONDS,
            },
        ).one_or_none()
        if found is None:
            raise LeaseLostError(
                f"lease of store {self.store!r}: another run has taken it over, because this one did not renew it in time. "
                "The running batch was rolled back; what was committed before is recorded. Nothing more is done here."
            )
        self.preemption_requested = found.preemption_requested
        paused: str | None = found.paused
        return paused

    def give_back(self, connection: Connection) -> None:
        """Release the lease, so that the next run need not wait for it to expire."""
        connection.execute(statement("lease_give_back"), {"store": self.store, "token": self.token})


def take(database: Database, *, preemptible: bool = False, stop_reason: Callable[[], str] = lambda: "") -> Lease:
    """Take the lease of the store.

    A lease that its holder still renews is refused at once; one that nobody renews is waited for until it expires. A preemptible
    holder (a backfill) is asked to release it, does so after its batch, and does not take it back while a run waits.

    Args:
        database: the store's database.
        preemptible: whether the new holder releases the lease on request.
        stop_reason: called while waiting; a reason to stop ends the wait, "" goes on.

    Raises:
        LeaseHeldError: another run holds the lease, or held it until this one was asked to stop.
    """
    store, seconds = database.settings.store.schema_name, database.settings.lease.seconds
    database.within(lambda connection: connection.execute(statement("lease_prepare"), {"store": store}))
    attempt = _Attempt(database, store, seconds, preemptible)
    while True:
        lease = attempt.once()
        if lease is not None:
            return lease
        if stop_reason():
            raise attempt.held()
        time.sleep(LOOK_EVERY_SECONDS)


@dataclass
class _Attempt:
    """One run's attempt to take the lease. After a preemption request, further renewals by the holder do not end the wait."""

    database: Database
    store: str
    seconds: float
    preemptible: bool
    seen: datetime | None = None
    waits: bool = False
    started: float = field(default_factory=time.monotonic)

    def once(self) -> Lease | None:
        """Return the lease if it is free; None means that the caller should try again in a moment.

        Raises:
            LeaseHeldError: the holder is at work.
        """
        found, token = self.database.within(self._look)
        if token is not None:
            return Lease(self.store, self.seconds, token)
        asked = not self.preemptible and self.database.within(self._is_holder_preemptible)
        if asked:
            self._request_preemption()
        renewed = self.seen is not None and found is not None and found.expires_at != self.seen
        if self._is_timed_out(asked=asked) or (not asked and (found is None or renewed)):
            raise self.held()
        if not self.waits:
            self.waits = True
            log.get().info(
                "asking a backfill for the lease" if asked else "waiting for the lease of a run that may have died",
                store=self.store,
                at_most_seconds=self.seconds,
            )
        self.seen = found.expires_at if found is not None else self.seen
        return None

    def _look(self, connection: Connection) -> tuple[Row[Any] | None, int | None]:
        """Return the lease's row (None while a batch of its holder locks it), and the new token if it could be taken."""
        names = {"store": self.store, "fresh": FRESH_SECONDS}
        found = connection.execute(statement("lease_look"), names).one_or_none()
        if found is None or not found.expired or (self.preemptible and found.preemption_requested):
            return found, None
        values = {"store": self.store, "seconds": self.seconds, "yields": self.preemptible}
        return found, connection.execute(statement("lease_take"), values).scalar_one()

    def _is_holder_preemptible(self, connection: Connection) -> bool:
        return bool(connection.execute(statement("lease_is_preemptible"), {"store": self.store}).scalar_one_or_none())

    def _request_preemption(self) -> None:
        def ask() -> None:
            with self.database.transaction(lock_timeout_ms=ASKED_MS) as connection:
                connection.execute(statement("lease_request_preemption"), {"store": self.store})

        self.database.retried(ask)

    def _is_timed_out(self, *, asked: bool) -> bool:
        patience = self.seconds + (GIVES_WAY_SECONDS if asked else 1.0)
        return time.monotonic() - self.started > patience

    def held(self) -> LeaseHeldError:
        """Return the error that says that the lease is held."""
        return LeaseHeldError(
            f"lease of store {self.store!r}: another run holds it and is at work. Nothing was done.",
            remedy="Wait until it has ended; a run that died is replaced by the next one after "
            f"{self.seconds:g} s ([lease] seconds).",
        )

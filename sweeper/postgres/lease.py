"""Who may purge: a lease with a growing token, kept in a row, so that it needs no session and survives a killed holder.

The law of this file: a batch renews the lease in its own transaction; if the token is no longer ours, nothing is committed.
The lease's end is the database's business and read from its clock: it says who may work, never what is due.
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
"""A wish for the lease that is older is nobody's any more: who waits says it again and again."""
ASKED_MS = 5_000
"""How long a wish waits for the batch at work; it is written into the lease's row, which that batch has locked."""
GIVES_WAY_SECONDS = 10.0
"""How long beyond the lease's length a run waits for a holder that gives way: for one batch."""


@dataclass
class Lease:
    """The right to purge one store, under a fencing token. `wanted`: as of the last renewal, a run waits for it."""

    store: str
    seconds: float
    token: int
    run_id: int | None = None
    preemption_requested: bool = False

    def renew(self, connection: Connection) -> None:
        """Renew, and hold the lease's row until the transaction ends.

        Raises:
            LeaseLostError: another run has taken the lease over.
            PausedError: somebody has paused the sweeper.
        """
        paused = self.keep(connection)
        if paused is not None:
            raise PausedError(f"paused: {paused}")

    def keep(self, connection: Connection) -> str | None:
        """Renew also while paused, to record how a run ended; returns why it is paused.

        Raises:
            LeaseLostError: another run has taken the lease over.
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
        """Let the next run start at once."""
        connection.execute(statement("lease_give_back"), {"store": self.store, "token": self.token})


def take(database: Database, *, preemptible: bool = False, stopping: Callable[[], str] = lambda: "") -> Lease:
    """The lease of the store, taken.

    A lease whose holder still renews it is refused at once; one that nobody renews is waited for until it ends. A holder that
    `yields` (a backfill) is asked for it, gives it back after its batch, and does not take it while somebody waits.

    Args:
        database: the store's database.
        yields: whether the lease is for a holder that gives way.
        stopping: asked while it waits why to stop ("": go on).

    Raises:
        LeaseHeldError: another run holds it, or held it until this one was to stop.
    """
    store, seconds = database.settings.store.schema_name, database.settings.lease.seconds
    database.within(lambda connection: connection.execute(statement("lease_prepare"), {"store": store}))
    attempt = _Attempt(database, store, seconds, preemptible)
    while True:
        lease = attempt.once()
        if lease is not None:
            return lease
        if stopping():
            raise attempt.held()
        time.sleep(LOOK_EVERY_SECONDS)


@dataclass
class _Attempt:
    """One run's waiting for the lease. Once a holder that gives way has been asked, its renewals are no refusal."""

    database: Database
    store: str
    seconds: float
    preemptible: bool
    seen: datetime | None = None
    waits: bool = False
    started: float = field(default_factory=time.monotonic)

    def once(self) -> Lease | None:
        """The lease if it is free now; None: look again in a moment.

        Raises:
            LeaseHeldError: its holder is at work.
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
        """The lease as it is (None: a batch of its holder has it locked), and its token if it could be taken."""
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
        """What is said where it was not to be had."""
        return LeaseHeldError(
            f"lease of store {self.store!r}: another run holds it and is at work. Nothing was done. Wait until it has ended; "
            f"a run that died is replaced by the next one after {self.seconds:g} s ([lease] seconds)."
        )

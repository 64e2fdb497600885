"""Tells each copy what was purged, in the order of the evidence, and moves its cursor once it has acknowledged.

    number the tombstones → claim the copy → next records → send, with retries → cursor and event in one transaction → release

Invariants: no purge waits for a copy: no lease is held and no transaction is open while a copy is waited for. A cursor moves only
over what the copy has acknowledged, and only over leaves, whose numbers are given to committed rows: nothing is missed. A process
that is killed between the two leaves the cursor, and the same records are sent again.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

from sweeper import log
from sweeper.clock import Clock
from sweeper.copies import sender as senders
from sweeper.copies.sender import NotDeliveredError, Sender, SendingStoppedError
from sweeper.errors import SweeperError
from sweeper.evidence import checkpoint
from sweeper.log import Told, untold
from sweeper.postgres import evidence, pauses
from sweeper.postgres.database import Database, reason
from sweeper.postgres.statement import statement

CLAIM_SECONDS = 30.0
"""How much longer a claim lasts than one attempt may take."""
MOST_WAIT = 60.0
"""The longest wait between two attempts, in seconds."""

Ended = Literal["delivered", "failed", "claimed", "paused", "stopped"]
"""How the deliveries to a copy ended; `claimed`: another process delivers to it, or was killed less than a claim ago."""


class _ClaimLostError(Exception):
    """Another process has taken the copy over."""


@dataclass
class Delivery:
    """What one process delivered to one copy, in one or more batches; `error` says why it failed."""

    copy: str
    outcome: Ended = "delivered"
    records: int = 0
    next_leaf: int | None = None
    error: str | None = None


def deliver(database: Database, clock: Clock, names: Sequence[str] = (), told: Told = untold) -> list[Delivery]:
    """Deliver to each copy, or to those named, until it has everything, fails, or its budget is used up.

    `told` is told how many records a copy has acknowledged.

    Raises:
        ConfigurationError: a command, a secret or a file of headers is not there; nothing was done.
        DBAPIError: the database failed; the cursors stand where the copies have acknowledged.
    """
    wanted = [each for each in senders.senders(database.settings) if not names or each.copy.name in names]
    if wanted:
        _number(database)
    return [_Deliverer(database, clock, each, told).run() for each in wanted]


def deliver_after_run(database: Database, clock: Clock) -> None:
    """Deliver to each copy at the end of a run; whatever fails is logged, and left to the next one."""
    try:
        deliver(database, clock)
    except (SweeperError, DBAPIError) as error:
        text = reason(error) if isinstance(error, DBAPIError) else str(error)
        log.get().error("copies could not be told what was purged; the next run tries again", reason=text)


def _number(database: Database) -> None:
    """Give leaf numbers to tombstones that a checkpoint has not reached; without one they are not delivered."""
    since: int | None = None
    try:
        while (last := checkpoint.number(database, "tombstones", since)) is not None:
            since = last + 1
    except SweeperError as error:
        log.get().error("the newest tombstones have no leaf number and are not delivered", reason=str(error))


@dataclass
class _Deliverer:
    database: Database
    clock: Clock
    sender: Sender
    told: Told = untold
    claimed_until: datetime | None = None
    deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.sender.copy.seconds
        self.key = {"store": self.database.settings.store.schema_name, "name": self.sender.copy.name}
        self.found = Delivery(self.sender.copy.name)

    def run(self) -> Delivery:
        """Claim the copy, deliver, and release it."""
        row = self._claimed("copy_claim")
        if row is None:
            self.found.outcome = "claimed"
            log.get().info("another process delivers to the copy", copy=self.found.copy)
            return self.found
        self.found.next_leaf = row.next_leaf
        try:
            self._deliver()
        except _ClaimLostError:
            self.found.outcome = "claimed"
        except SendingStoppedError:
            self.found.outcome = "stopped"
        except NotDeliveredError as error:
            self._fail(str(error))
        finally:
            self._write("copy_release")
        return self.found

    def _deliver(self) -> None:
        most = self.sender.copy.per_run
        while self.found.records < most and time.monotonic() < self.deadline:
            if self._stopped():
                raise SendingStoppedError
            if pauses.in_force(self.database):
                self.found.outcome = "paused"
                return
            batch = self._batch(min(self.sender.copy.batch, most - self.found.records))
            if not batch:
                return
            self._send(batch)
            self._acknowledged(batch)
            self.told(self.found.records, None)

    def _batch(self, limit: int) -> Sequence[Row[Any]]:
        parameters = {"next_leaf": self.found.next_leaf, "records": list(self.sender.copy.records), "limit": limit}
        return self.database.fetched(statement("copy_batch"), {**self.key, **parameters})

    def _send(self, batch: Sequence[Row[Any]]) -> None:
        """Send a batch, with retries and growing waits.

        Raises:
            NotDeliveredError: the last attempt failed.
            SendingStoppedError: a stop request came first.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(NotDeliveredError),
            stop=self._is_enough,
            wait=wait_exponential(multiplier=self.sender.copy.backoff_seconds, max=MOST_WAIT),
            sleep=self._sleep,
            before_sleep=self._log_retry,
            reraise=True,
        )
        retrying(self._attempt, batch)

    def _attempt(self, batch: Sequence[Row[Any]]) -> None:
        if self._claimed("copy_renew") is None:
            raise _ClaimLostError
        self.sender.send(batch, self._stopped, self.clock.now().timestamp())

    def _is_enough(self, state: RetryCallState) -> bool:
        is_late = time.monotonic() + state.upcoming_sleep >= self.deadline
        return state.attempt_number >= self.sender.copy.attempts or is_late

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._stopped():
                raise SendingStoppedError
            time.sleep(min(senders.STEP_SECONDS, left))

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.get().warning("retrying", copy=self.found.copy, reason=str(error), attempt=state.attempt_number)

    def _acknowledged(self, batch: Sequence[Row[Any]]) -> None:
        """Move the cursor and record the event in one transaction."""
        leaves = {"from_leaf": batch[0].leaf, "to_leaf": batch[-1].leaf}
        details = {"store": self.key["store"], "copy": self.found.copy, "records": len(batch), **leaves}
        values = {"before": self.found.next_leaf, "next_leaf": batch[-1].leaf + 1, "now": self.clock.now()}

        def move(connection: Connection) -> bool:
            if self._execute(connection, "copy_acknowledged", **values) is None:
                return False
            evidence.record(connection, "copy_delivered", None, details)
            return True

        if not self.database.within(move):
            raise _ClaimLostError
        self.found.records += len(batch)
        self.found.next_leaf = batch[-1].leaf + 1
        log.get().info("delivered", **{key: value for key, value in details.items() if key != "store"})

    def _fail(self, error: str) -> None:
        self.found.outcome, self.found.error = "failed", error
        self._write("copy_failed", error=error, now=self.clock.now())
        log.get().error(
            "copy not told what was purged; the next delivery sends it again",
            copy=self.found.copy,
            reason=error,
            next_leaf=self.found.next_leaf,
        )

    def _claimed(self, name: str) -> Row[Any] | None:
        """Claim the copy or extend the claim; None if another process has it."""
        seconds = self.sender.copy.timeout_seconds + CLAIM_SECONDS + MOST_WAIT
        row = self.database.within(lambda connection: self._execute(connection, name, seconds=seconds))
        if row is not None:
            self.claimed_until = row.claimed_until
        return row

    def _write(self, name: str, **values: object) -> None:
        def write(connection: Connection) -> None:
            connection.execute(statement(name), {**self.key, "claimed_until": self.claimed_until, **values})

        self.database.within(write)

    def _execute(self, connection: Connection, name: str, **values: object) -> Row[Any] | None:
        parameters = {**self.key, "claimed_until": self.claimed_until, **values}
        return connection.execute(statement(name), parameters).one_or_none()

    def _stopped(self) -> bool:
        return bool(self.database.stop.reason)

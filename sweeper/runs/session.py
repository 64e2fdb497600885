"""Context manager for one run: takes the lease, records the run's start and outcome, releases the lease, takes a checkpoint.

Invariant: a run that was opened is closed with how it ended; only a run that was killed, or whose database is gone,
stays open, and the next one records it as interrupted.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sweeper import log
from sweeper.errors import LeaseLostError, RefusedError, SweeperError
from sweeper.evidence import checkpoint, keys, ledger
from sweeper.evidence.checkpoint import LedgerError
from sweeper.evidence.keys import Signer
from sweeper.policy.instant import rfc3339
from sweeper.postgres import evidence, pauses, store_counts
from sweeper.postgres import lease as leases
from sweeper.postgres.database import reason
from sweeper.postgres.evidence import RunRecord
from sweeper.postgres.lease import Lease
from sweeper.postgres.load_probe import LoadProbe
from sweeper.runs.approval import Approval
from sweeper.runs.batch_sizer import BatchSizer
from sweeper.runs.job import Job, unreachable
from sweeper.runs.throttle import Budget, ProgressListener, StopReason, Throttle

CHECKPOINT_SECONDS = 600.0
"""Seconds that the checkpoint after a run may take; the next checkpoint continues where it ended."""
HURRIED_SECONDS = 2.0
"""The same after a run that was asked to stop."""


@dataclass(frozen=True)
class RunKind:
    """The kind of a run: a sweep, one slice of a backfill, or a reapplication after a restore."""

    kind: Literal["run", "backfill", "reapply"] = "run"
    backfill_id: int | None = None

    @property
    def preemptible(self) -> bool:
        """True for a slice of a backfill: it releases the lease on request and leaves feedback to runs."""
        return self.kind == "backfill"


def refuse_paused(job: Job) -> None:
    """Refuse to begin while the sweeper is paused.

    Raises:
        RefusedError: it is paused; nothing was purged.
    """
    for pause in pauses.in_force(job.database):
        raise RefusedError(
            "paused",
            f"paused since {rfc3339(pause['paused_at'])}: {pause['reason']}.",
            "",
            "When that is over, `sweeper resume`, and run again.",
        )


@dataclass
class Session:
    """One run between its start and its close.

    `histories`: what it saw of them, once it has looked. `checkpoint_seconds`: how long its checkpoint may take, in seconds.
    """

    job: Job
    run_kind: RunKind
    lease: Lease
    run: RunRecord
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    histories: store_counts.Histories | None = None

    def renew(self) -> None:
        """Renew the lease.

        Raises:
            LeaseLostError: another run has taken it over.
            PausedError: somebody has paused the sweeper.
        """
        self.job.database.within(self.lease.renew)

    def steered(self, watch: ProgressListener, budget: Budget, purged: Callable[[], int]) -> Throttle:
        """Return the throttle of this run: progress listener, budget, load of the server, preemption requests."""
        settings, root = self.job.settings, self.job.contract.conversations
        pace = BatchSizer(settings.pace.target_batch_ms / 1000, settings.purge.batch)
        gauge = LoadProbe(self.job.database, [root.oid, *(key.oid for key in root.children)])
        return Throttle(settings, watch, budget, gauge, self.renew, purged, pace, self._stop_reason)

    def _stop_reason(self) -> str:
        return self.job.stop_reason() or self._given_way()

    def _given_way(self) -> str:
        return StopReason.YIELDED if self.run_kind.preemptible and self.lease.preemption_requested else ""

    def close(self, outcome: evidence.Outcome, result: dict[str, Any]) -> None:
        """Record how the run ended and release the lease, in one transaction.

        Raises:
            LeaseLostError: another run has taken over, and has recorded this one as interrupted.
        """
        self.job.database.within(lambda connection: self._close(connection, outcome, result))
        told = {"guard": result["guard"]} if "guard" in result else {}
        log.get().info("run closed", run=self.run.id, outcome=outcome, **told)

    def _close(self, connection: Connection, outcome: evidence.Outcome, result: dict[str, Any]) -> None:
        seen, now = self.histories, self.job.clock.now()
        plan_changes, consent_events = (seen.plan_changes, seen.consent_events) if seen else (None, None)
        self.lease.keep(connection)
        evidence.close_run(connection, self.run.id, outcome, now, result, plan_changes, consent_events)
        if outcome == "refused":
            evidence.record(connection, "refusal", self.run.id, {"guard": result.get("guard")})
        self.lease.give_back(connection)

    def failure(self, error: str) -> tuple[evidence.Outcome, dict[str, Any]]:
        """Return the outcome of a run that raised: "stopped" if its statements were cancelled because the process must end."""
        if self.job.database.stop.is_abandoned:
            self.checkpoint_seconds = 0.0
            return "stopped", {"stop_reason": StopReason.SIGNAL.value, "error": error}
        return "failed", {"error": error}

    def close_if_possible(self, outcome: evidence.Outcome, result: dict[str, Any]) -> None:
        """Close the run; if the database is unreachable the run stays open, and the next run records it as interrupted."""
        try:
            self.close(outcome, result)
        except Exception:  # the first error is the one to tell
            log.get().warning("run left open; the next run records it as interrupted", run=self.run.id)


@contextmanager
def session(job: Job, run_kind: RunKind, approval: Approval | None = None) -> Iterator[Session]:
    """Open a run for the body of the `with` statement and close it afterwards, also if the body raises.

    Where the job is to end while the lease is waited for, nothing is opened.

    Raises:
        LeaseHeldError: another run is at work, or was until this one was to stop.
        ConfigurationError: the key that signs checkpoints cannot be used; nothing was done.
        DatabaseError: for whatever the database answered.
    """
    signer = keys.read(job.settings)
    lease = leases.take(job.database, preemptible=run_kind.preemptible, stop_reason=job.stop_reason)
    opened = Session(job, run_kind, lease, _opened(job, lease, approval, run_kind))
    try:
        with _recorded(opened):
            yield opened
    finally:
        _cover(opened, signer)


@contextmanager
def _recorded(opened: Session) -> Iterator[None]:
    """Close the run with the error if the body raises."""
    try:
        yield
    except LeaseLostError:
        raise  # the run that took over has recorded this one as interrupted
    except RefusedError as refusal:
        opened.close("refused", refusal.to_dict())
        raise
    except SweeperError as error:
        opened.close_if_possible(*opened.failure(str(error)))
        raise
    except DBAPIError as error:
        opened.close_if_possible(*opened.failure(type(error).__name__))
        raise unreachable(error) from None
    except Exception:
        opened.close_if_possible("failed", {"error": "unforeseen"})
        raise


def _cover(opened: Session, signer: Signer | None) -> None:
    """Take a checkpoint of all evidence. If it fails, the evidence is kept and the next checkpoint covers it."""
    until = time.monotonic() + opened.checkpoint_seconds

    def go_on() -> None:
        if time.monotonic() > until:
            raise LedgerError("the checkpoint took too long")

    try:
        if signer is None and opened.job.database.within(ledger.was_signed):
            log.get().warning(
                "no signing key: the checkpoint is UNSIGNED though earlier ones are signed", run=opened.run.id
            )
        checkpoint.take(opened.job.database, opened.job.clock, signer, go_on)
    except (SweeperError, DBAPIError) as error:
        told = reason(error) if isinstance(error, DBAPIError) else str(error)
        log.get().error("no checkpoint; see `sweeper audit verify`", reason=told, run=opened.run.id)


def _opened(job: Job, lease: Lease, approval: Approval | None, run_kind: RunKind) -> RunRecord:
    def open_run(connection: Connection) -> int:
        lease.run_id = evidence.open_run(
            connection,
            store=lease.store,
            as_of=job.as_of,
            policy_name=job.policy.name,
            policy_digest=job.policy.digest,
            token=lease.token,
            approval=approval.token() if approval else None,
            started_at=job.clock.now(),
            kind=run_kind.kind,
            backfill_id=run_kind.backfill_id,
        )
        lease.keep(connection)
        return lease.run_id

    run_id = job.database.within(open_run)
    log.get().info(
        "run opened", run=run_id, as_of=rfc3339(job.as_of), policy=job.policy.digest[:12], kind=run_kind.kind
    )
    vouched_for = (
        approval is not None or run_kind.kind == "reapply"
    )  # by a person, or by the ledger: no limit of volume counts it
    return RunRecord(run_id, lease.store, job.as_of, job.policy.digest, vouched_for)

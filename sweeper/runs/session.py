"""Context manager for one run: takes the lease, records start and outcome, releases the lease, takes a checkpoint.

Invariant: every run that was opened is closed with its outcome, unless it was killed or lost the database. The next run records
such a run as interrupted.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sweeper import log
from sweeper.copies import sender
from sweeper.encoding import to_json
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
from sweeper.postgres.run_sign import RunSign
from sweeper.runs.approval import Approval
from sweeper.runs.batch_sizer import BatchSizer
from sweeper.runs.job import Job, unreachable
from sweeper.runs.throttle import Budget, ProgressListener, StopReason, Throttle

CHECKPOINT_SECONDS = 600.0
"""Time limit of the checkpoint after a run, in seconds; the next checkpoint continues what it has numbered."""
HURRIED_SECONDS = 2.0
"""The same after a run that was stopped."""


@dataclass(frozen=True)
class RunKind:
    """The kind of a run: a nightly sweep, one slice of a backfill, or a reapplication after a restore."""

    kind: Literal["run", "backfill", "reapply"] = "run"
    backfill_id: int | None = None

    @property
    def preemptible(self) -> bool:
        """True for a slice of a backfill: a nightly run preempts it, and it purges no feedback."""
        return self.kind == "backfill"


def refuse_paused(job: Job) -> None:
    """Refuse to begin while the sweeper is paused.

    Raises:
        RefusedError: the sweeper is paused; nothing was purged.
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
    """One open run.

    `histories`: the row counts of the histories, once they were read. `checkpoint_seconds`: the time limit of its checkpoint.
    """

    job: Job
    run_kind: RunKind
    lease: Lease
    run: RunRecord
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    histories: store_counts.Histories | None = None

    @cached_property
    def sign(self) -> RunSign:
        """What the run shows to other sessions."""
        return RunSign(self.job.database, f"run {self.run.id}")

    def renew(self) -> None:
        """Renew the lease.

        Raises:
            LeaseLostError: another run has taken it over.
            PausedError: the sweeper was paused.
        """
        self.job.database.within(self.lease.renew)

    def throttle_for(self, watch: ProgressListener, budget: Budget, purged: Callable[[], int]) -> Throttle:
        """Return the throttle of this run; a preemption request stops a slice of a backfill."""
        settings, root = self.job.settings, self.job.contract.conversations
        pace = BatchSizer(settings.pace.target_batch_ms / 1000, settings.purge.batch)
        probe = LoadProbe(self.job.database, [root.oid, *(key.oid for key in root.children)])
        return Throttle(settings, watch, budget, probe, self.renew, purged, pace, self._stop_reason)

    def _stop_reason(self) -> str:
        return self.job.stop_reason() or self._preemption_reason()

    def _preemption_reason(self) -> str:
        return StopReason.YIELDED if self.run_kind.preemptible and self.lease.preemption_requested else ""

    def close(self, outcome: evidence.Outcome, result: Any) -> None:
        """Record the outcome with its result, encoded as JSON, and release the lease, in one transaction.

        Raises:
            LeaseLostError: another run has taken over, and has recorded this one as interrupted.
        """
        fields = to_json(result)
        self.job.database.within(lambda connection: self._close(connection, outcome, fields))
        text = {"guard": fields["guard"]} if "guard" in fields else {}
        log.get().info("run closed", run=self.run.id, outcome=outcome, **text)

    def _close(self, connection: Connection, outcome: evidence.Outcome, result: dict[str, Any]) -> None:
        seen, now = self.histories, self.job.clock.now()
        plan_changes, consent_events = (seen.plan_changes, seen.consent_events) if seen else (None, None)
        self.lease.keep(connection)
        evidence.close_run(connection, self.run.id, outcome, now, result, plan_changes, consent_events)
        if outcome == "refused":
            evidence.record(connection, "refusal", self.run.id, {"guard": result.get("guard")})
        self.lease.give_back(connection)

    def failure(self, error: str) -> tuple[evidence.Outcome, dict[str, Any]]:
        """Return outcome and result of a run that raised: "stopped" if a stop request cancelled its statements, else "failed"."""
        if self.job.database.stop.is_abandoned:
            self.checkpoint_seconds = 0.0
            return "stopped", {"stop_reason": StopReason.SIGNAL.value, "error": error}
        return "failed", {"error": error}

    def close_if_possible(self, outcome: evidence.Outcome, result: dict[str, Any]) -> None:
        """Close the run; if the database cannot be reached, leave it open for the next run to record as interrupted."""
        try:
            self.close(outcome, result)
        except Exception:  # the caller raises the first error
            log.get().warning("run left open; the next run records it as interrupted", run=self.run.id)


@contextmanager
def session(job: Job, run_kind: RunKind, approval: Approval | None = None) -> Iterator[Session]:
    """Open a run for the body of the `with` statement; if the body raises, close it with that error.

    Raises:
        LeaseHeldError: another run holds the lease, or held it until this one was asked to stop; no run was opened.
        ConfigurationError: the key that signs checkpoints, or what a copy needs, cannot be used; nothing was done.
        DatabaseError: the database failed.
    """
    signer = keys.read(job.settings)
    sender.senders(job.settings)
    lease = leases.take(job.database, preemptible=run_kind.preemptible, stop_reason=job.stop_reason)
    opened = Session(job, run_kind, lease, _open(job, lease, approval, run_kind))
    try:
        with _closing_on_error(opened):
            yield opened
    finally:
        opened.sign.close()
        _take_checkpoint(opened, signer)


@contextmanager
def _closing_on_error(opened: Session) -> Iterator[None]:
    """Close the run with the error that the body raises."""
    try:
        yield
    except LeaseLostError:
        raise  # the run that took over has recorded this one as interrupted
    except RefusedError as refusal:
        opened.close("refused", refusal)
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


def _take_checkpoint(opened: Session, signer: Signer | None) -> None:
    """Take a checkpoint of all evidence; if that fails, log it: the next checkpoint covers the evidence."""
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
        text = reason(error) if isinstance(error, DBAPIError) else str(error)
        log.get().error("no checkpoint; see `sweeper audit verify`", reason=text, run=opened.run.id)


def _open(job: Job, lease: Lease, approval: Approval | None, run_kind: RunKind) -> RunRecord:
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
    )  # by a person or by the ledger: does not count towards the volume limits
    return RunRecord(run_id, lease.store, job.as_of, job.policy.digest, vouched_for)

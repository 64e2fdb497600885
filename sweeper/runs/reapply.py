"""Purges again, after a restore, the records that an exported ledger has as purged and that the backup brought back.

    check the ledger → compare holds → find restored records → purge them under lock, with evidence → report what else is missing

Invariant: nothing is purged by a ledger unless it is known to belong to this store, or while a hold of that ledger is missing
here. The proof is in the signed leaves, in which each run names its database and store; if they do not, a person must confirm it.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial
from typing import Any

from sqlalchemy.exc import DBAPIError

from sweeper import log
from sweeper.errors import PausedError
from sweeper.evidence.export import Ledger
from sweeper.evidence.leaf import Leaf
from sweeper.objects import removal
from sweeper.policy.anomaly import anomalies
from sweeper.policy.counts import Counts, Kind
from sweeper.policy.evaluate import Evaluation, Proposal, Spared
from sweeper.policy.facts import Facts
from sweeper.policy.feedback import FeedbackFacts, feedback_anomalies
from sweeper.policy.instant import parse, rfc3339
from sweeper.policy.restored import PurgedRecord, evaluate_restored, evaluate_restored_feedback
from sweeper.postgres import evidence, purge
from sweeper.postgres.database import sqlstate
from sweeper.postgres.related_tables import PhysicalTable
from sweeper.runs.batch import Purger
from sweeper.runs.job import Job
from sweeper.runs.ledger_diff import LostProtections, missing, refuse_lost_holds
from sweeper.runs.ledger_owner import LedgerClaim, claim
from sweeper.runs.session import HURRIED_SECONDS, RunKind, Session, refuse_paused, session
from sweeper.runs.throttle import Budget, ProgressListener, StopReason, Throttle

PORTION = 500
"""The number of the ledger's tombstones that are looked up at a time."""
UNREADABLE = "unreadable_tombstone"
"""Counts tombstones with an instant outside the calendar or an id that the table cannot hold; they purge nothing."""
NO_ID = frozenset({"22P02", "22003"})
"""SQLSTATEs of a text that is not valid for the id's type, or a number out of its range."""
UNSEEN = "not_in_relation"
"""Counts rows that are back in their table but not in the store's relation, so that they cannot be evaluated."""


@dataclass
class Reapplied:
    """The result of a reapplication or of its preview."""

    ledger: Ledger
    outcome: str
    run_id: int | None
    purged_record: int = 0
    back: int = 0
    counts: Counts = field(default_factory=Counts)
    purged: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    claim: LedgerClaim = field(default_factory=LedgerClaim)
    lost: LostProtections = field(default_factory=LostProtections)
    stop_reason: str = ""
    seconds: float = 0.0
    newest: datetime | None = None
    """When the newest purge in the ledger happened; later purges are not known here."""

    @property
    def is_done(self) -> bool:
        """True if no restored record remains that should have been purged."""
        left = self.counts.failed + self.counts.skipped[Spared.LOCKED.value] + self.counts.skipped[UNSEEN]
        return self.outcome in ("completed", "preview") and not left

    def as_json(self) -> dict[str, Any]:
        """Return the result for machines."""
        conversations, feedback = self.purged.get("conversation", {}), self.purged.get("feedback", {})
        preview = self.outcome == "preview"
        return {
            "run": self.run_id,
            "outcome": self.outcome,
            "stop_reason": self.stop_reason or None,
            "log": self.ledger.tree.origin,
            "size": self.ledger.tree.size,
            "signed": self.ledger.signed,
            **self.claim.as_json(),
            "in_ledger": self.purged_record,
            "newest_purge": rfc3339(self.newest) if self.newest else None,
            "back": self.back,
            **self.counts.as_json(),
            ("would_purge" if preview else "purged"): self.counts.due if preview else sum(conversations.values()),
            ("feedback_would_purge" if preview else "feedback_purged"): (
                self.counts.feedback_by_rule.total() if preview else sum(feedback.values())
            ),
            **({"would_refuse": ["holds"] if self.lost.holds else []} if preview else {}),
            "lost_holds": list(self.lost.holds),
            "lost_orders": list(self.lost.orders),
            "duration_s": round(self.seconds, 3),
        }


def preview(job: Job, ledger: Ledger, confirmed: str | None = None) -> Reapplied:
    """Return what would be purged again; nothing is locked or written. For `confirmed` see `ledger_owner.claim`."""
    started, found = time.monotonic(), Reapplied(ledger, "preview", None)
    found.claim = claim(job, ledger, confirmed)
    found.lost = missing(job, ledger)
    for kind, portion in _portions(ledger, found.claim.runs, found.counts):
        found.purged_record += len(portion)
        found.newest = _newest(found.newest, portion)
        there = _restored(job, kind, portion, found.counts)
        found.back += len(there)
        found.counts.add(_evaluate_all(job, kind, there))
    found.seconds = time.monotonic() - started
    return found


def reapply(job: Job, ledger: Ledger, watch: ProgressListener | None = None, confirmed: str | None = None) -> Reapplied:
    """Purge the restored records again. For `confirmed` see `ledger_owner.claim`.

    Raises:
        RefusedError: the ledger is not known to belong to this store, or its holds are missing here; nothing was purged.
        LeaseHeldError: another run holds the lease.
        ExportError: the file changed while it was read; earlier purges stand.
    """
    refuse_paused(job)
    claimed = claim(job, ledger, confirmed)
    lost = missing(job, ledger)
    refuse_lost_holds(lost)
    watch = watch or ProgressListener()
    with session(job, RunKind("reapply")) as opened:
        return _Reapply(job, opened, ledger, claimed, lost, watch).run()


@dataclass
class _Reapply:
    job: Job
    session: Session
    ledger: Ledger
    claim: LedgerClaim
    lost: LostProtections
    watch: ProgressListener
    counts: Counts = field(default_factory=Counts)
    done: Counter[str] = field(default_factory=Counter)
    purged_record: int = 0
    newest: datetime | None = None
    back: int = 0
    locked: list[PurgedRecord] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def run(self) -> Reapplied:
        """Reapply the ledger's tombstones in order, until done or stopped."""
        throttle = self.session.throttle_for(self.watch, Budget(), self.done.total)
        self._record()
        try:
            self._work(throttle)
        except PausedError:
            throttle.stopped = StopReason.PAUSED
        return self._finish(throttle)

    def _record(self) -> None:
        """Record an event that names the ledger: from here on this log and that one diverge."""
        tree = self.ledger.tree
        details = {"log": tree.origin, "size": tree.size, "root": tree.root.hex(), "signed": self.ledger.signed}
        details |= self.claim.as_json()
        self.job.database.within(lambda c: evidence.record(c, "reapply", self.session.run.id, details))

    def _work(self, throttle: Throttle) -> None:
        for kind, portion in _portions(self.ledger, self.claim.runs, self.counts):
            self.purged_record += len(portion)
            self.newest = _newest(self.newest, portion)
            there = _restored(self.job, kind, portion, self.counts)
            self.back += len(there)
            there = self._visible(kind, there)
            while there and not throttle.is_over():
                size = throttle.next_batch()
                self._purge(throttle, kind, there[:size])
                there = there[size:]
            self.session.renew()
        if self.locked and not throttle.is_over():
            self._purge(throttle, "conversation", self.locked, waiting=True)
        over = throttle.is_over
        removal.remove_pending(self.job.database, self.session.run.id, self.job.clock.now(), self.session.renew, over)

    def _visible(self, kind: Kind, there: list[PurgedRecord]) -> list[PurgedRecord]:
        """Return the records that the store's relation shows; count the others."""
        facts = _facts(self.job, kind, there)
        visible = [purged_record for purged_record in there if purged_record.record_id in facts]
        _count_unseen(self.counts, kind, len(there) - len(visible))
        return visible

    def _purge(self, throttle: Throttle, kind: Kind, there: list[PurgedRecord], *, waiting: bool = False) -> None:
        purger = self._purger(throttle, {purged_record.record_id: purged_record for purged_record in there})
        if kind == "conversation":
            report = purger.purge([_proposal(purged_record) for purged_record in there], waiting=waiting)
            self.counts.add(report.counts)
            left = {proposal.conversation_id for proposal in report.unlocked}
            if waiting:
                self._skip_locked("conversation", len(left))
            else:
                self.locked += [purged_record for purged_record in there if purged_record.record_id in left]
        elif self.job.contract.feedback is not None:
            found = purger.purge_feedback(self.job.contract.feedback, [b.record_id for b in there], waiting=True)
            self.counts.add(found.counts)
            self._skip_locked("feedback", len(found.unlocked))

    def _skip_locked(self, kind: Kind, count: int) -> None:
        if count:
            self.counts.skip(kind, Spared.LOCKED, count)

    @cached_property
    def lock_budget(self) -> float:
        """How long a batch may hold locks, in seconds; read from the server's settings once."""
        return self.job.database.within(purge.read_lock_budget)

    def _purger(self, throttle: Throttle, there: Mapping[str, PurgedRecord]) -> Purger:
        job, session = self.job, self.session
        purger = Purger(job, session.run, session.lease, self.lock_budget, throttle.pace, done=self.done)
        return replace(
            purger, evaluate=partial(_evaluate, job, there), evaluate_feedback=partial(_evaluate_feedback, job, there)
        )

    def _finish(self, throttle: Throttle) -> Reapplied:
        purged = self.job.database.within(lambda c: evidence.purged_by_rule(c, self.session.run.id))
        outcome: evidence.Outcome = "failed" if self.counts.failed else "completed"
        if throttle.stopped:
            outcome, self.session.checkpoint_seconds = "stopped", HURRIED_SECONDS
        found = Reapplied(
            self.ledger,
            outcome,
            self.session.run.id,
            self.purged_record,
            self.back,
            self.counts,
            purged,
            self.claim,
            self.lost,
            throttle.stopped,
            time.monotonic() - self.started,
            self.newest,
        )
        self.session.close(outcome, {**found.as_json(), "batches": throttle.pace.times.as_json()})
        log.get().info("reapplied", run=self.session.run.id, back=self.back, purged=found.as_json()["purged"])
        return found


def _portions(ledger: Ledger, ours: Set[int | str], counts: Counts) -> Iterator[tuple[Kind, list[PurgedRecord]]]:
    """Yield the tombstones of this store's runs in the ledger's order, in portions of one kind of record."""
    waiting: dict[Kind, dict[str, PurgedRecord]] = {
        "conversation": {},
        "feedback": {},
    }  # for a record purged twice the later tombstone counts
    for leaf in ledger.leaves():
        if leaf["source"] == "tombstones" and leaf["run_id"] in ours and leaf["record"] in waiting:
            found = waiting[leaf["record"]]
            try:
                found[leaf["record_id"]] = _purged_record(leaf)
            except ValueError:
                counts.conversations.unclassified[UNREADABLE] += 1
            if len(found) >= PORTION:
                yield leaf["record"], list(found.values())
                found.clear()
    for kind, rest in waiting.items():
        if rest:
            yield kind, list(rest.values())


def _newest(known: datetime | None, portion: Iterable[PurgedRecord]) -> datetime | None:
    instants = [purged_record.purged_at for purged_record in portion]
    return max(instants if known is None else [*instants, known], default=known)


def _purged_record(leaf: Leaf) -> PurgedRecord:
    due_at, purged_at = parse(leaf["due_at"]), parse(leaf["purged_at"])
    return PurgedRecord(leaf["record_id"], leaf["account_id"], leaf["rule"], due_at, purged_at)


def _restored(job: Job, kind: Kind, portion: list[PurgedRecord], counts: Counts) -> list[PurgedRecord]:
    """Return the records of a portion whose rows exist again."""
    table = job.contract.conversations if kind == "conversation" else job.contract.feedback
    there = (
        _existing_ids(job, table, [purged_record.record_id for purged_record in portion], counts) if table else set()
    )
    return [purged_record for purged_record in portion if purged_record.record_id in there]


def _existing_ids(job: Job, table: PhysicalTable, ids: list[str], counts: Counts) -> set[str]:
    """Return the ids that have a row; count an id that is not valid for the table, and look up the others."""
    try:
        return job.database.within(lambda c: set(purge.existing(c, table, ids)))
    except DBAPIError as error:
        if sqlstate(error) not in NO_ID:
            raise
    if len(ids) == 1:
        counts.conversations.unclassified[UNREADABLE] += 1
        return set()
    half = len(ids) // 2
    return _existing_ids(job, table, ids[:half], counts) | _existing_ids(job, table, ids[half:], counts)


def _facts(job: Job, kind: Kind, there: list[PurgedRecord]) -> dict[str, Facts] | dict[str, FeedbackFacts]:
    """Read the facts of restored records from the store's relation, by id."""
    ids = [purged_record.record_id for purged_record in there]
    if kind == "conversation":
        return job.database.within(lambda c: job.reader.conversations(c, ids))
    return job.database.within(lambda c: job.reader.feedback(c, ids))


def _count_unseen(counts: Counts, kind: Kind, count: int) -> None:
    if count:
        counts.skip(kind, UNSEEN, count)


def _evaluate_all(job: Job, kind: Kind, there: list[PurgedRecord]) -> Counts:
    """Evaluate restored records without a lock, for a preview."""
    counts, of = Counts(), {purged_record.record_id: purged_record for purged_record in there}
    found = _facts(job, kind, there)
    _count_unseen(counts, kind, len(there) - len(found))
    for id_, facts in found.items():
        if isinstance(facts, Facts):
            evaluation = evaluate_restored(facts, of[id_], job.policy, job.as_of)
            counts.count(kind, evaluation, anomalies(facts, job.policy, job.as_of, present=job.is_present))
        else:
            evaluation = evaluate_restored_feedback(facts, of[id_], job.policy, job.as_of)
            counts.count(kind, evaluation, feedback_anomalies(facts, job.policy))
    return counts


def _evaluate(job: Job, there: Mapping[str, PurgedRecord], facts: Facts, proposal: Proposal) -> Evaluation:
    return evaluate_restored(facts, there[proposal.conversation_id], job.policy, job.as_of)


def _evaluate_feedback(job: Job, there: Mapping[str, PurgedRecord], facts: FeedbackFacts) -> Evaluation:
    return evaluate_restored_feedback(facts, there[facts.feedback.id], job.policy, job.as_of)


def _proposal(purged_record: PurgedRecord) -> Proposal:
    return Proposal(purged_record.account_id, purged_record.record_id, None, None)

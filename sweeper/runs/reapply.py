"""Purges or redacts again, after a restore, what an exported ledger has as purged or redacted and the backup brought back.

    check the ledger → compare holds → find restored records → purge them under lock, with evidence → report what else is missing

Invariant: nothing is purged by a ledger unless it is known to belong to this store, or while a hold of that ledger is missing
here. The proof is in the signed leaves, in which each run names its database and store; if they do not, a person must confirm it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial
from typing import Any

from sqlalchemy.exc import DBAPIError

from sweeper import log
from sweeper.copies import delivery
from sweeper.encoding import to_json
from sweeper.errors import PausedError
from sweeper.evidence.export import Ledger
from sweeper.evidence.leaf import Leaf
from sweeper.objects import removal
from sweeper.policy.counts import Counts, Kind
from sweeper.policy.evaluate import Evaluation, Proposal, Spared
from sweeper.policy.instant import parse
from sweeper.policy.restored import PurgedRecord, evaluate_restored, evaluate_restored_feedback
from sweeper.policy.schema import Policy
from sweeper.postgres import evidence, purge, redaction
from sweeper.postgres.database import sqlstate
from sweeper.postgres.related_tables import PhysicalTable
from sweeper.runs.batch import Purger
from sweeper.runs.job import Job
from sweeper.runs.ledger_diff import LostProtections, missing, refuse_lost
from sweeper.runs.ledger_owner import LedgerClaim, claim
from sweeper.runs.record_kind import KINDS
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
NO_COLUMNS = "no_columns_to_redact"
"""Counts redactions of the ledger that cannot be done again, because [[purge.redact]] names no column."""


@dataclass
class Reapplied:
    """The result of a reapplication or of its preview."""

    ledger: Ledger
    outcome: str
    run_id: int | None
    in_ledger: int = 0
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
        left = self.counts.failed + sum(self.counts.skipped[why] for why in (Spared.LOCKED.value, UNSEEN, NO_COLUMNS))
        return self.outcome in ("completed", "preview") and not left

    def as_json(self) -> dict[str, Any]:
        """Return the result for machines."""
        conversations, feedback = self.purged.get("conversation", {}), self.purged.get("feedback", {})
        redactions = self.purged.get("redaction", {})
        preview = self.outcome == "preview"
        return {
            "run": self.run_id,
            "outcome": self.outcome,
            "stop_reason": self.stop_reason or None,
            "log": self.ledger.tree.origin,
            "size": self.ledger.tree.size,
            "signed": self.ledger.signed,
            **to_json(self.claim),
            "in_ledger": self.in_ledger,
            "newest_purge": self.newest,
            "back": self.back,
            **self.counts.as_json(),
            ("would_purge" if preview else "purged"): self.counts.due if preview else sum(conversations.values()),
            ("would_redact" if preview else "redacted"): (
                self.counts.redacted_by_rule.total() if preview else sum(redactions.values())
            ),
            ("feedback_would_purge" if preview else "feedback_purged"): (
                self.counts.feedback_by_rule.total() if preview else sum(feedback.values())
            ),
            **({"would_refuse": self.lost.refused} if preview else {}),
            "lost_holds": self.lost.holds,
            "lost_orders": self.lost.orders,
            "lost_withdrawals": self.lost.withdrawals,
            "lost_choices": self.lost.choices,
            "duration_s": round(self.seconds, 3),
        }


def preview(job: Job, ledger: Ledger, confirmed: str | None = None) -> Reapplied:
    """Return what would be purged again; nothing is locked or written. For `confirmed` see `ledger_owner.claim`."""
    started, found = time.monotonic(), Reapplied(ledger, "preview", None)
    found.claim = claim(job, ledger, confirmed)
    found.lost = missing(job, ledger)
    for kind, there in _read_back(job, found):
        found.counts.add(_evaluate_all(job, kind, there))
    found.seconds = time.monotonic() - started
    return found


def reapply(job: Job, ledger: Ledger, watch: ProgressListener | None = None, confirmed: str | None = None) -> Reapplied:
    """Purge the restored records again. For `confirmed` see `ledger_owner.claim`.

    Raises:
        RefusedError: the ledger is not known to belong to this store, or holds, withdrawals or choices are lost; nothing was
            purged.
        LeaseHeldError: another run holds the lease.
        ExportError: the file changed while it was read; earlier purges stand.
    """
    refuse_paused(job)
    claimed = claim(job, ledger, confirmed)
    lost = missing(job, ledger)
    refuse_lost(lost)
    watch = watch or ProgressListener()
    with session(job, RunKind("reapply")) as opened:
        found = Reapplied(ledger, "completed", opened.run.id, claim=claimed, lost=lost)
        reapplied = _Reapply(job, opened, watch.signed(opened.sign), found).run()
    delivery.deliver_after_run(job.database, job.clock)
    return reapplied


@dataclass
class _Reapply:
    job: Job
    session: Session
    watch: ProgressListener
    found: Reapplied
    done: Counter[str] = field(default_factory=Counter)
    locked: dict[Kind, list[PurgedRecord]] = field(default_factory=dict)
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
        tree = self.found.ledger.tree
        details = {"log": tree.origin, "size": tree.size, "root": tree.root.hex(), "signed": self.found.ledger.signed}
        details |= to_json(self.found.claim)
        self.job.database.within(lambda c: evidence.record(c, "reapply", self.session.run.id, details))

    def _work(self, throttle: Throttle) -> None:
        for kind, there in _read_back(self.job, self.found):
            there = self._visible(kind, there)
            while there and not throttle.is_over():
                size = throttle.next_batch()
                self._purge(throttle, kind, there[:size])
                there = there[size:]
            self.session.renew()
        for kind, locked in self.locked.items():
            if locked and not throttle.is_over():
                self._purge(throttle, kind, locked, waiting=True)
        over = throttle.is_over
        removal.remove_pending(self.job.database, self.session.run.id, self.job.clock.now(), self.session.renew, over)

    def _visible(self, kind: Kind, there: list[PurgedRecord]) -> list[PurgedRecord]:
        """Return the records that the store's relation shows; count the others."""
        facts = _facts(self.job, kind, there)
        visible = [purged_record for purged_record in there if purged_record.record_id in facts]
        _count_unseen(self.found.counts, kind, len(there) - len(visible))
        return visible

    def _purge(self, throttle: Throttle, kind: Kind, there: list[PurgedRecord], *, waiting: bool = False) -> None:
        purger = self._purger(throttle, kind, {purged_record.record_id: purged_record for purged_record in there})
        report = purger.purge([_proposal(purged_record) for purged_record in there], waiting=waiting)
        self.found.counts.add(report.counts)
        left = {proposal.record_id for proposal in report.unlocked}
        if waiting:
            self.found.counts.skip(kind, Spared.LOCKED, len(left))
        else:
            self.locked[kind] = [*self.locked.get(kind, ()), *(each for each in there if each.record_id in left)]

    @cached_property
    def lock_budget(self) -> float:
        """How long a batch may hold locks, in seconds; read from the server's settings once."""
        return self.job.database.within(purge.read_lock_budget)

    def _purger(self, throttle: Throttle, kind: Kind, there: Mapping[str, PurgedRecord]) -> Purger[Any]:
        job, session = self.job, self.session
        evaluated = replace(KINDS[kind](job), evaluate=partial(_evaluate, job, kind, there))
        purger = Purger(evaluated, session.run, session.lease, self.lock_budget, throttle.pace, done=self.done)
        return purger if kind == "conversation" else purger.of(evaluated)

    def _finish(self, throttle: Throttle) -> Reapplied:
        found = self.found
        found.purged = self.job.database.within(lambda c: evidence.purged_by_rule(c, self.session.run.id))
        found.stop_reason, found.seconds = throttle.stopped, time.monotonic() - self.started
        outcome: evidence.Outcome = "failed" if found.counts.failed else "completed"
        if throttle.stopped:
            outcome, self.session.checkpoint_seconds = "stopped", HURRIED_SECONDS
        found.outcome = outcome
        result = found.as_json()
        self.session.close(outcome, {**result, "batches": throttle.pace.times})
        log.get().info("reapplied", run=self.session.run.id, back=found.back, purged=result["purged"])
        return found


def _read_back(job: Job, found: Reapplied) -> Iterator[tuple[Kind, list[PurgedRecord]]]:
    """Read the ledger, count its tombstones, and yield the records that exist again, in portions of one kind."""
    for kind, portion in _portions(found.ledger, found.claim.runs, found.counts):
        found.in_ledger += len(portion)
        found.newest = _newest(found.newest, portion)
        there = _restored(job, kind, portion, found.counts)
        found.back += len(there)
        yield kind, there


def _portions(ledger: Ledger, ours: Set[int | str], counts: Counts) -> Iterator[tuple[Kind, list[PurgedRecord]]]:
    """Yield the tombstones of this store's runs in the ledger's order, in portions of one kind of record."""
    waiting: dict[Kind, dict[str, PurgedRecord]] = {
        "conversation": {},
        "redaction": {},
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
    """Return the records of a portion whose rows exist again or, of what was redacted, have content again."""
    table = KINDS[kind](job).table
    if table is None and kind == "redaction":
        counts.skip(kind, NO_COLUMNS, len(portion))
    there = _existing_ids(job, table, [each.record_id for each in portion], counts) if table else set()
    if kind == "redaction":
        ids = sorted(there)
        there = job.database.within(lambda connection: redaction.with_content(connection, job.contract, ids))
    return [each for each in portion if each.record_id in there]


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


def _facts(job: Job, kind: Kind, there: list[PurgedRecord]) -> dict[str, Any]:
    """Read the facts of restored records from the store's relation, by id."""
    return KINDS[kind](job).facts([purged_record.record_id for purged_record in there])


def _count_unseen(counts: Counts, kind: Kind, count: int) -> None:
    if count:
        counts.skip(kind, UNSEEN, count)


def _evaluate_all(job: Job, kind: Kind, there: list[PurgedRecord]) -> Counts:
    """Evaluate restored records without a lock, for a preview."""
    counts, of = Counts(), {purged_record.record_id: purged_record for purged_record in there}
    found = _facts(job, kind, there)
    _count_unseen(counts, kind, len(there) - len(found))
    for id_, facts in found.items():
        evaluation = _evaluate(job, kind, of, facts, _proposal(of[id_]))
        counts.count(kind, evaluation, KINDS[kind](job).anomalies(facts))
    return counts


def _evaluate(job: Job, kind: Kind, there: Mapping[str, PurgedRecord], facts: Any, proposal: Proposal) -> Evaluation:
    return EVALUATE[kind](facts, there[proposal.record_id], job.policy, job.as_of)


def _proposal(purged_record: PurgedRecord) -> Proposal:
    return Proposal(purged_record.account_id, purged_record.record_id)


EVALUATE: Mapping[Kind, Callable[[Any, PurgedRecord, Policy, datetime], Evaluation]] = {
    "conversation": evaluate_restored,
    "redaction": evaluate_restored,
    "feedback": evaluate_restored_feedback,
}
"""How a restored record of each kind is evaluated."""

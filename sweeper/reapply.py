"""After a restore: purge again what the exported ledger says was purged and the backup brought back. Nothing else is done.

    check the ledger → compare holds → what is there again → purge it under lock, with evidence → say what else is missing

The law of this file: a ledger that is not shown to be this store's own deletes nothing, and neither does one that knows of a
hold which this database has lost. What shows it is in the leaves, which the signature covers: each run tells in which database
and store it was. Where the leaves do not say, a person must.
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
from sweeper.audit.export import Ledger
from sweeper.audit.leaf import Leaf
from sweeper.batch import Purger
from sweeper.belonging import Claim, claim
from sweeper.core.again import Buried, dispose_again, judge_again
from sweeper.core.feedback import FeedbackFacts, FeedbackVerdict
from sweeper.core.instant import parse, rfc3339
from sweeper.core.model import Facts
from sweeper.core.recheck import Disposal, Proposal, Spared
from sweeper.errors import PausedError
from sweeper.job import Job
from sweeper.losses import Lost, missing, refuse_lost_holds
from sweeper.session import HURRIED_SECONDS, Errand, Session, refuse_paused, session
from sweeper.steering import Budget, Steering, Stop, Watch
from sweeper.store import evidence, objects, purge
from sweeper.store.database import sqlstate
from sweeper.store.tree import Physical
from sweeper.tally import Tally

PORTION = 500
"""So many tombstones of the ledger are looked up at a time."""
UNREADABLE = "unreadable_tombstone"
"""A tombstone whose instants no calendar holds, or whose id the table could not hold: none is purged on its word."""
NO_ID = frozenset({"22P02", "22003"})
"""SQLSTATEs of a text that is no id of the type, or a number too large for it."""
UNSEEN = "not_in_relation"
"""A row that is back in its table while the store's relation does not show it, so that nothing can be decided of it."""


@dataclass
class Reapplied:
    """What came of it, or would."""

    ledger: Ledger
    outcome: str
    run_id: int | None
    buried: int = 0
    back: int = 0
    tally: Tally = field(default_factory=Tally)
    purged: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    claim: Claim = field(default_factory=Claim)
    lost: Lost = field(default_factory=Lost)
    stop_reason: str = ""
    seconds: float = 0.0
    newest: datetime | None = None
    """The newest purge that the ledger tells of: later ones are not known here."""

    @property
    def is_done(self) -> bool:
        """Whether nothing that is back, and may go, is left."""
        left = self.tally.failed + self.tally.spared[Spared.LOCKED.value] + self.tally.spared[UNSEEN]
        return self.outcome in ("completed", "preview") and not left

    def as_json(self) -> dict[str, Any]:
        """For machines."""
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
            "in_ledger": self.buried,
            "newest_purge": rfc3339(self.newest) if self.newest else None,
            "back": self.back,
            **self.tally.as_json(),
            ("would_purge" if preview else "purged"): self.tally.due if preview else sum(conversations.values()),
            ("feedback_would_purge" if preview else "feedback_purged"): (
                self.tally.due_feedback if preview else sum(feedback.values())
            ),
            **({"would_refuse": ["holds"] if self.lost.holds else []} if preview else {}),
            "lost_holds": list(self.lost.holds),
            "lost_orders": list(self.lost.orders),
            "duration_s": round(self.seconds, 3),
        }


def preview(job: Job, ledger: Ledger, confirmed: str | None = None) -> Reapplied:
    """What would be purged again; nothing is locked or written. For `confirmed` see `belonging.claim`."""
    started, found = time.monotonic(), Reapplied(ledger, "preview", None)
    found.claim = claim(job, ledger, confirmed)
    found.lost = missing(job, ledger)
    for record, portion in _portions(ledger, found.claim.runs, found.tally):
        found.buried += len(portion)
        found.newest = _newest(found.newest, portion)
        there = _back(job, record, portion, found.tally)
        found.back += len(there)
        found.tally.add(_weighed(job, record, there))
    found.seconds = time.monotonic() - started
    return found


def reapply(job: Job, ledger: Ledger, watch: Watch | None = None, confirmed: str | None = None) -> Reapplied:
    """Purge again what is back. For `confirmed` see `belonging.claim`.

    Raises:
        RefusedError: the ledger is not shown to be this store's, or holds of it are missing here; nothing was purged.
        LeaseHeldError: another run is at work.
        ExportError: the file has changed while it was read; what was purged before stands.
    """
    refuse_paused(job)
    claimed = claim(job, ledger, confirmed)
    lost = missing(job, ledger)
    refuse_lost_holds(lost)
    watch = watch or Watch()
    with session(job, Errand("reapply"), stopping=watch.stopping) as opened:
        return _Reapply(job, opened, ledger, claimed, lost, watch).run()


@dataclass
class _Reapply:
    job: Job
    session: Session
    ledger: Ledger
    claim: Claim
    lost: Lost
    watch: Watch
    tally: Tally = field(default_factory=Tally)
    done: Counter[str] = field(default_factory=Counter)
    buried: int = 0
    newest: datetime | None = None
    back: int = 0
    locked: list[Buried] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def run(self) -> Reapplied:
        """All tombstones of the ledger, in its order, as far as nobody stops it."""
        steering = self.session.steered(self.watch, Budget(), self.done.total)
        self._record()
        try:
            self._work(steering)
        except PausedError:
            steering.stopped = Stop.PAUSED
        return self._finished(steering)

    def _record(self) -> None:
        """Leave an event that names the ledger: from here on this log has another branch than that one."""
        tree = self.ledger.tree
        told = {"log": tree.origin, "size": tree.size, "root": tree.root.hex(), "signed": self.ledger.signed}
        told |= self.claim.as_json()
        self.job.database.within(lambda c: evidence.record(c, "reapply", self.session.run.id, told))

    def _work(self, steering: Steering) -> None:
        for record, portion in _portions(self.ledger, self.claim.runs, self.tally):
            self.buried += len(portion)
            self.newest = _newest(self.newest, portion)
            there = _back(self.job, record, portion, self.tally)
            self.back += len(there)
            there = self._shown(record, there)
            while there and not steering.is_over():
                size = steering.next_batch()
                self._purge(steering, record, there[:size])
                there = there[size:]
            self.session.renew()
        if self.locked and not steering.is_over():
            self._purge(steering, "conversation", self.locked, waiting=True)
        over = steering.is_over
        objects.remove_pending(self.job.database, self.session.run.id, self.job.clock.now(), self.session.renew, over)

    def _shown(self, record: str, there: list[Buried]) -> list[Buried]:
        """Those of which there are facts; the others are counted."""
        facts = _facts(self.job, record, there)
        shown = [buried for buried in there if buried.record_id in facts]
        _count_unseen(self.tally, len(there) - len(shown))
        return shown

    def _purge(self, steering: Steering, record: str, there: list[Buried], *, waiting: bool = False) -> None:
        purger = self._purger(steering, {buried.record_id: buried for buried in there})
        if record == "conversation":
            report = purger.purge([_proposal(buried) for buried in there], waiting=waiting)
            self.tally.add(report.tally)
            left = {proposal.conversation_id for proposal in report.unlocked}
            if waiting:
                self._spare_locked(len(left))
            else:
                self.locked += [buried for buried in there if buried.record_id in left]
        elif self.job.contract.feedback is not None:
            found = purger.purge_feedback(self.job.contract.feedback, [b.record_id for b in there], waiting=True)
            self.tally.add(found.tally)
            self._spare_locked(len(found.unlocked))

    def _spare_locked(self, count: int) -> None:
        if count:
            self.tally.spared[Spared.LOCKED.value] += count

    @cached_property
    def patience(self) -> float:
        """How long a batch may take from its first lock on, in seconds; the server's setting, asked for once."""
        return self.job.database.within(purge.read_patience)

    def _purger(self, steering: Steering, there: Mapping[str, Buried]) -> Purger:
        job, session = self.job, self.session
        purger = Purger(job, session.run, session.lease, self.patience, steering.pace, done=self.done)
        return replace(purger, dispose=partial(_disposed, job, there), judge=partial(_judged, job, there))

    def _finished(self, steering: Steering) -> Reapplied:
        purged = self.job.database.within(lambda c: evidence.purged_by_rule(c, self.session.run.id))
        outcome: evidence.Outcome = "failed" if self.tally.failed else "completed"
        if steering.stopped:
            outcome, self.session.patience = "stopped", HURRIED_SECONDS
        found = Reapplied(
            self.ledger,
            outcome,
            self.session.run.id,
            self.buried,
            self.back,
            self.tally,
            purged,
            self.claim,
            self.lost,
            steering.stopped,
            time.monotonic() - self.started,
            self.newest,
        )
        self.session.close(outcome, {**found.as_json(), "batches": steering.pace.times.as_json()})
        log.get().info("reapplied", run=self.session.run.id, back=self.back, purged=found.as_json()["purged"])
        return found


def _portions(ledger: Ledger, ours: Set[int | str], tally: Tally) -> Iterator[tuple[str, list[Buried]]]:
    """The tombstones of this store's runs, of one kind of record at a time, in the order of the ledger."""
    waiting: dict[str, dict[str, Buried]] = {"conversation": {}, "feedback": {}}  # purged twice: the later counts
    for leaf in ledger.leaves():
        if leaf["source"] == "tombstones" and leaf["run_id"] in ours and leaf["record"] in waiting:
            found = waiting[leaf["record"]]
            try:
                found[leaf["record_id"]] = _buried(leaf)
            except ValueError:
                tally.unclassified[UNREADABLE] += 1
            if len(found) >= PORTION:
                yield leaf["record"], list(found.values())
                found.clear()
    for record, rest in waiting.items():
        if rest:
            yield record, list(rest.values())


def _newest(known: datetime | None, portion: Iterable[Buried]) -> datetime | None:
    instants = [buried.purged_at for buried in portion]
    return max(instants if known is None else [*instants, known], default=known)


def _buried(leaf: Leaf) -> Buried:
    due_at, purged_at = parse(leaf["due_at"]), parse(leaf["purged_at"])
    return Buried(leaf["record_id"], leaf["account_id"], leaf["rule"], due_at, purged_at)


def _back(job: Job, record: str, portion: list[Buried], tally: Tally) -> list[Buried]:
    """Those whose rows are there again."""
    table = job.contract.conversations if record == "conversation" else job.contract.feedback
    there = _there(job, table, [buried.record_id for buried in portion], tally) if table else set()
    return [buried for buried in portion if buried.record_id in there]


def _there(job: Job, table: Physical, ids: list[str], tally: Tally) -> set[str]:
    """Of some ids, those that have a row; one that cannot be an id of this table is counted, and hides no other."""
    try:
        return job.database.within(lambda c: purge.still_there(c, table, ids))
    except DBAPIError as error:
        if sqlstate(error) not in NO_ID:
            raise
    if len(ids) == 1:
        tally.unclassified[UNREADABLE] += 1
        return set()
    half = len(ids) // 2
    return _there(job, table, ids[:half], tally) | _there(job, table, ids[half:], tally)


def _facts(job: Job, record: str, there: list[Buried]) -> dict[str, Facts] | dict[str, FeedbackFacts]:
    """What the store's relation says of them."""
    ids = [buried.record_id for buried in there]
    if record == "conversation":
        return job.database.within(lambda c: job.reader.conversations(c, ids))
    return job.database.within(lambda c: job.reader.feedback(c, ids))


def _count_unseen(tally: Tally, count: int) -> None:
    if count:
        tally.spared[UNSEEN] += count


def _weighed(job: Job, record: str, there: list[Buried]) -> Tally:
    """What would become of some records that are back."""
    tally, of = Tally(), {buried.record_id: buried for buried in there}
    found = _facts(job, record, there)
    _count_unseen(tally, len(there) - len(found))
    for id_, facts in found.items():
        if isinstance(facts, Facts):
            disposal = dispose_again(facts, of[id_], job.policy, job.as_of)
            tally.count(disposal, facts, job.policy, job.as_of, present=job.is_present)
        else:
            tally.count_feedback(judge_again(facts, of[id_], job.policy, job.as_of), facts, job.policy)
    return tally


def _disposed(job: Job, there: Mapping[str, Buried], facts: Facts, proposal: Proposal) -> Disposal:
    return dispose_again(facts, there[proposal.conversation_id], job.policy, job.as_of)


def _judged(job: Job, there: Mapping[str, Buried], facts: FeedbackFacts) -> FeedbackVerdict:
    return judge_again(facts, there[facts.feedback.id], job.policy, job.as_of)


def _proposal(buried: Buried) -> Proposal:
    return Proposal(buried.account_id, buried.record_id, None, None)

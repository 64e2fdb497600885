"""Count what is overdue now: past its due date, not held, and still in the store.

The count reads only proposed records, so its cost depends on what is due and not on what is stored, and evaluates them as the
purge does. Where much of the store is due, it counts as a report does: the whole store at once, in SQL. Nothing is locked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.exc import DBAPIError

from sweeper.clock import Clock
from sweeper.errors import SweeperError
from sweeper.policy.counts import Counts, RecordCounts
from sweeper.policy.decide import ERASURE_ORDER
from sweeper.policy.schema import Policy
from sweeper.postgres import store_counts, unmatched
from sweeper.postgres.database import Database
from sweeper.postgres.unmatched import UnmatchedProtections
from sweeper.runs.job import Job, read_contract, unreachable
from sweeper.runs.record_kind import KINDS
from sweeper.runs.scan import count_everything, evaluations, page_portions
from sweeper.settings import load_policy

HOUR = timedelta(hours=1)
BACKLOG = 20_000
"""So many proposals are evaluated one after the other whatever is stored."""
RATIO = 16
"""To decide a record in SQL, with the whole store, takes so many times less than to evaluate a proposal."""
PATIENCE = timedelta(hours=26)
"""A day and two hours, for nightly runs. Records overdue for longer, with no purge in that time, raise an alarm."""


@dataclass
class Overdue:
    """What is overdue at as-of, and what would be if it were not held. A lower bound unless `complete`."""

    as_of: datetime
    rules: tuple[str, ...]
    feedback_rules: tuple[str, ...]
    incident_rules: tuple[str, ...]
    counts: Counts = field(default_factory=Counts)
    complete: bool = True
    unmatched: UnmatchedProtections | None = None
    """Holds and orders that match nothing; None if that was not or could not be checked."""
    redacting_rules: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the counts for --json."""
        return {
            "conversations": self.counts.conversations.overdue(self.as_of),
            "redactions": self.counts.redactions.overdue(self.as_of),
            "feedback": self.counts.feedback.overdue(self.as_of),
            "held": self.counts.held,
            "feedback_held": self.counts.feedback.held_past_due,
            "redactions_held": self.counts.redactions.held_past_due,
            "complete": self.complete,
            "unmatched": self.unmatched,
        }


def count(job: Job, enough: Callable[[], bool] | None = None) -> Overdue:
    """Count what is overdue at the job's as-of.

    Args:
        job: the store, the policy and the as-of.
        enough: called between portions; True stops the count, which then is not `complete`. None: all is counted.
    """
    found = _empty(job.policy, job.as_of)
    found.unmatched = unmatched.attempt(job.database, job.as_of)
    proposed, limit = 0, BACKLOG
    for kind in (kind_of(job) for kind_of in KINDS.values()):
        for portion in page_portions(job, kind.pages()):
            proposed += len(portion)
            if enough is None and proposed > limit:
                if _is_backlog(job, proposed):
                    found.counts = count_everything(job)
                    return found
                limit = 2 * proposed
            if enough is not None and enough():
                found.complete = False
                return found
            for _, evaluation in evaluations(kind, portion):
                found.counts.count(kind.name, evaluation)
    return found


def _is_backlog(job: Job, proposed: int) -> bool:
    """Return whether so much of the store is proposed that to decide all of it in SQL takes less time."""
    return job.database.within(lambda c: store_counts.conversations(c, RATIO * proposed)) < RATIO * proposed


def attempt(database: Database, clock: Clock, enough: Callable[[], bool] | None = None) -> Overdue | str:
    """Return what is overdue now, or the error message if that cannot be counted, for instance because of a broken policy."""
    try:
        return count(_job(database, clock), enough)
    except SweeperError as error:
        return str(error)
    except DBAPIError as error:
        return str(unreachable(error))


def _empty(policy: Policy, as_of: datetime) -> Overdue:
    """Return an empty count with the names of all rules, and of those whose every purge is an incident."""
    floors = [floor.name for floor in policy.floors]
    rules = (*(rule.name for rule in policy.rules), *floors, ERASURE_ORDER)
    feedback = (*(rule.name for rule in policy.feedback), ERASURE_ORDER)
    incidents = tuple(rule.name for rule in policy.rules if rule.when.zero_retention)
    redacting = (*(rule.name for rule in policy.redacting.rules), *floors) if policy.redacting else ()
    return Overdue(as_of, rules, feedback, incidents, redacting_rules=redacting)


def alarms(overdue: Mapping[str, RecordCounts], purged: Mapping[str, int], now: datetime) -> list[str]:
    """Return one sentence for each kind of record that has overdue records and no recent purge.

    Args:
        overdue: the overdue records by kind of record (`conversation`, `redaction`, `feedback`).
        purged: how many of each kind were purged within `PATIENCE`.
        now: the instant at which ages are computed.
    """
    return [
        _alarm(kind, counts.due.total(), (now - counts.earliest_due) // HOUR)
        for kind, counts in overdue.items()
        if counts.earliest_due is not None and now - counts.earliest_due > PATIENCE and not purged.get(kind)
    ]


def _alarm(kind: str, due: int, hours: int) -> str:
    what = {"conversation": "CONVERSATIONS", "redaction": "REDACTIONS", "feedback": "FEEDBACK ROWS"}[kind]
    done = "REDACTED" if kind == "redaction" else "PURGED"
    return (
        f"NOTHING WAS {done} WHILE {due} {what} ARE OVERDUE: the oldest has been for {hours:,} hours, and none was "
        f"{done.lower()} in the last {PATIENCE // HOUR} hours. Look at `sweeper status`; then `sweeper run --dry-run`, then "
        "`sweeper run`."
    )


def _job(database: Database, clock: Clock) -> Job:
    policy = load_policy(database.settings)
    return Job(database, read_contract(database, policy), policy, clock, clock.now())

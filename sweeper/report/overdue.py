"""What is overdue now: past its due, not held, and still there.

It is counted among the proposals, so that it costs what is due, not what is stored.

The law of this file: it locks nothing, writes nothing, and asks the same `dispose` as the purge.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.exc import DBAPIError

from sweeper.clock import Clock
from sweeper.errors import SweeperError
from sweeper.policy.counts import Counts
from sweeper.policy.decide import ERASURE_ORDER
from sweeper.policy.evaluate import Outcome, Proposal
from sweeper.policy.instant import rfc3339
from sweeper.policy.schema import Policy
from sweeper.postgres import unmatched
from sweeper.postgres.database import Database
from sweeper.postgres.unmatched import UnmatchedProtections
from sweeper.runs.job import Job, read_contract, unreachable
from sweeper.runs.scan import disposals, portions, proposed_feedback
from sweeper.settings import load_policy

HOUR = timedelta(hours=1)
PATIENCE = timedelta(hours=26)
"""A nightly run and two hours: what is overdue for longer, while nothing was purged for as long, nobody is purging."""


@dataclass
class OverdueRow:
    """Records of one kind that are overdue: how many by rule, and the earliest due of each rule."""

    counts: Counter[str] = field(default_factory=Counter)
    oldest: dict[str, datetime] = field(default_factory=dict)

    def count(self, rule: str, due: datetime) -> None:
        """Count one record."""
        self.counts[rule] += 1
        self.oldest[rule] = min(due, self.oldest.get(rule, due))

    @property
    def total(self) -> int:
        """How many there are."""
        return self.counts.total()

    @property
    def earliest(self) -> datetime | None:
        """The earliest due of all rules; None where nothing is overdue."""
        return min(self.oldest.values(), default=None)

    def age(self, rule: str, now: datetime) -> float:
        """For how many seconds the oldest of the rule is overdue; 0 where none is."""
        return max((now - self.oldest.get(rule, now)).total_seconds(), 0.0)

    def as_json(self, now: datetime) -> dict[str, Any]:
        """The counts and ages for machines, by rule."""
        return {
            rule: {"count": count, "oldest_due_at": rfc3339(self.oldest[rule]), "oldest_seconds": self.age(rule, now)}
            for rule, count in sorted(self.counts.items())
        }


@dataclass
class Overdue:
    """All that is overdue at as-of, and what would be if it were not held; not `complete`: at least this."""

    as_of: datetime
    rules: tuple[str, ...]
    feedback_rules: tuple[str, ...]
    incident_rules: tuple[str, ...]
    conversations: OverdueRow = field(default_factory=OverdueRow)
    feedback: OverdueRow = field(default_factory=OverdueRow)
    held: int = 0
    feedback_held: int = 0
    complete: bool = True
    unmatched: UnmatchedProtections | None = None
    """Holds and orders that find nothing; None: that was not looked at, or could not be."""

    def as_json(self) -> dict[str, Any]:
        """The counts for machines."""
        return {
            "conversations": self.conversations.as_json(self.as_of),
            "feedback": self.feedback.as_json(self.as_of),
            "held": self.held,
            "feedback_held": self.feedback_held,
            "complete": self.complete,
            "unmatched": self.unmatched.as_json() if self.unmatched else None,
        }


def count(job: Job, enough: Callable[[], bool] = lambda: False) -> Overdue:
    """What is overdue at the job's as-of.

    Args:
        job: what to look at.
        enough: asked between portions; True ends the count, which then is not `complete`.
    """
    found = _nothing(job.policy, job.as_of)
    found.unmatched = unmatched.attempt(job.database, job.as_of)
    for page in job.selector.pages():
        for portion in portions((*page.free, *page.held), job.settings.purge.batch):
            if enough():
                found.complete = False
                return found
            _count(job, portion, found)
    _count_feedback(job, found)
    return found


def attempt(database: Database, clock: Clock, enough: Callable[[], bool] = lambda: False) -> Overdue | str:
    """What is overdue now, or in words why that cannot be found out: a broken policy, say."""
    try:
        return count(_job(database, clock), enough)
    except SweeperError as error:
        return str(error)
    except DBAPIError as error:
        return str(unreachable(error))


def _nothing(policy: Policy, as_of: datetime) -> Overdue:
    """Nothing counted yet, with every name that a due may bear, and the rules whose every purge is an incident."""
    rules = (*(rule.name for rule in policy.rules), *(floor.name for floor in policy.floors), ERASURE_ORDER)
    feedback = (*(rule.name for rule in policy.feedback), ERASURE_ORDER)
    incidents = tuple(rule.name for rule in policy.rules if rule.when.zero_retention)
    return Overdue(as_of, rules, feedback, incidents)


def alarms(overdue: Mapping[str, OverdueRow], purged: Mapping[str, int], now: datetime) -> list[str]:
    """One sentence for each kind of record of which something is overdue while nothing is purged.

    Args:
        overdue: what is overdue by kind of record (`conversation`, `feedback`).
        purged: how many of each kind were purged within `PATIENCE`.
        now: the instant that ages are counted to.
    """
    return [
        _alarm(kind, due, (now - due.earliest) // HOUR)
        for kind, due in overdue.items()
        if due.earliest is not None and now - due.earliest > PATIENCE and not purged.get(kind)
    ]


def _alarm(kind: str, due: OverdueRow, hours: int) -> str:
    records = f"{due.total} {'CONVERSATIONS' if kind == 'conversation' else 'FEEDBACK ROWS'}"
    return (
        f"NOTHING WAS PURGED WHILE {records} ARE OVERDUE: the oldest has been for {hours:,} hours, and none was purged in the "
        f"last {PATIENCE // HOUR} hours. Look at `sweeper status`; then `sweeper run --dry-run`, then `sweeper run`."
    )


def _job(database: Database, clock: Clock) -> Job:
    policy = load_policy(database.settings)
    return Job(database, read_contract(database, policy), policy, clock, clock.now())


def _count(job: Job, portion: Sequence[Proposal], found: Overdue) -> None:
    for _, disposal in disposals(job, portion):
        verdict = disposal.verdict
        if disposal.outcome is Outcome.HELD:
            found.held += 1
        elif disposal.outcome is Outcome.PURGE and verdict.rule is not None and verdict.due is not None:
            found.conversations.count(verdict.rule, verdict.due)


def _count_feedback(job: Job, found: Overdue) -> None:
    counts = Counts()
    for known in proposed_feedback(job):
        verdict = counts.judge_feedback(known, job.policy, job.as_of)
        if verdict is not None and verdict.rule is not None and verdict.due is not None:
            found.feedback.count(verdict.rule, verdict.due)
    found.feedback_held = counts.feedback_held

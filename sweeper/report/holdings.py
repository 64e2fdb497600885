"""Reads what the page of a report shows beyond the report's counts: ages, due dates, holds, examples, and recent runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from sweeper.evidence import ledger
from sweeper.evidence.ledger import Checkpoint
from sweeper.manifest.eligibility import Eligibility
from sweeper.policy.counts import Kind
from sweeper.policy.evaluate import Outcome
from sweeper.postgres import manifests
from sweeper.postgres.whole_store import Due, StoreVerdicts
from sweeper.report import operation
from sweeper.report.operation import Pause, RunDay, RunEntry
from sweeper.runs.job import Job

KINDS: tuple[Kind, ...] = ("conversation", "feedback")
AGES = (
    ("under 30 days", 30),
    ("30 days to 1 year", 365),
    ("1 to 2 years", 730),
    ("2 to 5 years", 1826),
    ("5 years or more", None),
)
"""The classes of age and of how long a hold has lasted, with their ends in days."""
DAYS_AHEAD = 30
MONTHS_AHEAD = 24
RUN_DAYS = 90
RUNS_SHOWN = 20


@dataclass(frozen=True)
class Holdings:
    """What the store holds, by kind of record where both have it.

    Attributes:
        ages: records by rule and class of age.
        held: records under a legal hold by rule and by how long the first hold has lasted.
        days: what comes due in the next days and is not held; redactions too, if a rule redacts.
        months: the same by month.
        examples: ids of records in doubt by reason.
        eligible: messages by the first reason that bars them from training (None: may be trained on); None without [training].
    """

    ages: Mapping[Kind, Mapping[str, Sequence[int]]]
    held: Mapping[Kind, Mapping[str, Sequence[int]]]
    days: Mapping[Kind, Sequence[Due]]
    months: Mapping[Kind, Sequence[Due]]
    examples: Mapping[Kind, Mapping[str, Sequence[str]]]
    eligible: Mapping[str | None, int] | None


@dataclass(frozen=True)
class Recent:
    """What the sweeper's own tables tell: runs by day and the newest ones, pauses, manifests, the newest checkpoint."""

    days: Sequence[RunDay]
    runs: Sequence[RunEntry]
    pauses: Sequence[Pause]
    manifests: Sequence[Mapping[str, Any]]
    checkpoint: Checkpoint | None


def read_holdings(verdicts: StoreVerdicts) -> Holdings:
    """Query the verdicts on a whole store, within their snapshot."""
    now, bounds = verdicts.store.as_of, [days for _, days in AGES if days is not None]
    verdicts.store.judge_redactions(verdicts)
    due: tuple[Kind, ...] = KINDS if verdicts.policy.redacting is None else (*KINDS, "redaction")
    return Holdings(
        ages={kind: verdicts.ages(kind, bounds) for kind in KINDS},
        held={kind: verdicts.held(kind, bounds) for kind in KINDS},
        days={kind: _coming(verdicts.due(kind, "day", now + timedelta(days=DAYS_AHEAD))) for kind in due},
        months={kind: _coming(verdicts.due(kind, "month", months_from(now, MONTHS_AHEAD + 1))) for kind in due},
        examples={kind: verdicts.examples(kind) for kind in KINDS},
        eligible=_eligible(verdicts),
    )


def read_recent(connection: Connection, job: Job) -> Recent:
    """Read what happened before the job's as-of."""
    store, now = job.settings.store.schema_name, job.as_of
    return Recent(
        days=operation.run_days(connection, store, now - timedelta(days=RUN_DAYS), now),
        runs=operation.runs(connection, store, RUNS_SHOWN),
        pauses=operation.pauses(connection),
        manifests=manifests.get(connection, store),
        checkpoint=ledger.last(connection),
    )


def months_from(instant: datetime, months: int) -> datetime:
    """Return the beginning, in UTC, of the month that follows the instant's own by so many months."""
    month = instant.year * 12 + instant.month - 1 + months
    return datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)


def _coming(due: Sequence[Due]) -> list[Due]:
    """Leave out what is overdue and what a hold keeps."""
    return [each for each in due if not each.held and each.outcome in (Outcome.NOT_DUE, Outcome.UNCLASSIFIED)]


def _eligible(verdicts: StoreVerdicts) -> dict[str | None, int] | None:
    if verdicts.policy.training is None:
        return None
    eligibility = Eligibility(verdicts.store.contract, verdicts.policy, verdicts.store.as_of)
    for sql in eligibility.prepare():
        verdicts.store.execute(sql)
    return dict(map(tuple, verdicts.store.execute(eligibility.counts())))

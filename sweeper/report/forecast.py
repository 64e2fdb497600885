"""Forecast what falls due when, by rule, with the bytes that its purge will free.

Bytes are an estimate: what the purged tables and their indexes occupy, shared equally among their records, and what the tables
below conversations occupy, shared equally among the messages. What a redaction frees is not estimated.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sweeper.policy.counts import Kind
from sweeper.policy.evaluate import Outcome
from sweeper.policy.window import Slice
from sweeper.postgres.whole_store import Due, StoreVerdicts
from sweeper.report import numbers
from sweeper.runs.job import Job

State = Literal["overdue", "skipped", "held", "due", "later"]
ORDER: tuple[State, ...] = ("overdue", "skipped", "held", "due", "later")
"""`skipped` is due and a run would skip it; `held` is due before the end under a legal hold; `later` is due after the end."""

RECORDS: tuple[Kind, ...] = ("conversation", "redaction", "feedback")
EXPIRED: Mapping[Outcome, State] = {Outcome.PURGE: "overdue", Outcome.SPARED: "skipped"}


@dataclass(frozen=True)
class ForecastRow:
    """The records of one rule in one state; those that are `due` by interval (UTC, `end` exclusive). Redactions have no bytes."""

    state: State
    begin: datetime | None
    end: datetime | None
    record: Kind
    rule: str
    records: int
    bytes: int | None


@dataclass(frozen=True)
class Forecast:
    """What falls due before `until`, and how many conversations and feedback rows never do."""

    job: Job
    by: Slice
    until: datetime
    rows: tuple[ForecastRow, ...]
    undated: dict[Kind, int]

    def total(self, state: State, record: Kind) -> int:
        """Return how many records of a kind are in a state."""
        return sum(row.records for row in self.rows if (row.state, row.record) == (state, record))

    def as_json(self) -> dict[str, Any]:
        """Return the forecast for --json."""
        return {
            "store": numbers.store_name(self.job.settings),
            "as_of": self.job.as_of,
            "policy": self.job.policy.digest,
            "by": self.by,
            "until": self.until,
            "bytes": "estimated",
            "rows": list(self.rows),
            "without_due_date": self.undated,
        }


def forecast(job: Job, verdicts: StoreVerdicts, by: Slice, until: datetime) -> Forecast:
    """Forecast from the verdicts on the whole store, within their snapshot.

    Args:
        job: names the store, the policy and as-of.
        verdicts: the verdicts at that as-of.
        by: the length of an interval.
        until: the end (UTC); what falls due at it or later is counted in one row by rule.
    """
    rows: list[ForecastRow] = []
    undated: dict[Kind, int] = {}
    verdicts.store.judge_redactions(verdicts)
    for kind in RECORDS if job.policy.redacting is not None else ("conversation", "feedback"):
        every = verdicts.due(kind, "month")
        rows += _rows(verdicts, kind, by, until, every)
        if kind != "redaction":
            undated[kind] = verdicts.counts(kind).total - sum(due.records for due in every)
    rows.sort(key=lambda row: (ORDER.index(row.state), row.begin or until, RECORDS.index(row.record), row.rule))
    return Forecast(job, by, until, tuple(rows), undated)


def _rows(verdicts: StoreVerdicts, kind: Kind, by: Slice, until: datetime, every: list[Due]) -> Iterator[ForecastRow]:
    """Yield the rows of one kind; what is not due before the end is what is left of all that has a due date."""
    size, as_of = None if kind == "redaction" else verdicts.size(kind), verdicts.store.as_of
    records: Counter[tuple[State, datetime | None, str]] = Counter()
    messages: Counter[tuple[State, datetime | None, str]] = Counter()
    for due in every:
        records["later", None, due.rule] += due.records
        messages["later", None, due.rule] += due.messages
    for due in verdicts.due(kind, by.value, until):
        records["later", None, due.rule] -= due.records
        messages["later", None, due.rule] -= due.messages
        state = _state(due)
        key = state, due.begin if state == "due" else None, due.rule
        records[key] += due.records
        messages[key] += due.messages
    for (state, begin, rule), count in (+records).items():
        end = min(by.end(begin), until) if begin else None
        freed = round(count * size.record + messages[state, begin, rule] * size.message) if size else None
        yield ForecastRow(state, max(begin, as_of) if begin else None, end, kind, rule, count, freed)


def _state(due: Due) -> State:
    if due.held:
        return "held"
    return EXPIRED.get(due.outcome, "due")

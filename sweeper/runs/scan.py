"""Evaluates without locking or writing: what a purge would do now, and the verdict on every stored record.

Invariant: it locks nothing, writes nothing, and asks the same `dispose` and `decide` as the purge.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sweeper.policy.anomaly import Anomaly, anomalies
from sweeper.policy.counts import Counts
from sweeper.policy.decide import Verdict, exists
from sweeper.policy.evaluate import Evaluation, Outcome, Proposal, evaluate, evaluate_stored
from sweeper.policy.facts import Facts
from sweeper.policy.feedback import FeedbackFacts, evaluate_feedback, feedback_anomalies
from sweeper.postgres.proposals import Page
from sweeper.postgres.statement import statement
from sweeper.runs.job import Job

T = TypeVar("T")
Seen = Callable[[int], None]
"""Called with the number of proposals just scanned; a run renews its lease here."""


def portions(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in portions of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def scan(
    job: Job, pages: Iterable[Page], seen: Seen = lambda _: None, note: Callable[[Verdict], None] = lambda _: None
) -> Counts:
    """Count what a purge would do with the proposed conversations; `note` is called with each verdict to purge."""
    counts = Counts()
    for page in pages:
        for portion in portions((*page.free, *page.held), job.settings.purge.batch):
            for known, evaluation in evaluations(job, portion):
                odd = anomalies(known, job.policy, job.as_of, present=job.is_present)
                counts.count("conversation", evaluation, odd)
                if evaluation.outcome is Outcome.PURGE:
                    note(evaluation.verdict)
            seen(len(portion))
    return counts


def scan_feedback(job: Job) -> Counts:
    """Count what a purge would do with the proposed feedback rows."""
    counts = Counts()
    for known in proposed_feedback(job):
        counts.count("feedback", evaluate_feedback(known, job.policy, job.as_of), feedback_anomalies(known, job.policy))
    return counts


def proposed_feedback(job: Job) -> Iterator[FeedbackFacts]:
    """Yield the facts of the proposed feedback rows as they are now."""
    for page in job.selector.feedback():
        for ids in portions(page, job.settings.purge.batch):
            yield from _feedback_facts(job, ids).values()


def evaluations(job: Job, portion: Sequence[Proposal]) -> Iterator[tuple[Facts, Evaluation]]:
    """Yield the facts and the evaluation of each proposed conversation that still exists."""
    facts = _facts(job, [proposal.conversation_id for proposal in portion])
    for proposal in portion:
        known = facts.get(proposal.conversation_id)
        if known is not None:
            yield known, evaluate(known, proposal, job.policy, job.as_of, job.window)


def _facts(job: Job, ids: Sequence[str]) -> dict[str, Facts]:
    return job.database.within(lambda connection: job.reader.conversations(connection, ids))


def _feedback_facts(job: Job, ids: Sequence[str]) -> dict[str, FeedbackFacts]:
    return job.database.within(lambda connection: job.reader.feedback(connection, ids))


@dataclass(frozen=True)
class StoredRecord:
    """A stored conversation: its facts, evaluation and anomalies."""

    facts: Facts
    evaluation: Evaluation
    anomalies: tuple[Anomaly, ...]


def everything(job: Job, ahead: Callable[[int], None] = lambda _: None) -> Iterator[StoredRecord]:
    """Yield every conversation that exists at as-of, in the order of the keys, in constant memory.

    Args:
        job: what to look at.
        ahead: told of each conversation that does not exist yet, though as-of is the present.
    """
    after: str | None = None
    size = job.settings.purge.batch
    type_ = job.contract.type("conversations")
    while True:
        where = f"c.id > CAST(:after AS {type_})" if after is not None else "true"
        rows = job.database.fetched(statement("all_conversations", after=where), {"after": after, "limit": size})
        facts = _facts(job, [row.id for row in rows])
        for row in rows:
            known = facts.get(row.id)
            if known is None:
                continue
            if not exists(known.conversation, job.policy, job.as_of):
                ahead(int(job.is_present))
                continue
            found = evaluate_stored(known, job.policy, job.as_of)
            yield StoredRecord(known, found, tuple(anomalies(known, job.policy, job.as_of, present=job.is_present)))
        if len(rows) < size:
            return
        after = rows[-1].id


def every_feedback(job: Job) -> Iterator[FeedbackFacts]:
    """Yield every feedback row, in the order of the keys, in constant memory."""
    after: str | None = None
    size = job.settings.purge.batch
    type_ = job.contract.type("feedback")
    while True:
        where = f"f.id > CAST(:after AS {type_})" if after is not None else "true"
        rows = job.database.fetched(statement("all_feedback", after=where), {"after": after, "limit": size})
        ids = [row.id for row in rows]
        yield from _feedback_facts(job, ids).values()
        if len(rows) < size:
            return
        after = ids[-1]

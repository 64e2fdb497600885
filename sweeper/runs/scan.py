"""Evaluates records without locks: what a purge would do now, and the verdict on every stored record.

Invariant: nothing is locked or written, and the evaluation is the same code as in a purge.
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
from sweeper.postgres import lookup
from sweeper.postgres.proposals import Page
from sweeper.postgres.statement import statement
from sweeper.runs.job import Job

T = TypeVar("T")
Seen = Callable[[int], None]
"""Called with the number of proposals just evaluated; a caller that holds a lease renews it here."""


def portions(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in portions of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def scan(
    job: Job, pages: Iterable[Page], seen: Seen = lambda _: None, note: Callable[[Verdict], None] = lambda _: None
) -> Counts:
    """Evaluate the proposed conversations as they are now; `note` is called with the verdict on each one to purge."""
    counts = Counts()
    for page in pages:
        for portion in portions((*page.free, *page.held), job.settings.purge.batch):
            for known, evaluation in evaluations(job, portion):
                found = anomalies(known, job.policy, job.as_of, present=job.is_present)
                counts.count("conversation", evaluation, found)
                if evaluation.outcome is Outcome.PURGE:
                    note(evaluation.verdict)
            seen(len(portion))
    return counts


def scan_feedback(job: Job) -> Counts:
    """Evaluate the feedback rows that may be due."""
    counts = Counts()
    for known in proposed_feedback(job):
        counts.count("feedback", evaluate_feedback(known, job.policy, job.as_of), feedback_anomalies(known, job.policy))
    return counts


def proposed_feedback(job: Job) -> Iterator[FeedbackFacts]:
    """Yield the facts of the feedback rows that may be due, as they are now."""
    for page in job.selector.feedback():
        for ids in portions(page, job.settings.purge.batch):
            yield from _feedback_facts(job, ids).values()


def evaluations(job: Job, portion: Sequence[Proposal]) -> Iterator[tuple[Facts, Evaluation]]:
    """Yield the current facts and the evaluation of each proposed conversation that still exists."""
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
    """One conversation with its facts, its evaluation and its anomalies."""

    facts: Facts
    evaluation: Evaluation
    anomalies: tuple[Anomaly, ...]


def everything(job: Job, ahead: Callable[[int], None] = lambda _: None) -> Iterator[StoredRecord]:
    """Yield every conversation that exists at as-of, in order of id, one page in memory at a time.

    Args:
        job: names the store, the policy and as-of.
        ahead: called with 1 for each conversation created after as-of if as-of is now, with 0 otherwise.
    """
    after: str | None = None
    size = job.settings.purge.batch
    type_ = job.contract.type("conversations")
    while True:
        where = f"c.id > CAST(:after AS {type_})" if after is not None else "true"
        rows = job.database.fetched(statement("all_conversations", after=where), {"after": after, "limit": size})
        yield from _stored(job, [row.id for row in rows], ahead)
        if len(rows) < size:
            return
        after = rows[-1].id


def of_account(job: Job, account_id: str, most: int) -> Iterator[StoredRecord]:
    """Yield the first conversations of an account that exist at as-of, in order of id."""
    yield from _stored(job, lookup.conversations_of(job.database, job.contract, account_id, most), lambda _: None)


def _stored(job: Job, ids: Sequence[str], ahead: Callable[[int], None]) -> Iterator[StoredRecord]:
    facts = _facts(job, ids)
    for known in (facts[id_] for id_ in ids if id_ in facts):
        if not exists(known.conversation, job.policy, job.as_of):
            ahead(int(job.is_present))
            continue
        found = evaluate_stored(known, job.policy, job.as_of)
        yield StoredRecord(known, found, tuple(anomalies(known, job.policy, job.as_of, present=job.is_present)))


def every_feedback(job: Job) -> Iterator[FeedbackFacts]:
    """Yield every feedback row, in order of id, one page in memory at a time."""
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

"""Evaluates records without locks: what a purge would do now, and the verdict on every stored record.

Invariant: nothing is locked or written, and the evaluation is the same code as in a purge.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sweeper.policy.anomaly import Anomaly
from sweeper.policy.counts import Counts
from sweeper.policy.decide import Verdict, exists
from sweeper.policy.evaluate import Evaluation, Outcome, Proposal, evaluate_stored
from sweeper.policy.facts import Facts
from sweeper.policy.feedback import FeedbackFacts, evaluate_feedback
from sweeper.postgres.proposals import Page
from sweeper.postgres.statement import statement
from sweeper.runs.job import Job
from sweeper.runs.record_kind import F, RecordKind, conversations, feedback

T = TypeVar("T")
Seen = Callable[[int], None]
"""Called with the number of proposals just evaluated; a caller that holds a lease renews it here."""


def portions(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in portions of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def scan(
    kind: RecordKind[F],
    pages: Iterable[Page],
    seen: Seen = lambda _: None,
    note: Callable[[Verdict], None] = lambda _: None,
) -> Counts:
    """Evaluate the proposed records as they are now; `note` is called with the verdict on each one to purge."""
    counts = Counts()
    for portion in page_portions(kind.job, pages):
        for known, evaluation in evaluations(kind, portion):
            counts.count(kind.name, evaluation, kind.anomalies(known))
            if evaluation.outcome is Outcome.PURGE:
                note(evaluation.verdict)
        seen(len(portion))
    return counts


def page_portions(job: Job, pages: Iterable[Page]) -> Iterator[Sequence[Proposal]]:
    """Yield the proposals of the pages in portions of the size of a batch."""
    for page in pages:
        yield from portions((*page.free, *page.held), job.settings.purge.batch)


def evaluations(kind: RecordKind[F], portion: Sequence[Proposal]) -> Iterator[tuple[F, Evaluation]]:
    """Yield the current facts and the evaluation of each proposed record that still exists."""
    facts = kind.facts([proposal.record_id for proposal in portion])
    for proposal in portion:
        known = facts.get(proposal.record_id)
        if known is not None:
            yield known, kind.evaluate(known, proposal)


@dataclass(frozen=True)
class StoredRecord(Generic[F]):
    """One stored record with its facts, its evaluation and its anomalies."""

    facts: F
    evaluation: Evaluation
    anomalies: tuple[Anomaly, ...]


def everything(job: Job, ahead: Callable[[], None] = lambda: None) -> Iterator[StoredRecord[Facts]]:
    """Yield every conversation that exists at as-of, in order of id, one page in memory at a time.

    Args:
        job: names the store, the policy and as-of.
        ahead: called for each conversation created after as-of if as-of is now.
    """
    for ids in _every_key(job, "conversations"):
        yield from _stored(job, ids, ahead)


def _stored(job: Job, ids: Sequence[str], ahead: Callable[[], None]) -> Iterator[StoredRecord[Facts]]:
    kind = conversations(job)
    facts = kind.facts(ids)
    for known in (facts[id_] for id_ in ids if id_ in facts):
        if exists(known.conversation, job.policy, job.as_of):
            yield StoredRecord(known, evaluate_stored(known, job.policy, job.as_of), tuple(kind.anomalies(known)))
        elif job.is_present:
            ahead()


def every_feedback(job: Job) -> Iterator[StoredRecord[FeedbackFacts]]:
    """Yield every feedback row, in order of id, one page in memory at a time."""
    kind = feedback(job)
    for known in (known for ids in _every_key(job, "feedback") for known in kind.facts(ids).values()):
        yield StoredRecord(known, evaluate_feedback(known, job.policy, job.as_of), tuple(kind.anomalies(known)))


def _every_key(job: Job, relation: str) -> Iterator[list[str]]:
    after: str | None = None
    size, type_ = job.settings.purge.batch, job.contract.type(relation)
    while True:
        where = f"r.id > CAST(:after AS {type_})" if after is not None else "true"
        sql = statement("every_key", relation=relation, after=where)
        ids = [row.id for row in job.database.fetched(sql, {"after": after, "limit": size})]
        yield ids
        if len(ids) < size:
            return
        after = ids[-1]

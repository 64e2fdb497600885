"""Evaluates records without locks: what a purge would do now, and the verdict on every stored record.

Invariant: nothing is locked or written. The evaluation is the code of a purge or, for a whole store, SQL that says the same.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from sweeper.policy.counts import Counts
from sweeper.policy.decide import Verdict
from sweeper.policy.evaluate import Evaluation, Outcome, Proposal
from sweeper.postgres import whole_store
from sweeper.postgres.proposals import Page
from sweeper.postgres.whole_store import Step, StoreVerdicts
from sweeper.runs.job import Job
from sweeper.runs.record_kind import F, RecordKind, redactions

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


@contextmanager
def verdicts(job: Job, step: Step = lambda _, __: None) -> Iterator[StoreVerdicts]:
    """Decide every record of the job's store in one snapshot.

    Args:
        job: names the store, the policy and as-of.
        step: called when a step begins, for progress.
    """
    with whole_store.opened(job.database, job.contract, job.as_of, is_present=job.is_present, step=step) as store:
        yield store.judge(job.policy)


def count_everything(
    job: Job,
    days: tuple[int, ...] = (),
    step: Step = lambda _, __: None,
    look: Callable[[StoreVerdicts], None] = lambda _: None,
) -> Counts:
    """Count every record of the job's store, and what a rule redacts, with anomalies.

    Args:
        job: names the store, the policy and as-of.
        days: horizons for which the kept records that fall due within them are counted.
        step: called when a step begins, for progress.
        look: called with the counted verdicts, within their snapshot; again if that is repeated after a failure.
    """

    def counted() -> Counts:
        with verdicts(job, step) as found:
            counts = found.all_counts(days)
            look(found)
            return counts

    counts = job.database.retried(counted)
    redaction = redactions(job)
    counts.add(scan(redaction, redaction.pages()))
    return counts

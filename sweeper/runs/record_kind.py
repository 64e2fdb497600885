"""The kinds of record that a run purges: conversations, their content, and feedback rows, each with statements and evaluation.

Previews, counts, batches and reapplications treat all alike; what differs between them is written here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection

from sweeper.policy.anomaly import Anomaly, anomalies
from sweeper.policy.counts import Kind
from sweeper.policy.decide import Verdict
from sweeper.policy.evaluate import Evaluation, Proposal, evaluate
from sweeper.policy.facts import Facts
from sweeper.policy.feedback import FeedbackFacts, evaluate_feedback, feedback_anomalies
from sweeper.policy.redaction import evaluate_redaction
from sweeper.postgres import purge, redaction
from sweeper.postgres.evidence import Tombstone
from sweeper.postgres.proposals import Page
from sweeper.postgres.purge import ChangedError, LockBudget, MismatchError
from sweeper.postgres.related_tables import PhysicalTable
from sweeper.runs.job import Job

F = TypeVar("F", Facts, FeedbackFacts)
Children = Mapping[str, Mapping[str, int]]
"""Record → table → number of rows that were deleted with the record, or redacted."""


class Pages(Protocol):
    """Yields what may be due, page by page; `searching` is called before each range is searched."""

    def __call__(self, searching: Callable[[], None] = lambda: None) -> Iterator[Page]:
        """Yield the pages."""


@dataclass(frozen=True)
class RecordKind(Generic[F]):
    """One kind of record in the store of a job; `F` is the type of the facts that decide about one.

    Attributes:
        table: the physical table; None if it is not known, so that nothing of this kind can be purged.
        pages: yields what may be due, page by page.
        read: returns the facts of those records that still exist, by id.
        read_again: returns the facts of the same locked records with all that their row locks do not cover read again.
        evaluate: decides whether to purge a proposed record.
        anomalies: returns what should not be so in a record.
        delete: deletes locked records, given the number of rows that were locked for each, with what belongs to them.
        tombstone: returns the evidence of a purged record.
        children: about how many rows go with a record; a transaction purges only so many.
        refuse_rowless: raises MismatchError if the store still shows one of these ids, which have no row in the table.
    """

    name: Kind
    job: Job
    table: PhysicalTable | None
    pages: Pages
    read: Callable[[Connection, Sequence[str]], dict[str, F]]
    read_again: Callable[[Connection, Sequence[F]], Sequence[F]]
    evaluate: Callable[[F, Proposal], Evaluation]
    anomalies: Callable[[F], Iterable[Anomaly]]
    delete: Callable[[Connection, PhysicalTable, Sequence[F], Mapping[str, int], int, LockBudget], Children]
    tombstone: Callable[[F, Verdict, Children], Tombstone]
    children: Callable[[F], int] = lambda _: 0
    refuse_rowless: Callable[[Connection, Sequence[str]], None] = lambda _, __: None

    def facts(self, ids: Sequence[str]) -> dict[str, F]:
        """Return the facts of records as they are now, by id, without a lock."""
        return self.job.database.within(lambda connection: self.read(connection, ids))


def conversations(job: Job) -> RecordKind[Facts]:
    """Return the conversations of a job, with their messages and attachments."""
    contract, reader, fenced = job.contract, job.reader, job.settings.guards.fence

    def pages(searching: Callable[[], None] = lambda: None) -> Iterator[Page]:
        return replace(job.selector, searching=searching).pages()

    def delete(
        connection: Connection,
        _: PhysicalTable,
        due: Sequence[Facts],
        locked: Mapping[str, int],
        run_id: int,
        lock_budget: LockBudget,
    ) -> Children:
        def counted() -> None:
            if reader.messages_changed(connection, due):
                raise ChangedError("messages came while their conversations were purged")

        return purge.delete(
            connection, contract, [f.conversation.id for f in due], run_id, lock_budget, counted, locked
        )

    def tombstone(facts: Facts, verdict: Verdict, children: Children) -> Tombstone:
        row = facts.conversation
        return Tombstone(row.id, row.id, row.account_id, str(verdict.rule), _due(verdict), children[row.id])

    return RecordKind(
        name="conversation",
        job=job,
        table=contract.conversations,
        pages=pages,
        read=reader.conversations,
        read_again=lambda connection, known: reader.anew(connection, known, held=not fenced),
        evaluate=lambda facts, proposal: evaluate(facts, proposal, job.policy, job.as_of, job.window),
        anomalies=lambda facts: anomalies(facts, job.policy, job.as_of, present=job.is_present),
        delete=delete,
        tombstone=tombstone,
        children=lambda facts: facts.messages,
        refuse_rowless=lambda connection, ids: purge.refuse_rowless(connection, contract, ids),
    )


def redactions(job: Job) -> RecordKind[Facts]:
    """Return the content of the conversations of a job; to purge it is to empty the columns that the settings name."""
    contract, reader, whole = job.contract, job.reader, conversations(job)

    def pages(searching: Callable[[], None] = lambda: None) -> Iterator[Page]:
        selector = job.redaction_selector
        return replace(selector, searching=searching).pages() if selector is not None else iter(())

    def read(connection: Connection, ids: Sequence[str]) -> dict[str, Facts]:
        return reader.conversations(connection, sorted(redaction.with_content(connection, contract, ids)))

    def redact(
        connection: Connection,
        _: PhysicalTable,
        due: Sequence[Facts],
        _locked: Mapping[str, int],
        _run: int,
        lock_budget: LockBudget,
    ) -> Children:
        def counted() -> None:
            if reader.messages_changed(connection, due):
                raise ChangedError("messages came while their conversations were redacted")

        ids = [facts.conversation.id for facts in due]
        children = redaction.redact(connection, contract, ids, lock_budget, counted)
        after = reader.conversations(connection, ids)
        for facts in due:
            _refuse_other_facts(facts, after.get(facts.conversation.id))
        return children

    return replace(
        whole,
        name="redaction",
        table=contract.conversations if contract.redacted else None,
        pages=pages,
        read=read,
        evaluate=lambda facts, proposal: evaluate_redaction(facts, proposal, job.policy, job.as_of),
        anomalies=lambda _: (),
        delete=redact,
    )


def _refuse_other_facts(before: Facts, after: Facts | None) -> None:
    """Refuse a redaction that changes what decides about the conversation, such as its last activity by a trigger.

    Raises:
        MismatchError: the caller undoes the batch.
    """
    if after is None or after.conversation != before.conversation:
        raise MismatchError(
            f"conversation {before.conversation.id}: emptying its columns changes what its due date follows from, such as its "
            "last activity. The batch was rolled back. Take out of [[purge.redact]] what the view or the policy reads, or change "
            "the trigger that does it."
        )


def feedback(job: Job) -> RecordKind[FeedbackFacts]:
    """Return the feedback rows of a job, which nothing belongs to."""

    def pages(searching: Callable[[], None] = lambda: None) -> Iterator[Page]:
        for ids in job.selector.feedback():
            yield Page(tuple(Proposal(None, id_) for id_ in ids), ())

    def delete(
        connection: Connection,
        table: PhysicalTable,
        due: Sequence[FeedbackFacts],
        locked: Mapping[str, int],
        _run: int,
        _budget: LockBudget,
    ) -> Children:
        purge.delete_exactly(connection, table, [facts.feedback.id for facts in due], locked)
        return {}

    def tombstone(facts: FeedbackFacts, verdict: Verdict, children: Children) -> Tombstone:
        row = facts.feedback
        return Tombstone(row.id, row.conversation_id, row.account_id, str(verdict.rule), _due(verdict), {})

    return RecordKind(
        name="feedback",
        job=job,
        table=job.contract.feedback,
        pages=pages,
        read=job.reader.feedback,
        read_again=job.reader.feedback_anew,
        evaluate=lambda facts, _: evaluate_feedback(facts, job.policy, job.as_of),
        anomalies=lambda facts: feedback_anomalies(facts, job.policy),
        delete=delete,
        tombstone=tombstone,
    )


KINDS: Mapping[Kind, Callable[[Job], RecordKind[Any]]] = {
    "conversation": conversations,
    "redaction": redactions,
    "feedback": feedback,
}
"""All kinds of record by name."""


def _due(verdict: Verdict) -> datetime:
    if verdict.due is None:
        raise ValueError("a record without a due date is never purged")
    return verdict.due

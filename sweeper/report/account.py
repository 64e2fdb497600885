"""Reads everything about one account, for an access request or a complaint: what is stored and why, and what was purged.

Invariant: all of it is read in one snapshot, so that a record that a run purges meanwhile is either stored or purged, never
neither. Nothing of another account is read.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cached_property
from heapq import nlargest, nsmallest
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection

from sweeper.evidence import ledger
from sweeper.manifest import pseudonym
from sweeper.policy.decide import ERASURE_ORDER, Doubt, exists
from sweeper.policy.evaluate import Evaluation, Outcome, Spared, as_stored, evaluate_stored
from sweeper.policy.facts import Account, Facts
from sweeper.policy.feedback import evaluate_feedback
from sweeper.policy.history import History, history
from sweeper.policy.instant import rfc3339
from sweeper.policy.redaction import decide_redaction, evaluate_redaction
from sweeper.policy.remedies import DOUBTED, SKIPPED
from sweeper.policy.schema import FeedbackRule, Floor, Policy, Rule
from sweeper.policy.window import EVERYTHING, Window
from sweeper.postgres import lookup, manifests, redaction
from sweeper.postgres.lookup import STATEMENT_MS, AccountKey, StoredAccount, TombstoneTotals
from sweeper.runs.job import Job

if TYPE_CHECKING:
    from sweeper.manifest.search import FoundRows

REDACTION = "redaction"
"""The kind of record that is the content of a conversation: it is redacted, and the conversation need not be gone."""
Seen = Callable[[float], None]
"""Called with the share of the work that is done."""


@dataclass(frozen=True, slots=True)
class StoredLine:
    """A stored conversation, its content or a feedback row of the account, with what a run would do with it and why."""

    record: str
    id: str
    rule: str | None
    due_at: datetime | None
    outcome: Outcome
    held: bool
    holds: tuple[str, ...]
    spared: Spared | None
    doubts: tuple[Doubt, ...]

    @property
    def why(self) -> str:
        """Why it is still stored, in words."""
        if self.outcome is Outcome.PURGE:
            return f"it is due, and the next run {'redacts' if self.record == REDACTION else 'purges'} it"
        if self.held:
            matters = ", ".join(map(repr, self.holds))
            return f"a legal hold keeps it{f' (matter {matters})' if matters else ''}"
        if self.spared is not None:
            return SKIPPED[self.spared].cause
        if self.doubts:
            return f"it is in doubt: {DOUBTED[self.doubts[0]].cause}"
        return "not due yet" if self.due_at else "no due date"

    @property
    def order(self) -> tuple[bool, datetime | None, str]:
        """Sorts by due date; what has none is last."""
        return (self.due_at is None, self.due_at, self.id)


@dataclass(frozen=True, slots=True)
class PurgedLine:
    """A tombstone of the account. `receipt` is the command that writes a receipt of it, if a signed checkpoint covers it."""

    record: str
    id: str
    rule: str
    because: str | None
    due_at: datetime
    purged_at: datetime
    as_of: datetime
    run: int
    policy: str
    leaf: int | None
    receipt: str | None


@dataclass
class RuleTotals:
    """How many stored records one rule decides about, what a run would do with them, and their first and last due date."""

    record: str
    rule: str
    stored: int = 0
    due: int = 0
    held: int = 0
    skipped: int = 0
    in_doubt: int = 0
    earliest_due_at: datetime | None = None
    latest_due_at: datetime | None = None

    def add(self, line: StoredLine) -> None:
        """Count one record."""
        self.stored += 1
        self.due += line.outcome is Outcome.PURGE
        self.held += line.held
        self.skipped += line.outcome is Outcome.SPARED
        self.in_doubt += line.outcome is Outcome.UNCLASSIFIED
        if line.due_at is not None:
            self.earliest_due_at = min(self.earliest_due_at or line.due_at, line.due_at)
            self.latest_due_at = max(self.latest_due_at or line.due_at, line.due_at)


@dataclass
class Tally:
    """Counts stored records by kind of record and rule while they pass."""

    by_rule: dict[tuple[str, str], RuleTotals] = field(default_factory=dict)

    def counted(self, lines: Iterator[StoredLine]) -> Iterator[StoredLine]:
        """Yield the lines, each counted."""
        for line in lines:
            key = (line.record, line.rule or "no rule")
            self.by_rule.setdefault(key, RuleTotals(*key)).add(line)
            yield line

    @property
    def totals(self) -> list[RuleTotals]:
        """The counts, conversations first, and by rule."""
        return [self.by_rule[key] for key in sorted(self.by_rule)]


@dataclass(frozen=True)
class AccountView:
    """What is stored of one account and what was purged, in one snapshot at the as-of of a job."""

    job: Job
    connection: Connection
    key: AccountKey
    found: StoredAccount

    @property
    def id(self) -> str:
        """The account's id."""
        return self.key.id

    @property
    def tombstones(self) -> tuple[TombstoneTotals, ...]:
        """The totals of its tombstones, those of redactions last."""
        return (*self.found.tombstones, *self.found.redactions)

    @cached_property
    def account(self) -> Account | None:
        """The row of the account with its plans and consent; None if there is none."""
        if self.key.account is None:
            return None
        rows = self.job.reader.accounts(self.connection, [self.id])
        return next(iter(rows.get(self.id, ())), None)

    @property
    def history(self) -> History | None:
        """Its plans and consent as known at as-of."""
        return history(self.account, self.job.policy, self.job.as_of) if self.account is not None else None

    def stored(self, seen: Seen = lambda _: None) -> Iterator[StoredLine]:
        """Yield the account's conversations that exist at as-of, and then its feedback rows, each in order of id.

        A conversation whose content a rule redacts is followed by a line of its content, if any is left.
        """
        policy, as_of, done = self.job.policy, self.job.as_of, 0
        total = max(self.found.conversations + self.found.feedback, 1)
        for page in self._pages():
            seen(done / total)
            ids = [chat.conversation.id for chat, _ in page] if policy.redacting is not None else []
            left = redaction.with_content(self.connection, self.job.contract, ids)
            for chat, evaluation in page:
                yield _stored("conversation", chat.conversation.id, evaluation)
                verdict = decide_redaction(chat, policy, as_of) if chat.conversation.id in left else None
                if verdict is not None and not evaluation.verdict.expired:
                    content = evaluate_redaction(chat, as_stored(chat), policy, as_of)
                    yield _stored(REDACTION, chat.conversation.id, replace(content, verdict=verdict))
            done += len(page)
        for ids in lookup.keys(self.connection, self.job.contract, self.key, "feedback"):
            seen(done / total)
            found = self.job.reader.feedback(self.connection, ids)
            for facts in (found[id_] for id_ in ids if id_ in found):
                yield _stored("feedback", facts.feedback.id, evaluate_feedback(facts, policy, as_of))
            done += len(ids)

    def conversations(self) -> Iterator[tuple[Facts, Evaluation]]:
        """Yield the account's conversations that exist at as-of, in order of id, each with what a run would do with it."""
        return (each for page in self._pages() for each in page)

    def _pages(self) -> Iterator[list[tuple[Facts, Evaluation]]]:
        policy, as_of = self.job.policy, self.job.as_of
        for ids in lookup.keys(self.connection, self.job.contract, self.key, "conversations"):
            found = self.job.reader.conversations(self.connection, ids)
            known = (found[id_] for id_ in ids if id_ in found)
            yield [
                (facts, evaluate_stored(facts, policy, as_of))
                for facts in known
                if exists(facts.conversation, policy, as_of)
            ]

    def purged(self, window: Window = EVERYTHING) -> Iterator[PurgedLine]:
        """Yield the account's tombstones with a due date in the window, in order of due date."""
        because, signed = _reasons(self.job.policy), ledger.last(self.connection, signed=True)
        for row in lookup.purges(self.connection, self.job.contract, self.key, window):
            is_covered = signed is not None and row.leaf is not None and row.leaf < signed.size
            is_same = row.policy_digest == self.job.policy.digest
            yield PurgedLine(
                row.record,
                row.record_id,
                row.rule,
                because.get(row.rule) if is_same else None,
                row.due_at,
                row.purged_at,
                row.as_of,
                row.run_id,
                row.policy_digest,
                row.leaf,
                _receipt(row.record_id) if is_covered and row.record == "conversation" else None,
            )

    def holds(self) -> list[dict[str, Any]]:
        """Return the legal holds that reach it."""
        return lookup.holds(self.connection, self.job.contract, self.key)

    def orders(self) -> list[dict[str, Any]]:
        """Return the erasure orders that may mean it."""
        return lookup.orders(self.connection, self.job.contract, self.key)


@contextmanager
def opened(job: Job, account_id: str) -> Iterator[AccountView]:
    """Open a snapshot of the store and look for an account in it; `found.is_known` says whether anything is or was its."""
    key = lookup.account_key(job.database, job.contract, account_id)
    with job.database.snapshot(statement_timeout_ms=STATEMENT_MS) as connection:
        yield AccountView(job, connection, key, lookup.account(connection, job.contract, key, job.as_of))


@dataclass(frozen=True)
class ManifestFindings:
    """The messages of an account in each manifest of the store; `not_looked` says why nobody looked, None if somebody did."""

    found: list["FoundRows"]
    manifests: int
    not_looked: str | None = None

    @property
    def messages(self) -> int:
        """How many messages were found in all manifests together."""
        return sum(each.messages or 0 for each in self.found)


def in_manifests(job: Job, account_id: str, seen: Seen = lambda _: None) -> ManifestFindings:
    """Look for the messages of an account in the files of all manifests, if the key for pseudonyms is there.

    Raises:
        ConfigurationError: a key is given that cannot be used.
    """
    with job.database.transaction() as connection:
        count = len(manifests.get(connection, job.contract.schema))
    if not count:
        return ManifestFindings([], 0)
    if not pseudonym.is_given():
        return ManifestFindings(
            [], count, f"{pseudonym.FILE} is not set; name there the key with which they were built"
        )
    key = pseudonym.read()
    try:
        from sweeper.manifest import search  # needs an extra
    except ImportError as error:
        return ManifestFindings([], count, f"{error.name} is not installed (pip install '.[manifest]')")
    id_ = lookup.account_key(job.database, job.contract, account_id).id
    return ManifestFindings(list(search.search(job.database, key, id_, seen)), count)


@dataclass(frozen=True)
class Overview:
    """An account in short: counts by rule, and the records that come first."""

    totals: list[RuleTotals]
    next_due: list[StoredLine]
    last_purged: list[PurgedLine]


def overview(view: AccountView, most: int, seen: Seen = lambda _: None) -> Overview:
    """Return the counts by rule, the `most` stored records that are due first and those that were purged last."""
    tally = Tally()
    next_due = nsmallest(most, tally.counted(view.stored(seen)), key=lambda line: line.order)
    last_purged = nlargest(most, view.purged(), key=lambda line: line.purged_at)
    return Overview(tally.totals, next_due, last_purged)


@dataclass(frozen=True)
class DueAnswer:
    """What became of everything of an account that was due in a window.

    `purged` has the tombstones, `stored` what is still there with such a due date. `in_doubt` further records are unclassified,
    so that nobody can say when they were due. `decided` records were looked at.
    """

    account_id: str
    window: Window
    purged: list[PurgedLine]
    stored: list[StoredLine]
    in_doubt: int
    decided: int

    @property
    def is_gone(self) -> bool:
        """True if everything that was due is gone."""
        return not self.stored and not self.in_doubt

    def as_json(self) -> dict[str, Any]:
        """Return the answer for --json."""
        return {
            "account_id": self.account_id,
            "due_since": self.window.since,
            "due_until": self.window.until,
            "is_gone": self.is_gone,
            "sentence": self.sentence,
            "looked_at": self.decided,
            "in_doubt": self.in_doubt,
            "stored": self.stored,
            "purged": self.purged,
        }

    @property
    def sentence(self) -> str:
        """The answer in words."""
        due = f"of account {self.account_id} due {span(self.window)}"
        count = sum(line.record != REDACTION for line in self.purged)
        purged = f"{_counted(count, 'record')} {'has' if count == 1 else 'have'} a tombstone"
        if count < len(self.purged):
            purged += f", and content was redacted {_counted(len(self.purged) - count, 'time')}"
        looked = f"{_counted(self.decided, 'stored record')} of the account {'was' if self.decided == 1 else 'were'} looked at"
        if self.is_gone and self.purged:
            return f"Everything {due} is gone: {purged}. {looked}, and none has a due date in that time."
        if self.is_gone:
            return f"Nothing {due} was purged, and none is stored: no tombstone has such a due date. {looked}."
        parts = []
        if self.stored:
            parts.append(f"{_counted(len(self.stored), 'record')} with such a due date still stored")
        if self.in_doubt:
            parts.append(
                f"{_counted(self.in_doubt, 'stored record')} in doubt, of which nobody can say when they were due"
            )
        return f"NOT everything {due} is gone: {' and '.join(parts)}; {purged}. {looked}."


def answer(view: AccountView, window: Window, seen: Seen = lambda _: None) -> DueAnswer:
    """Look at the tombstones and at everything stored of an account for what was due in a window."""
    stored, in_doubt, decided = [], 0, 0
    for line in view.stored(seen):
        decided += line.record != REDACTION
        if line.due_at is not None and window.holds(line.due_at):
            stored.append(line)
        elif (
            line.doubts and line.record != REDACTION
        ):  # a rule that is in doubt may have made it due earlier, never later
            in_doubt += line.due_at is None or window.until is None or line.due_at >= window.until
    stored.sort(key=lambda line: line.order)
    return DueAnswer(view.id, window, list(view.purged(window)), stored, in_doubt, decided)


Line = TypeVar("Line", StoredLine, PurgedLine, RuleTotals, TombstoneTotals)


def by_record(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """Return lines by kind of record, in the order in which they come."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.record, []).append(line)
    return found


def day(instant: datetime | None) -> date | None:
    """Return the date in UTC, for a list that a person reads."""
    return instant.astimezone(UTC).date() if instant is not None else None


def reaches(row: Mapping[str, Any]) -> str:
    """Return what a hold or an order of `AccountView.holds` or `orders` names, in words."""
    conversation = row["conversation_id"]
    if conversation is None:
        return "the account" if row["of_account"] else "everything"
    return f"{'the account and ' if row['of_account'] else ''}conversation {conversation}"


def span(window: Window) -> str:
    """Return a window of due dates in words."""
    since = f"from {rfc3339(window.since)} to " if window.since else ""
    return f"{since}before {rfc3339(window.until)}" if window.until else f"{since}now"


def _stored(record: str, id_: str, evaluation: Evaluation) -> StoredLine:
    verdict = evaluation.verdict
    matters = tuple(dict.fromkeys(hold.matter for hold in verdict.holds))
    return StoredLine(
        record,
        id_,
        verdict.rule,
        verdict.due,
        evaluation.outcome,
        verdict.held,
        matters,
        evaluation.spared,
        verdict.doubts,
    )


def _reasons(policy: Policy) -> dict[str, str]:
    """Return by rule why it applies, in the words of the policy."""
    rules: list[Rule | Floor | FeedbackRule] = [*policy.every_rule, *policy.floors, *policy.feedback]
    return {rule.name: rule.because for rule in rules} | {ERASURE_ORDER: "an erasure order set the due date"}


def _receipt(conversation_id: str) -> str:
    file = re.sub(r"[^\w.-]", "_", conversation_id)
    return f"sweeper audit prove {shlex.quote(conversation_id)} --out {shlex.quote(f'receipt-{file}.json')}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"

"""What another policy would change on a store before it acts: every record is decided under both, in one snapshot.

Invariant: nothing is locked, and nothing is written but temporary tables that end with the snapshot. For each record the
verdicts are those that `explain` gives under either policy; a law tests it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from sweeper.errors import ConfigurationError
from sweeper.manifest.eligibility import Eligibility
from sweeper.policy import words
from sweeper.policy.counts import NO_RULE, Kind
from sweeper.policy.difference import Difference, differences
from sweeper.policy.schema import Policy
from sweeper.postgres import indexes, whole_store
from sweeper.postgres.database import Database
from sweeper.postgres.indexes import MissingIndex
from sweeper.postgres.statement import filled, literal, source
from sweeper.postgres.whole_store import Step, StoreVerdicts, WholeStore
from sweeper.runs import policy_change
from sweeper.runs.job import Job

ABSENT = "does not exist yet"
"""In place of a rule: only the other policy believes the creation of the record."""
EXAMPLES = 3
ACCOUNTS = 10


@dataclass(frozen=True)
class Move:
    """How many records go from one rule to another, and what that does to them. What is held is not counted as due."""

    old_rule: str
    new_rule: str
    records: int
    shorter: int
    longer: int
    due_at_once: int
    due_in_7_days: int
    due_in_30_days: int
    not_due_any_more: int
    shorter_held: int

    @property
    def changes(self) -> bool:
        """Whether any of these records gets another rule or another due date."""
        return self.old_rule != self.new_rule or bool(self.shorter or self.longer)


NO_MOVE = Move("", "", *(0,) * 8)


@dataclass(frozen=True)
class Explained:
    """The verdict on an example under one policy, with the reason of its rule."""

    rule: str | None
    due_at: datetime | None
    because: str


@dataclass(frozen=True)
class Example:
    """One record that changes."""

    id: str
    old: Explained
    new: Explained


@dataclass(frozen=True)
class ConcernedAccount:
    """An account with conversations whose due date changes."""

    account_id: str | None
    conversations: int
    shorter: int
    longer: int
    due_at_once: int


@dataclass(frozen=True)
class TrainingChange:
    """How many messages, in how many conversations, may be trained on under both policies, or under one of them alone."""

    both: int = 0
    enter: int = 0
    enter_conversations: int = 0
    leave: int = 0
    leave_conversations: int = 0


@dataclass(frozen=True)
class RecordsDiff:
    """What changes for one kind of record."""

    moves: Sequence[Move]
    examples: Sequence[Example]

    @cached_property
    def total(self) -> Move:
        """All moves together."""
        numbers = zip(*(list(vars(move).values())[2:] for move in self.moves), strict=True)
        return Move("", "", *map(sum, numbers)) if self.moves else NO_MOVE

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        totals = {name: value for name, value in vars(self.total).items() if not name.endswith("_rule")}
        return {**totals, "moves": self.moves, "examples": self.examples}


@dataclass(frozen=True)
class PolicyDiff:
    """The difference that a policy makes at one as-of.

    `redactions` are of the content of conversations, and None if neither policy redacts any; so is `training` if neither trains.
    """

    job: Job
    old: Policy
    differences: Sequence[Difference]
    conversations: RecordsDiff
    feedback: RecordsDiff
    redactions: RecordsDiff | None
    accounts: Sequence[ConcernedAccount]
    training: TrainingChange | None
    missing_indexes: Sequence[MissingIndex]
    seconds: float

    @property
    def new(self) -> Policy:
        """The policy that is compared with the old one."""
        return self.job.policy

    def as_json(self) -> dict[str, Any]:
        """Return the difference for machines."""
        return {
            "as_of": self.job.as_of,
            "old": {"name": self.old.name, "digest": self.old.digest},
            "new": {"name": self.new.name, "digest": self.new.digest},
            "only_lengthens": not any(each.shortens for each in self.differences),
            "differences": self.differences,
            "conversations": self.conversations,
            "feedback": self.feedback,
            "redactions": self.redactions,
            "accounts": self.accounts,
            "training": self.training,
            "missing_indexes": [index.create for index in self.missing_indexes],
            "duration_s": round(self.seconds, 3),
        }


def last_policy(database: Database, policy: Policy) -> Policy:
    """Return the policy of the last run; `policy` itself if that is it, or if there was no run.

    Raises:
        ConfigurationError: no run has recorded what that policy says.
    """
    last = policy_change.last(database, policy)
    if last is None or last.digest == policy.digest:
        return policy
    found = policy_change.recorded(database, last.digest)
    if found is None:
        raise ConfigurationError(
            f"no run has recorded what policy {last.name!r} ({last.digest[:12]}) of the last run says. Nothing was compared. "
            "Name its file with --against."
        )
    return found


@dataclass
class _Progress:
    """Tells which share of all phases is done; each takes about as long as any other."""

    step: Step
    phases: int
    phase: int = -1
    what: str = ""

    def begin(self, what: str) -> None:
        self.phase, self.what = self.phase + 1, what

    def __call__(self, name: str, done: float) -> None:
        self.step(f"{name} ({self.what})", (self.phase + done) / self.phases)


def compare(job: Job, old: Policy, step: Step = lambda _, __: None) -> PolicyDiff:
    """Return what the policy of the job changes on its store compared with `old`.

    Args:
        job: the store, the new policy and the as-of.
        old: the policy to compare with; the store must have its columns, too.
        step: called when a step begins, with its name and the share of all work that is done.

    Raises:
        DBAPIError: the database failed, or a statement took longer than [manifest] statement_timeout_ms.
    """
    started = time.monotonic()
    lacking = job.database.within(lambda c: indexes.missing(c, job.contract.schema, job.contract))
    trained = [policy for policy in (old, job.policy) if policy.training is not None]
    progress = _Progress(step, 2 + len(trained))
    with whole_store.opened(job.database, job.contract, job.as_of, is_present=job.is_present, step=progress) as store:
        progress.begin("old policy")
        before = store.judge(old, "old")
        progress.begin("new policy")
        pair = _Pair(store, before, store.judge(job.policy, "new"))
        conversations, feedback = pair.records("conversation"), pair.records("feedback")
        redactions = pair.redactions() if old.redacting or job.policy.redacting else None
        accounts = pair.accounts()
        training = _training(store, old, job.policy, progress) if trained else None
    seconds = time.monotonic() - started
    found = differences(old, job.policy)
    return PolicyDiff(job, old, found, conversations, feedback, redactions, accounts, training, lacking, seconds)


@dataclass(frozen=True)
class _Pair:
    """The verdicts of two policies on one store."""

    store: WholeStore
    old: StoreVerdicts
    new: StoreVerdicts

    def records(self, kind: Kind) -> RecordsDiff:
        return self._diff(self.old.table(kind), self.new.table(kind))

    def redactions(self) -> RecordsDiff:
        old, new = (self.store.judge_content(verdicts) for verdicts in (self.old, self.new))
        return self._diff(old, new)

    def _diff(self, old: str, new: str) -> RecordsDiff:
        as_of = self.store.as_of
        ends = {"week": as_of + timedelta(days=7), "month": as_of + timedelta(days=30)}
        instants = {name: literal(end, "timestamptz") for name, end in ends.items()}
        moves = [Move(**row._mapping) for row in self._rows("diff_moves", old, new, as_of=self._as_of, **instants)]
        return RecordsDiff(
            moves,
            [
                Example(
                    row.id,
                    self._explained(self.old.policy, row.old_rule, row.old_due, row.old_doubt),
                    self._explained(self.new.policy, row.new_rule, row.new_due, row.new_doubt),
                )
                for row in self._rows("diff_examples", old, new, most=str(EXAMPLES))
            ],
        )

    def accounts(self) -> list[ConcernedAccount]:
        tables = self.old.conversations, self.new.conversations
        rows = self._rows("diff_accounts", *tables, as_of=self._as_of, most=str(ACCOUNTS))
        return [ConcernedAccount(**row._mapping) for row in rows]

    @staticmethod
    def _explained(policy: Policy, rule: str, due: datetime | None, doubt: str | None) -> Explained:
        known = rule not in (ABSENT, NO_RULE)
        return Explained(rule if known else None, due, words.because(policy, rule, doubt) if known else rule)

    def _rows(self, name: str, old: str, new: str, **names: str) -> Sequence[Any]:
        records = filled(
            "diff_records",
            old=old,
            new=new,
            absent=literal(ABSENT, "text"),
            no_rule=literal(NO_RULE, "text"),
        )
        return self.store.execute(filled(name, records=records, **names))

    @property
    def _as_of(self) -> str:
        return literal(self.store.as_of, "timestamptz")


def _training(store: WholeStore, old: Policy, new: Policy, progress: _Progress) -> TrainingChange:
    """Compare which messages may be trained on; a policy without [training] trains on none."""
    tables = {"old": old, "new": new}
    for name, policy in tables.items():
        if policy.training is not None:
            progress.begin(f"{name} policy")
            progress("selecting what may be trained on", 0.0)
        _select_eligible(store, policy, f"sweeper_eligible_{name}")
    found = {
        (row.is_old, row.is_new): (row.messages, row.conversations)
        for row in store.execute(
            filled("diff_training", old="pg_temp.sweeper_eligible_old", new="pg_temp.sweeper_eligible_new")
        )
    }
    none = (0, 0)
    enter, leave = found.get((False, True), none), found.get((True, False), none)
    return TrainingChange(found.get((True, True), none)[0], *enter, *leave)


def _select_eligible(store: WholeStore, policy: Policy, table: str) -> None:
    """Make the table of the messages that may be trained on; what `prepare` makes is dropped again, for the other policy."""
    if policy.training is None:
        store.execute(filled("diff_none_eligible", table=table))
        return
    eligibility = Eligibility(store.contract, policy, store.as_of)
    for sql in eligibility.prepare():
        store.execute(sql)
    store.execute(filled("diff_eligible", table=table, reasoned=eligibility.reasoned))
    store.execute(f"ANALYZE {table}")
    store.execute(source("diff_forget"))

"""Verdicts on every record of a store at one as-of: decided in SQL, in one snapshot, and counted in the database.

    with whole_store.opened(database, contract, as_of) as store:
        verdicts = store.judge(policy)
        verdicts.counts("conversation")

Invariant: rule, due date, hold, doubt, outcome and anomalies are those of `policy/evaluate.py`; a law tests it. Nothing is
locked, and nothing is written but temporary tables that end with the snapshot. Memory does not grow with the store.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row

from sweeper.policy.anomaly import Anomaly
from sweeper.policy.conditions import EARLIEST, Writer
from sweeper.policy.counts import NO_RULE, Counts, Kind, RecordCounts
from sweeper.policy.decide import Doubt
from sweeper.policy.evaluate import Outcome, Spared
from sweeper.policy.history import View
from sweeper.policy.instant import StoredTimestamp
from sweeper.policy.schema import FeedbackRule, Policy
from sweeper.postgres.branches import branches
from sweeper.postgres.contract import Contract
from sweeper.postgres.database import Database
from sweeper.postgres.histories import history_sql
from sweeper.postgres.statement import NO_PARAMETERS, filled, literal, source, spelling
from sweeper.postgres.verdicts import named, ruled, writer

CALENDAR_END = "CAST('10000-01-01T00:00:00Z' AS timestamptz)"
"""The first instant that `datetime` cannot hold."""
STREAMED = {**NO_PARAMETERS, "stream_results": True, "yield_per": 2_000}
Unit = Literal["day", "week", "month"]
Step = Callable[[str, float], None]
"""Called when a step begins, with its name and the share of all work that is done by then, as measured on large stores."""


@dataclass(frozen=True)
class StoredVerdict:
    """The verdict on one stored record. `held_since` is -infinity (`OutOfRange.ALWAYS`) for a hold without a usable date."""

    id: str
    account_id: str | None
    rule: str | None
    due: datetime | None
    held_since: StoredTimestamp
    doubt: Doubt | None
    outcome: Outcome
    spared: Spared | None

    @property
    def held(self) -> bool:
        """Whether a legal hold is in force, whether the record is due or not."""
        return self.held_since is not None

    @property
    def purge(self) -> bool:
        """Whether the record is due as stored and not held, as `Verdict.purge` says; a run may still skip it."""
        return self.outcome in (Outcome.PURGE, Outcome.SPARED)

    def as_json(self) -> dict[str, Any]:
        """Return the fields of a line of `explain --all --json`."""
        return {
            "conversation_id": self.id,
            "rule": self.rule,
            "due_at": self.due,
            "held": self.held,
            "purge": self.purge,
        }


@dataclass(frozen=True)
class Due:
    """How many records of a rule fall due from `begin` (UTC) for a day, a week from Monday on, or a month."""

    begin: datetime
    rule: str
    outcome: Outcome
    held: bool
    records: int
    messages: int


@dataclass(frozen=True)
class Size:
    """About how many bytes one record occupies, and each of its messages, with indexes."""

    record: float
    message: float


@dataclass(frozen=True)
class WholeStore:
    """One snapshot of a store. `judge` may be called for several policies, whose verdicts are then of the same instant."""

    connection: Connection
    contract: Contract
    as_of: datetime
    is_present: bool
    step: Step
    _messages: dict[datetime | None, str] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def judge(self, policy: Policy, name: str = "verdicts") -> "StoreVerdicts":
        """Decide every record under a policy.

        Args:
            policy: The rules.
            name: Names the tables of the result; another one for each policy.

        Raises:
            DBAPIError: the database failed, or a statement took too long.
        """
        if name in self._names:
            raise ValueError(f"there are verdicts named {name!r} already")
        self._names.add(name)
        verdicts = StoreVerdicts(
            self, policy, f"pg_temp.sweeper_{name}_conversations", f"pg_temp.sweeper_{name}_feedback"
        )
        statements = self._statements(policy)
        if policy.deadline not in self._messages:
            self.step("reading messages", 0.0)
            messages = f"pg_temp.sweeper_messages_{len(self._messages)}"
            self.execute(statements.messages(messages))
            self.execute(f"ANALYZE {messages}")
            self._messages[policy.deadline] = messages
        self.step("deciding conversations", 0.26)
        self._decide(statements, verdicts.conversations)
        self.step("deciding feedback", 0.91)
        self.execute(statements.feedback(verdicts.feedback))
        for table in (verdicts.conversations, verdicts.feedback):
            self.execute(f"ANALYZE {table}")
        self.step("counting", 0.94)
        return verdicts

    def judge_content(self, verdicts: "StoreVerdicts") -> str:
        """Decide by when the content of each conversation must be gone; return the table of `id`, `rule`, `due` and so on.

        Raises:
            DBAPIError: the database failed, or a statement took too long.
        """
        policy, table = verdicts.policy.redacting, f"{verdicts.conversations}_content"
        if policy is None:
            self.execute(filled("whole_no_content", table=table, conversations=verdicts.conversations))
        else:
            self.execute(self._statements(policy).content(table, verdicts.conversations))
        self.execute(f"ANALYZE {table}")
        return table

    def judge_redactions(self, verdicts: "StoreVerdicts") -> None:
        """Decide when the content of each conversation that has any is redacted; nothing if no rule redacts.

        What is purged by then, or is due for purge already, is left out.

        Raises:
            DBAPIError: the database failed, or a statement took too long.
        """
        policy = verdicts.policy.redacting
        if policy is None:
            return
        judged = f"{verdicts.conversations}_of_content"
        self._decide(self._statements(policy), judged)
        self.execute(
            filled(
                "whole_redactions",
                table=verdicts.table("redaction"),
                judged=judged,
                conversations=verdicts.conversations,
                as_of=literal(self.as_of, "timestamptz"),
                filled=" UNION ALL ".join(
                    filled("content_of_any", key=table.key, table=table.table, left=table.left)
                    for table in self.contract.redacted
                )
                or "NULL",
            )
        )

    def _statements(self, policy: Policy) -> "_Statements":
        return _Statements(self.contract, policy, writer(policy, self.as_of), self.is_present)

    def _decide(self, statements: "_Statements", table: str) -> None:
        """Write the table of the verdicts on all conversations."""
        self.execute(statements.conversations(table, self._messages[statements.policy.deadline]))
        for which, sql in statements.changed(table):
            if self.execute(filled("whole_any", table=table, which=which)):
                self.execute(sql)

    def execute(self, sql: str) -> Sequence[Row[Any]]:
        """Execute a statement of literals in the snapshot and return its rows, if it has any."""
        result = self.connection.exec_driver_sql(sql, execution_options=NO_PARAMETERS)
        return result.all() if result.returns_rows else []

    def stream(self, sql: str) -> Iterator[Row[Any]]:
        """Yield the rows of a statement of literals, some at a time in memory."""
        yield from self.connection.exec_driver_sql(sql, execution_options=STREAMED)


@dataclass(frozen=True)
class StoreVerdicts:
    """The verdicts on every record under one policy, as two temporary tables that further SQL may join by `id`.

    Columns of both: `id` and `account_id` (types as in the store), `rule` (NULL: none), `due` (NULL: none, or never),
    `held_since` (NULL: no hold in force; -infinity: its date is unknown), `doubt` (the first `Doubt`, or NULL), `outcome`
    (`Outcome`), `spared` (`Spared`, or NULL), `created_at` (of feedback: `submitted_at`), `anomalies` (array of `Anomaly`, or
    NULL). Their values are the enums' strings.

    Attributes:
        store: The snapshot.
        policy: The rules.
        conversations: The table of the conversations that exist at as-of. It also has `last_activity_at`, `messages` (how many)
            and `latest` (when the user wrote last).
        feedback: The table of the feedback rows. It also has `conversation_id`.
    """

    store: WholeStore
    policy: Policy
    conversations: str
    feedback: str

    def table(self, kind: Kind) -> str:
        """Return the table of one kind of record; that of redactions is there after `judge_redactions`."""
        redactions = f"{self.conversations}_redactions"
        return {"conversation": self.conversations, "redaction": redactions, "feedback": self.feedback}[kind]

    def counts(self, kind: Kind, days: tuple[int, ...] = ()) -> RecordCounts:
        """Count the records by rule and outcome, as `RecordCounts` does record by record.

        Args:
            kind: The kind of record.
            days: Horizons in days from as-of; kept records that fall due within them are counted, too.
        """
        counts = RecordCounts(days)
        for row in self._rows("whole_counts", kind, within=self._within(days)):
            rule, outcome = row.rule or NO_RULE, Outcome(row.outcome)
            counts.by_rule[rule][outcome] += row.records
            counts.held[rule] += row.records if row.held else 0
            if outcome is Outcome.SPARED:
                counts.skipped[row.spared] += row.records
            elif outcome is Outcome.UNCLASSIFIED:
                counts.unclassified[row.doubt] += row.records
            elif outcome is Outcome.PURGE:
                counts.oldest_due[rule] = min(row.oldest, counts.oldest_due.get(rule, row.oldest))
                counts.newest_due[rule] = max(row.newest, counts.newest_due.get(rule, row.newest))
            if days and not row.held and row.oldest and outcome in (Outcome.NOT_DUE, Outcome.UNCLASSIFIED):
                counts.due_in[rule].update(dict(zip(days, row.within, strict=True)))
        return counts

    def all_counts(self, days: tuple[int, ...] = ()) -> Counts:
        """Count the records of both kinds, with their anomalies."""
        anomalies = self.anomalies("conversation") + self.anomalies("feedback")
        return Counts(self.counts("conversation", days), self.counts("feedback", days), anomalies=anomalies)

    def anomalies(self, kind: Kind) -> Counter[str]:
        """Count the anomalies of records of a kind; of conversations also those created after as-of, if as-of is now."""
        found = Counter({row.anomaly: row.records for row in self._rows("whole_anomalies", kind)})
        if kind == "conversation" and self.store.is_present:
            to = writer(self.policy, self.store.as_of)
            created_trusted = to.trusted("c.created_at")
            (row,) = self.store.execute(
                filled("whole_ahead", as_of=to.instant(to.as_of), created_trusted=created_trusted)
            )
            found.update({Anomaly.CREATED_AHEAD.value: row[0]} if row[0] else {})
        return found

    def due(self, kind: Kind, by: Unit, until: datetime | None = None) -> list[Due]:
        """Return what falls due when, by rule and outcome, the earliest first; what is overdue is in it.

        Args:
            kind: The kind of record.
            by: The length of the intervals, which begin at midnight UTC, on Mondays, or on the first of a month.
            until: Leaves out what falls due at this instant or later.
        """
        before = f"AND t.due < {literal(until, 'timestamptz')}" if until else ""
        messages = "t.messages" if kind == "conversation" else "0"
        return [
            Due(row.begin, row.rule, Outcome(row.outcome), row.held, row.records, int(row.messages))
            for row in self._rows("whole_due", kind, by=by, until=before, messages=messages)
        ]

    def every(self, kind: Kind) -> Iterator[StoredVerdict]:
        """Yield the verdict on every record in the order of its id, some at a time in memory."""
        for row in self.store.stream(filled("whole_every", table=self.table(kind))):
            yield StoredVerdict(
                row.id,
                row.account_id,
                row.rule,
                row.due,
                row.held_since,
                Doubt(row.doubt) if row.doubt else None,
                Outcome(row.outcome),
                Spared(row.spared) if row.spared else None,
            )

    def examples(self, kind: Kind, most: int = 3) -> dict[str, list[str]]:
        """Return for each doubt the first ids of unclassified records."""
        return {row.doubt: row.ids for row in self._rows("whole_examples", kind, most=str(most))}

    def size(self, kind: Kind) -> Size:
        """Estimate the bytes of a record from what its physical tables occupy; 0 if they are not known.

        What the tables below conversations occupy is shared among the messages or, if there are none, the conversations.
        """
        contract = self.store.contract
        root = contract.conversations if kind == "conversation" else contract.feedback
        below = {branch.key.oid for branch in branches(root)} if root else ()
        own, under = (_oids([root.oid] if root else ()), _oids(below))
        messages = "sum(t.messages)" if kind == "conversation" else "0"
        (row,) = self._rows("whole_size", kind, own=own, below=under, messages=messages)
        own_bytes, bytes_below, records = float(row.own), float(row.below), max(row.records, 1)
        if row.messages:
            return Size(own_bytes / records, bytes_below / float(row.messages))
        return Size((own_bytes + bytes_below) / records, 0.0)

    def first_ids(self, where: str) -> list[tuple[str, Outcome, str]]:
        """Return the first id of a conversation of each rule and outcome that a condition on `t` selects, in the order of ids."""
        rows = self._rows("whole_first", "conversation", where=where)
        return [(row.rule or NO_RULE, Outcome(row.outcome), row.id) for row in rows]

    def ages(self, kind: Kind, days: Sequence[int]) -> dict[str, list[int]]:
        """Count the records of each rule by their age since creation (of feedback: submission).

        Args:
            kind: The kind of record.
            days: Ascending bounds in days. The first number is of records younger than `days[0]`, the last one of records at
                least `days[-1]` old. Records with an implausible date are left out.
        """
        return self._histogram("whole_ages", kind, days)

    def held(self, kind: Kind, days: Sequence[int]) -> dict[str, list[int]]:
        """Count the records of each rule that a legal hold keeps, due or not, by how long the first hold has kept them.

        `days` as for `ages`; a hold without a usable date has lasted for ever.
        """
        return self._histogram("whole_held", kind, days)

    def largest_accounts(self, where: str = "true", most: int = 10) -> list[tuple[str | None, int]]:
        """Return the accounts with the most conversations that a condition on `t` selects, with their number."""
        sql = filled("whole_accounts", table=self.conversations, where=where, most=str(most))
        return [(row.account_id, row.records) for row in self.store.execute(sql)]

    def _rows(self, name: str, kind: Kind, **names: str) -> Sequence[Row[Any]]:
        return self.store.execute(filled(name, table=self.table(kind), **names))

    def _within(self, days: Sequence[int]) -> str:
        ends = (literal(self.store.as_of + timedelta(days=day), "timestamptz") for day in days)
        return ", ".join(f"count(*) FILTER (WHERE t.due <= {end})" for end in ends) or "NULL"

    def _histogram(self, name: str, kind: Kind, days: Sequence[int]) -> dict[str, list[int]]:
        to = writer(self.policy, self.store.as_of)
        edges = [self.store.as_of - timedelta(days=day) for day in reversed(days)]
        bounds = f"CAST(ARRAY[{', '.join(map(to.instant, edges))}] AS timestamptz[])"
        found: dict[str, list[int]] = {}
        names = {"trusted": to.trusted("t.created_at")} if name == "whole_ages" else {}
        for row in self._rows(name, kind, bounds=bounds, **names):
            found.setdefault(row.rule or NO_RULE, [0] * (len(days) + 1))[len(days) - row.bucket] += row.records
        return found


def _oids(oids: Iterable[int]) -> str:
    return f"CAST(ARRAY[{', '.join(map(str, sorted(oids)))}] AS bigint[])"


@contextmanager
def opened(
    database: Database,
    contract: Contract,
    as_of: datetime,
    *,
    is_present: bool = True,
    step: Step = lambda _, __: None,
) -> Iterator[WholeStore]:
    """Open a snapshot in which every record of a store can be decided.

    Args:
        database: The store's database. The role needs TEMPORARY on it.
        contract: The store.
        as_of: The instant (UTC) at which it is looked at.
        is_present: Whether as-of is now; a later instant in the store is then an anomaly.
        step: Called when a step begins, for progress.

    Raises:
        DBAPIError: the database failed, or a statement took longer than [manifest] statement_timeout_ms.
    """
    with database.snapshot(statement_timeout_ms=database.settings.manifest.statement_timeout_ms) as connection:
        store = WholeStore(connection, contract, as_of, is_present, step)
        store.execute(source("manifest_memory"))
        yield store


@dataclass(frozen=True)
class _Statements:
    """Writes the statements for one policy."""

    contract: Contract
    policy: Policy
    to: Writer
    is_present: bool

    def messages(self, table: str) -> str:
        deadline = self.policy.deadline
        late = (
            f"min(m.created_at) FILTER (WHERE m.author = 'user' AND m.created_at >= {self.to.instant(deadline)})"
            if deadline
            else "CAST(NULL AS timestamptz)"
        )
        return filled("whole_messages", table=table, late=late)

    def conversations(self, table: str, messages: str) -> str:
        return filled(
            "whole_conversations",
            **self._outcome(),
            table=table,
            messages=messages,
            histories=self._histories(),
            holds=self._holds,
            ruled=ruled(
                self.contract, self.to, further=", c.created_at, k.starts AS starts, k.plans AS timeline, k.chosen"
            ),
            as_of=self._as_of,
            flagged_later=f"COALESCE(v.flagged_at > {self._as_of} AND v.flagged_at < {CALENDAR_END}, false)",
            anomalies=", ".join(f"CASE WHEN {sql} THEN '{anomaly}' END" for anomaly, sql in self._anomalies()),
            **self._spellings("conversations", "id"),
        )

    def content(self, table: str, conversations: str) -> str:
        return filled(
            "whole_content",
            table=table,
            conversations=conversations,
            histories=self._histories(),
            ruled=ruled(self.contract, self.to),
        )

    def changed(self, table: str) -> Iterator[tuple[str, str]]:
        """Yield the statements that decide again some of what is to be purged, each with the condition that selects it.

        What was flagged after as-of counts as flagged at as-of; then the newest message counts as the last activity, too.
        """
        later = (
            ("t.flagged_later", "c.last_activity_at", Spared.PROTECTED),
            (f"'{Anomaly.STALE_LAST_ACTIVITY}' = ANY(t.anomalies)", "t.latest", Spared.STALE),
        )
        among = "{0}.account_id IN (SELECT x.account_id FROM changed x)"
        for which, last, reason in later:
            yield (
                which,
                filled(
                    "whole_changed",
                    table=table,
                    which=which,
                    last=last,
                    reason=f"'{reason}'",
                    as_of=self._as_of,
                    further="".join(f', c."{column}"' for column in self.policy.columns("conversation")),
                    histories=self._histories(plan_changes=among.format("p"), consent_events=among.format("e")),
                    ruled=ruled(self.contract, self.to, conversations="changed"),
                ),
            )

    def feedback(self, table: str) -> str:
        to, rules = self.to, self.policy.feedback
        kinds = frozenset().union(*(rule.kinds for rule in rules))
        silent = self.policy.feedback_without_transcript
        stray = f"f.has_transcript AND f.kind = ANY({to.texts(silent)})" if silent else "false"
        return filled(
            "whole_feedback",
            **self._outcome(),
            table=table,
            holds=self._holds,
            as_of=self._as_of,
            store=literal(self.contract.schema, "text"),
            due_trusted=to.trusted("o.due_at"),
            ordered_trusted=to.trusted("o.submitted_at"),
            doubts=(
                f"WHEN f.repeated THEN '{Doubt.FEEDBACK_REPEATED}' "
                f"WHEN (f.kind = ANY({to.texts(kinds)})) IS NOT TRUE THEN '{Doubt.FEEDBACK_KIND}' "
                f"WHEN {to.trusted('f.submitted_at')} IS NOT TRUE THEN '{Doubt.FEEDBACK_SUBMITTED}'"
            ),
            dues=", ".join(f"{self._feedback_due(rule)} AS due_{n}" for n, rule in enumerate(rules)) or "NULL",
            names=", ".join(f"n.due_{n}" for n in range(len(rules))) or "CAST(NULL AS timestamptz)",
            rules=named("n", [rule.name for rule in rules]),
            anomalies=f"CASE WHEN {stray} THEN ARRAY['{Anomaly.STRAY_TRANSCRIPT}'] END",
            **self._spellings("feedback", "conversation_id"),
        )

    def _feedback_due(self, rule: FeedbackRule) -> str:
        before = f" AND f.submitted_at < {self.to.instant(rule.submitted_before)}" if rule.submitted_before else ""
        applies = f"d.doubt IS NULL AND f.kind = ANY({self.to.texts(rule.kinds)}){before}"
        return f"CASE WHEN {applies} THEN {self.to.never_after(rule.period.sql('f.submitted_at'))} END"

    def _anomalies(self) -> Iterator[tuple[Anomaly, str]]:
        """Yield each anomaly of conversations with its test, as `policy/anomaly.py` has them."""
        to = self.to
        earliest = to.instant(EARLIEST)
        yield (
            Anomaly.STALE_LAST_ACTIVITY,
            "w.latest IS NOT NULL AND (v.last_activity_at IS NULL OR w.latest > v.last_activity_at "
            f"AND w.latest >= {earliest} AND v.last_activity_at < {CALENDAR_END})",
        )
        yield Anomaly.ZERO_RETENTION_STORED, "v.zero_retention"
        if self.is_present:
            trusted = to.trusted("v.last_activity_at")
            yield Anomaly.LAST_ACTIVITY_AHEAD, f"{trusted} AND v.last_activity_at > {self._as_of}"
        if self._undecided:
            yield Anomaly.UNDECIDED, " OR ".join(map(self._is_undecided, self._undecided))

    def _is_undecided(self, name: str) -> str:
        """Write the test that the user wrote after the deadline of a purpose, on one of its plans, and never chose."""
        to, purpose = self.to, self.policy.purposes[name]
        if purpose.undecided_after is None:
            return "false"
        after = to.instant(purpose.undecided_after)
        wrote = " OR ".join(
            f"({to.trusted(at)} AND {at} <= {self._as_of} AND {at} >= {after} "
            f"AND v.timeline[width_bucket({at}, v.starts)] = ANY({to.texts(purpose.plans)}))"
            for at in ("w.late", "w.latest")
        )
        return f"(({wrote}) AND NOT COALESCE({literal(name, 'text')} = ANY(v.chosen), false))"

    @property
    def _undecided(self) -> list[str]:
        return [name for name, purpose in self.policy.purposes.items() if purpose.undecided_after is not None]

    @property
    def _as_of(self) -> str:
        return self.to.instant(self.to.as_of)

    @property
    def _holds(self) -> str:
        return filled(
            "whole_holds",
            as_of=self._as_of,
            placed_trusted=self.to.trusted("h.placed_at"),
            released_trusted=self.to.trusted("h.released_at"),
        )

    def _histories(self, **names: str) -> str:
        return filled(
            "whole_histories",
            as_of=self._as_of,
            purpose_names=self.to.texts(self._undecided),
            stays=history_sql("stays", self.to, **names),
            epochs=history_sql("epochs", self.to, View.RETENTION, **names),
            owners=history_sql("owners", self.to, **names),
        )

    def _outcome(self) -> dict[str, str]:
        """Write what happens to a record, and why a run would skip it; `v` is the record and `p` its holds."""
        due = f"v.last_due <= {self._as_of}"
        return {
            "outcome": (
                f"CASE WHEN ({due}) IS NOT TRUE THEN CASE WHEN v.doubt IS NULL THEN '{Outcome.NOT_DUE}' "
                f"ELSE '{Outcome.UNCLASSIFIED}' END WHEN p.held_since IS NOT NULL THEN '{Outcome.HELD}' "
                f"WHEN p.shielded THEN '{Outcome.SPARED}' ELSE '{Outcome.PURGE}' END"
            ),
            "spared": f"CASE WHEN {due} AND p.held_since IS NULL AND p.shielded THEN '{Spared.PROTECTED}' END",
        }

    def _spellings(self, relation: str, conversation: str) -> dict[str, str]:
        """Write the ids that holds name, spelt alike."""
        return {
            "account_spelling": spelling("v.account_id", self.contract.type(relation, "account_id")),
            "conversation_spelling": spelling(f"v.{conversation}", self.contract.type(relation, conversation)),
        }

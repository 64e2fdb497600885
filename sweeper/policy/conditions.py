# ruff: noqa: D102 — `Condition` documents the methods that each condition defines
"""Define each condition and anchor of a policy once: its Python test and its SQL, side by side.

Invariant: `holds` and `sql` agree on every stored row. The SQL of a condition is TRUE where the condition holds, and FALSE or
NULL where it does not: negate it with IS NOT TRUE. The SQL of a proposal may find too much, never too little: `search` is TRUE
wherever the condition may hold, `fails` wherever it may fail.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sweeper.policy.facts import Conversation, Facts
from sweeper.policy.instant import OutOfRange, StoredTimestamp
from sweeper.policy.period import NEVER
from sweeper.policy.schema import Anchor, Consent, ConsentEpoch, Policy, Rule, Scalar, json_text

if TYPE_CHECKING:
    from sweeper.policy.decide import Case

T = TypeVar("T")

EARLIEST = datetime.min.replace(tzinfo=UTC)
"""The first instant that `datetime` can hold."""


@dataclass(frozen=True)
class Writer:
    """Writes the SQL of one statement, for a session whose time zone is UTC.

    In the statement `c` is the conversation and `a` its account. An exact statement also has the governing plans as `h.plans`.

    Attributes:
        policy: The rules.
        as_of: The instant (UTC) at which the store is looked at.
        bind: Writes a value of an SQL type, as a parameter or as a literal.
        epochs: By purpose, the alias of the epoch that contains the last activity; its `opened` is NULL if there is none.
        ahead: Whether closings, withdrawals and orders count whatever their instant, as at the start of a training run.
    """

    policy: Policy
    as_of: datetime
    bind: Callable[[Any, str], str]
    epochs: Mapping[str, str] = field(default_factory=dict)
    ahead: bool = False

    def texts(self, values: Iterable[str]) -> str:
        """Write an array of texts."""
        return self.bind(sorted(values), "text[]")

    def instant(self, instant: datetime) -> str:
        """Write an instant."""
        return self.bind(instant, "timestamptz")

    def trusted(self, instant: str) -> str:
        """Write the test of `Plausible.holds`: the instant is set, finite and in the plausible range."""
        plausible = self.policy.plausible
        return f"({instant} >= {self.instant(plausible.since)} AND {instant} < {self.instant(plausible.before)})"

    def never_after(self, due: str) -> str:
        """Write a due time, with infinity (never) for one at or after the end of the plausible range."""
        return f"CASE WHEN {due} >= {self.instant(self.policy.plausible.before)} THEN {NEVER} ELSE {due} END"

    def reached(self, instant: str) -> str:
        """Write the test that an instant lies at or before as-of and can be held by `datetime`."""
        return f"({instant} >= {self.instant(EARLIEST)} AND {instant} <= {self.instant(self.as_of)})"


# --- anchors ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ColumnAnchor:
    """An anchor that is a column of the conversation or of its account."""

    relation: Literal["account", "conversation"]
    column: str

    def stored(self, facts: Facts) -> StoredTimestamp:
        """Return the instant as stored; None if there is no account."""
        holder = facts.account if self.relation == "account" else facts.conversation
        instant: StoredTimestamp = getattr(holder, self.column, None)
        return instant

    def since(self, case: "Case", _: Rule) -> datetime | None:
        """Return the instant from which a period runs, or None if it is not set or not plausible."""
        return case.trusted(self.stored(case.facts))

    @property
    def name(self) -> str:
        """The bare column in SQL, so that an index can serve; whether it is plausible is a further test."""
        return f"{self.relation[0]}.{self.column}"

    def sql(self, _: Writer, __: Rule) -> str:
        """Return the column."""
        return self.name


class EndAnchor:
    """The anchor `consent_ended`: when the consent epoch that the rule asks for closed."""

    relation = "history"

    def since(self, case: "Case", rule: Rule) -> datetime | None:
        """Return when the epoch that contains the last activity closed, or None if it is open or there is none."""
        epoch = case.epoch(rule.when.consent.purpose) if rule.when.consent else None
        return epoch.closed if epoch else None

    def sql(self, to: Writer, rule: Rule) -> str:
        """Return the same as a column of the joined epoch."""
        return f"{to.epochs[rule.when.consent.purpose]}.closed" if rule.when.consent else "CAST(NULL AS timestamptz)"


LAST_ACTIVITY = ColumnAnchor("conversation", "last_activity_at")
CLOSED = ColumnAnchor("account", "closed_at")
FLAGGED = ColumnAnchor("conversation", "flagged_at")
ANCHORS: Mapping[Anchor, ColumnAnchor | EndAnchor] = {
    Anchor.LAST_ACTIVITY: LAST_ACTIVITY,
    Anchor.CREATED: ColumnAnchor("conversation", "created_at"),
    Anchor.DELETED: ColumnAnchor("conversation", "deleted_at"),
    Anchor.CLOSED: CLOSED,
    Anchor.FLAGGED: FLAGGED,
    Anchor.CONSENT_ENDED: EndAnchor(),
}


# --- conditions -------------------------------------------------------------------------------------------------------


class Condition(ABC):
    """One condition of a rule's `when`."""

    reads: str = "conversation"
    """What `search` reads: the row of the `conversation`, of its `account`, or the `history` of plans and consent."""

    @abstractmethod
    def holds(self, case: "Case") -> bool:
        """Return whether the condition holds for a conversation."""

    @abstractmethod
    def sql(self, to: Writer) -> str:
        """Return the same test as SQL."""

    def search(self, to: Writer) -> str:
        """Return SQL that is TRUE wherever the condition may hold. It reads only what a proposal joins."""
        return self.sql(to)

    def fails(self, to: Writer) -> str:
        """Return SQL that is TRUE wherever the condition may fail. It reads only the conversation and the searched epoch."""
        return "true" if self.reads == "account" else f"({self.sql(to)}) IS NOT TRUE"


@dataclass(frozen=True)
class Marked(Condition):
    """`incognito` or `zero_retention` has the given value. The bare column lets a partial index serve."""

    column: Literal["incognito", "zero_retention"]
    expected: bool

    def holds(self, case: "Case") -> bool:
        return getattr(case.conversation, self.column) is self.expected

    def sql(self, _: Writer) -> str:
        return f"c.{self.column}" if self.expected else f"NOT c.{self.column}"


@dataclass(frozen=True)
class WordIn(Condition):
    """`kind` or `platform` is one of the given words."""

    column: Literal["kind", "platform"]
    words: frozenset[str]

    def holds(self, case: "Case") -> bool:
        return getattr(case.conversation, self.column) in self.words

    def sql(self, to: Writer) -> str:
        return f"c.{self.column}::text = ANY({to.texts(self.words)})"


class FurtherIn(Condition):
    """A further column has one of the given values, of the same type: `1` is not `true`. NULL, lists and objects never match."""

    def __init__(self, relation: Literal["account", "conversation"], column: str, values: frozenset[Scalar]) -> None:
        self.relation = self.reads = relation
        self.column, self.values = column, values
        self.exact = {(type(value), value) for value in values}

    def holds(self, case: "Case") -> bool:
        value = case.column(self.relation, self.column)
        return isinstance(value, str | int) and (type(value), value) in self.exact

    def sql(self, to: Writer) -> str:
        listed = to.texts(json.dumps(value, ensure_ascii=False) for value in self.values)
        return f"{json_text(self.relation, self.column)} = ANY({listed})"


class Happened(Condition):
    """`closed` or `flagged`: the instant in a column lies at or before as-of, or (not `expected`) it does not."""

    def __init__(self, anchor: ColumnAnchor, expected: bool) -> None:  # noqa: FBT001 — the value of the condition
        self.anchor, self.expected = anchor, expected
        self.reads = anchor.relation if expected else "conversation"

    def holds(self, case: "Case") -> bool:
        stored = self.anchor.stored(case.facts)
        return (isinstance(stored, datetime) and stored <= case.as_of) is self.expected

    def sql(self, to: Writer) -> str:
        reached = to.reached(self.anchor.name)
        return f"{reached} IS {'TRUE' if self.expected else 'NOT TRUE'}"

    def search(self, to: Writer) -> str:
        """Search everywhere for what is not closed: a conversation without an account is not, and no join would find it."""
        return "true" if self.anchor.relation == "account" and not self.expected else self.sql(to)

    def fails(self, to: Writer) -> str:
        return "true" if self.anchor.relation == "account" else super().fails(to)


@dataclass(frozen=True)
class Deleted(Condition):
    """`deleted`: deleted at as-of and not restored since, or (not `expected`) the opposite."""

    expected: bool

    def holds(self, case: "Case") -> bool:
        return is_deleted(case.conversation, case.as_of) is self.expected

    def sql(self, to: Writer) -> str:
        deleted = f"{to.reached('c.deleted_at')} AND (c.restored_at IS NULL OR c.restored_at < c.deleted_at)"
        return f"({deleted}) IS {'TRUE' if self.expected else 'NOT TRUE'}"


def is_deleted(conversation: Conversation, as_of: datetime) -> bool:
    """Return whether the conversation is deleted at as-of and not restored since; `restored_at` counts whenever it is set."""
    deleted_at = conversation.deleted_at
    if not isinstance(deleted_at, datetime) or deleted_at > as_of:
        return False
    restored_at = conversation.restored_at
    if isinstance(restored_at, OutOfRange):
        return restored_at.is_past
    return restored_at is None or restored_at < deleted_at


@dataclass(frozen=True)
class PlanCondition(Condition):
    """A condition on the governing plans. A proposal joins an account's stays on these plans (`s`) instead of comparing them."""

    plans: frozenset[str]
    reads = "history"

    def search(self, _: Writer) -> str:
        return "true"

    def stay(self, to: Writer) -> str:
        """Return the SQL test of a stay on these plans; a conversation that fulfils the condition overlaps one."""
        return f"s.plan = ANY({to.texts(self.plans)})"

    def epoch(self, to: Writer) -> str | None:
        """Return the alias of the searched epoch if an account inside it is always on one of these plans."""
        return next((e for purpose, e in to.epochs.items() if to.policy.purposes[purpose].plans <= self.plans), None)


class AnyPlan(PlanCondition):
    """`any_plan`: at least one governing plan is one of these."""

    def holds(self, case: "Case") -> bool:
        return not case.plans.isdisjoint(self.plans)

    def sql(self, to: Writer) -> str:
        return f"h.plans && {to.texts(self.plans)}"

    def fails(self, to: Writer) -> str:
        epoch = self.epoch(to)
        return f"{epoch}.opened IS NULL" if epoch else "true"


class AllPlans(PlanCondition):
    """`all_plans`: there are governing plans, and all of them are among these."""

    def holds(self, case: "Case") -> bool:
        return bool(case.plans) and case.plans <= self.plans

    def sql(self, to: Writer) -> str:
        return f"(cardinality(h.plans) > 0 AND h.plans <@ {to.texts(self.plans)})"

    def fails(self, to: Writer) -> str:
        epoch = self.epoch(to)
        return f"({epoch}.opened IS NULL OR c.created_at < {epoch}.entered_at)" if epoch else "true"


@dataclass(frozen=True)
class InEpoch(Condition):
    """`consent`: the last activity lies in an open, a closed, any or no epoch of a purpose."""

    consent: Consent
    reads = "history"

    def holds(self, case: "Case") -> bool:
        epoch = case.epoch(self.consent.purpose)
        if epoch is None:
            return self.consent.epoch is ConsentEpoch.NONE
        return self.consent.epoch in (
            ConsentEpoch.ANY,
            ConsentEpoch.OPEN if epoch.closed is None else ConsentEpoch.CLOSED,
        )

    def sql(self, to: Writer) -> str:
        epoch = to.epochs[self.consent.purpose]
        states = {
            ConsentEpoch.OPEN: f"({epoch}.opened IS NOT NULL AND {epoch}.closed IS NULL)",
            ConsentEpoch.CLOSED: f"{epoch}.closed IS NOT NULL",
            ConsentEpoch.ANY: f"{epoch}.opened IS NOT NULL",
            ConsentEpoch.NONE: f"{epoch}.opened IS NULL",
        }
        return states[self.consent.epoch]

    def fails(self, to: Writer) -> str:
        return super().fails(to) if self.consent.purpose in to.epochs else "true"


@dataclass(frozen=True)
class Unless(Condition):
    """`unless`: none of the named rules applies. Those rules have no `unless` themselves."""

    rules: tuple[str, ...]

    def holds(self, case: "Case") -> bool:
        return not any(applies(case.policy.by_name[name], case) for name in self.rules)

    def sql(self, to: Writer) -> str:
        return " AND ".join(f"({applies_sql(to.policy.by_name[name], to)}) IS NOT TRUE" for name in self.rules)

    def search(self, to: Writer) -> str:
        """Search where one condition of each named rule may fail."""
        named = (conditions(to.policy.by_name[name]) for name in self.rules)
        return " AND ".join(f"({' OR '.join(each.fails(to) for each in found) or 'false'})" for found in named)

    def fails(self, _: Writer) -> str:
        return "true"


@lru_cache(maxsize=1024)
def conditions(rule: Rule) -> tuple[Condition, ...]:
    """Return the conditions of a rule, all of which must hold."""
    when = rule.when
    return (
        *_given(partial(Marked, "incognito"), when.incognito),
        *_given(partial(Marked, "zero_retention"), when.zero_retention),
        *_given(partial(WordIn, "kind"), when.kind),
        *_given(partial(WordIn, "platform"), when.platform),
        *_given(Deleted, when.deleted),
        *_given(partial(Happened, CLOSED), when.closed),
        *_given(partial(Happened, FLAGGED), when.flagged),
        *(FurtherIn("conversation", *column) for column in when.conversation.items()),
        *(FurtherIn("account", *column) for column in when.account.items()),
        *_given(AnyPlan, when.any_plan),
        *_given(AllPlans, when.all_plans),
        *_given(InEpoch, when.consent),
        *_given(Unless, when.unless or None),
    )


def _given(make: Callable[[T], Condition], value: T | None) -> tuple[Condition, ...]:
    return () if value is None else (make(value),)


# --- rules ------------------------------------------------------------------------------------------------------------


def applies(rule: Rule, case: "Case") -> bool:
    """Return whether all conditions of a rule hold for a conversation."""
    for condition in conditions(rule):  # noqa: SIM110 — a plain loop: it is the innermost of every sweep
        if not condition.holds(case):
            return False
    return True


def applies_sql(rule: Rule, to: Writer) -> str:
    """Return the same test as SQL."""
    return " AND ".join(condition.sql(to) for condition in conditions(rule)) or "true"


def due_sql(rule: Rule, to: Writer) -> str:
    """Return the SQL of the due time that an applying rule sets, the earliest of its terms: infinity is never, NULL is none."""
    dues = []
    for term in rule.due:
        anchor = ANCHORS[term.anchor].sql(to, rule)
        dues.append(f"CASE WHEN {to.trusted(anchor)} THEN {to.never_after(term.period.sql(anchor))} END")
    return f"LEAST({', '.join(dues)})"


def searched_purpose(rule: Rule, policy: Policy) -> str | None:
    """Return the purpose whose epochs a search for a rule joins: that of its own `consent`, or that of a rule in its `unless`."""
    rules = (rule, *(policy.by_name[name] for name in rule.when.unless))
    return next((each.when.consent.purpose for each in rules if each.when.consent is not None), None)

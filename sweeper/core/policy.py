"""The policy as data: plans, purposes, rules, floors, training scope, other records. Strict, versioned by digest.

The law of this file: what it accepts can be decided without a question left; every fault is named at once, with key.
"""

import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from sweeper.core.instant import Odd, Stored, aware
from sweeper.core.period import Period

SLACK_DAYS = 4
"""How far a proposal over-reaches: 31 January plus one month is 28 February, three days further than counted back."""

Scalar: TypeAlias = str | int | bool
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
RESERVED = frozenset({"unclassified", "erasure_order", "legal_hold"})


class Anchor(StrEnum):
    """The instant from which a period runs."""

    LAST_ACTIVITY = "last_activity"
    CREATED = "created"
    DELETED = "deleted"
    CLOSED = "closed"
    FLAGGED = "flagged"
    CONSENT_ENDED = "consent_ended"


class Epoch(StrEnum):
    """Where a conversation's last activity lies among the epochs of a purpose."""

    OPEN = "open"
    CLOSED = "closed"
    ANY = "any"
    NONE = "none"

    def admits(self, state: "Epoch") -> bool:
        """Whether a condition on this word holds in the state open, closed or none."""
        return self is state or (self is Epoch.ANY and state is not Epoch.NONE)


@dataclass(frozen=True)
class Names:
    """The names a policy defines, gathered before validation so that every reference is checked in the one pass."""

    classes: Mapping[str, frozenset[str]]
    purposes: frozenset[str]
    rules: frozenset[str]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Names":
        """The names in raw TOML, however malformed the rest is."""
        plans = raw.get("plans")
        classes = {
            str(name): frozenset(str(plan) for plan in members)
            for name, members in (plans.items() if isinstance(plans, dict) else ())
            if isinstance(members, list)
        }
        purposes = raw.get("purposes")
        rules = raw.get("rules")
        return cls(
            classes,
            frozenset(purposes) if isinstance(purposes, dict) else frozenset(),
            frozenset(str(r.get("name")) for r in rules if isinstance(r, dict))
            if isinstance(rules, list)
            else frozenset(),
        )

    def expand(self, names: frozenset[str]) -> frozenset[str]:
        """Plan names, with each class replaced by its plans.

        Raises:
            ValueError: a name is neither a class nor a plan of one.
        """
        known = frozenset().union(*self.classes.values())
        unknown = sorted(names - known - set(self.classes))
        if unknown:
            raise ValueError(f"no plan or class of [plans]: {', '.join(unknown)}")
        return (names & known).union(*(self.classes[name] for name in names if name in self.classes))


def _expanded(plans: frozenset[str], info: ValidationInfo) -> frozenset[str]:
    names = cast(Names, info.context)
    return names.expand(plans)


def _known_purpose(purpose: str, info: ValidationInfo) -> str:
    names = cast(Names, info.context)
    if purpose not in names.purposes:
        raise ValueError(f"{purpose!r} is no purpose of [purposes]")
    return purpose


def _known_rules(rules: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    names = cast(Names, info.context)
    unknown = [rule for rule in rules if rule not in names.rules]
    if unknown:
        raise ValueError(f"no rule of [[rules]]: {', '.join(unknown)}")
    return rules


def _listed(value: object) -> object:
    """One value where a list is meant."""
    return [value] if isinstance(value, str | int) else value


def _utc(instant: datetime) -> datetime:
    return aware(instant)


def _parsed(value: object) -> object:
    if isinstance(value, Period):
        return value
    if not isinstance(value, str):
        raise ValueError('write a text such as "30 days"')
    return Period.parse(value)


def _given(value: object) -> object:
    if isinstance(value, int | float) or (isinstance(value, str) and value.replace(".", "").isdigit()):
        raise ValueError("write an instant with its offset, without quotes, for instance 2025-10-08T00:00:00Z")
    return value


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("write 1")
    return value


def _free(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"{name!r} is a name the program uses itself")
    return name


Instant = Annotated[AwareDatetime, BeforeValidator(_given), AfterValidator(_utc)]
Plans = Annotated[
    frozenset[str], Field(min_length=1), BeforeValidator(_listed), AfterValidator(_expanded), PlainSerializer(sorted)
]
Words = Annotated[frozenset[str], Field(min_length=1), BeforeValidator(_listed), PlainSerializer(sorted)]
Values = Annotated[
    frozenset[Scalar],
    Field(min_length=1),
    BeforeValidator(_listed),
    PlainSerializer(lambda values: sorted(values, key=repr)),
]
Column = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Fixed = Annotated[Period, BeforeValidator(_parsed), PlainSerializer(str)]


class Strict(BaseModel):
    """A table of the file: no unknown key, no guessing between types, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, arbitrary_types_allowed=True)


class ColumnPeriod(Strict):
    """A period read from a further column of the store, for instance an enterprise's own setting."""

    column: Annotated[str, Field(pattern=r"^(account|conversation)\.[A-Za-z_][A-Za-z0-9_]{0,62}$")]
    unit: Literal["second", "minute", "hour", "day", "week", "month", "year"]
    otherwise: Fixed | None = None

    @property
    def relation(self) -> str:
        """`account` or `conversation`."""
        return self.column.partition(".")[0]

    @property
    def name(self) -> str:
        """The column's name within its relation."""
        return self.column.partition(".")[2]

    def __str__(self) -> str:
        return f"as many {self.unit}s as {self.column} says"


class Term(Strict):
    """One anchor and the period that runs from it."""

    anchor: Anchor
    period: Period | ColumnPeriod

    @field_serializer("period")
    def _said(self, period: Period | ColumnPeriod) -> object:
        return period.model_dump(exclude_defaults=True) if isinstance(period, ColumnPeriod) else str(period)

    @field_validator("period", mode="before")
    @classmethod
    def _fixed_or_column(cls, value: object) -> object:
        """Text is a fixed period, a table names a column; each with its own message."""
        if isinstance(value, dict):
            return ColumnPeriod.model_validate(value)
        if not isinstance(value, str):
            raise ValueError('write a text such as "30 days", or { column = "account.…", unit = "day" }')
        return Period.parse(value)


class Consent(Strict):
    """A condition on where the last activity lies among the epochs of a purpose."""

    purpose: Annotated[str, AfterValidator(_known_purpose)]
    epoch: Epoch


class When(Strict):
    """The conditions of a rule; all that are written must hold."""

    any_plan: Plans | None = None
    all_plans: Plans | None = None
    kind: Words | None = None
    platform: Words | None = None
    incognito: StrictBool | None = None
    zero_retention: StrictBool | None = None
    deleted: StrictBool | None = None
    closed: StrictBool | None = None
    flagged: StrictBool | None = None
    consent: Consent | None = None
    conversation: dict[Column, Values] = Field(default_factory=dict)
    account: dict[Column, Values] = Field(default_factory=dict)
    unless: Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_known_rules)] = ()

    @property
    def needs_history(self) -> bool:
        """Whether the conditions ask for plans or consent."""
        return self.any_plan is not None or self.all_plans is not None or self.consent is not None or bool(self.unless)


_NEEDED = {
    Anchor.DELETED: "deleted = true",
    Anchor.CLOSED: "closed = true",
    Anchor.FLAGGED: "flagged = true",
    Anchor.CONSENT_ENDED: 'consent = { purpose = …, epoch = "closed" }',
}


class Rule(Strict):
    """When a conversation falls under it, and by when it must be gone: the earliest of its terms."""

    name: Annotated[Name, AfterValidator(_free)]
    because: str = Field(min_length=1)
    when: When = When()
    due: tuple[Term, ...] = Field(min_length=1)
    stands_unclassified: StrictBool = False

    __hash__ = object.__hash__  # conditions are cached by rule; its tables are not hashable

    @model_validator(mode="after")
    def _coherent(self) -> "Rule":
        """An anchor must exist wherever the rule applies; doubt about plans must not purge."""
        when = self.when
        met = {
            Anchor.DELETED: when.deleted is True,
            Anchor.CLOSED: when.closed is True,
            Anchor.FLAGGED: when.flagged is True,
            Anchor.CONSENT_ENDED: when.consent is not None and when.consent.epoch is Epoch.CLOSED,
        }
        for term in self.due:
            if not met.get(term.anchor, True):
                raise ValueError(f"anchor {term.anchor.value!r} needs the condition {_NEEDED[term.anchor]}")
        if self.stands_unclassified and when.needs_history:
            raise ValueError(
                "stands_unclassified is only for rules without conditions on plans, consent or other rules"
            )
        return self


class Floor(Strict):
    """A due is at least this: anchor and period, where the anchor is set."""

    name: Annotated[Name, AfterValidator(_free)]
    because: str = Field(min_length=1)
    anchor: Literal[Anchor.FLAGGED]
    period: Fixed


class Purpose(Strict):
    """What a consent is for: the plans it belongs to and the instant before which no grant takes effect."""

    plans: Plans
    not_before: Instant | None = None
    undecided_after: Instant | None = None


class Plausible(Strict):
    """The range in which an instant of the store is believed."""

    since: Instant = Field(alias="from")
    before: Instant

    @model_validator(mode="after")
    def _in_order(self) -> "Plausible":
        if self.since >= self.before:
            raise ValueError("from must be earlier than before, or nothing would be believed")
        return self

    def holds(self, stored: Stored) -> bool:
        """Whether the instant is set, finite and in the range."""
        return stored is not None and not isinstance(stored, Odd) and self.since <= stored < self.before


class Training(Strict):
    """What may be trained on beyond consent: platforms, the age cap, and how a resumed conversation counts."""

    platforms: Words
    max_age: Fixed
    resumed: Literal["from_opt_in", "entire"] = "from_opt_in"


class FeedbackRule(Strict):
    """By when feedback of these kinds must be gone, counted from its submission."""

    name: Annotated[Name, AfterValidator(_free)]
    because: str = Field(min_length=1)
    kinds: Words
    submitted_before: Instant | None = None
    period: Fixed


def _without_repeats(values: Iterator[str], what: str) -> None:
    repeated = sorted(name for name, count in Counter(values).items() if count > 1)
    if repeated:
        raise ValueError(f"{what}: {', '.join(repeated)}")


class Policy(Strict):
    """The rules of one provider. Compared and cached by identity; its digest names the version."""

    format: Annotated[Literal[1], BeforeValidator(_number)]
    name: str = Field(min_length=1)
    plausible: Plausible
    plans: dict[Name, Words] = Field(default_factory=dict)
    purposes: dict[Name, Purpose] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = Field(min_length=1)
    floors: tuple[Floor, ...] = ()
    training: Training | None = None
    feedback: tuple[FeedbackRule, ...] = ()
    feedback_without_transcript: Words | None = None

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    @field_validator("plans", mode="after")
    @classmethod
    def _plan_in_one_class(cls, plans: dict[str, frozenset[str]]) -> dict[str, frozenset[str]]:
        _without_repeats((plan for members in plans.values() for plan in members), "plan in two classes")
        _without_repeats(iter([*plans, *(p for members in plans.values() for p in members)]), "plan named like a class")
        return plans

    @field_validator("purposes", mode="after")
    @classmethod
    def _plan_with_one_purpose(cls, purposes: dict[str, Purpose]) -> dict[str, Purpose]:
        _without_repeats((p for purpose in purposes.values() for p in purpose.plans), "plan belongs to two purposes")
        return purposes

    @field_validator("rules", "floors", "feedback", mode="after")
    @classmethod
    def _names_once(cls, rules: tuple[Rule | Floor | FeedbackRule, ...]) -> tuple[Rule | Floor | FeedbackRule, ...]:
        _without_repeats((rule.name for rule in rules), "name used twice")
        return rules

    @field_validator("rules", mode="after")
    @classmethod
    def _unless_is_flat(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        """`unless` names rules that themselves have none, so that no order of reading matters."""
        nested = {rule.name for rule in rules if rule.when.unless}
        wrong = sorted(f"{rule.name} → {name}" for rule in rules for name in rule.when.unless if name in nested)
        if wrong:
            raise ValueError(f"unless names a rule that has an unless itself: {', '.join(wrong)}")
        return rules

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the policy says, in hex; comments and the order of keys do not change it."""
        said = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(said.encode()).hexdigest()

    @cached_property
    def known_plans(self) -> frozenset[str]:
        """Every plan of every class."""
        return frozenset().union(*self.plans.values())

    @cached_property
    def by_name(self) -> Mapping[str, Rule]:
        """The rules by name."""
        return {rule.name: rule for rule in self.rules}

    @cached_property
    def uses_plans(self) -> bool:
        """Whether any decision depends on the plan history."""
        return bool(self.plans)

    @cached_property
    def uses_consent(self) -> bool:
        """Whether any retention decision depends on consent."""
        return any(rule.when.consent is not None for rule in self.rules)

    @cached_property
    def purpose_of_plan(self) -> Mapping[str, str]:
        """The purpose that each plan belongs to, if any."""
        return {plan: name for name, purpose in self.purposes.items() for plan in purpose.plans}

    def columns(self, relation: Literal["account", "conversation"]) -> tuple[str, ...]:
        """The further columns of `accounts` or `conversations` that the rules look at."""
        compared = {column for rule in self.rules for column in getattr(rule.when, relation)}
        read = {
            term.period.name
            for rule in self.rules
            for term in rule.due
            if isinstance(term.period, ColumnPeriod) and term.period.relation == relation
        }
        return tuple(sorted(compared | read))


class PolicyError(Exception):
    """The policy cannot be used; nothing was decided. Every fault is listed with its key."""


def _faults(errors: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line a fault; a list that is called empty only because its items were refused is left out."""
    places = [error["loc"] for error in errors]
    for error in errors:
        loc = error["loc"]
        if error["type"] != "too_short" or not any(len(p) > len(loc) and p[: len(loc)] == loc for p in places):
            yield _fault(error)


def _fault(error: Mapping[str, Any]) -> str:
    path = re.sub(r"\.(\d+)", r"[\1]", ".".join(str(part) for part in error["loc"])) or "(top level)"
    return f"{path}: {error['msg'].removeprefix('Value error, ')}"


def parse(text: str) -> Policy:
    """The policy that a TOML text expresses.

    Raises:
        PolicyError: with every fault of the text and its key.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"not TOML: {error}") from None
    try:
        return Policy.model_validate(raw, context=Names.of(raw))
    except ValidationError as error:
        raise PolicyError("\n".join(_faults(error.errors(include_url=False)))) from None

"""The policy as data: plans, purposes, rules, floors, training scope, other records. Strict, versioned by digest.

Invariant: what it accepts can be decided without a question left; every fault is named at once, with key.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, cast

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from sweeper import toml
from sweeper.errors import printable
from sweeper.policy import validation
from sweeper.policy.instant import OutOfRange, StoredTimestamp, aware
from sweeper.policy.period import Period, units_sql
from sweeper.policy.validation import classes, entries, table, texts
from sweeper.toml import INSTANT, TomlError, faults_of, matching

Scalar: TypeAlias = str | int | bool
Name = Annotated[
    str,
    matching(
        r"[a-z][a-z0-9_]{0,62}", "must be a name of small letters, digits and _, beginning with a letter, at most 63"
    ),
]
RESERVED = frozenset({"unclassified", "erasure_order", "legal_hold"})


class Anchor(StrEnum):
    """The instant from which a period runs."""

    LAST_ACTIVITY = "last_activity"
    CREATED = "created"
    DELETED = "deleted"
    CLOSED = "closed"
    FLAGGED = "flagged"
    CONSENT_ENDED = "consent_ended"


class Action(StrEnum):
    """What a rule does with a conversation that is due."""

    PURGE = "purge"
    REDACT = "redact"


class ConsentEpoch(StrEnum):
    """Where a conversation's last activity lies among the epochs of a purpose."""

    OPEN = "open"
    CLOSED = "closed"
    ANY = "any"
    NONE = "none"


@dataclass(frozen=True)
class Names:
    """The names a policy defines, gathered before validation so that every reference is checked in the one pass."""

    classes: Mapping[str, frozenset[str]]
    purposes: frozenset[str]
    rules: frozenset[str]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "Names":
        """The names in raw TOML, however malformed the rest is."""
        named = (texts(rule.get("name")) for _, rule in entries(raw, "rules"))
        return cls(classes(raw), frozenset(table(raw, "purposes")), frozenset().union(*named))

    def expand(self, names: frozenset[str]) -> frozenset[str]:
        """Plan names, with each class replaced by its plans."""
        return frozenset().union(*(self.classes.get(name, {name}) for name in names))

    @cached_property
    def plans(self) -> frozenset[str]:
        """Every plan of every class."""
        return frozenset().union(*self.classes.values())


def _names(info: ValidationInfo) -> Names:
    return cast(Names, info.context)


def _expanded(plans: frozenset[str], info: ValidationInfo) -> frozenset[str]:
    return _names(info).expand(plans)


def _known_plan(plan: str, info: ValidationInfo) -> str:
    if plan not in _names(info).plans and plan not in _names(info).classes:
        raise ValueError(f"{plan!r} is no plan or class of [plans]")
    return plan


def _known_purpose(purpose: str, info: ValidationInfo) -> str:
    if purpose not in _names(info).purposes:
        raise ValueError(f"{purpose!r} is no purpose of [purposes]")
    return purpose


def _known_rule(rule: str, info: ValidationInfo) -> str:
    if rule not in _names(info).rules:
        raise ValueError(f"{rule!r} is no rule of [[rules]]")
    return rule


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
    """An instant, or a text that can only be one: a date alone, a time alone and a number are not guessed at."""
    if isinstance(value, datetime) or (isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[Tt ]", value)):
        return value
    raise ValueError(INSTANT)


def _number(value: object) -> object:
    if type(value) is not int:
        raise ValueError("must be 1")
    return value


def _scalar(value: object) -> object:
    if not isinstance(value, str | int):
        raise ValueError("must be a text, a whole number, true or false")
    return value


def _of_one_type(values: object) -> object:
    """A column has one type; in a set, 1 would swallow true."""
    if isinstance(values, list) and len({type(value) for value in values}) > 1:
        raise ValueError("must be values of one type, that of the column")
    return values


def _free(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"{name!r} is a name the program uses itself")
    return name


Instant = Annotated[AwareDatetime, BeforeValidator(_given), AfterValidator(_utc)]
Plans = Annotated[
    frozenset[Annotated[str, AfterValidator(_known_plan)]],
    Field(min_length=1),
    BeforeValidator(_listed),
    AfterValidator(_expanded),
    PlainSerializer(sorted),
]
Words = Annotated[frozenset[str], Field(min_length=1), BeforeValidator(_listed), PlainSerializer(sorted)]
Values = Annotated[
    frozenset[Annotated[Scalar, PlainValidator(_scalar)]],
    Field(min_length=1),
    BeforeValidator(_of_one_type),
    BeforeValidator(_listed),
    PlainSerializer(lambda values: sorted(values, key=repr)),
]
_COLUMN = r"[A-Za-z_][A-Za-z0-9_]{0,62}"
Column = Annotated[
    str, matching(_COLUMN, "must be a column: letters, digits and _, beginning with no digit, at most 63")
]
Fixed = Annotated[Period, BeforeValidator(_parsed), PlainSerializer(str)]


class Strict(BaseModel):
    """A table of the file: no unknown key, no guessing between types, never changed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=False, arbitrary_types_allowed=True, use_attribute_docstrings=True
    )


class ColumnPeriod(Strict):
    """A period read from a further column of the store, for instance a retention setting of an organisation."""

    column: Annotated[
        str, matching(rf"(account|conversation)\.{_COLUMN}", "must be account.COLUMN or conversation.COLUMN")
    ]
    """`account.COLUMN` or `conversation.COLUMN`: a column of that relation which holds a whole number. NULL: this term
    names no due date."""
    unit: Literal["second", "minute", "hour", "day", "week", "month", "year"]
    """The unit of that number."""
    otherwise: Fixed | None = None
    """The period that applies where the column is NULL."""

    @property
    def relation(self) -> str:
        """`account` or `conversation`."""
        return self.column.partition(".")[0]

    @property
    def name(self) -> str:
        """The column's name within its relation."""
        return self.column.partition(".")[2]

    def is_usable(self, value: object) -> bool:
        """Return whether a stored value can be used: NULL or a whole number that is not negative."""
        return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)

    @property
    def usable_sql(self) -> str:
        """Return the same test of the column as SQL."""
        value = json_text(self.relation, self.name)
        return f"COALESCE({value} = 'null' OR {value} ~ '{_WHOLE}', true)"

    def period(self, value: object) -> Period | None:
        """Return the period of a usable value; `otherwise` for NULL."""
        return Period.of(value, self.unit) if isinstance(value, int) else self.otherwise

    def sql(self, instant: str, sign: Literal["+", "-"] = "+") -> str:
        """Return the SQL of the instant one period after (or before) another; NULL if no period is set or it is not usable."""
        value = json_text(self.relation, self.name)
        shifted = f"{instant} {sign} {units_sql(value, self.unit, sign)}"
        otherwise = self.otherwise.sql(instant, sign) if self.otherwise is not None else "CAST(NULL AS timestamptz)"
        return f"CASE WHEN {value} ~ '{_WHOLE}' THEN {shifted} WHEN COALESCE({value}, 'null') = 'null' THEN {otherwise} END"

    def __str__(self) -> str:
        return f"as many {self.unit}s as {self.column} says"


_WHOLE = "^[0-9]+$"


def json_text(relation: str, column: str) -> str:
    """Return the SQL of a further column of account `a` or conversation `c` as JSON text, which shows the type of the value."""
    return f'to_jsonb({relation[0]}."{column}")::text'


class Term(Strict):
    """One anchor and the period that runs from it."""

    anchor: Anchor
    """The instant from which the period runs."""
    period: Period | ColumnPeriod
    """A text such as `"30 days"`, `"5 years"`, `"0"` or `"forever"`, or a table that names a column."""

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
    """A condition on consent: where the last activity lies among the consent epochs of a purpose."""

    purpose: Annotated[str, AfterValidator(_known_purpose)]
    """A purpose of `[purposes]`."""
    epoch: ConsentEpoch
    """`open`: inside an epoch that lasts; `closed`: inside one that has ended; `any`: inside either; `none`: in no
    epoch."""


class When(Strict):
    """The conditions of a rule: all that are written must hold. Without any, the rule applies to every conversation."""

    any_plan: Plans | None = None
    """At least one of the plans in force during the conversation is among these plans or classes."""
    all_plans: Plans | None = None
    """All plans in force during the conversation are among these plans or classes."""
    kind: Words | None = None
    """The kind of the conversation, for instance `chat` or `coding_session`."""
    platform: Words | None = None
    """The platform, for instance `first_party`."""
    incognito: StrictBool | None = None
    """Whether the conversation is incognito."""
    zero_retention: StrictBool | None = None
    """Whether the conversation is marked zero-retention."""
    deleted: StrictBool | None = None
    """Whether the user has deleted the conversation and not restored it since."""
    closed: StrictBool | None = None
    """Whether the account is closed."""
    flagged: StrictBool | None = None
    """Whether safety review has flagged the conversation."""
    consent: Consent | None = None
    """Where the last activity lies among the consent epochs of a purpose."""
    conversation: dict[Column, Values] = Field(default_factory=dict)
    """Further columns of `conversations`, each with the values that satisfy the condition."""
    account: dict[Column, Values] = Field(default_factory=dict)
    """Further columns of `accounts`, each with the values that satisfy the condition."""
    unless: Annotated[tuple[Annotated[str, AfterValidator(_known_rule)], ...], BeforeValidator(_listed)] = ()
    """The rule does not apply where one of these rules does."""


class Rule(Strict):
    """When a rule applies to a conversation, and the due date that it names: the earliest of its terms."""

    name: Annotated[Name, AfterValidator(_free)]
    """The name that `explain`, reports and tombstones show."""
    because: str = Field(min_length=1)
    """The reason in words, as `explain` prints it."""
    when: When = When()
    """The conditions."""
    due: tuple[Term, ...] = Field(min_length=1)
    """The terms; the earliest of their dates is the rule's due date."""
    stands_unclassified: StrictBool = False
    """The rule applies even where plan or consent is in doubt, because it needs neither."""
    action: Action = Action.PURGE
    """`purge`: the conversation is deleted when it is due. `redact`: the columns of `[[purge.redact]]` in the settings are
    emptied, and the conversation stays until a rule that purges makes it due."""

    __hash__ = object.__hash__  # conditions are cached by rule; its tables are not hashable


class Floor(Strict):
    """A minimum retention: the due date is at least this, whatever the rules say."""

    name: Annotated[Name, AfterValidator(_free)]
    """The name that `explain`, reports and tombstones show."""
    because: str = Field(min_length=1)
    """The reason in words, as `explain` prints it."""
    anchor: Literal["flagged"]
    """The instant from which the period runs."""
    period: Fixed
    """The shortest retention from that instant."""


class Purpose(Strict):
    """What a consent is for."""

    plans: Plans
    """The plans and classes for which this purpose can be granted."""
    not_before: Instant | None = None
    """A grant takes effect no earlier than this."""
    undecided_after: Instant | None = None
    """A user who writes after this without ever having chosen is reported as an anomaly."""


class Plausible(Strict):
    """The range in which a timestamp of the store is trusted. A record with one outside it is unclassified and kept."""

    since: Instant = Field(alias="from")
    """The first trusted instant."""
    before: Instant
    """The first instant that is too late."""

    @field_validator("before")
    @classmethod
    def _in_order(cls, before: datetime, info: ValidationInfo) -> datetime:
        if "since" in info.data and info.data["since"] >= before:
            raise ValueError("must be later than from, or nothing would be believed")
        return before

    def holds(self, stored: StoredTimestamp) -> bool:
        """Whether the instant is set, finite and in the range."""
        return stored is not None and not isinstance(stored, OutOfRange) and self.since <= stored < self.before


class Training(Strict):
    """What may be trained on, beyond what consent requires."""

    platforms: Words
    """The platforms whose conversations may be trained on."""
    max_age: Fixed
    """A message older than this may not be trained on."""
    resumed: Literal["from_opt_in", "entire"] = "from_opt_in"
    """For a conversation resumed after the opt-in: `from_opt_in` admits only what was written since, `entire` all of
    it."""
    text: Literal["filtered", "as_written"] = "filtered"
    """`filtered`: text leaves the store only after sensitive data in it was replaced; `as_written`: unchanged."""


class FeedbackRule(Strict):
    """By when feedback of some kinds must be gone, counted from its submission. The earliest due date wins."""

    name: Annotated[Name, AfterValidator(_free)]
    """The name that reports and tombstones show."""
    because: str = Field(min_length=1)
    """The reason in words."""
    kinds: Words
    """The kinds of feedback, for instance `thumbs`."""
    submitted_before: Instant | None = None
    """The rule applies only to what was submitted before this instant."""
    period: Fixed
    """How long feedback is kept from its submission."""


class Policy(Strict):
    """The rules of one provider. Compared and cached by identity; its digest names the version."""

    format: Annotated[Literal[1], BeforeValidator(_number)]
    """The version of this format."""
    name: str = Field(min_length=1)
    """The name of the policy, as reports show it."""
    plausible: Plausible
    """The range in which a timestamp is trusted."""
    plans: dict[Name, Words] = Field(default_factory=dict)
    """Classes of plans, each with its plans. A plan that is in no class is unknown, and its conversations are kept."""
    purposes: dict[Name, Purpose] = Field(default_factory=dict)
    """What people can consent to."""
    every_rule: tuple[Rule, ...] = Field(alias="rules", min_length=1)
    """The retention rules. Each that applies names a due date; the earliest wins, and of equal ones the rule listed
    first. Those that purge and those that redact each name a due date of their own."""
    floors: tuple[Floor, ...] = ()
    """Minimum retention, applied after the rules."""
    training: Training | None = None
    """What may be trained on. Unset: nothing."""
    feedback: tuple[FeedbackRule, ...] = ()
    """The retention of feedback, which has its own clock."""
    feedback_without_transcript: Words | None = None
    """Kinds of feedback that must not carry a transcript; one that does is reported."""

    enforced: ClassVar[Action] = Action.PURGE
    """What the `rules` do."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    @cached_property
    def normal_form(self) -> str:
        """What the policy says, as JSON that `restore` reads; comments and the order of keys do not change it."""
        fields = self.model_dump(mode="json", by_alias=True)
        for rule in fields["rules"]:
            if rule["action"] == Action.PURGE:
                del rule["action"]  # the digest of a policy that only purges is that of earlier versions
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the normal form, in hex."""
        return hashlib.sha256(self.normal_form.encode()).hexdigest()

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that purge: what is decided under this policy is when a conversation must be gone."""
        return tuple(rule for rule in self.every_rule if rule.action is self.enforced)

    @cached_property
    def redacting(self) -> "Policy | None":
        """The policy whose `rules` are those that redact: under it is decided when content must be gone. None without such."""
        if all(rule.action is Action.PURGE for rule in self.every_rule):
            return None
        fields = {field.alias or name: getattr(self, name) for name, field in Policy.model_fields.items()}
        return _Redacting.model_construct(**fields)

    @cached_property
    def known_plans(self) -> frozenset[str]:
        """Every plan of every class."""
        return frozenset().union(*self.plans.values())

    @cached_property
    def by_name(self) -> Mapping[str, Rule]:
        """The rules by name."""
        return {rule.name: rule for rule in self.every_rule}

    @cached_property
    def uses_plans(self) -> bool:
        """Whether any decision depends on the plan history."""
        return bool(self.plans)

    @cached_property
    def uses_consent(self) -> bool:
        """Whether any retention decision depends on consent."""
        return any(rule.when.consent is not None for rule in self.every_rule)

    @cached_property
    def deadline(self) -> datetime | None:
        """The earliest instant after which a user must have chosen."""
        return min((p.undecided_after for p in self.purposes.values() if p.undecided_after is not None), default=None)

    @cached_property
    def purpose_of_plan(self) -> Mapping[str, str]:
        """The purpose that each plan belongs to, if any."""
        return {plan: name for name, purpose in self.purposes.items() for plan in purpose.plans}

    def columns(self, relation: Literal["account", "conversation"]) -> tuple[str, ...]:
        """The further columns of `accounts` or `conversations` that the rules look at."""
        compared = {column for rule in self.every_rule for column in getattr(rule.when, relation)}
        read = {
            term.period.name
            for rule in self.every_rule
            for term in rule.due
            if isinstance(term.period, ColumnPeriod) and term.period.relation == relation
        }
        return tuple(sorted(compared | read))


class _Redacting(Policy):
    """A policy whose `rules` are those that redact."""

    enforced: ClassVar[Action] = Action.REDACT

    __hash__ = object.__hash__


class PolicyError(Exception):
    """The policy cannot be used; nothing was decided. Every fault is listed with its key, on a line of its own."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(map(printable, faults)))


def parse(text: str) -> Policy:
    """The policy that a TOML text expresses.

    Raises:
        PolicyError: with every fault of the text and its key.
    """
    try:
        return checked(toml.parse(text), text)
    except TomlError as error:
        raise PolicyError(f"not TOML: {error}") from None


def restore(normal_form: str) -> Policy | None:
    """The policy of a normal form; None if this version of the program reads it differently or not at all."""
    try:
        policy = checked(json.loads(normal_form))
    except (PolicyError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return policy if policy.normal_form == normal_form else None


def checked(raw: Mapping[str, Any], text: str = "") -> Policy:
    """The policy that raw tables express; `text` is their file, for the lines of faults.

    Raises:
        PolicyError: with every fault of the tables and its key.
    """
    faults = list(validation.faults(raw))
    try:
        policy = Policy.model_validate(raw, context=Names.of(raw))
    except ValidationError as error:
        faults = [*faults_of(error, Policy, text), *faults]
    if faults:
        raise PolicyError(*(fault.line(raw) for fault in faults))
    return policy

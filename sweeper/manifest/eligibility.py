"""Which messages may be trained on, for a whole store at once: the policy's rules as SQL, for one as-of.

The law of this file: it says the same as `core/training.py`, message by message; a law tests it. Values are written into the
statements as literals, so that every client can run them as they are; nothing in them reads a clock.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from psycopg import sql

from sweeper.errors import ConfigurationError
from sweeper.policy.period import LONGEST, MONTHS, SECONDS, Period
from sweeper.policy.schema import Anchor, ColumnPeriod, Consent, ConsentEpoch, Policy, Rule, Term, Training, When
from sweeper.postgres.contract import Contract
from sweeper.postgres.statement import filled, source, spelling

NEVER = "CAST('infinity' AS timestamptz)"
CALENDAR_END = "CAST('10000-01-01T00:00:00Z' AS timestamptz)"
"""From here on an instant is never: no reader of a manifest could hold it."""
_LONGEST_MONTHS = 120_000


@dataclass(frozen=True)
class Eligibility:
    """The statements for one store, policy and as-of (UTC).

    With `ahead`, whatever excludes counts whatever its instant: a clock that ran ahead does not train anybody.
    """

    contract: Contract
    policy: Policy
    as_of: datetime
    ahead: bool = False

    @property
    def training(self) -> Training:
        """What may be trained on beyond consent.

        Raises:
            ConfigurationError: the policy trains on nothing.
        """
        if self.policy.training is None:
            raise ConfigurationError(
                f"policy {self.policy.name!r} has no [training]: nothing may be trained on under it, and no manifest was made. "
                "Write what may be trained on into [training], or build no manifest."
            )
        return self.policy.training

    def prepare(self) -> Iterator[str]:
        """Statements that lay out, in tables that end with the transaction, what is known of accounts and conversations."""
        yield source("manifest_memory")
        for name in ("stays", "epochs", "accounts", "conversations"):
            yield filled(f"manifest_{name}", **self._names[name])
            yield f"CREATE INDEX ON pg_temp.sweeper_{name} ({'id' if name == 'conversations' else 'account_id'})"
            yield f"ANALYZE pg_temp.sweeper_{name}"

    @cached_property
    def reasoned(self) -> str:
        """Every message that exists, with the first reason that bars it; once `prepare` was run in the same transaction."""
        return filled("manifest_reasoned", body="NULL", **self._names["messages"])

    def counts(self) -> str:
        """How many messages there are by reason; NULL: eligible."""
        return filled("manifest_counts", reasoned=self.reasoned)

    def rows(self, *, with_text: bool = False) -> str:
        """The eligible messages in total order; the text of a message leaves the store only where it is asked for."""
        names = {**self._names["messages"], "body": "m.body::text" if with_text else "NULL"}
        return filled(
            "manifest_rows",
            reasoned=filled("manifest_reasoned", **names),
            text=",\n       r.body AS text" if with_text else "",
            by_conversation=self._ordered("r.conversation_id", "messages", "conversation_id"),
            by_message=self._ordered("r.id", "messages", "id"),
        )

    def load(self) -> str:
        """Make the table into which the rows of a manifest are read, to be checked by `lost`."""
        return filled("manifest_load", type=self.contract.type("messages"))

    def lost(self, manifest_id: str, *, only_new: bool) -> str:
        """Of the rows that were read, those that may not be trained on, with reason and since when; or only new ones."""
        names = self._names["messages"]
        return filled(
            "manifest_lost",
            reasoned=self.reasoned,
            as_of=names["as_of"],
            store=names["store"],
            only_new="true" if only_new else "false",
            manifest_id=_literal(manifest_id),
        )

    def _ordered(self, expression: str, relation: str, column: str) -> str:
        """An order that no locale changes."""
        is_text = self.contract.type(relation, column) not in ("uuid", "bigint", "integer", "smallint")
        return f'{expression}::text COLLATE "C"' if is_text else expression

    @cached_property
    def _names(self) -> dict[str, dict[str, str]]:
        common = {
            "as_of": _instant(self.as_of),
            "ahead": "true" if self.ahead else "false",
            "store": _literal(self.contract.schema),
            "plausible_from": _instant(self.policy.plausible.since),
            "plausible_before": _instant(self.policy.plausible.before),
            "purposes": self._purposes,
        }
        recorded = "(e.recorded_at <= {as_of} OR {ahead} AND NOT e.granted)".format(**common)
        closed = "a.closed_at IS NOT NULL" if self.ahead else f"COALESCE(a.closed_at <= {common['as_of']}, false)"
        return {
            "stays": common,
            "epochs": {
                **common,
                "known": recorded,
                "closed_at": f"CASE WHEN {closed} THEN LEAST(a.closed_at, {common['as_of']}) END",
            },
            "accounts": {**common, "closed": closed, **self._account_names()},
            "conversations": {**common, **self._conversation_names()},
            "messages": {**common, **self._message_names()},
        }

    @property
    def _purposes(self) -> str:
        return _json(
            [
                {
                    "purpose": name,
                    "plans": sorted(purpose.plans),
                    "not_before": purpose.not_before.isoformat() if purpose.not_before else None,
                }
                for name, purpose in self.policy.purposes.items()
            ]
        )

    def _account_names(self) -> dict[str, str]:
        return {
            "purpose_names": _texts(sorted(self.policy.purposes)),
            "plan_doubt": "pd.account_id IS NOT NULL" if self.policy.uses_plans else "false",
            "consent_doubt": "cd.account_id IS NOT NULL" if self.policy.purposes else "false",
            "columns": _further("a", self.policy.columns("account")),
        }

    def _conversation_names(self) -> dict[str, str]:
        as_of = _instant(self.as_of)
        purposes = self._asked_purposes
        columns = [f"e{n}.opened AS opened_{n}, e{n}.closed AS closed_{n}" for n in range(len(purposes))]
        joins = [
            f"LEFT JOIN pg_temp.sweeper_epochs e{n} ON e{n}.account_id = c.account_id AND e{n}.side = 'retention' "
            f"AND e{n}.purpose = {_literal(purpose)} AND e{n}.opened < c.last_activity_at "
            f"AND (e{n}.closed IS NULL OR c.last_activity_at < e{n}.closed)"
            for n, purpose in enumerate(purposes)
        ]
        return {
            "account_spelling": spelling("c.account_id", self.contract.type("conversations", "account_id")),
            "conversation_spelling": spelling("c.id", self.contract.type("conversations")),
            "created_believed": self._believed("o.created_at"),
            "created_plausible": self._believed("d.created_at"),
            "known_plans": _texts(sorted(self.policy.known_plans)),
            "columns": _further("c", self.policy.columns("conversation")),
            "epoch_columns": "".join(f",\n           {column}" for column in columns),
            "epoch_joins": "".join(f"\n    {join}" for join in joins),
            "copies": "count(*) OVER (PARTITION BY c.id)" if self.contract.unkeyed else "1",
            "distinct": " DISTINCT ON (d.id)" if self.contract.unkeyed else "",
            "doubt": " OR ".join(self._doubts()),
            "due": self._due(),
            "whole": "true" if self.training.resumed == "entire" else "false",
            "purpose_plans": self._plans_of("d.purpose"),
            "deleted": "d.deleted_at IS NOT NULL" if self.ahead else f"COALESCE(d.deleted_at <= {as_of}, false)",
            "flagged": "d.flagged_at IS NOT NULL" if self.ahead else f"COALESCE(d.flagged_at <= {as_of}, false)",
            "platforms": _texts(sorted(self.training.platforms)),
        }

    def _message_names(self) -> dict[str, str]:
        believed = self._believed("m.created_at")
        cap = _after("m.created_at", self.training.max_age)
        return {
            "believed": f"COALESCE({believed}, false)",
            "capped": f"CASE WHEN {believed} AND {cap} < {CALENDAR_END} THEN {cap} END",
            "purpose_plans": self._plans_of("a.purpose"),
        }

    @cached_property
    def _asked_purposes(self) -> list[str]:
        """The purposes whose epochs some rule asks for."""
        return sorted({rule.when.consent.purpose for rule in self.policy.rules if rule.when.consent is not None})

    def _plans_of(self, purpose: str) -> str:
        """The plans that a purpose belongs to."""
        whens = [
            f"WHEN {_literal(name)} THEN {_texts(sorted(known.plans))}" for name, known in self.policy.purposes.items()
        ]
        return f"CASE {purpose} {' '.join(whens)} ELSE CAST('{{}}' AS text[]) END" if whens else "CAST('{}' AS text[])"

    def _believed(self, instant: str) -> str:
        plausible = self.policy.plausible
        return f"({instant} >= {_instant(plausible.since)} AND {instant} < {_instant(plausible.before)})"

    def _doubts(self) -> Iterator[str]:
        """Why a conversation is unclassified, as conditions on `base`."""
        yield from ("b.known_account IS NULL", "b.doubtful", "b.copies > 1")
        yield from (f"b.{column} IS NULL" for column in ("platform", "incognito", "zero_retention"))
        for column in ("deleted_at", "restored_at", "flagged_at"):
            yield f"NOT COALESCE({self._believed(f'b.{column}')}, b.{column} IS NULL)"
        yield from (
            f"NOT COALESCE({self._believed(f'b.{column}')}, false)" for column in ("created_at", "last_activity_at")
        )
        yield "b.last_activity_at < b.created_at"
        if self.policy.uses_plans:
            yield from ("b.covered IS NOT TRUE", "b.unknown")
        for rule in self.policy.rules:
            for term in rule.due:
                if isinstance(term.period, ColumnPeriod):
                    yield f"({self._applies(rule)} AND NOT {_usable(term.period)})"

    def _due(self) -> str:
        """The earliest due of the rules that apply; infinity is never, NULL is none."""
        dues = [f"CASE WHEN {self._applies(rule)} THEN {self._earliest(rule)} END" for rule in self.policy.rules]
        return f"LEAST({', '.join(dues)})"

    def _earliest(self, rule: Rule) -> str:
        return f"LEAST({', '.join(self._term(rule, term) for term in rule.due)})"

    def _term(self, rule: Rule, term: Term) -> str:
        anchor = self._anchor(term.anchor, rule)
        due = _after(anchor, term.period) if isinstance(term.period, Period) else _after_column(anchor, term.period)
        before = _instant(self.policy.plausible.before)
        return f"CASE WHEN {self._believed(anchor)} THEN CASE WHEN {due} >= {before} THEN {NEVER} ELSE {due} END END"

    def _anchor(self, anchor: Anchor, rule: Rule) -> str:
        if anchor is Anchor.CONSENT_ENDED and rule.when.consent is not None:
            return f"b.closed_{self._asked_purposes.index(rule.when.consent.purpose)}"
        return f"b.{anchor.value}_at"

    def _applies(self, rule: Rule) -> str:
        own = " AND ".join(self._conditions(rule.when)) or "true"
        others = [self._applies(self.policy.by_name[other]) for other in rule.when.unless]
        return f"({' AND '.join([own, *(f'({other}) IS NOT TRUE' for other in others)])})"

    def _conditions(self, when: When) -> Iterator[str]:
        as_of = _instant(self.as_of)
        for column, wanted in (("incognito", when.incognito), ("zero_retention", when.zero_retention)):
            if wanted is not None:
                yield f"b.{column} IS {'TRUE' if wanted else 'FALSE'}"
        for column, words in (("kind", when.kind), ("platform", when.platform)):
            if words is not None:
                yield f"b.{column} = ANY({_texts(sorted(words))})"
        deleted = f"b.deleted_at <= {as_of} AND (b.restored_at IS NULL OR b.restored_at < b.deleted_at)"
        reached = (
            (when.deleted, deleted),
            (when.closed, f"b.closed_at <= {as_of}"),
            (when.flagged, f"b.flagged_at <= {as_of}"),
        )
        for wanted, condition in reached:
            if wanted is not None:
                yield f"({condition}) IS {'TRUE' if wanted else 'NOT TRUE'}"
        for holder, columns in (("conversation", when.conversation), ("account", when.account)):
            for column, values in columns.items():
                listed = _texts(sorted(json.dumps(value, ensure_ascii=False) for value in values))
                yield f"(b.{holder}_columns -> {_literal(column)})::text = ANY({listed})"
        yield from self._history_conditions(when)

    def _history_conditions(self, when: When) -> Iterator[str]:
        if when.any_plan is not None:
            yield f"b.plans && {_texts(sorted(when.any_plan))}"
        if when.all_plans is not None:
            yield f"(cardinality(b.plans) > 0 AND b.plans <@ {_texts(sorted(when.all_plans))})"
        if when.consent is not None:
            yield self._state(when.consent)

    def _state(self, consent: Consent) -> str:
        number = self._asked_purposes.index(consent.purpose)
        states = {
            ConsentEpoch.OPEN: f"b.opened_{number} IS NOT NULL AND b.closed_{number} IS NULL",
            ConsentEpoch.CLOSED: f"b.closed_{number} IS NOT NULL",
            ConsentEpoch.ANY: f"b.opened_{number} IS NOT NULL",
            ConsentEpoch.NONE: f"b.opened_{number} IS NULL",
        }
        return f"({states[consent.epoch]})"


def _after(anchor: str, period: Period) -> str:
    """The instant one period after an anchor, in a session whose time zone is UTC."""
    if period.forever:
        return NEVER
    return f"({anchor} + make_interval(months => {period.months}, secs => {period.seconds}))"


def _value(source: ColumnPeriod) -> str:
    return f"(b.{source.relation}_columns -> {_literal(source.name)})::text"


def _usable(source: ColumnPeriod) -> str:
    """Whether the column says a period or none: a whole number, not negative."""
    return f"COALESCE({_value(source)} = 'null' OR {_value(source)} ~ '^[0-9]+$', true)"


def _after_column(anchor: str, source: ColumnPeriod) -> str:
    """The instant after a period that a column holds; NULL where it holds none and nothing stands in for it."""
    size, longest = (MONTHS, _LONGEST_MONTHS) if source.unit in MONTHS else (SECONDS, LONGEST)
    whole = f"CAST({_value(source)} AS numeric) * {size[source.unit]}"
    part = "months => CAST({} AS integer)" if source.unit in MONTHS else "secs => CAST({} AS double precision)"
    otherwise = _after(anchor, source.otherwise) if source.otherwise is not None else "CAST(NULL AS timestamptz)"
    return (
        f"CASE WHEN {_value(source)} ~ '^[0-9]+$' THEN CASE WHEN {whole} > {longest} THEN {NEVER} "
        f"ELSE {anchor} + make_interval({part.format(whole)}) END "
        f"WHEN COALESCE({_value(source)}, 'null') = 'null' THEN {otherwise} END"
    )


def _further(alias: str, columns: Sequence[str]) -> str:
    pairs = ", ".join(f'{_literal(name)}, {alias}."{name}"' for name in columns)
    return f"jsonb_build_object({pairs})" if pairs else "CAST('{}' AS jsonb)"


def _literal(value: str | Sequence[str]) -> str:
    return sql.Literal(value).as_string(None)


def _instant(instant: datetime) -> str:
    return f"CAST({_literal(instant.isoformat())} AS timestamptz)"


def _texts(values: Sequence[str]) -> str:
    return f"CAST({_literal(list(values))} AS text[])"


def _json(value: object) -> str:
    return f"CAST({_literal(json.dumps(value))} AS jsonb)"

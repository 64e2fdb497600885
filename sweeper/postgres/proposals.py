"""SQL proposes: builds the one proposing statement of a policy from its probes, and pages through what it finds.

The law of this file: it may propose too much, never too little, and never holds more than one page of proposals.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any, Literal

from sqlalchemy import Connection, TextClause, text

from sweeper.policy.evaluate import Proposal
from sweeper.policy.probe import SLACK, Probe, floor_since, latest, probes
from sweeper.policy.schema import Anchor, ColumnPeriod, ConsentEpoch, Policy, Rule, When
from sweeper.policy.window import EVERYTHING, Window
from sweeper.postgres.contract import Contract
from sweeper.postgres.database import Database
from sweeper.postgres.statement import filled, spelling, statement

ACCOUNTS_PER_RANGE = 20_000
ORDERS_PER_RANGE = 100_000
PROPOSALS_PER_PAGE = 5_000

_LEAST_SECONDS = {
    "month": 28 * 86_400,
    "year": 365 * 86_400,
    "week": 604_800,
    "day": 86_400,
    "hour": 3_600,
    "minute": 60,
}
"""No unit is shorter than this: a bound made with it never cuts off too much."""
_LONGEST_SECONDS = 60_000_000_000
"""Counted back from as-of this still is an instant that PostgreSQL can hold, long before any that is believed."""
_UUID = "{0} LIKE '________-____-____-____-____________' AND translate({0}, '0123456789abcdef', '') = '----'"
"""That a text is a uuid as PostgreSQL writes it: a fifth of what a regular expression costs."""
_WHOLE = "^(0|-?[1-9][0-9]{0,18})$"
_LARGEST = {"bigint": 2**63 - 1, "integer": 2**31 - 1, "smallint": 2**15 - 1}
_TEXTUAL = frozenset({"text", "character varying"})


@dataclass(frozen=True)
class AccountRange:
    """A range of account keys: above `low`, up to `high`; None is no bound. `orphaned`: conversations of no account at all."""

    low: str | None = None
    high: str | None = None
    orphaned: bool = False

    def covers(self, column: str, type_: str) -> str:
        """The range as a condition on a column."""
        if self.orphaned:
            return f"{column} IS NULL"
        bounds = [f"{column} > CAST(:low AS {type_})"] if self.low is not None else []
        if self.high is not None:
            bounds.append(f"{column} <= CAST(:high AS {type_})")
        return " AND ".join(bounds) or f"{column} IS NOT NULL"


@dataclass(frozen=True)
class OrderRange:
    """A range of the names that due erasure orders give: above `low`, up to `high`; None is no bound.

    `named` is the column that names: a conversation, or an account where the order names no conversation.
    """

    named: Literal["conversation_id", "account_id"]
    low: str | None = None
    high: str | None = None

    @property
    def condition(self) -> str:
        """The range as a condition on `sweeper.erasure_orders o`."""
        bounds = [f"o.{self.named} > CAST(:low AS text)"] if self.low is not None else [f"o.{self.named} IS NOT NULL"]
        bounds += [f"o.{self.named} <= CAST(:high AS text)"] if self.high is not None else []
        bounds += ["o.conversation_id IS NULL"] if self.named == "account_id" else []
        return " AND ".join(bounds)


@dataclass(frozen=True)
class Page:
    """Some proposals, in the order of account and id; those under a known hold are apart: they are read, never locked."""

    free: tuple[Proposal, ...]
    held: tuple[Proposal, ...]


@dataclass
class _Sql:
    """Conditions under construction with their parameters."""

    parameters: dict[str, Any] = field(default_factory=dict)

    def bound(self, value: Any, type_: str) -> str:
        """A new parameter holding `value`, cast to the type."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"CAST(:{name} AS {type_})"


@dataclass(frozen=True)
class Selector:
    """Proposes the conversations (and feedback) that may be due at `as_of` (UTC) under a policy, with a due in the window."""

    database: Database
    contract: Contract
    policy: Policy
    as_of: datetime
    window: Window = EVERYTHING
    accounts_per_range: int = ACCOUNTS_PER_RANGE
    proposals_per_page: int = PROPOSALS_PER_PAGE
    orders_per_range: int = ORDERS_PER_RANGE

    def pages(self) -> Iterator[Page]:
        """All proposals, page by page, each in a short transaction of its own; on both sides of a gap some may come twice."""
        for part in self.window.parts():
            yield from replace(self, window=part)._pages()

    def _pages(self) -> Iterator[Page]:
        """By ranges of accounts what orders do not name, then by ranges of orders what they name.

        The number of orders so costs one pass over those that are due, not one for each range of accounts. An order that is
        withdrawn between the two passes can leave what it named to the next run.
        """
        ranges: tuple[Iterator[AccountRange | OrderRange], ...] = (
            self.ranges(),
            self._order_ranges("conversation_id"),
            self._order_ranges("account_id"),
        )
        for range_ in chain.from_iterable(ranges):
            after: tuple[str | None, str] | None = None
            while True:
                rows = self._page(range_, after)
                proposals = [(Proposal(r.account_id, r.id, r.last_activity_at, r.deleted_at), r.held) for r in rows]
                if proposals:
                    yield Page(tuple(p for p, held in proposals if not held), tuple(p for p, held in proposals if held))
                if len(rows) < self.proposals_per_page:
                    break
                after = (rows[-1].account_id, rows[-1].id)

    def ranges(self) -> Iterator[AccountRange]:
        """Ranges that together cover every conversation, one after the other."""
        low: str | None = None
        while True:
            high = self._range_end(low)
            yield AccountRange(low, high)
            if high is None:
                break
            low = high
        yield AccountRange(orphaned=True)

    def _order_ranges(self, named: Literal["conversation_id", "account_id"]) -> Iterator[OrderRange]:
        """Ranges that together cover every erasure order whose date has come."""
        low: str | None = None
        while True:
            sql = statement("order_range", named=named, orders=OrderRange(named, low).condition)
            asked = {"low": low, "names": self.orders_per_range - 1, "as_of": self.as_of, "store": self.contract.schema}
            found = self.database.fetched(sql, asked)
            high = found[0].name if found else None
            yield OrderRange(named, low, high)
            if high is None:
                return
            low = high

    def feedback(self) -> Iterator[list[str]]:
        """Keys of the feedback rows that may be due, page by page: by their age, then by orders."""
        if self.policy.feedback:
            yield from self._feedback_pages(self._aged_feedback)
            yield from self._feedback_pages(self._ordered_feedback)

    def _feedback_pages(self, probe: tuple[str, dict[str, Any]]) -> Iterator[list[str]]:
        after: str | None = None
        while True:
            ids = self._feedback_page(probe, after)
            if ids:
                yield ids
            if len(ids) < self.proposals_per_page:
                return
            after = ids[-1]

    def explain(self, connection: Connection, range_: AccountRange | None = None) -> str:
        """The plan of the proposing statement, for a test or a DBA who wants to see the indexes it uses."""
        sql, parameters = self._proposing(range_ or AccountRange(), None)
        connection.execute(statement("plan_by_key"))
        rows = connection.execute(text(f"EXPLAIN (COSTS OFF) {sql.text}"), parameters)
        return "\n".join(row[0] for row in rows)

    def _page(self, range_: AccountRange | OrderRange, after: tuple[str | None, str] | None) -> Sequence[Any]:
        sql, parameters = self._proposing(range_, after)

        def propose(connection: Connection) -> Sequence[Any]:
            if not isinstance(range_, OrderRange):
                connection.execute(statement("plan_by_key"))
            return connection.execute(sql, parameters).all()

        return self.database.within(propose)

    def _range_end(self, low: str | None) -> str | None:
        after = f"a.id > CAST(:low AS {self.contract.type('accounts')})" if low is not None else "true"
        rows = self.database.fetched(
            statement("account_range", after=after), {"low": low, "accounts": self.accounts_per_range - 1}
        )
        return rows[0].id if rows else None

    def _feedback_page(self, probe: tuple[str, dict[str, Any]], after: str | None) -> list[str]:
        sql, parameters = probe
        where = f"f.id > CAST(:after AS {self.contract.type('feedback')})" if after is not None else "true"
        asked = {
            **parameters,
            "after": after,
            "as_of": self.as_of,
            "store": self.contract.schema,
            "limit": self.proposals_per_page,
        }
        return [row.id for row in self.database.fetched(statement("propose_feedback", probe=sql, after=where), asked)]

    @cached_property
    def _aged(self) -> tuple[list[str], dict[str, Any]]:
        """For each rule of feedback that anything can be due by, its condition on `feedback f`."""
        sql, found = _Sql(), []
        for rule in self.policy.feedback:
            horizon = latest(rule.period, self.as_of)
            if horizon is not None:
                kinds, until = sql.bound(sorted(rule.kinds), "text[]"), sql.bound(horizon, "timestamptz")
                found.append(f"f.kind = ANY({kinds}) AND f.submitted_at <= {until}")
        return found or ["false"], sql.parameters

    @property
    def _aged_feedback(self) -> tuple[str, dict[str, Any]]:
        conditions, parameters = self._aged
        return "\nUNION\n".join(f"SELECT f.id FROM feedback f WHERE {one}" for one in conditions), parameters  # noqa: S608 — parameters only

    @property
    def _ordered_feedback(self) -> tuple[str, dict[str, Any]]:
        conditions, parameters = self._aged
        return filled(
            "propose_feedback_by_order",
            aged=" OR ".join(f"({one})" for one in conditions),
            names_conversation=exactly(
                "o.conversation_id", "f.conversation_id", self.contract.type("feedback", "conversation_id")
            ),
            names_account=exactly("o.account_id", "f.account_id", self.contract.type("feedback", "account_id")),
        ), parameters

    def _proposing(
        self, range_: AccountRange | OrderRange, after: tuple[str | None, str] | None
    ) -> tuple[TextClause, dict[str, Any]]:
        """The statement for one page and its parameters."""
        account, conversation = self.contract.type("conversations", "account_id"), self.contract.type("conversations")
        sql = _Sql()
        if isinstance(range_, OrderRange):
            found, histories = [self._by_order(range_)], ""
        else:
            found = list(self._probes(range_, sql))
            histories = "" if range_.orphaned or not self._needs_histories else self._histories(range_)
        built = filled(
            "propose",
            histories=histories,
            probes="\nUNION\n".join(found) or _NOTHING,
            others=" AND ".join(self._left_to_others(range_)),
            after=self._beyond(after, sql),
            account_spelling=spelling("p.account_id", account),
            conversation_spelling=spelling("p.id", conversation),
        )
        parameters = {
            **sql.parameters,
            "as_of": self.as_of,
            "store": self.contract.schema,
            "limit": self.proposals_per_page,
            "low": range_.low,
            "high": range_.high,
            "plausible_from": self.policy.plausible.since,
            "purposes": self._purposes,
        }
        return text(built), parameters

    def _by_order(self, range_: OrderRange) -> str:
        column = "id" if range_.named == "conversation_id" else "account_id"
        return filled(
            "propose_by_order",
            orders=range_.condition,
            named=range_.named,
            names=exactly("o.name", f"c.{column}", self.contract.type("conversations", column)),
        )

    def _left_to_others(self, range_: AccountRange | OrderRange) -> Iterator[str]:
        """What keeps a range from proposing what another one does: orders of a conversation first, then those of an account."""
        yield "true"
        if not (isinstance(range_, OrderRange) and range_.named == "conversation_id"):
            yield _is_unnamed("o.conversation_id = p.id::text")
        if not isinstance(range_, OrderRange):
            yield _is_unnamed("o.conversation_id IS NULL AND o.account_id = p.account_id::text")

    def _beyond(self, after: tuple[str | None, str] | None, sql: _Sql) -> str:
        """The condition that a proposal comes after another; those of no account come last."""
        if after is None:
            return ""
        id_ = sql.bound(after[1], self.contract.type("conversations"))
        if after[0] is None:
            return f"AND p.account_id IS NULL AND p.id > {id_}"
        account = sql.bound(after[0], self.contract.type("conversations", "account_id"))
        return f"AND ((p.account_id, p.id) > ({account}, {id_}) OR p.account_id IS NULL)"

    @cached_property
    def _needs_histories(self) -> bool:
        return any(probe.needs_history for probe in self._searches)

    @cached_property
    def _searches(self) -> tuple[Probe, ...]:
        return tuple(probes(self.policy, self.window.horizon(self.as_of), self.window.since))

    def _histories(self, range_: AccountRange) -> str:
        return filled(
            "propose_histories",
            accounts=range_.covers("a.id", self.contract.type("accounts")),
            plan_changes=range_.covers("p.account_id", self.contract.type("plan_changes", "account_id")),
            consent_events=range_.covers("e.account_id", self.contract.type("consent_events", "account_id")),
        )

    @cached_property
    def _purposes(self) -> str:
        """The purposes as JSON, with one of no name and no plans that every account is always outside of."""
        named = [
            {
                "purpose": name,
                "plans": sorted(purpose.plans),
                "not_before": purpose.not_before.isoformat() if purpose.not_before else None,
            }
            for name, purpose in self.policy.purposes.items()
        ]
        return json.dumps([*named, {"purpose": "", "plans": [], "not_before": None}])

    def _probes(self, range_: AccountRange, sql: _Sql) -> Iterator[str]:
        conversations = range_.covers("c.account_id", self.contract.type("conversations", "account_id"))
        for probe in self._searches:
            conditions = " AND ".join(self._conditions(probe, sql)) or "true"
            horizon = self._horizon(probe, sql)
            if probe.needs_history:
                if not range_.orphaned:
                    yield self._by_history(probe, sql, conditions, horizon)
            elif _needs_account(probe):
                yield from self._without_account(probe, conversations, conditions, sql)
                if not range_.orphaned:
                    accounts = range_.covers("a.id", self.contract.type("accounts"))
                    yield filled(
                        "propose_by_account",
                        accounts=accounts,
                        anchor=_ANCHORS[probe.anchor],
                        horizon=horizon,
                        conditions=conditions,
                    )
            else:
                yield filled(
                    "propose_by_conversation",
                    conversations=conversations,
                    anchor=_ANCHORS[probe.anchor],
                    horizon=horizon,
                    conditions=conditions,
                )

    def _without_account(self, probe: Probe, conversations: str, conditions: str, sql: _Sql) -> Iterator[str]:
        """Where the account that should say the period is gone, the one named as `otherwise` counts."""
        if probe.column is None or probe.column.otherwise is None or probe.when.account or probe.when.closed:
            return
        before = latest(probe.column.otherwise, self.window.horizon(self.as_of))
        if probe.anchor is not Anchor.CLOSED and before is not None:
            yield filled(
                "propose_by_conversation",
                conversations=f"{conversations} AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.id = c.account_id)",  # noqa: S608 — no value in it
                anchor=_ANCHORS[probe.anchor],
                horizon=sql.bound(before, "timestamptz"),
                conditions=conditions,
            )

    def _by_history(self, probe: Probe, sql: _Sql, conditions: str, horizon: str) -> str:
        plans = probe.when.any_plan or probe.when.all_plans
        states = [state.value for state in (ConsentEpoch.OPEN, ConsentEpoch.CLOSED, ConsentEpoch.NONE)]
        purpose = ""
        if probe.consent is not None:
            purpose = probe.consent.purpose
            states = [state for state in states if probe.consent.epoch.admits(ConsentEpoch(state))]
        epoch = f"epoch.purpose = {sql.bound(purpose, 'text')} AND epoch.state = ANY({sql.bound(states, 'text[]')})"
        of_conversation = probe.column is not None and probe.column.relation == "conversation"
        if probe.anchor is not Anchor.LAST_ACTIVITY or of_conversation:
            anchor = "epoch.closed" if probe.anchor is Anchor.CONSENT_ENDED else _ANCHORS[probe.anchor]
            conditions += f" AND {anchor} <= {horizon}"
            horizon = "CAST('infinity' AS timestamptz)"
        return filled(
            "propose_by_history",
            plans=f"s.plan = ANY({sql.bound(sorted(plans), 'text[]')})" if plans else "true",
            epoch=epoch,
            join_accounts="JOIN accounts a ON a.id = stay.account_id" if _needs_account(probe) else "",
            horizon=horizon,
            conditions=conditions,
        )

    def _conditions(self, probe: Probe, sql: _Sql) -> Iterator[str]:
        """What of a rule's conditions can be searched; the rest is left to `decide`."""
        when = probe.when
        for column, wanted in (("incognito", when.incognito), ("zero_retention", when.zero_retention)):
            if wanted is not None:
                yield f"c.{column}" if wanted else f"NOT c.{column}"
        for column, words in (("kind", when.kind), ("platform", when.platform)):
            if words is not None:
                yield f"c.{column} = ANY({sql.bound(sorted(words), 'text[]')})"
        for alias, columns in (("c", when.conversation), ("a", when.account)):
            for column, values in columns.items():
                listed = sql.bound(json.dumps(sorted(values, key=repr)), "jsonb")
                yield f'to_jsonb({alias}."{column}") IN (SELECT jsonb_array_elements({listed}))'
        if when.closed:
            yield "a.closed_at <= :as_of"
        if probe.floor is not None:
            anchor = "epoch.closed" if probe.anchor is Anchor.CONSENT_ENDED else _ANCHORS[probe.anchor]
            yield f"({anchor} >= {sql.bound(probe.floor, 'timestamptz')} OR c.flagged_at IS NOT NULL)"
        since = floor_since(self.policy, self.window.horizon(self.as_of))
        if since is not None:
            yield f"(c.flagged_at > {sql.bound(since, 'timestamptz')} AND c.flagged_at <= :as_of) IS NOT TRUE"
        if probe.spared_by is not None and probe.consent is not None:
            yield self._beside(
                probe.spared_by, probe.consent.epoch, self.policy.purposes[probe.consent.purpose].plans, sql
            )

    def _beside(self, spared_by: Rule, state: ConsentEpoch, plans: frozenset[str], sql: _Sql) -> str:
        """Where, inside an epoch of a purpose of `plans`, the rule yielded to may still not apply. Doubt: everywhere."""
        when = spared_by.when
        known = When.model_construct(
            all_plans=when.all_plans,
            any_plan=when.any_plan,
            kind=when.kind,
            platform=when.platform,
            consent=when.consent,
        )
        if when.model_dump() != known.model_dump():
            return "true"
        wanted = [named for named in (when.any_plan, when.all_plans) if named is not None]
        if any(state is ConsentEpoch.NONE or not plans <= named for named in wanted):
            return "true"  # outside an epoch nothing is known of the plan; inside, it is one of the purpose's
        outside = [
            f"(c.{column} = ANY({sql.bound(sorted(words), 'text[]')})) IS NOT TRUE"
            for column, words in (("kind", when.kind), ("platform", when.platform))
            if words is not None
        ]
        if when.all_plans is not None:
            outside.append("c.created_at < epoch.entered_at")
        return f"({' OR '.join(outside)})" if outside else "false"

    def _horizon(self, probe: Probe, sql: _Sql) -> str:
        if probe.column is None:
            return sql.bound(probe.horizon, "timestamptz")
        return self._column_horizon(probe.column, sql)

    def _column_horizon(self, source: ColumnPeriod, sql: _Sql) -> str:
        """The latest anchor that may be due under a period read from a column; NULL (never found) where it is unusable."""
        alias = "a" if source.relation == "account" else "c"
        value = f'({alias}."{source.name}")::text'
        least = _LEAST_SECONDS.get(source.unit, 1)
        seconds = f"CASE WHEN {value} ~ '^[0-9]{{1,12}}$' THEN LEAST(CAST({value} AS numeric) * {least}, {_LONGEST_SECONDS}) END"
        if source.otherwise is not None and not source.otherwise.forever:
            otherwise = min(
                source.otherwise.months * _LEAST_SECONDS["month"] + source.otherwise.seconds, _LONGEST_SECONDS
            )
            seconds = f"CASE WHEN {value} IS NULL THEN {otherwise} ELSE {seconds} END"
        return (
            f"(CAST(:as_of AS timestamptz) - CAST({seconds} AS double precision) * interval '1 second' "
            f"+ {sql.bound(SLACK, 'interval')})"
        )


_NOTHING = "SELECT c.account_id, c.id, c.last_activity_at, c.deleted_at FROM conversations c WHERE false"
"""Where no rule can reach a range: conversations of no account under a policy that asks for plans in every rule."""
_ANCHORS = {
    Anchor.LAST_ACTIVITY: "c.last_activity_at",
    Anchor.CREATED: "c.created_at",
    Anchor.DELETED: "c.deleted_at",
    Anchor.FLAGGED: "c.flagged_at",
    Anchor.CLOSED: "a.closed_at",
}


def _is_unnamed(names: str) -> str:
    """That no erasure order whose date has come names a proposal; asked of an index row by row, never by reading all orders."""
    due = "o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store)"
    return f"(SELECT true FROM sweeper.erasure_orders o WHERE {names} AND {due} ORDER BY o.due_at LIMIT 1) IS NULL"  # noqa: S608 — no value in it


def _needs_account(probe: Probe) -> bool:
    reads = probe.column is not None and probe.column.relation == "account"
    return probe.anchor is Anchor.CLOSED or bool(probe.when.closed) or bool(probe.when.account) or reads


def exactly(order_column: str, key: str, type_: str) -> str:
    """How an order's text finds a key that is written exactly so: by its index, without a cast that a bad text breaks."""
    if type_ in _TEXTUAL:
        return f"{key} = {order_column}"
    if type_ == "uuid":
        return f"{key} = CASE WHEN {_UUID.format(order_column)} THEN CAST({order_column} AS uuid) END"
    if type_ in _LARGEST:
        number = f"CASE WHEN {order_column} ~ '{_WHOLE}' THEN CAST({order_column} AS numeric) END"
        largest = _LARGEST[type_]
        return (
            f"{key} = CASE WHEN {number} BETWEEN {-largest - 1} AND {largest} THEN CAST({order_column} AS {type_}) END"
        )
    return f"{key}::text = {order_column}"

"""Builds the proposing statement of a policy from its rules, and pages through the proposals.

Invariant: it may propose too much, never too little, and never holds more than one page of proposals.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any, Literal

from sqlalchemy import Connection, TextClause, text

from sweeper.policy.conditions import ANCHORS, LAST_ACTIVITY, PlanCondition, Writer, conditions, searched_purpose
from sweeper.policy.evaluate import Proposal
from sweeper.policy.history import View
from sweeper.policy.period import NEVER, SLACK, Period
from sweeper.policy.schema import ColumnPeriod, Policy, Rule, Term
from sweeper.policy.window import EVERYTHING, Window
from sweeper.postgres.contract import Contract
from sweeper.postgres.database import Database
from sweeper.postgres.histories import history_sql
from sweeper.postgres.related_tables import TEXTUAL
from sweeper.postgres.statement import filled, spelling, statement

ACCOUNTS_PER_RANGE = 20_000
ORDERS_PER_RANGE = 100_000
PROPOSALS_PER_PAGE = 5_000

_UUID = "{0} LIKE '________-____-____-____-____________' AND translate({0}, '0123456789abcdef', '') = '----'"
"""That a text is a uuid as PostgreSQL writes it: a fifth of what a regular expression costs."""
_WHOLE = "^(0|-?[1-9][0-9]{0,18})$"
_LARGEST = {"bigint": 2**63 - 1, "integer": 2**31 - 1, "smallint": 2**15 - 1}


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
    """A page of proposals in the order of account and id. Those under a known hold are separate: they are read, never locked."""

    free: tuple[Proposal, ...]
    held: tuple[Proposal, ...]


@dataclass
class _Sql:
    """Conditions under construction with their parameters."""

    parameters: dict[str, Any] = field(default_factory=dict)
    _names: dict[tuple[str, str], str] = field(default_factory=dict)

    def bound(self, value: Any, type_: str) -> str:
        """Return a parameter with the value, cast to the type. Equal values of one type share a parameter."""
        name = self._names.setdefault((repr(value), type_), f"p{len(self._names)}")
        self.parameters[name] = value
        return f"CAST(:{name} AS {type_})"


@dataclass(frozen=True)
class Selector:
    """Proposes conversations and feedback rows that may be due at `as_of` (UTC) under a policy, with a due date in the window.

    `with_content`: of those found by rules, only conversations with content left in the columns that a redaction empties.
    `searching` is called before each range of accounts or of orders is searched for conversations.
    """

    database: Database
    contract: Contract
    policy: Policy
    as_of: datetime
    window: Window = EVERYTHING
    accounts_per_range: int = ACCOUNTS_PER_RANGE
    proposals_per_page: int = PROPOSALS_PER_PAGE
    orders_per_range: int = ORDERS_PER_RANGE
    with_content: bool = False
    searching: Callable[[], None] = lambda: None

    def pages(self) -> Iterator[Page]:
        """Yield all proposals page by page, each page in a short transaction; around an excluded window some may come twice."""
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
            self.searching()
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
        """Yield the keys of feedback rows that may be due, page by page: by age, then by orders."""
        if self.policy.feedback:
            yield from self._feedback_pages(self._aged_feedback)
            yield from self._feedback_pages(self._ordered_feedback)

    def _feedback_pages(self, search: tuple[str, dict[str, Any]]) -> Iterator[list[str]]:
        after: str | None = None
        while True:
            ids = self._feedback_page(search, after)
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

    def _feedback_page(self, search: tuple[str, dict[str, Any]], after: str | None) -> list[str]:
        sql, parameters = search
        where = f"f.id > CAST(:after AS {self.contract.type('feedback')})" if after is not None else "true"
        asked = {
            **parameters,
            "after": after,
            "as_of": self.as_of,
            "store": self.contract.schema,
            "limit": self.proposals_per_page,
        }
        return [row.id for row in self.database.fetched(statement("propose_feedback", search=sql, after=where), asked)]

    @cached_property
    def _aged(self) -> tuple[list[str], dict[str, Any]]:
        """For each rule of feedback that anything can be due by, its condition on `feedback f`."""
        sql, found = _Sql(), []
        for rule in self.policy.feedback:
            horizon = rule.period.latest(self.as_of)
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
            found, known = [self._by_order(range_)], ""
        else:
            found = list(self._searches(range_, sql))
            asked = not range_.orphaned and any(map(self._asks_history, self.policy.rules))
            known = self._histories(range_, sql) if asked else ""
        built = filled(
            "propose",
            histories=known,
            searches="\nUNION\n".join(found) or _NOTHING,
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

    def _histories(self, range_: AccountRange, sql: _Sql) -> str:
        to = Writer(self.policy, self.as_of, sql.bound)
        names = {
            "accounts": "members",
            "plan_changes": range_.covers("p.account_id", self.contract.type("plan_changes", "account_id")),
            "consent_events": range_.covers("e.account_id", self.contract.type("consent_events", "account_id")),
        }
        return filled(
            "propose_histories",
            accounts=range_.covers("a.id", self.contract.type("accounts")),
            stays=history_sql("stays", to, **names),
            epochs=history_sql("epochs", to, View.RETENTION, **names),
            purposes=to.texts([*self.policy.purposes, _NO_PURPOSE]),
        )

    def _asks_history(self, rule: Rule) -> bool:
        """Return whether a rule is searched by plans or consent."""
        asks = any(condition.reads == "history" for condition in conditions(rule))
        return asks or searched_purpose(rule, self.policy) is not None

    def _searches(self, range_: AccountRange, sql: _Sql) -> Iterator[str]:
        """Yield the searches for what is due by each term of each rule."""
        for rule in self.policy.rules:
            purpose = searched_purpose(rule, self.policy)
            to = Writer(self.policy, self.as_of, sql.bound, {purpose: "epoch"} if purpose is not None else {})
            for term in rule.due:
                horizon = self._horizon(term.period, to)
                if horizon is not None and self._asks_history(rule):
                    yield from () if range_.orphaned else self._by_history(rule, term, horizon, to)
                elif horizon is not None:
                    yield from self._by_key(rule, term, horizon, range_, to)

    def _by_history(self, rule: Rule, term: Term, horizon: str, to: Writer) -> Iterator[str]:
        where, anchor = self._conditions(rule, term, to), ANCHORS[term.anchor]
        is_bound = anchor is LAST_ACTIVITY and not _reads(term.period, "conversation")
        if not is_bound:
            where.append(f"{anchor.sql(to, rule)} <= {horizon}")
        yield filled(
            "propose_by_history",
            plans=_all(c.stay(to) for c in conditions(rule) if isinstance(c, PlanCondition)),
            purpose=to.bind(next(iter(to.epochs), _NO_PURPOSE), "text"),
            join_accounts="JOIN accounts a ON a.id = stay.account_id" if _joins_account(rule, term) else "",
            horizon=horizon if is_bound else NEVER,
            conditions=_all(where),
        )

    def _by_key(self, rule: Rule, term: Term, horizon: str, range_: AccountRange, to: Writer) -> Iterator[str]:
        names = {"anchor": ANCHORS[term.anchor].sql(to, rule), "conditions": _all(self._conditions(rule, term, to))}
        conversations = range_.covers("c.account_id", self.contract.type("conversations", "account_id"))
        if not _joins_account(rule, term):
            yield filled("propose_by_conversation", conversations=conversations, horizon=horizon, **names)
            return
        if not range_.orphaned:
            accounts = range_.covers("a.id", self.contract.type("accounts"))
            yield filled("propose_by_account", accounts=accounts, horizon=horizon, **names)
        otherwise = _otherwise(rule, term)
        rest = self._horizon(otherwise, to) if otherwise else None
        if rest is not None:
            conversations += " AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.id = c.account_id)"
            yield filled("propose_by_conversation", conversations=conversations, horizon=rest, **names)

    def _conditions(self, rule: Rule, term: Term, to: Writer) -> list[str]:
        """Return what a search asks of a conversation besides the horizon: the rule's conditions, the window and the floors."""
        where = [condition.search(to) for condition in conditions(rule)]
        if self.window.since is not None and isinstance(term.period, Period):
            earliest = term.period.earliest(self.window.since)
            if earliest is not None:
                where.append(
                    f"({ANCHORS[term.anchor].sql(to, rule)} >= {to.instant(earliest)} OR c.flagged_at IS NOT NULL)"
                )
        if self.policy.floors:  # flagged after this and at or before as-of: certainly not due by a rule
            reaches = (floor.period.before(self.window.horizon(self.as_of)) for floor in self.policy.floors)
            since = min(self.policy.plausible.since if reach is None else reach + SLACK for reach in reaches)
            shielded = (
                f"c.flagged_at > {to.instant(max(since, self.policy.plausible.since))} AND {to.reached('c.flagged_at')}"
            )
            where.append(f"({shielded}) IS NOT TRUE")
        if self.with_content:
            where.append(self._has_content)
        return where

    @property
    def _has_content(self) -> str:
        """SQL: conversation `c` has content left; a partial index on the key finds the rows that have."""
        rows = (f"SELECT {table.key} FROM {table.table} t WHERE {table.left}" for table in self.contract.redacted)  # noqa: S608 — quoted
        return f"c.id IN ({' UNION ALL '.join(rows)})"

    def _horizon(self, period: Period | ColumnPeriod, to: Writer) -> str | None:
        """Return the SQL of the latest anchor that can be due, with a slack for calendars; None if nothing ever is."""
        as_of = self.window.horizon(self.as_of)
        if isinstance(period, ColumnPeriod):
            return f"({period.sql(to.instant(as_of), '-')} + {to.bind(SLACK, 'interval')})"
        latest = period.latest(as_of)
        return None if latest is None else to.instant(latest)


_NO_PURPOSE = ""
"""The name of a purpose without epochs, for rules that ask for plans alone."""
_NOTHING = "SELECT c.account_id, c.id, c.last_activity_at, c.deleted_at FROM conversations c WHERE false"
"""Where no rule can reach a range: conversations of no account under a policy that asks for plans in every rule."""


def _is_unnamed(names: str) -> str:
    """That no erasure order whose date has come names a proposal; asked of an index row by row, never by reading all orders."""
    due = "o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store)"
    return f"(SELECT true FROM sweeper.erasure_orders o WHERE {names} AND {due} ORDER BY o.due_at LIMIT 1) IS NULL"  # noqa: S608 — no value in it


def _all(conditions: Iterable[str]) -> str:
    return " AND ".join(condition for condition in conditions if condition != "true") or "true"


def _reads(period: Period | ColumnPeriod, relation: str) -> bool:
    return isinstance(period, ColumnPeriod) and period.relation == relation


def _is_of_account(rule: Rule, term: Term) -> bool:
    """Return whether a term of a rule can apply only to a conversation that has an account."""
    return "account" in {ANCHORS[term.anchor].relation, *(condition.reads for condition in conditions(rule))}


def _joins_account(rule: Rule, term: Term) -> bool:
    """Return whether a search joins the account."""
    return _is_of_account(rule, term) or _reads(term.period, "account")


def _otherwise(rule: Rule, term: Term) -> Period | None:
    """Return the period of conversations whose account, which should set it, does not exist; None if there is none."""
    found = term.period.otherwise if isinstance(term.period, ColumnPeriod) else None
    return None if _is_of_account(rule, term) else found


def exactly(order_column: str, key: str, type_: str) -> str:
    """How an order's text finds a key that is written exactly so: by its index, without a cast that a bad text breaks."""
    if type_ in TEXTUAL:
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

"""SQL proposes at least what `decide` calls due: under any policy, for any world, page by page, through the indexes."""

from calendar import monthrange
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from sweeper.policy.decide import decide, exists
from sweeper.policy.facts import Facts
from sweeper.policy.feedback import decide_feedback
from sweeper.policy.period import SLACK, Period
from sweeper.policy.schema import Names, Policy, parse
from sweeper.policy.window import EVERYTHING
from sweeper.postgres.contract import Contract
from sweeper.postgres.database import Database
from sweeper.postgres.facts import FactsReader
from sweeper.postgres.proposals import AccountRange, Selector
from sweeper.postgres.statement import statement
from sweeper.runs.job import read_contract
from tests.facts import World, instant
from tests.store.stores import ID_TYPES, ROOT, Store
from tests.worlds import BASE_DAYS, MONTH_ENDS, worlds

FILES = ("policy.toml", "examples/until_deletion.toml", "examples/eighteen_months.toml")
AS_OF = datetime(2026, 6, 1, tzinfo=UTC)
FAR = datetime(2200, 1, 1, tzinfo=UTC)
Raw = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """A store with its contract, so that each example reads only what changes."""

    store: Store
    contract: Contract
    opened: Database | None = None

    @property
    def database(self) -> Database:
        """The program's engine."""
        return self.opened or self.store.database()

    def load(self, world: World) -> None:
        """The world, and nothing else."""
        self.store.wipe()
        self.store.load(world)
        for chat in world["conversations"]:
            if chat.get("columns"):
                names = ", ".join(f"{name} = %s" for name in chat["columns"])
                self.store.execute(
                    f"UPDATE conversations SET {names} WHERE id = %s",
                    *chat["columns"].values(),
                    self.store.id(chat["id"]),
                )

    def selector(self, policy: Policy, as_of: datetime, **sizes: Any) -> Selector:
        """A selector whose ranges and pages may be tiny."""
        return Selector(self.database, self.contract, policy, as_of, EVERYTHING, **sizes)

    def facts(self, policy: Policy, as_of: datetime) -> dict[str, Facts]:
        """The facts of every conversation, with all its holds and orders."""
        with self.database.transaction() as connection:
            return FactsReader(self.contract, policy, as_of).conversations(
                connection, sorted(self.store.left()), every=True
            )

    def check(self, policy: Policy, as_of: datetime, **sizes: Any) -> None:
        """Every conversation that is expired is proposed, none twice, and none is called held that is not."""
        pages = list(self.selector(policy, as_of, **sizes).pages())
        proposed = [p.record_id for page in pages for p in (*page.free, *page.held)]
        assert len(proposed) == len(set(proposed))
        every = self.facts(policy, as_of)
        verdicts = {
            name: decide(facts, policy, as_of)
            for name, facts in every.items()
            if exists(facts.conversation, policy, as_of)
        }
        expired = {name for name, verdict in verdicts.items() if verdict.expired}
        assert expired - set(proposed) == set(), "due and never proposed"
        self.check_few(policy, as_of, every)
        called_held = {p.record_id for page in pages for p in page.held}
        assert {name for name in called_held & verdicts.keys() if not verdicts[name].held} == set()
        for page in pages:
            assert 1 <= len(page.free) + len(page.held) <= sizes.get("proposals_per_page", 5_000)

    def check_few(self, policy: Policy, as_of: datetime, every: dict[str, Facts]) -> None:
        """The few holds and orders that a batch reads decide as all of them do, also on what protects whatever its instant."""

        def decided(facts: Facts) -> tuple[Any, ...]:
            plain, shielded = decide(facts, policy, as_of), decide(facts.protected(as_of), policy, as_of)
            return plain.rule, plain.due, plain.held, shielded.purge

        with self.database.transaction() as connection:
            few = FactsReader(self.contract, policy, as_of).conversations(connection, sorted(every))
        assert {name: decided(facts) for name, facts in few.items()} == {n: decided(f) for n, f in every.items()}
        assert all(len(facts.orders) <= 1 for facts in few.values())

    def check_feedback(self, policy: Policy, as_of: datetime, **sizes: Any) -> None:
        """Every feedback row that is expired is proposed, and none twice."""
        proposed = [id_ for page in self.selector(policy, as_of, **sizes).feedback() for id_ in page]
        assert len(proposed) == len(set(proposed))
        ids = [str(row[0]) for row in self.store.execute("SELECT id FROM feedback")]
        with self.database.transaction() as connection:
            facts = FactsReader(self.contract, policy, as_of).feedback(connection, ids)
        expired = {name for name, known in facts.items() if decide_feedback(known, policy, as_of).expired}
        assert expired - set(proposed) == set(), "due and never proposed"

    def dues(self, policy: Policy, as_of: datetime) -> list[datetime]:
        """Instants at which something falls due, as known at as-of or long after it: the edges to look at."""
        found: set[datetime] = set()
        for facts in self.facts(policy, as_of).values():
            for at in (as_of, FAR):
                verdict = decide(facts, policy, at)
                found |= {r.due for r in (*verdict.rulings, *verdict.moves) if r.due is not None and r.due < FAR}
        return sorted(found)


@pytest.fixture
def bench(store: Store, policy: Policy) -> Bench:
    """A store whose conversations, too, have a further column."""
    store.execute("ALTER TABLE conversations ADD keep_days integer")
    return Bench(store, read_contract(store.database(), policy))


@pytest.fixture(scope="module")
def shipped() -> list[Policy]:
    """The policies that ship."""
    return [parse((ROOT / "config" / Path(file)).read_text()) for file in FILES]


DAYS = st.sampled_from([None, None, 0, 1, 2, 7, 30, 30, 365, -1, -30, 2_147_483_647])


@st.composite
def furnished(draw: st.DrawFn) -> World:
    """A world, poisoned or not, whose accounts and conversations have values in further columns, some of them odd."""
    among = draw(st.sampled_from([BASE_DAYS, MONTH_ENDS]))
    world: World = draw(worlds(poison=draw(st.booleans()), among=among))
    for account in world["accounts"]:
        account["columns"] = {
            "history_enabled": draw(st.sampled_from([None, False, False, True])),
            "retention_days": draw(DAYS),
        }
    for chat in world["conversations"]:
        chat["columns"] = {"keep_days": draw(DAYS)}
        if draw(st.integers(0, 7)) == 3:
            chat["account"] = "a99"
    return world


# --- random policies --------------------------------------------------------------------------------------------------

FIXED = [
    "0",
    "1 second",
    "3600 seconds",
    "30 days",
    "1 month",
    "2 months",
    "13 months",
    "18 months",
    "1 year",
    "5 years",
]
PERIODS = st.sampled_from([*FIXED, *FIXED, "9000 years", "forever"])
UNITS = st.sampled_from(["second", "minute", "hour", "day", "day", "week", "month", "month", "year"])
PURPOSES = {"model_improvement": ["consumer"], "development_partner": ["api"]}
CONSUMER, COMMERCIAL = ["free", "pro", "max"], ["team", "enterprise", "api", "gov", "education"]
ANCHORS = ["last_activity"] * 3 + ["created", "deleted", "closed", "flagged", "consent_ended"]
NEEDED = {"deleted": {"deleted": True}, "closed": {"closed": True}, "flagged": {"flagged": True}}


def optional(draw: st.DrawFn, one_in: int) -> bool:
    return draw(st.integers(0, one_in - 1)) == one_in // 2


OWN_CONDITIONS: dict[str, list[Any]] = {
    "kind": [["chat"], ["coding_session"], ["chat", "coding_session"]],
    "platform": [["first_party"], ["bedrock", "vertex"], ["moonbase", "first_party"]],
    "incognito": [True, False],
    "zero_retention": [True, False],
    "deleted": [True, False],
    "closed": [True, False],
    "flagged": [True, False],
    "account": [{"history_enabled": [False]}, {"history_enabled": [True, False]}, {"retention_days": [1, 30]}],
    "conversation": [{"keep_days": [0, 30]}],
}
PLAN_LISTS = [["consumer"], ["commercial"], ["api"], ["free"], ["consumer", "api"]]
HISTORY_CONDITIONS: dict[str, list[Any]] = {
    "any_plan": PLAN_LISTS,
    "all_plans": PLAN_LISTS,
    "consent": [{"purpose": p, "epoch": e} for p in sorted(PURPOSES) for e in ("open", "closed", "any", "none")],
}


@st.composite
def conditions(draw: st.DrawFn, *, history: bool) -> Raw:
    """Conditions of a rule: few, so that worlds meet them; with history, mostly on plans and consent."""
    when: Raw = {name: draw(st.sampled_from(values)) for name, values in OWN_CONDITIONS.items() if optional(draw, 9)}
    if history:
        for names in (["any_plan", "any_plan", "all_plans"], ["consent"]):
            if draw(st.booleans()):
                name = draw(st.sampled_from(names))
                when[name] = draw(st.sampled_from(HISTORY_CONDITIONS[name]))
    return when


@st.composite
def terms(draw: st.DrawFn, anchor: str) -> Raw:
    """One anchor and its period, fixed or read from a column."""
    if not optional(draw, 4):
        return {"anchor": anchor, "period": draw(PERIODS)}
    period: Raw = {
        "column": draw(st.sampled_from(["account.retention_days", "conversation.keep_days"])),
        "unit": draw(UNITS),
    }
    if draw(st.booleans()):
        period["otherwise"] = draw(PERIODS)
    return {"anchor": anchor, "period": period}


@st.composite
def rules_of_any_kind(draw: st.DrawFn, name: str, unless: Sequence[str] = (), *, planned: bool) -> Raw:
    """A rule with whatever conditions, anchors and periods; `unless`: rules without an `unless` that it may yield to."""
    when = draw(conditions(history=planned))
    anchors = [draw(st.sampled_from(ANCHORS)) for _ in range(draw(st.sampled_from([1, 1, 2])))]
    for anchor in anchors:
        when |= NEEDED.get(anchor, {})
    if "consent_ended" in anchors:
        if planned:
            purpose = draw(st.sampled_from(sorted(PURPOSES)))
            when["consent"] = {"purpose": purpose, "epoch": "closed"}
        else:
            anchors = ["last_activity"]
    if unless and optional(draw, 3):
        when["unless"] = draw(st.lists(st.sampled_from(unless), min_size=1, max_size=2, unique=True))
    rule: Raw = {"name": name, "because": "…", "when": when, "due": [draw(terms(anchor)) for anchor in anchors]}
    if not {"any_plan", "all_plans", "consent", "unless"} & when.keys():
        rule["stands_unclassified"] = draw(st.booleans())
    return rule


@st.composite
def floor_lists(draw: st.DrawFn) -> list[Raw]:
    """None to two floors."""
    return [
        {"name": f"floor{number}", "because": "…", "anchor": "flagged", "period": draw(PERIODS)}
        for number in range(draw(st.sampled_from([0, 0, 1, 2])))
    ]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """A policy of one rule, so that no other rule's search hides what its own misses; what it yields to never is due."""
    planned = draw(st.booleans())
    rule = draw(rules_of_any_kind("rule", ["spared"], planned=planned))
    spared = {"name": "spared", "because": "…", "when": draw(conditions(history=planned)), "due": [FOREVER]}
    rules = [spared, rule] if "unless" in rule["when"] else [rule]
    return made(rules, draw(floor_lists()), planned=planned)


FOREVER = {"anchor": "last_activity", "period": "forever"}


def made(rules: Sequence[Raw], floors: Sequence[Raw] = (), *, planned: bool = True) -> Policy:
    """A policy of these rules and floors, with the shipped plans and purposes or none."""
    raw: Raw = {
        "format": 1,
        "name": "synthetic",
        "plausible": {"from": "2015-01-01T00:00:00Z", "before": "9999-01-01T00:00:00Z"},
        "rules": list(rules),
        "floors": list(floors),
    }
    if planned:
        raw["plans"] = {"consumer": CONSUMER, "commercial": COMMERCIAL}
        raw["purposes"] = {name: {"plans": plans} for name, plans in PURPOSES.items()}
        raw["purposes"]["model_improvement"] |= {
            "not_before": "2025-08-28T00:00:00Z",
            "undecided_after": "2025-10-08T00:00:00Z",
        }
    return Policy.model_validate(raw, context=Names.of(raw))


def rule(name: str = "rule", period: Any = "30 days", anchor: str = "last_activity", **when: Any) -> Raw:
    """A rule with one term."""
    return {"name": name, "because": "…", "when": when, "due": [{"anchor": anchor, "period": period}]}


# --- completeness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ID_TYPES, indirect=True)
@given(world=furnished(), tiny=st.tuples(st.integers(1, 3), st.integers(1, 3)), edge=st.integers(0, 9))
@settings(max_examples=15)
def test_shipped_policies_miss_nothing(
    bench: Bench, shipped: list[Policy], world: World, tiny: tuple[int, int], edge: int
) -> None:
    """Whatever is due under a policy that ships is proposed once, at as-of and at the very instant of a due."""
    bench.load(world)
    sizes = {"accounts_per_range": tiny[0], "proposals_per_page": tiny[1]}
    at = instant(world["as_of"])
    for policy in shipped:
        bench.check(policy, at, **sizes)
        bench.check_feedback(policy, at, **sizes)
        dues = bench.dues(policy, at)
        if dues:
            bench.check(policy, dues[edge % len(dues)])


@given(world=furnished(), several=st.lists(policies(), min_size=3, max_size=3), edge=st.integers(0, 9))
@settings(max_examples=40)
def test_any_policy_misses_nothing(bench: Bench, world: World, several: list[Policy], edge: int) -> None:
    """Whatever is due under a policy of one random rule is proposed once, at as-of and at the very instant of a due."""
    bench.load(world)
    at = instant(world["as_of"])
    for policy in several:
        bench.check(policy, at, proposals_per_page=2)
        dues = bench.dues(policy, at)
        if dues:
            bench.check(policy, dues[edge % len(dues)])


@given(world=furnished(), tiny=st.tuples(st.integers(1, 3), st.integers(1, 3)), edge=st.integers(0, 9))
@settings(max_examples=20)
def test_rules_of_every_kind_miss_nothing(bench: Bench, world: World, tiny: tuple[int, int], edge: int) -> None:
    """A policy with rules of every kind proposes what is due under each, and under each of them alone."""
    bench.load(world)
    at = instant(world["as_of"])
    for policy in SYNTHETIC:
        bench.check(policy, at, accounts_per_range=tiny[0], proposals_per_page=tiny[1])
        dues = bench.dues(policy, at)
        if dues:
            bench.check(policy, dues[edge % len(dues)])


AVOWED = {"purpose": "model_improvement", "epoch": "any"}
LAPSED = {"purpose": "model_improvement", "epoch": "closed"}
PARTNER = {"purpose": "development_partner", "epoch": "any"}
FLOORS = [
    {"name": "flagged", "because": "…", "anchor": "flagged", "period": "2 months"},
    {"name": "audited", "because": "…", "anchor": "flagged", "period": "40 days"},
]
SYNTHETIC = [
    made(
        [
            rule("coded", "18 months", "created", kind=["coding_session"], platform=["first_party"]),
            rule("reviewed", "13 months", "flagged", flagged=True),
            rule("closed", {"column": "account.retention_days", "unit": "week"}, "closed", closed=True),
            rule("silent", "3600 seconds", account={"history_enabled": [False]}),
            rule("own", {"column": "conversation.keep_days", "unit": "month", "otherwise": "2 months"}, "created"),
            rule("kept", "forever"),
        ],
        FLOORS,
        planned=False,
    ),
    made(
        [
            rule("partner", "2 years", all_plans=["api"], platform=["first_party"], consent=PARTNER),
            rule("beside", "1 month", any_plan=["commercial"], unless=["partner"]),
            rule("lapsed", "1 month", "consent_ended", consent=LAPSED),
            rule("avowed", {"column": "account.retention_days", "unit": "day"}, consent=AVOWED),
            rule("own", "10 days", all_plans=["consumer"], closed=False),
        ],
        FLOORS[:1],
    ),
    made([rule("deleted", "30 days", "deleted", deleted=True)], [{**FLOORS[0], "period": "forever"}], planned=False),
]


# --- edges that random worlds seldom meet -----------------------------------------------------------------------------


def test_slack_covers_every_clamped_month() -> None:
    """For every last day of a month and every period of months, the bound at the due reaches back to the anchor."""
    months = [(2023 + number // 12, number % 12 + 1) for number in range(60)]
    anchors = [
        datetime(year, month, day, 12, tzinfo=UTC)
        for year, month in months
        for day in range(27, monthrange(year, month)[1] + 1)
    ]
    missed = []
    for period in (Period(months=count) for count in (*range(1, 37), 48, 60, 120)):
        for anchor in anchors:
            due = period.after(anchor)
            assert due is not None
            before = period.before(due)
            if before is None or before + SLACK < anchor:
                missed.append((anchor, str(period)))
    assert missed == []


def test_month_cut_short_is_proposed_when_due(bench: Bench, shipped: list[Policy]) -> None:
    """18 months from 31 August end on 28 February, and on that day the conversation is proposed."""
    bench.load(
        world_of([chat("c1", created_at="2024-08-31T12:00:00Z", last_activity_at="2024-08-31T12:00:00Z")], plans=[])
    )
    eighteen_months = shipped[2]
    bench.check(eighteen_months, instant("2026-02-28T12:00:00Z"))


def test_flag_of_a_month_cut_short_shields_no_longer_than_its_floor(bench: Bench) -> None:
    """A floor of one month from 31 January ends on 28 February; from then on the conversation is proposed."""
    bench.load(world_of([chat("c1", flagged_at="2026-01-31T12:00:00Z")]))
    policy = made([rule()], [{**FLOORS[0], "period": "1 month"}])
    bench.check(policy, instant("2026-02-28T12:00:00Z"))


KEYS = [
    ("bigint", "1000000000000000001"),
    ("bigint", "9223372036854775807"),
    ("bigint", "-9223372036854775808"),
    ("bigint", "0"),
    ("integer", "2147483647"),
    ("integer", "-2147483648"),
    ("smallint", "32767"),
    ("smallint", "-32768"),
]


@pytest.mark.parametrize("store", ["bigint"], indirect=True)
@pytest.mark.parametrize("names", ["account_id", "conversation_id"])
@pytest.mark.parametrize(("type_", "key"), KEYS, ids=lambda value: str(value))
def test_order_finds_every_key_of_the_type(store: Store, policy: Policy, type_: str, key: str, names: str) -> None:
    """An erasure order reaches a conversation and a feedback row by any key that their type can hold."""
    for table, column in (
        ("accounts", "id"),
        ("conversations", "id"),
        ("conversations", "account_id"),
        ("feedback", "account_id"),
        ("feedback", "conversation_id"),
    ):
        store.execute(f"ALTER TABLE {table} ALTER {column} TYPE {type_}")
    store.execute(
        f"INSERT INTO conversations (id, account_id, created_at, last_activity_at) VALUES ({key}, {key}, {OLD}, {OLD})"
    )
    store.execute(
        f"INSERT INTO feedback (id, account_id, conversation_id, kind, submitted_at) VALUES (1, {key}, {key}, 'thumbs', {OLD})"
    )
    store.execute(
        f"INSERT INTO sweeper.erasure_orders (reference, {names}, recorded_at, due_at) VALUES ('r', %s, {OLD}, {OLD})",
        key,
    )
    bench = Bench(store, read_contract(store.database(), policy))
    bench.check(policy, instant("2026-06-01T00:00:00Z"))
    bench.check_feedback(policy, instant("2026-06-01T00:00:00Z"))


OLD = "timestamptz '2026-01-01 00:00:00Z'"


def test_order_with_a_text_that_is_no_key_disturbs_nobody(bench: Bench, policy: Policy) -> None:
    """An order that names rubbish finds nothing, and what another order names is proposed all the same."""
    bench.load(world_of([chat("c1")], orders=[{"conversation": "c1", "due_at": "2026-01-01T00:00:00Z"}]))
    for rubbish in ("", "x", "99999999999999999999", "C1", "12345678-1234-1234-1234-12345678901"):
        bench.store.execute(
            "INSERT INTO sweeper.erasure_orders (reference, account_id, due_at) VALUES ('r', %s, '-infinity')", rubbish
        )
    bench.check(policy, instant("2026-01-02T00:00:00Z"))


YIELDING = [
    pytest.param(
        made(
            [
                {**rule("spared", any_plan=["consumer"], consent=AVOWED | {"epoch": "none"}), "due": [FOREVER]},
                rule(any_plan=["commercial"], unless=["spared"]),
            ]
        ),
        [{"effective_at": "2020-01-01T00:00:00Z", "plan": "team"}],
        id="outside any epoch",
    ),
    pytest.param(
        made(
            [{**rule("spared", kind=["coding_session"]), "due": [FOREVER]}, rule(unless=["spared"])],
            planned=False,
        ),
        [],
        id="without plans",
    ),
]


SINGLE = [{name: value} for name, values in (OWN_CONDITIONS | HISTORY_CONDITIONS).items() for value in values]
"""Each condition by itself."""


def test_what_yields_to_any_condition_is_proposed(bench: Bench) -> None:
    """A rule that yields to a rule of one condition, whichever it is, misses nothing, be it searched by key or by plans."""
    traits: list[Raw] = [
        {},
        {"kind": "coding_session", "incognito": True, "columns": {"keep_days": 30}},
        {"platform": "bedrock", "zero_retention": True, "flagged_at": "2025-12-03T00:00:00Z"},
        {"deleted_at": "2025-12-03T00:00:00Z"},
        {"created_at": "2024-06-01T00:00:00Z"},
        {"last_activity_at": "2026-02-02T00:00:00Z"},
    ]
    world = world_of([chat(f"a{n}c{m}", account=f"a{n}", **more) for n in (1, 2, 3) for m, more in enumerate(traits)])
    for number, plans, more in (
        (1, [ALWAYS_API], {"columns": {"retention_days": 30, "history_enabled": False}}),
        (2, [change("2020-01-01T00:00:00Z", "team"), change("2025-01-01T00:00:00Z", "pro")], {}),
        (3, [change("2020-01-01T00:00:00Z", "free")], {"closed_at": "2026-01-01T00:00:00Z"}),
    ):
        consent = [PARTNERED, CONSENTED, event("2026-01-01T00:00:00Z", granted=False)]
        world["accounts"] += [{"id": f"a{number}", "plans": plans, "consent": consent, **more}]
    world["accounts"].pop(0)
    bench.load(world)
    every = bench.facts(
        made([rule(account={"history_enabled": [False], "retention_days": [1]}, conversation={"keep_days": [1]})]),
        AS_OF,
    )
    some, beside = list[Raw](), list[Raw]([{}, {"any_plan": ["consumer", "commercial"]}])
    for when in SINGLE:
        for more in beside:
            policy = made([{**rule("spared", **when), "due": [FOREVER]}, rule(unless=["spared"], **more)])
            due = {name for name, facts in every.items() if decide(facts, policy, AS_OF).expired}
            found = {p.record_id for page in bench.selector(policy, AS_OF).pages() for p in page.free}
            assert due - found == set(), when
            some += [when] if 0 < len(due) < len(every) else []
    assert len(some) > len(SINGLE), "most conditions tell the conversations apart"


@pytest.mark.parametrize(("policy", "plans"), YIELDING)
def test_what_yields_to_another_rule_is_found_beside_it(bench: Bench, policy: Policy, plans: list[Any]) -> None:
    """A rule that yields to another is searched wherever the other may not apply."""
    bench.load(world_of([chat("c1")], plans=plans))
    assert len(bench.dues(policy, instant("2026-06-01T00:00:00Z"))) == 1
    bench.check(policy, instant("2026-06-01T00:00:00Z"))


def test_period_of_an_account_that_is_gone_is_the_one_named_otherwise(bench: Bench) -> None:
    """What stands without its account is proposed, even where its period would have been the account's to say."""
    bench.load(world_of([chat("c1", account="a99", deleted_at="2026-01-01T00:00:00Z")]))
    period = {"column": "account.retention_days", "unit": "day", "otherwise": "30 days"}
    policy = made([{**rule("deleted", period, "deleted", deleted=True), "stands_unclassified": True}], planned=False)
    bench.check(policy, instant("2026-06-01T00:00:00Z"))


def test_period_too_long_for_any_calendar_disturbs_nobody(bench: Bench) -> None:
    """A column that is not set may stand for thousands of years; the search does not fail on it."""
    bench.load(world_of([chat("c1", deleted_at="2026-01-01T00:00:00Z")]))
    period = {"column": "account.retention_days", "unit": "day", "otherwise": "9000 years"}
    policy = made([rule("own", period), rule("deleted", "30 days", "deleted", deleted=True)], planned=False)
    bench.check(policy, instant("2026-06-01T00:00:00Z"))


def change(at: str, plan: str, **more: Any) -> Raw:
    """A plan change."""
    return {"effective_at": at, "plan": plan, **more}


def event(at: str, *, granted: bool = True, purpose: str = "model_improvement", **more: Any) -> Raw:
    """A consent event."""
    return {"recorded_at": at, "granted": granted, "purpose": purpose, **more}


ALWAYS_PRO, ALWAYS_API = change("2020-01-01T00:00:00Z", "pro"), change("2020-01-01T00:00:00Z", "api")
LAST, MICROSECOND_ON = "2025-12-02T00:00:00Z", "2025-12-02T00:00:00.000001Z"
CONSENTED = event("2025-09-01T00:00:00Z")
PARTNERED = event("2025-09-01T00:00:00Z", purpose="development_partner")
EDGES: list[tuple[str, str, list[Raw], list[Raw], Raw]] = [
    ("standard", "the epoch opens at the last activity", [ALWAYS_PRO], [event(LAST)], {}),
    ("standard", "the epoch opens after it", [ALWAYS_PRO], [event(MICROSECOND_ON)], {}),
    ("standard", "the epoch closed at it", [ALWAYS_PRO], [CONSENTED, event(LAST, granted=False)], {}),
    ("consent_ended", "the epoch closed after it", [ALWAYS_PRO], [CONSENTED, event(MICROSECOND_ON, granted=False)], {}),
    (
        "standard",
        "granted and withdrawn at once",
        [ALWAYS_PRO],
        [event("2025-09-01T00:00:00Z", id=1), event("2025-09-01T00:00:00Z", granted=False, id=2)],
        {},
    ),
    (
        "standard",
        "withdrawn before the grant took effect",
        [ALWAYS_PRO],
        [
            event("2025-09-01T00:00:00Z", effective_at="2025-11-01T00:00:00Z"),
            event("2025-10-01T00:00:00Z", granted=False),
        ],
        {},
    ),
    (
        "standard",
        "left the plans of the purpose and came back",
        [ALWAYS_PRO, change("2025-10-01T00:00:00Z", "team"), change("2025-11-01T00:00:00Z", "pro")],
        [CONSENTED],
        {},
    ),
    ("commercial", "joined a team at the last activity", [ALWAYS_PRO, change(LAST, "team")], [CONSENTED], {}),
    (
        "commercial",
        "of two plans of one instant the later row counts",
        [ALWAYS_PRO, change("2025-11-01T00:00:00Z", "pro", id=2), change("2025-11-01T00:00:00Z", "team", id=3)],
        [CONSENTED],
        {},
    ),
    ("commercial", "the first plan counts from creation", [change("2026-01-01T00:00:00Z", "team")], [], {}),
    ("commercial", "the plan has been in force always", [change("-infinity", "team")], [], {}),
    ("commercial", "a partner at the edge of the programme", [ALWAYS_API], [PARTNERED | {"recorded_at": LAST}], {}),
    (
        "commercial",
        "a partner at the other edge",
        [ALWAYS_API],
        [PARTNERED, event(LAST, granted=False, purpose="development_partner")],
        {},
    ),
    ("commercial", "a partner elsewhere than first-party", [ALWAYS_API], [PARTNERED], {"platform": "bedrock"}),
    (
        "commercial",
        "a partner in whose conversation another plan was in force",
        [change("2020-01-01T00:00:00Z", "team"), change("2025-08-01T00:00:00Z", "api")],
        [PARTNERED],
        {"created_at": "2025-07-31T23:59:59Z"},
    ),
    ("account_closed", "no plan at all, the account closed", [], [], {}),
]


def test_edge_is_proposed_when_due(bench: Bench, policy: Policy) -> None:
    """At every edge of plans and epochs, what falls due under the rule is proposed at the very instant of its due."""
    for named, edge, plans, consent, columns in EDGES:
        world = world_of([chat("c1", **columns)], plans=plans)
        world["accounts"][0]["consent"] = consent
        if named == "account_closed":
            world["accounts"][0]["closed_at"] = "2025-12-15T00:00:00Z"
        bench.load(world)
        (facts,) = bench.facts(policy, AS_OF).values()
        verdict = decide(facts, policy, AS_OF)
        assert (verdict.rule, verdict.expired) == (named, True), edge
        assert verdict.due is not None
        for at in (verdict.due, AS_OF):
            assert [p.record_id for page in bench.selector(policy, at).pages() for p in page.free], edge


def test_what_a_partner_keeps_is_not_proposed(bench: Bench, policy: Policy) -> None:
    """What lies inside a partner programme, or inside an open consent, is left out until it is due."""
    for plan, consent in ((ALWAYS_API, PARTNERED), (ALWAYS_PRO, CONSENTED)):
        world = world_of([chat("c1")], plans=[plan])
        world["accounts"][0]["consent"] = [consent]
        bench.load(world)
        assert list(bench.selector(policy, AS_OF).pages()) == []


def chat(name: str, **columns: Any) -> Raw:
    """A conversation of account a1 in December 2025."""
    told = {"created_at": "2025-12-01T00:00:00Z", "last_activity_at": "2025-12-02T00:00:00Z", **columns}
    return {"id": name, "account": "a1", "messages": [], **told}


def world_of(chats: list[Raw], *, plans: list[Raw] | None = None, orders: Sequence[Raw] = ()) -> World:
    """A world of one account, on plan free unless told otherwise."""
    told = [{"effective_at": "2020-01-01T00:00:00Z", "plan": "free"}] if plans is None else plans
    account = {"id": "a1", "plans": told, "consent": []}
    return {"accounts": [account], "conversations": chats, "holds": [], "orders": list(orders)}


# --- through the indexes ----------------------------------------------------------------------------------------------

CROWD = """
INSERT INTO accounts (id, created_at)
    SELECT md5('a' || n)::uuid, '2020-01-01Z' FROM generate_series(1, 400) n;
INSERT INTO plan_changes (account_id, effective_at, plan)
    SELECT md5('a' || n)::uuid, '2020-01-01Z', CASE WHEN n % 10 = 0 THEN 'api' ELSE 'pro' END FROM generate_series(1, 400) n;
INSERT INTO consent_events (account_id, purpose, granted, recorded_at)
    SELECT md5('a' || n)::uuid, CASE WHEN n % 10 = 0 THEN 'development_partner' ELSE 'model_improvement' END,
           true, '2025-09-01Z'
    FROM generate_series(1, 400) n WHERE n <= 360;
INSERT INTO conversations (id, account_id, kind, platform, incognito, zero_retention, created_at, last_activity_at, deleted_at)
    SELECT md5('c' || n)::uuid, md5('a' || owner)::uuid, 'chat', 'first_party', false, false, at, at + interval '1 hour',
           CASE WHEN n % 400 = 0 THEN at + interval '2 hours' END
    FROM (
        SELECT n, CASE WHEN n % 50 = 0 THEN 361 + n / 50 % 40 ELSE 1 + n % 360 END AS owner,
               timestamptz '2025-10-01Z' + n % 230 * interval '1 day' AS at
        FROM generate_series(1, 20000) n
    ) AS chats;
INSERT INTO sweeper.erasure_orders (reference, conversation_id, recorded_at, due_at)
    SELECT 'r' || n, md5('c' || n)::uuid::text, '2026-01-01Z', '2026-02-01Z' FROM generate_series(1, 5) n;
ANALYZE accounts; ANALYZE plan_changes; ANALYZE consent_events; ANALYZE conversations; ANALYZE sweeper.erasure_orders;
"""

PARTNERS = """
SELECT count(*) FROM conversations c JOIN consent_events e USING (account_id)
WHERE e.purpose = 'development_partner' AND c.last_activity_at <= %s
"""


def walk(node: Raw) -> Iterator[Raw]:
    """A plan's nodes."""
    yield node
    for child in node.get("Plans", ()):
        yield from walk(child)


def visited(bench: Bench, policy: Policy) -> int:
    """How many rows of conversations the proposing statement fetched, those it threw away included."""
    sql, parameters = bench.selector(policy, AS_OF)._proposing(AccountRange(), None)
    with bench.store.database().transaction() as connection:
        connection.execute(statement("plan_by_key"))
        told = connection.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql.text}"), parameters).scalar_one()
    scans = [node for node in walk(told[0]["Plan"]) if node.get("Relation Name") == "conversations"]
    counted = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    return round(sum(float(scan.get(key, 0)) * float(scan["Actual Loops"]) for scan in scans for key in counted))


def test_what_is_kept_is_not_read(bench: Bench, policy: Policy) -> None:
    """Of 20,000 conversations, most of them old and kept by consent, only about those that are proposed are fetched.

    What a partner's programme keeps is fetched too: no index tells `commercial` and `partner` apart.
    """
    bench.store.execute(CROWD)
    selector = bench.selector(policy, AS_OF)
    with bench.store.database().transaction() as connection:
        plan = selector.explain(connection)
    assert "Seq Scan on conversations" not in plan
    candidates = sum(len(page.free) + len(page.held) for page in selector.pages())
    assert 300 < candidates < 600
    partners = bench.store.execute(PARTNERS, AS_OF - timedelta(days=30))[0][0]
    assert visited(bench, policy) < 2 * candidates + partners < 4_000
    bench.check(policy, AS_OF)


def test_held_are_told_apart(bench: Bench, policy: Policy) -> None:
    """What a known hold keeps is proposed as held, however the hold spells the key; a released hold keeps nothing."""
    bench.load(world_of([chat("c1"), chat("c2"), chat("c3")]))
    place = "INSERT INTO sweeper.legal_holds (matter, conversation_id, placed_at, released_at) VALUES ('m', %s, %s, %s)"
    bench.store.execute(place, f"  {str(bench.store.id('c1')).upper()} ", None, None)
    bench.store.execute(place, bench.store.id("c2"), "2026-05-01Z", AS_OF + timedelta(microseconds=1))
    bench.store.execute(place, bench.store.id("c3"), "2026-05-01Z", AS_OF)
    pages = list(bench.selector(policy, AS_OF).pages())
    assert {p.record_id for page in pages for p in page.held} == {bench.store.id("c1"), bench.store.id("c2")}
    assert {p.record_id for page in pages for p in page.free} == {bench.store.id("c3")}
    bench.check(policy, AS_OF)


def test_pages_follow_one_another_through_a_giant_account(bench: Bench, policy: Policy) -> None:
    """An account with more proposals than a page holds is paged inside, each once and in the order of the keys."""
    bench.load(world_of([chat(f"c{number}") for number in range(1, 8)]))
    for size in (1, 2, 7, 8):
        pages = list(replace(bench.selector(policy, AS_OF), proposals_per_page=size).pages())
        found = [p.record_id for page in pages for p in page.free]
        assert found == sorted(bench.store.left())
        assert len(pages) == -(-7 // size)

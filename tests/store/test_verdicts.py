"""The verdicts on a whole store, in SQL, are what the core says of each record: under any policy, in any world."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from sweeper.policy.anomaly import Anomaly, anomalies
from sweeper.policy.counts import Counts, Kind, RecordCounts
from sweeper.policy.decide import decide, exists
from sweeper.policy.evaluate import Evaluation, Outcome, as_stored, evaluate_stored
from sweeper.policy.facts import Facts
from sweeper.policy.feedback import FeedbackFacts, evaluate_feedback, feedback_anomalies
from sweeper.policy.redaction import evaluate_redaction
from sweeper.policy.schema import Policy
from sweeper.postgres import whole_store
from sweeper.postgres.facts import FactsReader
from sweeper.runs.job import read_contract
from tests.facts import World, instant
from tests.redacting import COLUMNS, RULES, redacting
from tests.store.stores import ID_TYPES, Store
from tests.store.test_propose import (
    ALWAYS_PRO,
    AS_OF,
    CONSENTED,
    EDGES,
    FAR,
    OWN_CONDITIONS,
    SINGLE,
    SYNTHETIC,
    Bench,
    chat,
    event,
    floor_lists,
    furnished,
    made,
    rule,
    rules_of_any_kind,
    world_of,
)
from tests.worlds import MICROSECOND

Answer = tuple[str | None, datetime | None, bool, str | None, str, str | None]
"""Rule, due date, whether held, first doubt, outcome, and why it would be skipped."""
DAYS = (1, 7, 30)
ODD = 'a "quoted\\ä\n" 50% :off'
TIERS = st.sampled_from([None, "gold", "gold", "30", ODD])
SCORES = st.sampled_from([None, "30", "30", "30.0", "0", "-1", "7", "99999999999999"])


@pytest.fixture
def bench(store: Store, policy: Policy) -> Bench:
    """A store with further columns of several types."""
    store.execute(
        "ALTER TABLE conversations ADD keep_days integer, ADD score numeric; ALTER TABLE accounts ADD tier text"
    )
    return Bench(store, read_contract(store.database(), policy))


@st.composite
def several_rules(draw: st.DrawFn) -> Policy:
    """A policy of up to six rules of any kind, some of which yield to others, with floors."""
    planned = draw(st.booleans()) or draw(st.booleans())
    rules: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 6))):
        flat = [known["name"] for known in rules if "unless" not in known["when"]]
        drawn = draw(rules_of_any_kind(f"rule{number}", flat, planned=planned))
        if draw(st.integers(0, 5)) == 3:
            drawn["when"]["account"] = {"tier": draw(st.sampled_from([["gold"], ["30", ODD]]))}
        if draw(st.integers(0, 5)) == 3:
            drawn["when"]["conversation"] = {"score": [30, 0]}
        if draw(st.integers(0, 5)) == 3:
            unit = draw(st.sampled_from(["second", "day", "month"]))
            drawn["due"][0]["period"] = {
                "column": draw(st.sampled_from(["conversation.score", "account.tier"])),
                "unit": unit,
            }
        rules.append(drawn)
    return made(rules, draw(floor_lists()), planned=planned)


@st.composite
def crowds(draw: st.DrawFn) -> World:
    """Several worlds side by side in one, each with names and numbers of its own; `as_ofs` are theirs."""
    crowd: World = {"accounts": [], "conversations": [], "holds": [], "orders": [], "feedback": [], "as_ofs": []}
    for number, world in enumerate(draw(st.lists(furnished(), min_size=1, max_size=5))):
        kinds = ("accounts", "conversations", "holds", "orders", "feedback")
        for row in (row for kind in kinds for row in world[kind]):
            row.update({key: f"w{number}{row[key]}" for key in ("id", "account", "conversation") if row.get(key)})
        for account in world["accounts"]:
            account["columns"]["tier"] = draw(TIERS)
            for rows in (account["plans"], account["consent"]):
                for place, row in enumerate(rows, 1):
                    row["id"] = 1000 * len(crowd["accounts"]) + row.get("id", place)
            crowd["accounts"].append(account)
        for entry in world["conversations"]:
            for message in entry["messages"]:
                message["id"] = f"w{number}{message['id']}"
            entry["columns"]["score"] = draw(SCORES)
        for kind in ("conversations", "holds", "orders", "feedback"):
            crowd[kind] += world[kind]
        crowd["as_ofs"].append(world["as_of"])
    return crowd


@dataclass(frozen=True)
class Known:
    """The facts of every conversation of a store, with all holds and orders."""

    bench: Bench
    conversations: Mapping[str, Facts]

    @classmethod
    def read(cls, bench: Bench) -> "Known":
        """The facts as stored, from so early that no hold is left out as released."""
        return cls(bench, bench.facts(EVERY_COLUMN, EVERY_COLUMN.plausible.since))

    def feedback(self, policy: Policy, as_of: datetime) -> Mapping[str, FeedbackFacts]:
        """The facts of every feedback row."""
        ids = [str(row[0]) for row in self.bench.store.execute("SELECT id FROM feedback")]
        with self.bench.database.transaction() as connection:
            return FactsReader(self.bench.contract, policy, as_of).feedback(connection, ids)

    def existing(self, policy: Policy, as_of: datetime) -> dict[str, Facts]:
        """The conversations that exist, with what their users first wrote after the policy's deadline."""
        late = {}
        if policy.deadline is not None:
            rows = self.bench.database.fetched(LATE, {"deadline": policy.deadline})
            late = {row.id: row.late for row in rows}
        return {
            name: replace(facts, late_user_message_at=late.get(name))
            for name, facts in self.conversations.items()
            if exists(facts.conversation, policy, as_of)
        }


LATE = text(
    "SELECT m.conversation_id::text AS id, min(m.created_at) AS late FROM messages m "
    "WHERE m.author = 'user' AND m.created_at >= :deadline GROUP BY m.conversation_id"
)


@dataclass(frozen=True)
class Said:
    """What one side says of every record, and its counts."""

    answers: Mapping[str, Answer]
    counts: Counts


def by_sql(bench: Bench, policy: Policy, as_of: datetime) -> Said:
    """What the statements say of every record."""
    with whole_store.opened(bench.database, bench.contract, as_of) as store:
        verdicts = store.judge(policy)
        counts = verdicts.all_counts(DAYS)
        rows = [*verdicts.every("conversation"), *verdicts.every("feedback")]
    answers = {
        row.id: (row.rule, row.due, row.held, row.doubt and row.doubt.value, row.outcome.value, row.spared)
        for row in rows
    }
    assert len(answers) == len(rows)
    return Said(answers, counts)


def by_core(known: Known, policy: Policy, as_of: datetime) -> Said:
    """What the core says of every record."""
    counts = Counts(RecordCounts(DAYS), RecordCounts(DAYS))
    answers: dict[str, Answer] = {}

    def note(kind: Kind, name: str, evaluation: Evaluation, found: Iterator[Anomaly]) -> None:
        verdict = evaluation.verdict
        doubt = verdict.doubts[0].value if verdict.doubts else None
        answers[name] = (verdict.rule, verdict.due, verdict.held, doubt, evaluation.outcome.value, evaluation.spared)
        counts.count(kind, evaluation, found)

    existing = known.existing(policy, as_of)
    for name, facts in existing.items():
        note("conversation", name, evaluate_stored(facts, policy, as_of), anomalies(facts, policy, as_of))
    for name, row in known.feedback(policy, as_of).items():
        note("feedback", name, evaluate_feedback(row, policy, as_of), iter(feedback_anomalies(row, policy)))
    ahead = len(known.conversations) - len(existing)
    counts.anomalies.update({Anomaly.CREATED_AHEAD.value: ahead} if ahead else {})
    return Said(answers, counts)


def same(one: Said, other: Said) -> None:
    """Both say the same of every record, and count the same."""
    assert one.answers == other.answers
    assert one.counts.anomalies == other.counts.anomalies
    for kind in ("conversation", "feedback"):
        found, expected = one.counts.of(kind), other.counts.of(kind)
        for rule_ in {*found.by_rule, *expected.by_rule}:
            assert found.by_rule[rule_] == expected.by_rule[rule_]
            assert all(found.due_in[rule_][days] == expected.due_in[rule_][days] for days in DAYS)
        for name in ("held", "oldest_due", "newest_due", "skipped", "unclassified"):
            assert getattr(found, name) == getattr(expected, name)


def spell_oddly(store: Store) -> None:
    """Give some holds and orders ids that a person would write otherwise than the store does."""
    for table in ("legal_holds", "erasure_orders"):
        store.execute(
            f"UPDATE sweeper.{table} SET account_id = upper(account_id) || ' ', conversation_id = '“' || conversation_id || '”'"
            " WHERE id % 2 = 0"
        )


def instants(known: Known, policy: Policy, as_of: datetime, edge: int) -> Iterator[datetime]:
    """The as-of, and two instants at which something falls due or happened, as known then or long after."""
    yield as_of
    verdicts = (decide(facts, policy, at) for at in (as_of, FAR) for facts in known.conversations.values())
    found = {verdict.due for verdict in verdicts if verdict.due and verdict.due < FAR}
    for facts in known.conversations.values():
        stored = [
            getattr(facts.conversation, name) for name in ("created_at", "last_activity_at", "deleted_at", "flagged_at")
        ]
        stored += [facts.account.closed_at] if facts.account else []
        found |= {at for at in stored if isinstance(at, datetime) and policy.plausible.holds(at)}
    marks = sorted(found) or [as_of]
    yield from {marks[edge * step % len(marks)] for step in (1, 7)}


EVERY_COLUMN = made(
    [
        rule(
            account={"history_enabled": [True], "retention_days": [1], "tier": ["gold"]},
            conversation={"keep_days": [1], "score": [1]},
        )
    ]
)
"""A policy that reads every further column."""
SIMPLE = [made([rule(**when), rule("other", "1 month", "created", unless=["rule"])]) for when in SINGLE]
"""For each condition a policy of a rule that has it alone, and of one that applies where that does not."""


def agree(bench: Bench, crowd: World, several: Sequence[Policy], edge: int, *, spelt: bool) -> None:
    """Rule, due, hold and first doubt are the same on both sides, under each policy."""
    bench.load(crowd)
    if spelt:
        spell_oddly(bench.store)
    known = Known.read(bench)
    for policy in several:
        for as_of in instants(known, policy, instant(crowd["as_ofs"][edge % len(crowd["as_ofs"])]), edge):
            same(by_sql(bench, policy, as_of), by_core(known, policy, as_of))


PICKS = st.integers(0, 100)


@given(
    crowd=crowds(),
    several=st.lists(several_rules(), min_size=3, max_size=3),
    single=st.lists(st.sampled_from(SIMPLE), min_size=2, max_size=2),
    edge=PICKS,
    spelt=st.booleans(),
)
@settings(max_examples=12)
def test_any_policy(
    bench: Bench,
    crowd: World,
    several: list[Policy],
    single: list[Policy],
    edge: int,
    spelt: bool,  # noqa: FBT001 — drawn
) -> None:
    """Under policies of up to six random rules, and of each condition alone, SQL and core agree."""
    agree(bench, crowd, [*several, *single], edge, spelt=spelt)


@pytest.mark.parametrize("store", ID_TYPES, indirect=True)
@given(crowd=crowds(), edge=PICKS, spelt=st.booleans())
@settings(max_examples=6)
def test_policies_of_every_kind(bench: Bench, policy: Policy, crowd: World, edge: int, spelt: bool) -> None:  # noqa: FBT001 — drawn
    """Under the shipped policy and under rules of every kind they agree, whatever the type of the ids."""
    agree(bench, crowd, [policy, *SYNTHETIC], edge, spelt=spelt)


REDACTING = [
    redacting(*RULES),
    *(
        made([{**rule("content", *content), "action": "redact"}, rule("whole", "1 month")], floors)
        for content in (("0", "created"), ("5 days",), ("6 months", "created"))
        for floors in ([], [{"name": "floor", "because": "…", "anchor": "flagged", "period": "2 months"}])
    ),
]


@given(crowd=crowds(), edge=PICKS, policy=st.sampled_from(REDACTING))
@settings(max_examples=10)
def test_redactions(bench: Bench, crowd: World, edge: int, policy: Policy) -> None:
    """Content is decided as the core does, but what is empty or purged by then is left out; of the rest nothing is redacted."""
    owned = bench.store.acting("postgres")
    opened = owned.database(owned.settings(purge=COLUMNS))
    bench = Bench(owned, read_contract(opened, policy), opened)
    bench.load(crowd)
    owned.execute("UPDATE messages SET body = NULL WHERE id::text LIKE %s", f"%{edge % 10}")
    left = {str(row[0]) for row in owned.execute("SELECT conversation_id FROM messages WHERE body IS NOT NULL")}
    known = Known.read(bench)
    for as_of in instants(known, policy, instant(crowd["as_ofs"][edge % len(crowd["as_ofs"])]), edge):
        expected = {}
        for name, facts in known.existing(policy, as_of).items():
            purge = decide(facts, policy, as_of)
            evaluation = evaluate_redaction(facts, as_stored(facts), policy, as_of)
            verdict = evaluation.verdict
            if purge.expired or verdict.due is None or (purge.due is not None and purge.due <= verdict.due):
                assert evaluation.outcome in (Outcome.NOT_DUE, Outcome.UNCLASSIFIED)
            elif name in left:
                expected[name] = (verdict.rule, verdict.due, verdict.held, evaluation.outcome, evaluation.spared)
        with whole_store.opened(bench.database, bench.contract, as_of) as store:
            verdicts = store.judge(policy)
            store.judge_redactions(verdicts)
            found = [*verdicts.every("redaction")]
        assert len(found) == len({row.id for row in found})
        assert {row.id: (row.rule, row.due, row.held, row.outcome, row.spared) for row in found} == expected


AT = "2026-01-15T12:00:00Z"


def test_condition_at_its_edges(bench: Bench) -> None:
    """What was deleted, flagged or closed at as-of matches, not a microsecond earlier; NULL and -infinity never match."""
    traits: list[dict[str, Any]] = [
        {"deleted_at": AT},
        {"flagged_at": AT},
        {"account": "a2"},
        {"deleted_at": AT, "restored_at": AT},
        {"deleted_at": "-infinity"},
        {"account": "a3"},
        {"kind": None, "platform": None, "incognito": None, "zero_retention": None, "columns": {"keep_days": None}},
    ]
    world = world_of([chat(f"c{number}", **more) for number, more in enumerate(traits)])
    world["accounts"] += [
        {**world["accounts"][0], "id": id_, "closed_at": at} for id_, at in (("a2", AT), ("a3", "-infinity"))
    ]
    bench.load(world)
    known = Known.read(bench)
    edges = {"deleted": "c0", "flagged": "c1", "closed": "c2"}
    for name, value in ((name, value) for name, values in OWN_CONDITIONS.items() for value in values):
        policy = made([{**rule(period="0", **{name: value}), "stands_unclassified": True}])
        for as_of, is_reached in ((instant(AT) - MICROSECOND, False), (instant(AT), True)):
            found = by_sql(bench, policy, as_of)
            same(found, by_core(known, policy, as_of))
            if name in edges:
                assert (found.answers[str(bench.store.id(edges[name]))][0] == "rule") is (is_reached is value)


SCORED = {"column": "conversation.score", "unit": "month", "otherwise": "1 day"}
FLOOR = {"name": "floor", "because": "…", "anchor": "flagged", "period": "9000 years"}
EDGE_POLICIES = [
    made([rule(period=SCORED, anchor="created"), {**rule("incognito", incognito=True), "stands_unclassified": True}]),
    made([rule(account={"tier": [ODD]}), rule("other", "9000 years"), rule("none", "forever", "created")]),
    made([rule()], [{**FLOOR, "name": "short", "period": "2 months"}, FLOOR]),
]
"""Periods of a column, beside a rule that stands without a plan; texts that JSON escapes, and dues beyond year 9999; floors."""


def test_history_hold_and_order_at_their_edges(bench: Bench, policy: Policy) -> None:
    """Plans and consents that meet, periods that a column cannot hold, flags, holds, orders and messages at odd times."""
    own: list[dict[str, Any]] = [
        *({"columns": {"score": score}} for score in ("30", "30.0", "-1", "0", "99999999999999", None)),
        {"flagged_at": AT},
        {"flagged_at": "2026-07-01T00:00:00Z"},
        {"flagged_at": "-infinity", "incognito": True},
        {"created_at": "2025-12-01T00:00:00Z"},
        {},
        {},
        {"messages": [{"id": "m1", "author": "user", "created_at": "2025-10-08T00:00:00Z"}]},
        {
            "last_activity_at": "-infinity",
            "messages": [{"id": "m2", "author": "user", "created_at": "0044-03-15 00:00Z BC"}],
        },
    ]
    of_another = [CONSENTED, event("2025-10-01T00:00:00Z", granted=False, purpose="development_partner")]
    histories = [*((plans, consent, more) for _, _, plans, consent, more in EDGES), ([ALWAYS_PRO], of_another, {})]
    world = world_of([chat(f"c{number}", **more) for number, more in enumerate(own)])
    world["accounts"][0]["columns"] = {"tier": ODD}
    for number, (plans, consent, more) in enumerate(histories):
        world["accounts"] += [{"id": f"e{number}", "plans": plans, "consent": consent}]
        world["conversations"] += [chat(f"e{number}c", account=f"e{number}", **more)]
    for number, account in enumerate(world["accounts"]):
        for kind in ("plans", "consent"):
            account[kind] = [
                {**row, "id": 100 * number + row.get("id", place)} for place, row in enumerate(account[kind])
            ]
    dated = {"recorded_at": "2025-12-01T00:00:00Z", "due_at": "2025-12-05T00:00:00Z"}
    world["orders"] = [{"conversation": "c9", **dated}, {"account": "e0", **dated}]
    world["holds"] = [
        {"conversation": "c10", "placed_at": None, "released_at": "1970-01-01T00:00:00Z"},
        {"conversation": "c11", "placed_at": "9999-01-01T00:00:00Z", "released_at": AT},
    ]
    bench.load(world)
    bench.store.execute("UPDATE sweeper.erasure_orders SET account_id = account_id || ' '")
    known = Known.read(bench)
    for each in (policy, *EDGE_POLICIES):
        for as_of in (instant(AT) - MICROSECOND, instant(AT), AS_OF):
            same(by_sql(bench, each, as_of), by_core(known, each, as_of))
    said = by_sql(bench, policy, AS_OF).answers
    assert [said[str(bench.store.id(name))][0] for name in ("c9", "e16c")] == ["erasure_order", "training_allowed"]
    assert said[str(bench.store.id("c10"))][2]


REPEATING = """
CREATE SCHEMA lens;
CREATE VIEW lens.accounts AS SELECT a.* FROM store.accounts a UNION ALL SELECT a.* FROM store.accounts a WHERE a.tier = 'gold';
CREATE VIEW lens.conversations AS SELECT c.* FROM store.conversations c
    UNION ALL SELECT c.* FROM store.conversations c WHERE c.score = 7;
CREATE VIEW lens.plan_changes AS SELECT * FROM store.plan_changes;
CREATE VIEW lens.consent_events AS SELECT * FROM store.consent_events;
CREATE VIEW lens.messages AS SELECT * FROM store.messages;
CREATE VIEW lens.attachments AS SELECT * FROM store.attachments;
CREATE VIEW lens.feedback AS SELECT * FROM store.feedback
"""


@given(crowd=crowds(), edge=PICKS)
@settings(max_examples=6)
def test_row_that_a_view_shows_twice(store: Store, policy: Policy, crowd: World, edge: int) -> None:
    """What a view shows more than once, or whose account it does, is in doubt on both sides, once."""
    if store.execute("SELECT to_regnamespace('lens') IS NULL") == [(True,)]:
        store.execute(
            "ALTER TABLE conversations ADD keep_days integer, ADD score numeric; ALTER TABLE accounts ADD tier text"
        )
        for statement in REPEATING.split(";"):
            store.execute(statement)
    found = store.settings(store={"schema": "lens"}, purge={"table": "store.conversations"})
    opened = store.database(found)
    bench = Bench(store, read_contract(opened, policy), opened)
    agree(bench, crowd, [policy], edge, spelt=False)

"""Eligibility for a whole store at once, in SQL, is what the core says of each message, under any policy and any world."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.manifest.eligibility import Eligibility
from sweeper.policy.decide import decide, exists
from sweeper.policy.schema import Names, Policy
from sweeper.policy.training import exclusions
from sweeper.postgres.facts import FactsReader
from sweeper.runs.job import read_contract
from tests.facts import World, instant
from tests.redacting import redacting
from tests.store.stores import ID_TYPES, Store
from tests.store.test_propose import Bench, furnished, policies

Reasons = dict[str, str]


def trained(policy: Policy, resumed: str = "from_opt_in", max_age: str = "5 years") -> Policy:
    """The policy with a training scope."""
    raw = policy.model_dump(mode="json", by_alias=True)
    raw["training"] = {"platforms": ["first_party"], "max_age": max_age, "resumed": resumed}
    return Policy.model_validate(raw, context=Names.of(raw))


def redacting_as(policy: Policy, other: Policy) -> Policy:
    """The policy with the rules of another one, which redact what they would purge."""
    raw, further = (each.model_dump(mode="json", by_alias=True) for each in (policy, other))
    for rule in further["rules"]:
        rule["name"], rule["action"] = f"{rule['name']}_content", "redact"
        rule["when"]["unless"] = [f"{name}_content" for name in rule["when"]["unless"]]
    raw["rules"] += further["rules"]
    for name in ("plans", "purposes"):
        raw[name] = raw[name] or further[name]
    return Policy.model_validate(raw, context=Names.of(raw))


FEBRUARY = "2026-02-01T00:00:00Z"


FORGOTTEN = (
    "SET session_replication_role = replica; DELETE FROM sweeper.tombstones; DELETE FROM sweeper.runs;"
    "RESET session_replication_role"
)
REDACTED = """
WITH run AS (
    INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, started_at)
    VALUES ('store', '2050-01-01Z', 'p', 'd', 1, '2050-01-01Z') RETURNING id
)
INSERT INTO sweeper.tombstones (record, record_id, rule, due_at, as_of, run_id, policy_digest, children, approved, purged_at)
SELECT 'redaction', %s, 'content', '2050-01-01Z', '2050-01-01Z', run.id, 'd', '{}', false, '2050-01-01Z' FROM run
"""


class Judged(Bench):
    """A store whose messages the core judges, and the statements."""

    def by_core(self, policy: Policy, as_of: datetime, *, ahead: bool) -> Reasons:
        """What the core says of every message."""
        reader, found = FactsReader(self.contract, policy, as_of), {}
        with self.store.database().transaction() as connection:
            for facts in reader.conversations(connection, sorted(self.store.left()), every=True).values():
                if exists(facts.conversation, policy, as_of):
                    messages = reader.messages(connection, facts.conversation.id)
                    for message, reason in exclusions(facts, messages, policy, as_of, ahead=ahead):
                        found[message.id] = reason.value if reason else "eligible"
        return found

    def by_sql(self, policy: Policy, as_of: datetime, *, ahead: bool) -> tuple[Reasons, list[Any], list[Any], set[str]]:
        """What the statements say of every message; the eligible rows; the counts; and which are lost."""
        eligibility = Eligibility(self.contract, policy, as_of, ahead=ahead)
        ids = [str(row[0]) for row in self.store.execute("SELECT id FROM messages")]
        with self.store.database().transaction() as connection:
            for sql in eligibility.prepare():
                connection.exec_driver_sql(sql)
            reasons = {
                str(row.id): row.reason or "eligible" for row in connection.exec_driver_sql(eligibility.reasoned)
            }
            rows = list(connection.exec_driver_sql(eligibility.rows()))
            counts = list(connection.exec_driver_sql(eligibility.counts()))
            connection.exec_driver_sql(eligibility.load())
            for id_ in (*ids, str(self.store.id("gone"))):
                connection.exec_driver_sql("INSERT INTO pg_temp.sweeper_manifest VALUES (%s, 'c', NULL)", (id_,))
            lost = {row.message_id for row in connection.exec_driver_sql(eligibility.lost("m", only_new=False))}
        return reasons, rows, counts, lost

    def redact(self, number: int) -> None:
        """Record that the content of a conversation was redacted, long after every as-of; of none if there are fewer."""
        self.store.execute(FORGOTTEN)
        self.store.execute(REDACTED, self.store.id(f"c{number}"))

    def judge(self, policy: Policy, as_of: datetime, *, ahead: bool = False) -> None:
        """Both say the same; rows, counts and losses follow from it."""
        wanted = self.by_core(policy, as_of, ahead=ahead)
        found, rows, counts, lost = self.by_sql(policy, as_of, ahead=ahead)
        assert found == wanted
        eligible = {id_ for id_, reason in wanted.items() if reason == "eligible"}
        assert {row.message_id for row in rows} == eligible
        assert len(rows) == len(eligible)
        assert sum(row.messages for row in counts) == len(wanted)
        ids = {str(row[0]) for row in self.store.execute("SELECT id FROM messages")}
        assert lost == (ids - eligible) | {self.store.id("gone")}


@pytest.fixture
def bench(store: Store, policy: Policy) -> Judged:
    """A store whose conversations, too, have a further column."""
    store.execute("ALTER TABLE conversations ADD keep_days integer")
    return Judged(store, read_contract(store.database(), policy))


@pytest.mark.parametrize("store", ID_TYPES, indirect=True)
@given(world=furnished(), ahead=st.booleans())
@settings(max_examples=15)
def test_shipped_policy(bench: Judged, policy: Policy, world: World, ahead: bool) -> None:  # noqa: FBT001 — drawn
    """Under the shipped policy, and under its wider scope, SQL and core agree on every message, kept or barred."""
    bench.load(world)
    for scope in ("from_opt_in", "entire"):
        bench.judge(trained(policy, scope), instant(world["as_of"]), ahead=ahead)


@given(
    world=furnished(),
    several=st.lists(policies(), min_size=2, max_size=2),
    scope=st.sampled_from(["from_opt_in", "entire"]),
    redacted=st.integers(0, 9),
)
@settings(max_examples=20)
def test_any_policy(bench: Judged, world: World, several: Sequence[Policy], scope: str, redacted: int) -> None:
    """Under random policies they agree too, whatever conditions, anchors and periods the rules have, also rules that redact."""
    bench.load(world)
    bench.redact(redacted)
    for policy in (*several, redacting_as(*several)):
        bench.judge(trained(policy, scope, "18 months"), instant(world["as_of"]))


@pytest.mark.parametrize("store", ID_TYPES, indirect=True)
@pytest.mark.parametrize("named", ["conversation_id", "account_id", "both"])
def test_order_in_another_spelling(bench: Judged, policy: Policy, named: str) -> None:
    """What an order may mean that spells an id in another way than the store is not trained on, and is not erased either."""
    consent = [{"granted": True, "recorded_at": "2026-01-01T00:00:00Z"}]
    plans = [{"effective_at": "2020-01-01T00:00:00Z", "plan": "pro"}]
    chats = [
        {"id": f"c{n}", "account": f"a{n}", "created_at": FEBRUARY, "last_activity_at": FEBRUARY}
        | {"messages": [{"id": f"m{n}", "author": "user", "created_at": FEBRUARY}]}
        for n in (1, 2)
    ]
    accounts = [{"id": f"a{n}", "plans": plans, "consent": consent} for n in (1, 2)]
    bench.load({"accounts": accounts, "conversations": chats, "holds": [], "orders": []})
    spelt = {"conversation_id": f"\u201c{bench.store.id('c1')}\u201d", "account_id": f" {bench.store.id('a1')}."}
    bench.store.execute(
        "INSERT INTO sweeper.erasure_orders (reference, conversation_id, account_id, recorded_at, due_at) "
        "VALUES ('o', %s, %s, '2026-03-01Z', '2026-03-02Z')",
        *(spelt[column] if named in (column, "both") else None for column in ("conversation_id", "account_id")),
    )
    as_of = instant("2026-06-01T00:00:00Z")
    reasons, *_ = bench.by_sql(policy, as_of, ahead=False)
    assert reasons == {bench.store.id("m1"): "erasure_order", bench.store.id("m2"): "eligible"}
    bench.judge(policy, as_of)
    with bench.store.database().transaction() as connection:
        reader = FactsReader(bench.contract, policy, as_of)
        for every in (False, True):
            (facts,) = reader.conversations(connection, [str(bench.store.id("c1"))], every=every).values()
            assert not decide(facts, policy, as_of).expired


def test_doubt_about_content(bench: Judged) -> None:
    """If a column that says when content goes cannot be used, its messages are not trained on."""
    period = {"column": "conversation.keep_days", "unit": "day"}
    policy = redacting({"name": "content", "due": [{"anchor": "last_activity", "period": period}]})
    consent = [{"granted": True, "recorded_at": "2026-01-01T00:00:00Z"}]
    plans = [{"effective_at": "2020-01-01T00:00:00Z", "plan": "pro"}]
    chats = [
        {"id": f"c{n}", "account": "a1", "created_at": FEBRUARY, "last_activity_at": FEBRUARY}
        | {"messages": [{"id": f"m{n}", "author": "user", "created_at": FEBRUARY}], "columns": {"keep_days": days}}
        for n, days in enumerate((-1, 30, 300))
    ]
    accounts = [{"id": "a1", "plans": plans, "consent": consent}]
    bench.load({"accounts": accounts, "conversations": chats, "holds": [], "orders": []})
    as_of = instant("2026-06-01T00:00:00Z")
    reasons, *_ = bench.by_sql(policy, as_of, ahead=False)
    wanted = ("unclassified", "redacted", "eligible")
    assert reasons == {bench.store.id(f"m{n}"): reason for n, reason in enumerate(wanted)}
    bench.judge(policy, as_of)

"""The columns of manifest rows equal the policy package's answers, on random worlds with many eligible messages."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sweeper.manifest.eligibility import Eligibility
from sweeper.policy.decide import decide
from sweeper.policy.history import View, history
from sweeper.policy.redaction import decide_redaction
from sweeper.policy.schema import Policy
from sweeper.policy.training import exclusions
from sweeper.postgres.facts import FactsReader
from sweeper.runs.job import read_contract
from tests.facts import World
from tests.manifest.test_eligibility import trained
from tests.redacting import RULES, redacting
from tests.store.stores import Store

DAYS = [datetime(2025, 8, 28, tzinfo=UTC) + timedelta(days=d) for d in (-5, 0, 3, 10, 41, 60, 90, 120)]
AS_OF = DAYS[-1] + timedelta(days=5)
TICKS = [timedelta(0)] * 4 + [timedelta(microseconds=1), timedelta(microseconds=-1)]
ACCOUNTS = 120
PLANS = ["pro", "free", "max", "team", "api", "platinum"]


def moment(dice: random.Random) -> str:
    """Return one of a few instants, or one that differs by a microsecond."""
    return (dice.choice(DAYS) + dice.choice(TICKS)).isoformat()


def account(dice: random.Random, name: str) -> dict[str, Any]:
    """Return an account with one or more consent events and sometimes plan changes."""
    first = dice.choice(["pro", "pro", "max", "api"])
    plans = [{"effective_at": "2024-01-01T00:00:00Z", "plan": first}]
    later = dice.choice([0, 0, 0, 1, 2])
    plans += [{"effective_at": moment(dice), "plan": dice.choice(PLANS)} for _ in range(later)]
    consent = []
    for _ in range(dice.choice([1, 1, 2, 3, 4])):
        event: dict[str, Any] = {"recorded_at": moment(dice), "granted": dice.random() < 0.7}
        if first == "api":
            event["purpose"] = dice.choice(["development_partner", "development_partner", "model_improvement"])
        if dice.random() < 0.3:
            event["effective_at"] = moment(dice)
        consent.append(event)
    return {"id": name, "plans": plans, "consent": consent}


def chat(dice: random.Random, owner: str, number: int) -> dict[str, Any]:
    """Return a conversation of three messages; a few have an attribute that excludes them."""
    created, last = sorted([moment(dice), moment(dice)])
    excluded: dict[str, Any] = dice.choice(
        [{}] * 25 + [{"deleted_at": moment(dice)}, {"flagged_at": moment(dice)}, {"incognito": True}]
    )
    messages = [{"id": f"{owner}c{number}m{n}", "author": "user", "created_at": moment(dice)} for n in range(3)]
    name = f"{owner}c{number}"
    return {
        "id": name,
        "account": owner,
        "created_at": created,
        "last_activity_at": last,
        "messages": messages,
        **excluded,
    }


def a_world(seed: int) -> World:
    """Return the world of a seed."""
    dice = random.Random(seed)  # noqa: S311 — seeded on purpose, nothing secret
    accounts = [account(dice, f"a{number}") for number in range(ACCOUNTS)]
    chats = [chat(dice, owner["id"], number) for owner in accounts for number in range(2)]
    return {"accounts": accounts, "conversations": chats, "holds": [], "orders": []}


def expected_columns(reader: FactsReader, connection: Any, store: Store, policy: Policy) -> dict[str, tuple[Any, ...]]:
    """Return expiry, plan, first grant and turn of every message that the policy package considers eligible."""
    assert policy.training is not None
    found = {}
    for facts in reader.conversations(connection, sorted(store.left()), every=True).values():
        due, content = decide(facts, policy, AS_OF).due, decide_redaction(facts, policy, AS_OF)
        judged = list(exclusions(facts, reader.messages(connection, facts.conversation.id), policy, AS_OF))
        if any(reason is None for _, reason in judged):  # otherwise a message may have no time to be sorted by
            judged.sort(key=lambda pair: (pair[0].created_at, pair[0].id))
        for turn, (message, reason) in enumerate(judged):
            if reason is not None or facts.account is None or not isinstance(message.created_at, datetime):
                continue
            known = history(facts.account, policy, AS_OF)
            purpose = policy.purpose_of_plan[str(known.timeline.at(AS_OF))]
            epoch = known.epoch_at(purpose, View.TRAINING, AS_OF)
            cap = policy.training.max_age.after(message.created_at)
            dues = (due, cap, content.due if content else None)
            expires = min((instant for instant in dues if instant is not None), default=None)
            found[message.id] = (
                expires,
                known.timeline.at(message.created_at),
                epoch.event_id if epoch else None,
                turn,
            )
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("scope", "cap", "redacts"),
    [("from_opt_in", "5 years", False), ("from_opt_in", "5 years", True), ("entire", "2 months", False)],
)
def test_columns(store: Store, policy: Policy, seed: int, scope: str, cap: str, redacts: bool) -> None:  # noqa: FBT001 — a parameter
    """The rows are the messages that the policy package considers eligible, with the same expiry, plan, first grant and turn."""
    store.load(a_world(seed))
    contract = read_contract(store.database(), policy)
    scoped = trained(redacting(*RULES) if redacts else policy, scope, cap)
    eligibility = Eligibility(contract, scoped, AS_OF)
    with store.database().transaction() as connection:
        for sql in eligibility.prepare():
            connection.exec_driver_sql(sql)
        rows = connection.exec_driver_sql(eligibility.rows()).all()
        expected = expected_columns(FactsReader(contract, scoped, AS_OF), connection, store, scoped)
    found = {row.message_id: (row.expires_at, row.plan, row.consent_event_id, row.turn) for row in rows}
    assert found == expected
    assert len(expected) > ACCOUNTS / 4
    eligible = Counter(row.conversation_id for row in rows)
    assert any(row.turn >= eligible[row.conversation_id] for row in rows), "turns count ineligible messages as well"

"""The demo's world has all real conversations unaltered, and data that each rule purges or keeps, as judged by the oracle."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from sweeper.demo import world as demo
from tests import model

Record = dict[str, Any]

NOW = datetime(2026, 11, 23, 9, 30, 0, 123456, tzinfo=UTC)
OBJECTS = Path("/nowhere/demo objects")
REGIME_BEGAN = datetime(2025, 8, 28, tzinfo=UTC)

CAN_BE_OVERDUE = {
    *("deleted", "account_closed", "incognito", "commercial", "consent_ended", "standard", "erasure_order"),
}
LASTS_FOR_YEARS = {"partner", "training_allowed", "flagged", "unclassified"}


@cache
def world(seed: int = 1) -> demo.World:
    return demo.build(seed, NOW, OBJECTS)


@cache
def records(relation: str, seed: int = 1) -> list[Record]:
    return [dict(zip(demo.COLUMNS[relation], row, strict=True)) for row in getattr(world(seed), relation)]


def by(key: str, rows: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    return groups


def as_case(row: Record) -> Record:
    """Return the row as the oracle reads it: timestamps as text, references under their short names."""
    text = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}
    return text | {"account": row.get("account_id"), "conversation": row.get("conversation_id")}


def as_cases(rows: Sequence[Record]) -> list[Record]:
    return [as_case(row) for row in rows]


def one_per_account(seed: int = 1) -> Iterator[Record]:
    """Yield one case per account, because the oracle scans all rows of a case for each verdict."""
    plans, consents, chats, feedback = (
        by("account_id", records(relation, seed))
        for relation in ("plan_changes", "consent_events", "conversations", "feedback")
    )
    for account in records("accounts", seed):
        key = account["id"]
        yield {
            "as_of": NOW.isoformat(),
            "accounts": [as_case(account) | {"plans": as_cases(plans[key]), "consent": as_cases(consents[key])}],
            "conversations": as_cases(chats[key]),
            "holds": as_cases([vars(hold) for hold in world(seed).holds]),
            "orders": as_cases([vars(order) for order in world(seed).orders]),
            "feedback": as_cases(feedback[key]),
        }


@cache
def verdicts(seed: int = 1) -> dict[str, model.Verdict]:
    return {key: verdict for case in one_per_account(seed) for key, verdict in model.verdicts(case).items()}


def is_due(verdict: model.Verdict) -> bool:
    return verdict.due is not None and verdict.due <= NOW


def test_all_real_conversations_and_messages_are_there() -> None:
    """Nothing is sampled or left out, not even messages without text."""
    messages = records("messages")
    assert len(world().conversations) == 7_168
    assert len(messages) == 258_145
    assert sum(message["body"] == "" for message in messages) == 33
    assert len({message["id"] for message in messages}) == 258_145


def test_texts_and_relative_instants_are_the_real_ones() -> None:
    """Texts, speakers and times are those of the dataset, with all times shifted by the same amount."""
    raw = json.loads((resources.files("chitchat_dataset") / "dataset.json").read_bytes())
    real, people = [], defaultdict(set)
    for key, chat in raw.items():
        turns = [one for turn in chat["messages"] for one in turn]
        owner = turns[0]["sender"]
        people[owner].add(key)
        real += [(datetime.fromisoformat(one["timestamp"]), one["sender"] == owner, one["text"]) for one in turns]
    shift = NOW - timedelta(hours=1) - max(at for at, _, _ in real)
    loaded = [(row["created_at"] - shift, row["author"] == "user", row["body"]) for row in records("messages")]
    assert sorted(loaded) == sorted(real)
    chats = by("account_id", records("conversations"))
    assert sorted(map(len, people.values())) == sorted(map(len, chats.values()))
    assert len(world().accounts) == len(people)
    assert not people.keys() & chats.keys()  # the dataset's own ids of people are not stored


def test_the_first_speaker_is_the_user_and_only_users_are_active() -> None:
    """A conversation begins with a user message, and later assistant messages do not count as activity."""
    messages = by("conversation_id", records("messages"))
    last_words = 0
    for chat in records("conversations"):
        turns = messages[chat["id"]]
        instants = [message["created_at"] for message in turns]
        assert instants == sorted(instants)
        assert turns[0]["author"] == "user"
        assert chat["created_at"] == instants[0]
        assert chat["last_activity_at"] == max(one["created_at"] for one in turns if one["author"] == "user")
        last_words += chat["last_activity_at"] < instants[-1]
    assert last_words == 2_123


def test_the_newest_message_lies_shortly_before_now() -> None:
    """The newest message is an hour old, and no timestamp is in the future."""
    assert max(row["created_at"] for row in records("messages")) == NOW - timedelta(hours=1)
    instants = [
        value
        for relation in demo.COLUMNS
        for row in getattr(world(), relation)
        for value in row
        if isinstance(value, datetime)
    ]
    assert max(instants) < NOW


def test_the_same_seed_makes_the_same_world() -> None:
    """The world depends on seed, instant and directory only, not on the time zone of `now`."""
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-5)))
    assert demo.build(1, elsewhere, OBJECTS) == world()


def test_another_seed_changes_the_invented_data_only() -> None:
    """With another seed the messages stay the same and all invented relations change."""
    assert world(2).messages == world().messages
    for relation in ("accounts", "plan_changes", "consent_events", "conversations", "attachments", "feedback"):
        assert getattr(world(2), relation) != getattr(world(), relation)


def test_a_naive_now_is_refused() -> None:
    """A `now` without a time zone is ambiguous."""
    with pytest.raises(ValueError, match="naive"):
        demo.build(1, datetime(2026, 11, 23), OBJECTS)  # noqa: DTZ001 - naive on purpose


def test_histories_are_possible() -> None:
    """Nobody consents before signing up or before the consent regime, or writes after a closing or deletion."""
    accounts = {row["id"]: row for row in records("accounts")}
    spoken = {key: turns[-1]["created_at"] for key, turns in by("conversation_id", records("messages")).items()}
    for event in records("consent_events"):
        assert event["recorded_at"] > max(REGIME_BEGAN, accounts[event["account_id"]]["created_at"])
    for chat in records("conversations"):
        account = accounts[chat["account_id"]]
        assert account["created_at"] < chat["created_at"]
        assert account["closed_at"] is None or spoken[chat["id"]] < account["closed_at"]
        assert chat["deleted_at"] is None or spoken[chat["id"]] < chat["deleted_at"]
        assert chat["restored_at"] is None or chat["deleted_at"] < chat["restored_at"]


@pytest.mark.parametrize("seed", [1, 2])
def test_every_rule_applies(seed: int) -> None:
    """Each rule that can be overdue has overdue and pending conversations; the other rules keep some."""
    found = Counter((verdict.rule, is_due(verdict)) for verdict in verdicts(seed).values())
    overdue = {rule for rule, due in found if due}
    kept = {rule for rule, due in found if not due}
    assert overdue == {*CAN_BE_OVERDUE, "zero_retention"}  # due at its last activity, so never pending
    assert kept == CAN_BE_OVERDUE | LASTS_FOR_YEARS


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_due_stays_below_the_guard(seed: int) -> None:
    """A run of the demo needs no approval: the share that is due is well below the guard's 20 %."""
    due = sum(map(is_due, verdicts(seed).values()))
    assert 0.08 * 7_168 < due < 0.18 * 7_168


def test_holds_keep_what_is_overdue() -> None:
    """The holds on an account and on a conversation keep overdue conversations; the released hold keeps none."""
    on_account, on_chat, released = world().holds
    chats = by("account_id", records("conversations"))
    held = {key for key, verdict in verdicts().items() if verdict.held and is_due(verdict)}
    assert held == {chat["id"] for chat in chats[str(on_account.account_id)]} | {on_chat.conversation_id}
    assert all(verdicts()[chat["id"]].purge for chat in chats[str(released.account_id)])


def test_flags_keep_zero_retention_and_overdue_conversations() -> None:
    """A safety flag postpones the due date of zero-retention and of overdue conversations."""
    chats = records("conversations")
    moved = [chat for chat in chats if verdicts()[chat["id"]].rule == "flagged"]
    assert {chat["zero_retention"] for chat in moved} == {True, False}


def test_all_kinds_of_plans_and_consents_occur() -> None:
    """Every plan, an unknown plan, both purposes, and back-dated withdrawals occur."""
    plans = Counter(row["plan"] for row in records("plan_changes"))
    assert plans.keys() == {"free", "pro", "max", "team", "enterprise", "api", "platinum"}
    events = records("consent_events")
    assert {(event["purpose"], event["granted"]) for event in events} == {
        (purpose, granted) for purpose in ("model_improvement", "development_partner") for granted in (True, False)
    }
    back_dated = [event for event in events if event["effective_at"] is not None]
    assert back_dated
    assert all(not event["granted"] and event["effective_at"] < event["recorded_at"] for event in back_dated)


def test_some_objects_are_shared() -> None:
    """Some objects are attached both to a conversation that is purged and to one that is kept."""
    sharing = [rows for rows in by("uri", records("attachments")).values() if len(rows) > 1]
    assert len(sharing) == demo.SHARED_OBJECTS
    for rows in sharing:
        assert {verdicts()[row["conversation_id"]].purge for row in rows} == {True, False}


def test_objects_lie_in_the_directory_given() -> None:
    """The path in a URI is not encoded, as fsspec expects."""
    for row in records("attachments"):
        assert Path(row["uri"].removeprefix("file://")).parent == OBJECTS


def test_feedback() -> None:
    """Only the early bug reports are due, on conversations that no longer exist; one survey has a transcript."""
    found = {key: verdict for case in one_per_account() for key, verdict in model.feedback(case).items()}
    rows = records("feedback")
    chats = {chat["id"] for chat in records("conversations")}
    orphaned = [row for row in rows if row["conversation_id"] not in chats]
    assert {row["id"] for row in orphaned} == {key for key, verdict in found.items() if verdict.purge}
    assert len(orphaned) == demo.EARLY_BUG_REPORTS
    kept = {row["kind"] for row in rows if not found[row["id"]].purge}
    assert kept == {"thumbs", "survey", "bug_report"}
    assert sum(row["kind"] == "survey" and row["transcript"] is not None for row in rows) == 1

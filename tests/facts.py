"""Worlds in the JSON shape of `cases.jsonl` as the facts of the core: what the store would read of them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sweeper.policy.facts import Account, ConsentEvent, Conversation, Facts, Feedback, Hold, Message, Order, PlanChange
from sweeper.policy.feedback import FeedbackFacts
from sweeper.policy.instant import OutOfRange, StoredTimestamp, parse

World = dict[str, Any]
CREATED = "2019-01-01T00:00:00Z"


def instant(text: str) -> datetime:
    """An instant that a calendar can hold."""
    return parse(text)


def stored(text: str | None) -> StoredTimestamp:
    """An instant as the store would give it."""
    if text is None:
        return None
    if text in ("infinity", "-infinity"):
        return OutOfRange(text)
    if len(text.partition("-")[0]) > 4:
        return OutOfRange.DISTANT
    return datetime.fromisoformat(text).astimezone(UTC)


def account_of(world: World, name: str) -> Account | None:
    """The account, or None where the world has none of that name."""
    for account in world["accounts"]:
        if account["id"] == name:
            return Account(
                name,
                stored(account.get("created_at", CREATED)),
                stored(account.get("closed_at")),
                tuple(
                    PlanChange(entry.get("id", number), stored(entry["effective_at"]), entry["plan"])
                    for number, entry in enumerate(account["plans"], 1)
                ),
                tuple(
                    ConsentEvent(
                        entry.get("id", number),
                        entry.get("purpose", "model_improvement"),
                        entry["granted"],
                        stored(entry["recorded_at"]),
                        stored(entry.get("effective_at")),
                    )
                    for number, entry in enumerate(account["consent"], 1)
                ),
                account.get("columns", {}),
            )
    return None


def _holds(world: World) -> tuple[Hold, ...]:
    return tuple(
        Hold("m", h.get("account"), h.get("conversation"), stored(h.get("placed_at")), stored(h.get("released_at")))
        for h in world["holds"]
    )


def _orders(world: World) -> tuple[Order, ...]:
    return tuple(
        Order("o", o.get("account"), o.get("conversation"), stored(o.get("recorded_at")), stored(o.get("due_at")))
        for o in world["orders"]
    )


def conversation_of(entry: dict[str, Any]) -> Conversation:
    """The conversation's row."""
    return Conversation(
        id=entry["id"],
        account_id=entry["account"],
        kind=entry.get("kind", "chat"),
        platform=entry.get("platform", "first_party"),
        incognito=entry.get("incognito", False),
        zero_retention=entry.get("zero_retention", False),
        columns=entry.get("columns", {}),
        **{
            column: stored(entry.get(column))
            for column in ("created_at", "last_activity_at", "deleted_at", "restored_at", "flagged_at")
        },
    )


def facts_of(world: World, name: str) -> Facts:
    """The facts of one conversation."""
    entry = next(c for c in world["conversations"] if c["id"] == name)
    return Facts(conversation_of(entry), account_of(world, entry["account"]), _holds(world), _orders(world))


def messages_of(world: World, name: str) -> list[Message]:
    """The messages of one conversation."""
    entry = next(c for c in world["conversations"] if c["id"] == name)
    return [Message(m["id"], m.get("author"), stored(m.get("created_at"))) for m in entry["messages"]]


def feedback_of(world: World) -> list[FeedbackFacts]:
    """The feedback rows with what names them."""
    return [
        FeedbackFacts(
            Feedback(
                f["id"],
                f.get("account"),
                f.get("conversation"),
                f.get("kind"),
                stored(f.get("submitted_at")),
                f.get("transcript") is not None,
            ),
            _holds(world),
            _orders(world),
        )
        for f in world.get("feedback", ())
    ]


def renamed(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A row whose names of records are those of another world, and whose number, where it has one, is far from the others'."""
    changed = {name: f"{row[name]}-{number}" for name in ("account", "conversation", "id") if row.get(name) is not None}
    if isinstance(row.get("id"), int):
        changed["id"] = row["id"] + number * 100_000
    return {**row, **changed}


def together(cases: Sequence[World]) -> World:
    """Several cases of one as-of as one world, in which the names of the n-th end in -n; none may hold or order everything."""
    found: World = {name: [] for name in ("accounts", "conversations", "holds", "orders", "feedback")}
    found |= {"as_of": cases[0]["as_of"], "expect": {"conversations": {}, "messages": {}, "feedback": {}}}
    for number, case in enumerate(cases, 1):
        for account in case["accounts"]:
            events = {name: [renamed(row, number) for row in account[name]] for name in ("plans", "consent")}
            found["accounts"].append({**renamed(account, number), **events})
        for chat in case["conversations"]:
            messages = [renamed(message, number) for message in chat["messages"]]
            found["conversations"].append({**renamed(chat, number), "messages": messages})
        for name in ("holds", "orders", "feedback"):
            found[name] += [renamed(row, number) for row in case.get(name, ())]
        for name, expected in case["expect"].items():
            found["expect"][name] |= {f"{id_}-{number}": wanted for id_, wanted in expected.items()}
    return found


def by_as_of(cases: Sequence[World]) -> list[list[World]]:
    """The cases that can be one world, as-of by as-of; none may hold or order everything."""
    groups: dict[str, list[World]] = {}
    for case in cases:
        groups.setdefault(case["as_of"], []).append(case)
    return list(groups.values())


def is_universal(case: World) -> bool:
    """Whether a hold or an order of the case names neither an account nor a conversation."""
    return any(not row.get("account") and not row.get("conversation") for row in [*case["holds"], *case["orders"]])

"""What must hold when it is over: the world as the log tells it, judged by the slow model of the policy."""

from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from datetime import datetime
from typing import Any

from benchmarks.soak.application import text
from tests import model
from tests.facts import World
from tests.store.stores import Store


def told(store: Store, begun: World) -> World:
    """The world after everything that the log says was done, whether or not it is still stored."""
    world: World = deepcopy(begun)
    chats = {chat["id"]: chat for chat in world["conversations"]}
    accounts = {account["id"]: account for account in world["accounts"]}
    for kind, name, at, data in store.execute("SELECT kind, name, at, data FROM soak.log ORDER BY at, id"):
        match kind:
            case "import":
                chats[name] = data
                world["conversations"].append(data)
            case "resume":
                chats[name]["last_activity_at"] = text(at)
                chats[name]["messages"].append({"id": f"r{text(at)}", "author": "user", "created_at": text(at)})
            case "delete":
                chats[name]["deleted_at"] = data["deleted_at"]
            case "restore":
                chats[name]["restored_at"] = text(at)
            case "withdraw":
                accounts[data["account"]]["consent"].append({"granted": False, "recorded_at": text(at)})
            case "hold":
                world["holds"].append({"conversation": name, "placed_at": text(at), "released_at": None})
            case "release":
                for hold in world["holds"]:
                    if hold["conversation"] == name and hold["released_at"] is None:
                        hold["released_at"] = text(at)
            case "order":
                world["orders"].append({"conversation": name, "recorded_at": text(at), "due_at": data["due_at"]})
    return _numbered(world)


def _numbered(world: World) -> World:
    """Ids in the order of the rows, as the store gave them."""
    for account in world["accounts"]:
        for entries in (account["plans"], account["consent"]):
            for number, entry in enumerate(entries, 1):
                entry["id"] = number
    return world


def faults(store: Store, world: World, as_of: datetime) -> Iterator[str]:
    """Everything that does not add up after a last run at `as_of`."""
    world = {**world, "as_of": text(as_of)}
    names = {store.id(chat["id"]): chat["id"] for chat in world["conversations"]}
    there = store.left()
    verdicts = model.verdicts(world)
    due = {name for name, verdict in verdicts.items() if verdict.purge}
    left = {names[id_] for id_ in there}
    yield from (f"{name} is due and was not purged: {verdicts[name]}" for name in sorted(left & due))
    yield from (
        f"{name} should have been kept and is gone: {verdicts[name]}"
        for name in sorted(set(names.values()) - left - due)
    )
    yield from _evidence(store, world, names, there)
    yield from _orphans(store)


def _evidence(store: Store, world: World, names: dict[str | None, str], there: set[str]) -> Iterator[str]:
    """Every purged conversation has exactly one tombstone, and it names the rule and the due of that instant."""
    rows = store.execute("SELECT record_id, rule, due_at, as_of FROM sweeper.tombstones WHERE record = 'conversation'")
    stones = Counter(row[0] for row in rows)
    yield from (f"{names[id_]} has {count} tombstones" for id_, count in stones.items() if count > 1)
    yield from (f"{names[id_]} has a tombstone and is there" for id_ in stones.keys() & there)
    yield from (
        f"{name} is gone without a tombstone" for id_, name in names.items() if id_ not in there | stones.keys()
    )
    by_instant: dict[datetime, list[tuple[Any, ...]]] = {}
    for row in rows:
        by_instant.setdefault(row[3], []).append(row)
    for as_of, buried in by_instant.items():
        yield from _misjudged(world, names, as_of, buried)


def _misjudged(
    world: World, names: dict[str | None, str], as_of: datetime, buried: list[tuple[Any, ...]]
) -> Iterator[str]:
    chats = {chat["id"]: chat for chat in world["conversations"]}
    of_these = [chats[names[row[0]]] for row in buried]
    then = model.verdicts({**world, "as_of": text(as_of), "conversations": of_these})
    for id_, rule, due_at, _ in buried:
        verdict = then[names[id_]]
        if (verdict.rule, verdict.due, verdict.purge) != (rule, due_at, True):
            yield f"{names[id_]} was purged as {rule}, due {due_at}; the model says {verdict}"


def _orphans(store: Store) -> Iterator[str]:
    for table in ("messages", "attachments"):
        ((count,),) = store.execute(
            f"SELECT count(*) FROM {table} t WHERE NOT EXISTS (SELECT FROM conversations c WHERE c.id = t.conversation_id)"
        )
        if count:
            yield f"{count} rows of {table} have lost their conversation"

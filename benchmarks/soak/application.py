"""An application at work on the store: resumes, opt-outs, deletions, restorations, holds, orders, imports of old rows.

Invariant: what was done is written down in the transaction that did it, so that after any crash the log is the truth.
"""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from tests.facts import World
from tests.store.stores import Store

LOG = """
CREATE SCHEMA soak;
CREATE TABLE soak.log (id bigint GENERATED ALWAYS AS IDENTITY, kind text, name text, at timestamptz, data jsonb)
"""
PLANS = ("free", "free", "pro", "max", "team", "api")


def text(instant: datetime) -> str:
    """An instant as the cases write it."""
    return instant.isoformat().replace("+00:00", "Z")


def world(seed: int, conversations: int, now: datetime) -> World:
    """A store's worth of accounts and conversations, most of them due or due soon under one rule or another."""
    chance = random.Random(seed)
    accounts = [_account(chance, f"a{number}", now) for number in range(max(conversations // 20, 5))]
    made = [
        conversation(
            chance, f"c{number}", chance.choice(accounts)["id"], now - timedelta(hours=chance.uniform(1, 2_400))
        )
        for number in range(conversations)
    ]
    return {"as_of": text(now), "accounts": accounts, "conversations": made, "holds": [], "orders": [], "feedback": []}


def _account(chance: random.Random, name: str, now: datetime) -> dict[str, Any]:
    granted = now - timedelta(days=chance.uniform(40, 120))
    consent = [{"granted": True, "recorded_at": text(granted)}] if chance.random() < 0.5 else []
    if consent and chance.random() < 0.4:
        consent.append({"granted": False, "recorded_at": text(granted + timedelta(days=chance.uniform(1, 39)))})
    return {"id": name, "plans": [{"effective_at": "-infinity", "plan": chance.choice(PLANS)}], "consent": consent}


def conversation(chance: random.Random, name: str, account: str, last: datetime) -> dict[str, Any]:
    """A conversation whose last user message was then."""
    made: dict[str, Any] = {
        "id": name,
        "account": account,
        "created_at": text(last - timedelta(days=1)),
        "last_activity_at": text(last),
        "messages": [{"id": f"{name}m", "author": "user", "created_at": text(last)}],
    }
    trait = chance.random()
    if trait < 0.05:
        made["zero_retention"] = True
    elif trait < 0.10:
        made["incognito"] = True
    elif trait < 0.15:
        made["deleted_at"] = text(last + timedelta(minutes=1))
    elif trait < 0.20:
        made["flagged_at"] = text(last + timedelta(minutes=1))
    return made


@dataclass
class Application:
    """Threads that write until they are told to stop; a server that goes away is waited for, any other error is a fault."""

    store: Store
    seed: int
    known: int
    accounts: int
    ended: threading.Event = field(default_factory=threading.Event)
    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def work(self, number: int) -> None:
        """What one thread does."""
        chance, fresh = random.Random(self.seed * 1_000 + number), iter(range(10**9))
        changes = (self._resume, self._resume, self._delete, self._restore)
        actions: tuple[Action, ...] = (*changes, self._withdraw, self._hold, self._release, self._order)
        while not self.ended.is_set():
            try:
                with self.store.connect() as connection:
                    while not self.ended.is_set():
                        action = self._import if chance.random() < 0.6 else chance.choice(actions)
                        name = (
                            f"i{number}x{next(fresh)}" if action == self._import else f"c{chance.randrange(self.known)}"
                        )
                        self._act(connection, chance, action, name)
                        self.ended.wait(chance.uniform(0.0, 0.01))
            except psycopg.OperationalError as error:
                if error.sqlstate not in (None, "57P01", "57P02", "57P03", "08006"):
                    self.faults.append(f"the application met {error.sqlstate}: {error}")
                self.ended.wait(0.05)

    def _act(self, connection: psycopg.Connection[Any], chance: random.Random, action: "Action", name: str) -> None:
        with connection.transaction():
            now = datetime.now(UTC)
            data = action(connection, chance, name, now)
            if data is not None:
                kind = action.__name__.strip("_")
                connection.execute(
                    "INSERT INTO soak.log (kind, name, at, data) VALUES (%s, %s, %s, %s)",
                    [kind, name, now, json.dumps(data)],
                )
        if data is not None:
            self.done[kind] += 1

    def _resume(self, connection: psycopg.Connection[Any], _: random.Random, name: str, now: datetime) -> "Data":
        found = connection.execute(
            "UPDATE conversations SET last_activity_at = %s WHERE id = %s", [now, self.store.id(name)]
        ).rowcount
        if not found:
            return None
        connection.execute(
            "INSERT INTO messages (id, conversation_id, author, created_at) VALUES (gen_random_uuid(), %s, 'user', %s)",
            [self.store.id(name), now],
        )
        return {}

    def _delete(self, connection: psycopg.Connection[Any], chance: random.Random, name: str, now: datetime) -> "Data":
        at = now - timedelta(days=chance.choice((0, 31)))
        found = connection.execute(
            "UPDATE conversations SET deleted_at = %s WHERE id = %s AND deleted_at IS NULL", [at, self.store.id(name)]
        ).rowcount
        return {"deleted_at": text(at)} if found else None

    def _restore(self, connection: psycopg.Connection[Any], _: random.Random, name: str, now: datetime) -> "Data":
        found = connection.execute(
            "UPDATE conversations SET restored_at = %s WHERE id = %s AND deleted_at IS NOT NULL",
            [now, self.store.id(name)],
        ).rowcount
        return {} if found else None

    def _withdraw(self, connection: psycopg.Connection[Any], chance: random.Random, _: str, now: datetime) -> "Data":
        account = f"a{chance.randrange(self.accounts)}"
        connection.execute(
            "INSERT INTO consent_events (account_id, purpose, granted, recorded_at) VALUES (%s, 'model_improvement', false, %s)",
            [self.store.id(account), now],
        )
        return {"account": account}

    def _hold(self, connection: psycopg.Connection[Any], _: random.Random, name: str, now: datetime) -> "Data":
        """Once the hold is placed, no batch is at work: what is there now stays."""
        connection.execute(
            "INSERT INTO sweeper.legal_holds (matter, conversation_id, placed_at) VALUES (%s, %s, %s)",
            [name, self.store.id(name), now],
        )
        return {} if self._is_there(connection, name) else None

    def _release(self, connection: psycopg.Connection[Any], _: random.Random, name: str, now: datetime) -> "Data":
        released = connection.execute(
            "UPDATE sweeper.legal_holds SET released_at = %s WHERE matter = %s AND released_at IS NULL", [now, name]
        ).rowcount
        return {} if released else None

    def _order(self, connection: psycopg.Connection[Any], _: random.Random, name: str, now: datetime) -> "Data":
        due = now + timedelta(seconds=1)
        connection.execute(
            "INSERT INTO sweeper.erasure_orders (reference, conversation_id, recorded_at, due_at) VALUES (%s, %s, %s, %s)",
            [name, self.store.id(name), now, due],
        )
        return {"due_at": text(due)} if self._is_there(connection, name) else None

    def _import(self, connection: psycopg.Connection[Any], chance: random.Random, name: str, now: datetime) -> "Data":
        """An old conversation comes in late: it is due at once, or it is not, as chance has it."""
        account = f"a{chance.randrange(self.accounts)}"
        made = conversation(chance, name, account, now - timedelta(days=chance.choice((10, 45, 90))))
        columns = ("incognito", "zero_retention", "deleted_at", "flagged_at")
        connection.execute(
            "INSERT INTO conversations (id, account_id, kind, platform, incognito, zero_retention, created_at, last_activity_at,"
            " deleted_at, flagged_at) VALUES (%s, %s, 'chat', 'first_party', COALESCE(%s, false), COALESCE(%s, false),"
            " %s, %s, %s, %s)",
            [
                self.store.id(name),
                self.store.id(account),
                *(made.get(column) for column in columns[:2]),
                made["created_at"],
                made["last_activity_at"],
                *(made.get(column) for column in columns[2:]),
            ],
        )
        connection.execute(
            "INSERT INTO messages (id, conversation_id, author, created_at) VALUES (%s, %s, 'user', %s)",
            [self.store.id(f"{name}m"), self.store.id(name), made["last_activity_at"]],
        )
        return made

    def _is_there(self, connection: psycopg.Connection[Any], name: str) -> bool:
        return (
            connection.execute("SELECT 1 FROM conversations WHERE id = %s", [self.store.id(name)]).fetchone()
            is not None
        )


Data = dict[str, Any] | None
"""What the log says of an action beyond its name and instant; None: it found nothing to act on."""
Action = Callable[[psycopg.Connection[Any], random.Random, str, datetime], Data]

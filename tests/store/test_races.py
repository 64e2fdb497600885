"""What happens at the same time as a sweep: resumed chats, holds, other runs, applications, lost connections.

Nothing here sleeps: one side is held by a lock or a seam of the sweep until the other is seen to wait in pg_stat_activity.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from threading import Barrier, Event
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from sweeper.errors import LeaseHeldError, LeaseLostError
from sweeper.policy.schema import Policy
from sweeper.postgres import evidence, fence, protections, purge, statement
from sweeper.postgres import lease as leases
from sweeper.runs import batch
from sweeper.runs.result import Result
from sweeper.runs.sweep import sweep
from sweeper.runs.throttle import ProgressListener
from tests.facts import instant
from tests.processes import until
from tests.store.stores import Store

AS_OF = "2026-07-01T00:00:00Z"
LATER = instant(AS_OF) + timedelta(minutes=1)
ACCOUNT = "acc0ffee-0000-4000-8000-000000000001"
GUARDS = {"history": False, "volume": False}
LOCK_ROWS_WAITING = statement.source("lock_rows_waiting").partition("\n")[0]
LEVELS = ("read committed", "repeatable read", "serializable")


class Killed(BaseException):
    """Stands for a SIGKILL: nothing in the sweep catches it, so nothing is closed or given back."""


def key(number: int) -> str:
    """The id of conversation `number`."""
    return f"c0ffee00-0000-4000-8000-{number:012d}"


def fill(store: Store, count: int) -> list[str]:
    """Put `count` conversations that are due, of two messages each, into the store; returns their ids in order."""
    with store.connect() as connection:
        connection.execute("INSERT INTO accounts (id, created_at) VALUES (%s, '2019-01-01Z')", [ACCOUNT])
        connection.execute(
            "INSERT INTO plan_changes (account_id, effective_at, plan) VALUES (%s, '-infinity', 'free')", [ACCOUNT]
        )
        connection.execute(
            "INSERT INTO conversations (id, account_id, kind, platform, incognito, zero_retention, created_at, "
            "last_activity_at) SELECT ('c0ffee00-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, %s, 'chat', "
            "'first_party', false, false, '2026-01-01Z', '2026-02-01Z' FROM generate_series(1, %s) n",
            [ACCOUNT, count],
        )
        connection.execute(
            "INSERT INTO messages (id, conversation_id, author, created_at, body) "
            "SELECT gen_random_uuid(), c.id, 'user', '2026-01-15Z', 'secret words' "
            "FROM conversations c, generate_series(1, 2)"
        )
    return [key(number) for number in range(1, count + 1)]


def swept(
    store: Store,
    policy: Policy,
    watch: ProgressListener | None = None,
    further_reason: Callable[[], str] = lambda: "",
    **sections: Any,
) -> Result:
    """One sweep at AS_OF without the guards that small stores would trip."""
    job = store.job(policy, AS_OF, **{"guards": GUARDS, **sections})
    return sweep(replace(job, further_reason=further_reason), watch=watch)


def orphans(store: Store) -> int:
    """How many messages have no conversation."""
    found: int = store.execute(
        "SELECT count(*) FROM messages m WHERE NOT EXISTS (SELECT FROM conversations c WHERE c.id = m.conversation_id)"
    )[0][0]
    return found


def buried(store: Store) -> list[str]:
    """The ids on the tombstones, in order."""
    return [row[0] for row in store.execute("SELECT record_id FROM sweeper.tombstones ORDER BY record_id")]


def is_waiting(store: Store, fragment: str) -> Callable[[], bool]:
    """Whether a backend whose statement holds `fragment` waits for a lock."""
    return lambda: bool(
        store.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
            "AND pid <> pg_backend_pid() AND query LIKE '%%' || %s || '%%'",
            fragment,
        )
    )


def once_before(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, action: Callable[[Connection], object]
) -> None:
    """Let `action` run once, before the first call of a function of the store that is given a connection."""
    original, left = getattr(module, name), [action]

    def wrapped(connection: Connection, *args: Any, **named: Any) -> Any:
        if left:
            left.pop()(connection)
        return original(connection, *args, **named)

    monkeypatch.setattr(module, name, wrapped)


def void(_: object) -> None:
    """Drop a result."""


def configure(store: Store, setting: str, value: str) -> None:
    """Set a server setting for every later connection to the store."""
    name = store.execute("SELECT current_database()")[0][0]
    store.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")


@contextmanager
def another(store: Store) -> Iterator[psycopg.Connection[Any]]:
    """A connection of an application, in a transaction that is rolled back unless it commits."""
    with store.connect() as connection:
        connection.execute("BEGIN")
        yield connection
        connection.execute("ROLLBACK")


@pytest.fixture(params=LEVELS)
def isolated(store: Store, request: pytest.FixtureRequest) -> Store:
    """The store in a database of each default isolation level."""
    configure(store, "default_transaction_isolation", request.param)
    store.close()  # the connection that is kept does not know of it
    assert store.execute("SHOW transaction_isolation") == [(request.param,)]
    return store


# Between proposal and purge


def test_resumed_chat_survives(isolated: Store, policy: Policy) -> None:
    """A chat resumed after it was proposed is kept and counted as changed."""
    ids = fill(isolated, 3)

    def resume(_: int) -> None:
        isolated.execute("UPDATE conversations SET last_activity_at = '2026-06-30Z' WHERE id = %s", ids[1])

    result = swept(isolated, policy, ProgressListener(expect=resume))
    assert isolated.left() == {ids[1]}
    assert (result.as_json()["purged"], result.as_json()["spared_by_reason"]) == (2, {"changed": 1})


def test_unannounced_user_message_spares(isolated: Store, policy: Policy) -> None:
    """A user message that left last_activity_at as it was counts as the last activity, and the stale column is reported."""
    ids = fill(isolated, 3)

    def write(_: int) -> None:
        isolated.execute(
            "INSERT INTO messages (id, conversation_id, author, created_at) "
            "VALUES (gen_random_uuid(), %s, 'user', '2026-06-30Z')",
            ids[0],
        )

    result = swept(isolated, policy, ProgressListener(expect=write)).as_json()
    assert isolated.left() == {ids[0]}
    assert (result["purged"], result["spared_by_reason"]) == (2, {"stale_last_activity": 1})
    assert result["anomalies"]["stale_last_activity"] == 1
    assert orphans(isolated) == 0


@pytest.mark.parametrize(
    "change", ["deleted_at = NULL", "restored_at = '2026-06-30Z'", "deleted_at = '2026-06-30Z'"], ids=str
)
def test_undone_deletion_survives(store: Store, policy: Policy, change: str) -> None:
    """A conversation due by its deletion alone is kept when that is undone, or made later, after the proposal."""
    ids = fill(store, 2)
    store.execute("UPDATE conversations SET last_activity_at = '2026-06-20Z', deleted_at = '2026-05-01Z'")

    def undo(_: int) -> None:
        store.execute(f"UPDATE conversations SET {change} WHERE id = %s", ids[0])

    result = swept(store, policy, ProgressListener(expect=undo)).as_json()
    assert store.left() == {ids[0]}
    assert result["purged"] == 1
    if change.startswith("deleted_at"):
        assert result["spared_by_reason"] == {"changed": 1}


def test_flag_set_meanwhile_spares(isolated: Store, policy: Policy) -> None:
    """A flag set after as-of protects as if it had been set at as-of."""
    ids = fill(isolated, 2)

    def flag(_: int) -> None:
        isolated.execute("UPDATE conversations SET flagged_at = %s WHERE id = %s", LATER, ids[0])

    result = swept(isolated, policy, ProgressListener(expect=flag)).as_json()
    assert isolated.left() == {ids[0]}
    assert (result["purged"], result["spared_by_reason"]) == (1, {"protected_after_as_of": 1})


def test_flag_dated_back_survives(store: Store, policy: Policy) -> None:
    """A flag set after the proposal but dated before as-of keeps the conversation too."""
    ids = fill(store, 2)

    def flag(_: int) -> None:
        store.execute("UPDATE conversations SET flagged_at = '2026-06-30Z' WHERE id = %s", ids[0])

    assert swept(store, policy, ProgressListener(expect=flag)).as_json()["purged"] == 1
    assert store.left() == {ids[0]}


def test_vanished_rows_are_not_spared(store: Store, policy: Policy) -> None:
    """Rows that the application itself deleted after the proposal were not kept, so they are not counted as locked."""
    ids = fill(store, 4)

    def delete(_: int) -> None:
        store.execute("DELETE FROM conversations WHERE id = ANY(%s::uuid[])", ids[:3])

    result = swept(store, policy, ProgressListener(expect=delete), purge={"locked_wait_seconds": 0}).as_json()
    assert (result["purged"], result["spared_by_reason"]) == (1, {})
    assert buried(store) == ids[3:]


# Legal holds

SPELLINGS: dict[str, Callable[[str], str]] = {
    "as stored": str,
    "upper case": str.upper,
    "padded": lambda id_: f"  {id_} ",
    "upper case, padded": lambda id_: f" {id_.upper()}  ",
    "tab and line end": lambda id_: f"\t{id_}\r\n",
    "in braces": lambda id_: f"{{{id_}}}",
    "without hyphens": lambda id_: id_.replace("-", ""),
    "no-break space": lambda id_: f"{id_}\u00a0",
    "en dashes": lambda id_: id_.replace("-", "\u2013"),
    "non-breaking hyphens": lambda id_: id_.replace("-", "\u2011"),
    "minus signs": lambda id_: id_.replace("-", "\u2212"),
    "soft hyphens": lambda id_: f"\u00ad{id_[:9]}\u00ad{id_[9:]}",
    "a URN": lambda id_: f"urn:uuid:{id_}",
    "a URN in angle brackets": lambda id_: f"<URN:UUID:{id_.upper()}>",
    "quotes": lambda id_: f'"{id_}"',
    "typographic quotes": lambda id_: f"\u201e{id_}\u201d",
    "word joiners": lambda id_: f"\u2060{id_[:4]}\u2060{id_[4:]}",
    "full-width": lambda id_: "".join(chr(ord(c) + 0xFEE0) for c in id_),
    "the end of a sentence": lambda id_: f"{id_}.",
    "a byte order mark and a comma": lambda id_: f"\ufeff{id_},",
}


def test_hold_by_command_between_proposal_and_purge(isolated: Store, policy: Policy) -> None:
    """A hold that the command placed after the proposal keeps its conversation, whether dated before or after as-of."""
    ids = fill(isolated, 4)
    database = isolated.acting("officer").database()

    def place(_: int) -> None:
        protections.place_hold(database, "m1", None, ids[0], LATER)
        protections.place_hold(database, "m2", None, ids[1], instant(AS_OF))

    result = swept(isolated, policy, ProgressListener(expect=place)).as_json()
    assert isolated.left() == set(ids[:2])
    assert (result["purged"], result["held"], result["spared_by_reason"]) == (2, 1, {"protected_after_as_of": 1})


def test_hold_by_sql_between_proposal_and_purge(store: Store, policy: Policy) -> None:
    """A hold inserted by hand after the proposal holds however the uuid of its conversation was spelt."""
    ids = fill(store, len(SPELLINGS) + 1)
    named = {name: (id_, spell(id_)) for (name, spell), id_ in zip(SPELLINGS.items(), ids, strict=False)}

    def place(_: int) -> None:
        store.execute(
            "INSERT INTO sweeper.legal_holds (matter, conversation_id) SELECT 'm', unnest(%s::text[])",
            [spelt for _, spelt in named.values()],
        )

    swept(store, policy, ProgressListener(expect=place))
    left = store.left()
    assert {name: id_ in left for name, (id_, _) in named.items()} == dict.fromkeys(SPELLINGS, True)
    assert ids[-1] not in left


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_hold_on_an_account_by_sql_between_proposal_and_purge(store: Store, policy: Policy, spelling: str) -> None:
    """A hold inserted by hand after the proposal holds however the uuid of its account was spelt."""
    ids = fill(store, 2)

    def place(_: int) -> None:
        store.execute(
            "INSERT INTO sweeper.legal_holds (matter, account_id) VALUES ('m', %s)", SPELLINGS[spelling](ACCOUNT)
        )

    swept(store, policy, ProgressListener(expect=place))
    assert store.left() == set(ids)


def test_hold_by_sql_before_the_proposal(store: Store, policy: Policy) -> None:
    """A hold inserted by hand before the run holds however its uuid was spelt, and is counted as held."""
    ids = fill(store, len(SPELLINGS) + 1)
    named = {name: (id_, spell(id_)) for (name, spell), id_ in zip(SPELLINGS.items(), ids, strict=False)}
    store.execute(
        "INSERT INTO sweeper.legal_holds (matter, conversation_id, placed_at) SELECT 'm', unnest(%s::text[]), NULL",
        [spelt for _, spelt in named.values()],
    )
    result = swept(store, policy).as_json()
    left = store.left()
    assert {name: id_ in left for name, (id_, _) in named.items()} == dict.fromkeys(SPELLINGS, True)
    assert (result["purged"], result["held"]) == (1, len(SPELLINGS))


TEXT_IDS = ("ÄRENDE-1", "İstanbul", "straße", " padded ", "Ω", "Plain")


@pytest.mark.parametrize("store", ["text"], indirect=True)
@pytest.mark.parametrize("before", [True, False], ids=["before the run", "between proposal and purge"])
def test_hold_on_a_text_id(
    store: Store,
    policy: Policy,
    before: bool,  # noqa: FBT001 — a test's parameter
) -> None:
    """A hold that spells a text id exactly as the store does holds, whatever letters or blanks the id has."""
    store.execute("INSERT INTO accounts (id, created_at) VALUES ('a', '2019-01-01Z')")
    store.execute("INSERT INTO plan_changes (account_id, effective_at, plan) VALUES ('a', '-infinity', 'free')")
    store.execute(
        "INSERT INTO conversations (id, account_id, kind, platform, incognito, zero_retention, created_at, last_activity_at) "
        "SELECT id, 'a', 'chat', 'first_party', false, false, '2026-01-01Z', '2026-02-01Z' "
        "FROM unnest(ARRAY['other'] || %s::text[]) id",
        list(TEXT_IDS),
    )

    def place(_: int = 0) -> None:
        store.execute(
            "INSERT INTO sweeper.legal_holds (matter, conversation_id, placed_at) SELECT 'm', unnest(%s::text[]), NULL",
            list(TEXT_IDS),
        )

    if before:
        place()
    swept(store, policy, ProgressListener() if before else ProgressListener(expect=place))
    assert store.left() == set(TEXT_IDS)


def test_reinstated_hold_holds(store: Store, policy: Policy) -> None:
    """A released hold that an UPDATE by hand brings back after the proposal holds."""
    ids = fill(store, 2)
    store.execute(
        "INSERT INTO sweeper.legal_holds (matter, conversation_id, placed_at, released_at) "
        "VALUES ('m', %s, '2026-01-01Z', '2026-06-01Z')",
        ids[0],
    )
    swept(
        store,
        policy,
        ProgressListener(expect=lambda _: void(store.execute("UPDATE sweeper.legal_holds SET released_at = NULL"))),
    )
    assert store.left() == {ids[0]}


@pytest.mark.parametrize("by_command", [True, False], ids=["command", "sql"])
def test_placement_waits_for_the_batch_at_work(
    isolated: Store,
    policy: Policy,
    monkeypatch: pytest.MonkeyPatch,
    threads: ThreadPoolExecutor,
    by_command: bool,  # noqa: FBT001 — a test's parameter
) -> None:
    """A hold placed while its conversation is being deleted returns only when the conversation is gone."""
    ids = fill(isolated, 2)
    database = isolated.acting("officer").database()
    seen: list[Future[bool]] = []

    def place() -> bool:
        if by_command:
            protections.place_hold(database, "m", None, ids[0], LATER)
        else:
            isolated.execute("INSERT INTO sweeper.legal_holds (matter, conversation_id) VALUES ('m', %s)", ids[0])
        return ids[0] in isolated.left()

    def begin(_: Connection) -> None:
        seen.append(threads.submit(place))
        until(is_waiting(isolated, "sweeper.legal_holds"))
        assert not seen[0].done()

    once_before(monkeypatch, purge, "delete", begin)
    result = swept(isolated, policy).as_json()
    assert (result["purged"], result["outcome"]) == (2, "completed")
    assert seen[0].result(10) is False


def test_batch_waits_for_the_placement_at_work(isolated: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """A batch does not begin before a placement in an open transaction has ended, and then obeys it."""
    ids = fill(isolated, 3)
    with another(isolated) as lawyer:
        lawyer.execute("INSERT INTO sweeper.legal_holds (matter, conversation_id) VALUES ('m', %s)", [ids[1]])
        running = threads.submit(swept, isolated, policy)
        until(is_waiting(isolated, "LOCK TABLE sweeper.fence IN SHARE MODE"))
        assert isolated.left() == set(ids)
        lawyer.execute("COMMIT")
        result = running.result(20).as_json()
    assert isolated.left() == {ids[1]}
    assert (result["purged"], result["spared_by_reason"]) == (2, {"protected_after_as_of": 1})


def test_open_placement_does_not_stop_a_run_for_ever(
    store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a placement is left open nothing is purged, and the run ends after a few waits rather than many per row."""
    ids = fill(store, 32)
    waits = Counter[str]()
    original = fence.share

    def share(connection: Connection) -> None:
        waits["fence"] += 1
        assert waits["fence"] <= 20, "each wait for the fence takes FENCE_WAIT_MS, 5 s"
        original(connection)

    monkeypatch.setattr(batch, "FENCE_WAIT_MS", 20)
    monkeypatch.setattr(fence, "share", share)
    with another(store) as lawyer:
        lawyer.execute("INSERT INTO sweeper.legal_holds (matter, conversation_id) VALUES ('m', %s)", [ids[1]])
        with pytest.raises(
            fence.FenceBusyError,
            match=r"process \d+ of role postgres \(a placement of a legal hold",
        ):
            swept(store, policy, purge={"locked_wait_seconds": 0})
    assert store.left() == set(ids)
    assert store.execute("SELECT outcome FROM sweeper.runs") == [("failed",)]


def test_returned_placements_are_never_violated(isolated: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """Whatever still exists when the placement of its hold returns exists for ever; the rest has a tombstone by then."""
    database = isolated.acting("officer").database()
    for size in range(1, 6):
        isolated.wipe()
        ids = fill(isolated, 60)
        begun, ended = Barrier(5), Event()

        def place(
            seed: int, ids: list[str] = ids, begun: Barrier = begun, ended: Event = ended
        ) -> list[tuple[str, bool, bool]]:
            chance, seen = random.Random(seed), []  # noqa: S311 — a seeded choice, nothing secret
            with isolated.connect() as connection:
                for id_ in chance.sample(ids, 12):
                    if ended.is_set():
                        break
                    if chance.random() < 0.5:
                        protections.place_hold(database, "m", None, id_, LATER)
                    else:
                        connection.execute(
                            "INSERT INTO sweeper.legal_holds (matter, conversation_id) VALUES ('m', %s)", [id_.upper()]
                        )
                    rows = connection.execute(
                        "SELECT EXISTS (SELECT FROM conversations WHERE id::text = %s), "
                        "EXISTS (SELECT FROM sweeper.tombstones WHERE record_id = %s)",
                        [id_, id_],
                    ).fetchall()
                    seen.append((id_, *rows[0]))
                    if len(seen) == 1:
                        begun.wait(20)
            return seen

        placers = [threads.submit(place, 10 * size + number) for number in range(4)]
        wait_until_begun = ProgressListener(expect=lambda _, b=begun: void(b.wait(20)))  # type: ignore[misc]
        result = swept(isolated, policy, wait_until_begun, purge={"batch": size})
        ended.set()
        seen = [entry for placer in placers for entry in placer.result(30)]
        left, gone = isolated.left(), buried(isolated)
        assert result.outcome == "completed"
        assert {id_ for id_, exists, _ in seen if exists} <= left
        assert all(exists != has_tombstone for _, exists, has_tombstone in seen)
        assert any(exists for _, exists, _ in seen)
        assert sorted([*left, *gone]) == ids
        assert orphans(isolated) == 0


# Rows that others hold locked


def test_locked_row_is_purged_at_the_end(isolated: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """A row locked during the whole first pass is waited for at the end, and purged once it is released."""
    ids = fill(isolated, 3)
    with another(isolated) as application:
        application.execute("SELECT FROM conversations WHERE id = %s FOR UPDATE", [ids[1]])
        running = threads.submit(swept, isolated, policy)
        until(is_waiting(isolated, LOCK_ROWS_WAITING))
        assert isolated.left() == {ids[1]}
        application.execute("COMMIT")
        result = running.result(20).as_json()
    assert isolated.left() == set()
    assert (result["purged"], result["spared"]) == (3, 0)


def test_row_resumed_under_its_lock_survives(isolated: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """A row whose lock is released by a commit that resumed the chat is kept and counted as changed."""
    ids = fill(isolated, 3)
    with another(isolated) as application:
        application.execute("UPDATE conversations SET last_activity_at = '2026-06-30Z' WHERE id = %s", [ids[1]])
        running = threads.submit(swept, isolated, policy)
        until(is_waiting(isolated, LOCK_ROWS_WAITING))
        application.execute("COMMIT")
        result = running.result(20).as_json()
    assert isolated.left() == {ids[1]}
    assert result["spared_by_reason"] == {"changed": 1}


@pytest.mark.parametrize("locked", ["conversations WHERE id", "messages WHERE conversation_id"])
def test_row_that_stays_locked_is_spared(store: Store, policy: Policy, locked: str) -> None:
    """A conversation that stays locked, by its row or by a message, is kept; the run ends in bounded time."""
    ids = fill(store, 5)
    began = time.monotonic()
    with another(store) as application:
        application.execute(f"SELECT FROM {locked} = ANY(%s::uuid[]) FOR UPDATE", [ids[:2]])
        result = swept(store, policy, purge={"locked_wait_seconds": 0.2}).as_json()
    assert time.monotonic() - began < 15
    assert store.left() == set(ids[:2])
    assert (result["purged"], result["spared_by_reason"], result["outcome"]) == (3, {"locked": 2}, "completed")
    assert swept(store, policy).as_json()["purged"] == 2


# Messages inserted meanwhile

INSERT = "INSERT INTO messages (id, conversation_id, author, created_at) VALUES (gen_random_uuid(), %s, 'user', %s)"


def test_insert_into_a_vanishing_conversation_fails(
    isolated: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor
) -> None:
    """A message written while its conversation is being deleted waits and then fails on its foreign key."""
    ids = fill(isolated, 2)
    written: list[Future[object]] = []

    def write(_: Connection) -> None:
        written.append(threads.submit(isolated.execute, INSERT, ids[0], LATER))
        until(is_waiting(isolated, "INSERT INTO messages"))

    once_before(monkeypatch, purge, "delete", write)
    assert swept(isolated, policy).as_json()["purged"] == 2
    with pytest.raises((psycopg.errors.ForeignKeyViolation, psycopg.errors.SerializationFailure)):
        written[0].result(10)
    assert orphans(isolated) == 0


def test_insert_before_the_lock_survives(isolated: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """A message written by a transaction still open when its conversation comes up survives together with it."""
    ids = fill(isolated, 2)
    with another(isolated) as application:
        application.execute(INSERT, [ids[0], "2026-06-30Z"])
        running = threads.submit(swept, isolated, policy)
        until(is_waiting(isolated, LOCK_ROWS_WAITING))
        application.execute("COMMIT")
        result = running.result(20).as_json()
    assert isolated.left() == {ids[0]}
    assert result["spared_by_reason"] == {"stale_last_activity": 1}
    assert isolated.execute("SELECT count(*) FROM messages") == [(3,)]


def test_insert_after_the_purge_fails(store: Store, policy: Policy) -> None:
    """A message written to a purged conversation fails on its foreign key."""
    ids = fill(store, 1)
    swept(store, policy)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        store.execute(INSERT, ids[0], LATER)


SUMMARIES = "CREATE TABLE store.summaries (chat_id uuid, body text)"
KEYLESS = {"children": [{"table": "store.summaries", "key": "chat_id"}]}


def test_strays_are_removed_at_the_end(
    isolated: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor
) -> None:
    """A child without a foreign key, inserted while its conversation is deleted, is removed at the end of the run."""
    ids = fill(isolated, 3)
    isolated.execute(SUMMARIES)
    isolated.execute("INSERT INTO store.summaries SELECT unnest(%s::uuid[]), 'secret words'", ids[:2])
    isolated.execute("UPDATE conversations SET last_activity_at = '2026-06-30Z' WHERE id = %s", ids[1])

    def write(_: Connection) -> None:
        threads.submit(
            isolated.execute, "INSERT INTO store.summaries SELECT unnest(%s::uuid[]), 'stray'", ids[:2]
        ).result(10)

    once_before(monkeypatch, evidence, "insert_tombstones", write)
    result = swept(isolated, policy, purge=KEYLESS).as_json()
    assert result["strays"] == 1
    assert isolated.execute("SELECT chat_id::text, body FROM store.summaries ORDER BY body") == [
        (ids[1], "secret words"),
        (ids[1], "stray"),
    ]
    stones = isolated.execute("SELECT record_id, children FROM sweeper.tombstones ORDER BY record_id")
    assert stones == [(ids[0], {"store.messages": 2, "store.summaries": 1}), (ids[2], {"store.messages": 2})]


def test_strays_of_an_interrupted_run_are_removed_by_the_next(
    store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run killed after its batches and before it looked for strays leaves them to the next run."""
    ids = fill(store, 2)
    store.execute(SUMMARIES)

    def die(_: Connection) -> None:
        store.execute("INSERT INTO store.summaries VALUES (%s, 'stray')", ids[0])
        raise Killed

    once_before(monkeypatch, purge, "delete_orphans", die)
    with pytest.raises(Killed):
        swept(store, policy, purge=KEYLESS, lease={"seconds": 1})
    assert store.left() == set()
    swept(store, policy, purge=KEYLESS, lease={"seconds": 1})
    assert store.execute("SELECT count(*) FROM store.summaries") == [(0,)]


# Two runs


def test_second_run_is_refused_while_a_batch_is_at_work(
    isolated: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run that begins during a batch is refused at once, with exit code 4, and does nothing."""
    fill(isolated, 3)
    second = isolated.job(policy, AS_OF, guards=GUARDS, purge={"batch": 7})

    def begin(_: Connection) -> None:
        began = time.monotonic()
        with pytest.raises(LeaseHeldError, match="another run holds it") as refused:
            sweep(second)
        assert refused.value.exit_code == 4
        assert time.monotonic() - began < 2

    once_before(monkeypatch, purge, "delete", begin)
    assert swept(isolated, policy).as_json()["purged"] == 3
    assert isolated.execute("SELECT count(*) FROM sweeper.runs") == [(1,)]


def test_runs_that_begin_together_purge_once(isolated: Store, policy: Policy, threads: ThreadPoolExecutor) -> None:
    """Of runs that begin at the same instant one works and the others are refused; every row is purged once."""
    ids = fill(isolated, 60)
    together = Barrier(4)

    def run(size: int) -> str:
        job = isolated.job(policy, AS_OF, guards=GUARDS, purge={"batch": size})
        together.wait(20)
        try:
            return sweep(job).outcome
        except LeaseHeldError:
            return "held"

    outcomes = Counter(future.result(60) for future in [threads.submit(run, size) for size in (1, 2, 3, 4)])
    assert outcomes["completed"] + outcomes["held"] == 4
    assert outcomes["completed"] >= 1
    assert buried(isolated) == ids


def test_dead_holder_is_replaced(store: Store, policy: Policy) -> None:
    """A lease that nobody renews is taken over when [lease] seconds have passed, and not before."""
    fill(store, 2)
    abandoned = store.database(store.settings(lease={"seconds": 1}))
    leases.take(abandoned)
    began = time.monotonic()
    assert swept(store, policy, lease={"seconds": 1}).as_json()["purged"] == 2
    assert 0.5 < time.monotonic() - began < 10


def test_killed_run_is_recorded_as_interrupted(store: Store, policy: Policy) -> None:
    """A run killed between batches is marked by the next one, which purges the rest: together they are one run."""
    ids = fill(store, 4)

    def die(_: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        swept(store, policy, ProgressListener(advance=die), purge={"batch": 3}, lease={"seconds": 1})
    assert store.execute("SELECT outcome FROM sweeper.runs") == [(None,)]
    assert swept(store, policy, lease={"seconds": 1}).as_json()["purged"] == 1
    assert store.execute("SELECT outcome FROM sweeper.runs ORDER BY id") == [("interrupted",), ("completed",)]
    assert store.execute(
        "SELECT run_id = (SELECT min(id) FROM sweeper.runs), details ? 'found_by' FROM sweeper.events "
        "WHERE kind = 'run_interrupted'"
    ) == [(True, True)]
    assert buried(store) == ids


def test_killed_batch_leaves_nothing(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run killed within a batch, after its DELETE, has undone that batch; the next run purges everything once."""
    ids = fill(store, 3)

    def die(_: Connection) -> None:
        raise Killed

    once_before(monkeypatch, evidence, "insert_tombstones", die)
    with pytest.raises(Killed):
        swept(store, policy, lease={"seconds": 1})
    assert (store.left(), buried(store)) == (set(ids), [])
    assert swept(store, policy, lease={"seconds": 1}).as_json()["purged"] == 3
    assert buried(store) == ids


def test_replaced_holder_commits_nothing_more(isolated: Store, policy: Policy) -> None:
    """A run that another one replaced stops at its next batch with exit code 4, and that batch is undone."""
    ids = fill(isolated, 6)
    database = isolated.database()
    done: list[int] = []

    def replace(count: int) -> None:
        done.append(count)
        isolated.execute("UPDATE sweeper.lease SET expires_at = '-infinity'")
        leases.take(database)

    with pytest.raises(LeaseLostError) as lost:
        swept(isolated, policy, ProgressListener(advance=replace), purge={"batch": 2})
    assert (lost.value.exit_code, done) == (4, [2])
    assert buried(isolated) == ids[:2]
    assert isolated.left() == set(ids[2:])


def test_run_replaced_by_a_working_one(store: Store, policy: Policy) -> None:
    """A run that another one replaced is recorded by it as interrupted; both together purge every row once."""
    ids = fill(store, 6)
    second = store.job(policy, AS_OF, guards=GUARDS, purge={"batch": 5})
    left = [second]

    def replace(_: int) -> None:
        if left:
            store.execute("UPDATE sweeper.lease SET expires_at = '-infinity'")
            sweep(left.pop())

    with pytest.raises(LeaseLostError):
        swept(store, policy, ProgressListener(advance=replace), purge={"batch": 2})
    assert buried(store) == ids
    assert store.execute("SELECT outcome FROM sweeper.runs ORDER BY id") == [("interrupted",), ("completed",)]


def test_run_replaced_after_its_last_batch(store: Store, policy: Policy) -> None:
    """A run that was replaced after its last batch says so, and does not report as completed what is recorded as interrupted."""
    ids = fill(store, 2)
    second = store.job(policy, AS_OF, guards=GUARDS, purge={"batch": 5})

    def replace(_: int) -> None:
        store.execute("UPDATE sweeper.lease SET expires_at = '-infinity'")
        sweep(second)

    with pytest.raises(LeaseLostError):
        swept(store, policy, ProgressListener(advance=replace))
    assert store.execute("SELECT outcome FROM sweeper.runs ORDER BY id") == [("interrupted",), ("completed",)]
    assert buried(store) == ids


# Applications


@pytest.mark.parametrize("deadlock_timeout", ["1s", "100ms"])
@pytest.mark.parametrize("count", [1, 4])
def test_sweep_yields_to_an_application(
    store: Store,
    policy: Policy,
    monkeypatch: pytest.MonkeyPatch,
    threads: ThreadPoolExecutor,
    deadlock_timeout: str,
    count: int,
) -> None:
    """An application that holds a message and then waits for its conversation, which a batch holds, gets it without an error."""
    configure(store, "deadlock_timeout", deadlock_timeout)
    _embrace(store, policy, monkeypatch, threads, fill(store, count), "messages WHERE conversation_id")


@pytest.mark.parametrize("deadlock_timeout", ["1s", "100ms"])
@pytest.mark.parametrize("count", [1, 4])
def test_sweep_yields_to_an_application_on_grandchildren(
    store: Store,
    policy: Policy,
    monkeypatch: pytest.MonkeyPatch,
    threads: ThreadPoolExecutor,
    deadlock_timeout: str,
    count: int,
) -> None:
    """The same where what the application holds is a child of a message."""
    configure(store, "deadlock_timeout", deadlock_timeout)
    ids = fill(store, count)
    store.execute("CREATE TABLE store.reactions (message_id uuid REFERENCES messages ON DELETE CASCADE, chat uuid)")
    store.execute("INSERT INTO store.reactions SELECT id, conversation_id FROM messages")
    _embrace(store, policy, monkeypatch, threads, ids, "reactions WHERE chat")


def test_sweep_yields_in_time_after_a_slow_statement(
    store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor
) -> None:
    """The time that a batch may take is one for all its statements: where the first is slow, the next yields the sooner."""
    configure(store, "deadlock_timeout", "400ms")
    ids = fill(store, 2)
    store.execute(
        "ALTER TABLE messages DROP CONSTRAINT messages_conversation_id_fkey, "
        "ADD FOREIGN KEY (conversation_id) REFERENCES conversations ON DELETE RESTRICT"
    )
    store.execute("CREATE TABLE store.pins (chat uuid REFERENCES conversations ON DELETE RESTRICT)")
    store.execute("INSERT INTO store.pins SELECT id FROM conversations")
    store.execute(
        "CREATE FUNCTION store.slow() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "DECLARE ends timestamptz := clock_timestamp() + interval '240 ms'; "
        "BEGIN WHILE clock_timestamp() < ends LOOP END LOOP; RETURN NULL; END $$"
    )
    store.execute("CREATE TRIGGER slow BEFORE DELETE ON messages FOR EACH STATEMENT EXECUTE FUNCTION store.slow()")
    _embrace(store, policy, monkeypatch, threads, ids, "pins WHERE chat")


def _embrace(
    store: Store,
    policy: Policy,
    monkeypatch: pytest.MonkeyPatch,
    threads: ThreadPoolExecutor,
    ids: list[str],
    child: str,
) -> None:
    touched: list[Future[None]] = []
    with another(store) as application:
        application.execute(f"SELECT FROM {child} = %s FOR UPDATE", [ids[0]])

        def touch() -> None:
            application.execute("UPDATE conversations SET kind = 'chat' WHERE id = %s", [ids[0]])
            application.execute("COMMIT")

        def begin(_: Connection) -> None:
            touched.append(threads.submit(touch))
            until(is_waiting(store, "UPDATE conversations SET kind"))

        once_before(monkeypatch, purge, "delete", begin)
        result = swept(store, policy).as_json()
        assert touched[0].result(10) is None
    assert (result["outcome"], result["purged"], result["failed"]) == ("completed", len(ids), 0)
    assert store.left() == set()


@pytest.mark.parametrize("deadlock_timeout", ["1s"])
@pytest.mark.parametrize("level", LEVELS[:2])
def test_applications_are_never_deadlock_victims(
    store: Store, policy: Policy, threads: ThreadPoolExecutor, deadlock_timeout: str, level: str
) -> None:
    """Many applications that edit a message and then touch its conversation meet locks and gone rows, never a deadlock."""
    configure(store, "default_transaction_isolation", level)
    configure(store, "deadlock_timeout", deadlock_timeout)
    ids = fill(store, 120)
    edited = dict(store.execute("SELECT DISTINCT ON (conversation_id) conversation_id::text, id FROM messages"))
    begun, ended = Barrier(7), Event()

    def edit(seed: int) -> Counter[str]:
        chance, states = random.Random(seed), Counter[str]()  # noqa: S311 — a seeded choice, nothing secret
        with store.connect() as connection:
            begun.wait(20)
            for _ in range(400):
                id_ = chance.choice(ids)
                try:
                    with connection.transaction():
                        connection.execute("UPDATE messages SET body = 'edited' WHERE id = %s", [edited[id_]])
                        connection.execute("UPDATE conversations SET kind = 'chat' WHERE id = %s", [id_])
                    states["done"] += 1
                except psycopg.Error as error:
                    states[str(error.sqlstate)] += 1
                if ended.is_set():
                    break
        return states

    editors = [threads.submit(edit, seed) for seed in range(6)]
    try:
        result = swept(
            store,
            policy,
            ProgressListener(expect=lambda _: void(begun.wait(20))),
            purge={"batch": 50, "locked_wait_seconds": 1},
        ).as_json()
    finally:
        ended.set()
    states = sum((editor.result(60) for editor in editors), Counter[str]())
    assert states.keys() <= {"done", "40001"}, states
    assert (result["outcome"], result["failed"]) == ("completed", 0)
    assert len(store.left()) == result["spared_by_reason"].get("locked", 0)
    assert orphans(store) == 0
    swept(store, policy)
    assert buried(store) == ids


# Rows that fail


def refuse(store: Store, table: str, column: str, id_: str, action: str) -> None:
    """Let a BEFORE DELETE trigger raise for one row, or keep it back."""
    body = "RAISE EXCEPTION 'no'" if action == "raise" else "RETURN NULL"
    store.execute(
        f"CREATE FUNCTION store.keep_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF OLD.{column} = '{id_}' THEN {body}; END IF; RETURN OLD; END $$"
    )
    store.execute(
        f"CREATE TRIGGER keep BEFORE DELETE ON store.{table} FOR EACH ROW EXECUTE FUNCTION store.keep_{table}()"
    )


@pytest.mark.parametrize("action", ["raise", "keep back"])
@pytest.mark.parametrize("table", ["conversations", "messages"])
def test_failing_row_does_not_stop_the_rest(store: Store, policy: Policy, table: str, action: str) -> None:
    """One row whose DELETE fails or does nothing is counted as failed and stays whole; all others are purged."""
    ids = fill(store, 9)
    message = store.execute("SELECT id::text FROM messages WHERE conversation_id = %s ORDER BY id", ids[4])[0][0]
    refuse(store, table, "id", ids[4] if table == "conversations" else message, action)
    result = swept(store, policy).as_json()
    assert store.left() == {ids[4]}
    assert (result["purged"], result["failed"], result["outcome"]) == (8, 1, "failed")
    assert store.execute("SELECT count(*) FROM messages") == [(2,)]
    assert orphans(store) == 0
    assert buried(store) == [*ids[:4], *ids[5:]]
    assert store.execute("SELECT details ->> 'record' FROM sweeper.events WHERE kind = 'purge_failed'") == [
        (f"conversation {ids[4]}",)
    ]


def test_grandchild_kept_back_is_no_orphan(store: Store, policy: Policy) -> None:
    """A trigger that keeps back a child of a message keeps the whole conversation, which is counted as failed."""
    ids = fill(store, 3)
    store.execute("CREATE TABLE store.reactions (message_id uuid REFERENCES messages ON DELETE CASCADE, chat uuid)")
    store.execute("INSERT INTO store.reactions SELECT id, conversation_id FROM messages")
    refuse(store, "reactions", "chat", ids[1], "keep back")
    result = swept(store, policy).as_json()
    assert (store.left(), result["purged"], result["failed"]) == ({ids[1]}, 2, 1)
    assert store.execute(
        "SELECT count(*) FROM reactions r WHERE NOT EXISTS (SELECT FROM messages m WHERE m.id = r.message_id)"
    ) == [(0,)]


# What passes is tried again


def _pid(connection: Connection) -> int:
    pid: int = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]  # psycopg's own
    return pid


@pytest.mark.parametrize(
    ("module", "name"),
    [(fence, "share"), (purge, "lock"), (purge, "delete"), (evidence, "insert_tombstones")],
    ids=["fence", "lock", "delete", "bury"],
)
def test_terminated_batch_is_done_again(
    isolated: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """A batch whose backend is terminated is undone and done again: one tombstone for each conversation."""
    ids = fill(isolated, 4)
    once_before(
        monkeypatch,
        module,
        name,
        lambda connection: isolated.execute("SELECT pg_terminate_backend(%s, 5000)", _pid(connection)),
    )
    result = swept(isolated, policy).as_json()
    assert (result["purged"], result["failed"], result["outcome"]) == (4, 0, "completed")
    assert buried(isolated) == ids


def test_all_backends_terminated_between_batches(store: Store, policy: Policy) -> None:
    """Idle connections that are terminated between batches are replaced."""
    ids = fill(store, 4)

    def terminate(_: int) -> None:
        store.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    assert swept(store, policy, ProgressListener(advance=terminate), purge={"batch": 1}).outcome == "completed"
    assert buried(store) == ids


@pytest.mark.parametrize("kind", ["run_opened", "run_closed"])
def test_terminated_opening_or_closing_is_done_again(
    store: Store, policy: Policy, threads: ThreadPoolExecutor, kind: str
) -> None:
    """A run whose backend is terminated while it records its opening or closing records it again and ends as completed."""
    ids = fill(store, 2)
    store.execute(
        "CREATE FUNCTION store.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF NEW.kind = '{kind}' THEN PERFORM pg_advisory_xact_lock(42); END IF; RETURN NEW; END $$"
    )
    store.execute("CREATE TRIGGER wait BEFORE INSERT ON sweeper.events FOR EACH ROW EXECUTE FUNCTION store.wait()")
    with another(store) as gate:
        gate.execute("SELECT pg_advisory_xact_lock(42)")
        running = threads.submit(
            swept, store, policy, database={"url": store.url, "lock_timeout_ms": 5_000}, lease={"seconds": 5}
        )
        until(is_waiting(store, "INSERT INTO sweeper.events"))
        store.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        gate.execute("ROLLBACK")
        result = running.result(30)
    assert result.outcome == "completed"
    assert buried(store) == ids
    assert store.execute("SELECT outcome FROM sweeper.runs ORDER BY id DESC LIMIT 1") == [("completed",)]


def test_commit_whose_answer_was_lost(store: Store, policy: Policy) -> None:
    """A batch that was committed although the connection broke before the answer is not purged or recorded twice."""
    ids = fill(store, 4)
    wrote: list[bool] = []
    job = store.job(policy, AS_OF, guards=GUARDS)

    def note(*arguments: Any) -> None:
        if "INSERT INTO sweeper.tombstones" in arguments[2] and not wrote:
            wrote.append(True)

    def lose(_: Connection) -> None:
        if wrote == [True]:
            wrote.append(True)
            raise OperationalError("COMMIT", {}, psycopg.OperationalError("broken"), connection_invalidated=True)

    engine: Engine = job.database.engine
    event.listen(engine, "after_cursor_execute", note)
    commit = engine.dialect.do_commit

    def committed(connection: Any) -> None:
        commit(connection)
        lose(connection)

    engine.dialect.do_commit = committed  # type: ignore[method-assign, assignment]  # the answer is lost after the real commit
    result = sweep(job).as_json()
    assert len(wrote) == 2
    assert (result["purged"], result["failed"], result["spared"], result["outcome"]) == (4, 0, 0, "completed")
    assert (buried(store), store.left()) == (ids, set())


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    "limits", [{"lock_timeout_ms": 100}, {"lock_timeout_ms": 5_000, "statement_timeout_ms": 150}], ids=["lock", "stmt"]
)
def test_timeouts_are_retried(
    store: Store, policy: Policy, threads: ThreadPoolExecutor, count: int, limits: dict[str, int]
) -> None:
    """A batch that runs into a lock or statement time-out is done again once the way is free, and recorded once."""
    ids = fill(store, count)
    with another(store) as maintenance:
        maintenance.execute("LOCK TABLE sweeper.tombstones IN EXCLUSIVE MODE")
        running = threads.submit(swept, store, policy, database={"url": store.url, **limits})
        waits = is_waiting(store, "INSERT INTO sweeper.tombstones")
        until(waits)
        until(lambda: not waits())
        maintenance.execute("COMMIT")
        result = running.result(30).as_json()
    assert (result["purged"], result["failed"], result["outcome"]) == (count, 0, "completed")
    assert buried(store) == ids


def test_placement_that_waits_in_vain_names_the_batch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hold that a batch keeps waiting for too long is not placed, and the error names the process of the batch."""
    monkeypatch.setattr(fence, "WAIT_MS", 20)
    database = store.acting("officer").database()
    with another(store) as batch_at_work:
        batch_at_work.execute("LOCK TABLE sweeper.fence IN SHARE MODE")
        pid = batch_at_work.info.backend_pid
        with pytest.raises(
            fence.FenceBusyError, match=rf"process {pid} of role postgres \(a batch of a sweep.*No hold was placed"
        ):
            protections.place_hold(database, "m", None, key(1), LATER)
    assert store.execute("SELECT count(*) FROM sweeper.legal_holds") == [(0,)]

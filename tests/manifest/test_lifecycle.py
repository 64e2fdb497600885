"""The life cycle of manifests: conditions and records of each transition, verification, recall, and concurrent purges."""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sweeper.errors import ConfigurationError, SweeperError
from sweeper.manifest import build as building
from sweeper.manifest import lifecycle
from sweeper.manifest.description import DamagedError
from sweeper.manifest.lifecycle import FrozenManifest, StateError
from sweeper.manifest.pseudonym import Pseudonym
from sweeper.policy.instant import rfc3339
from sweeper.policy.schema import Names, Policy
from sweeper.postgres import fence, manifests
from sweeper.runs.job import Job
from sweeper.runs.sweep import sweep
from tests.acceptance.commands import environment, in_process
from tests.facts import instant
from tests.manifest.made import rows, withdraw
from tests.processes import started, until
from tests.store.stores import POLICY, Store, frozen

NOW = "2026-06-01T00:00:00Z"
LATER = "2026-06-02T00:00:00Z"
KEY = Pseudonym(b"a key for tests that is long enough")
CHATS = 6


def world(store: Store) -> None:
    """Load accounts a1 and a2, which consented, with three chats of two eligible messages each."""
    chats = [
        {
            "id": f"c{number}",
            "account": f"a{1 + number % 2}",
            "created_at": "2026-05-01T00:00:00Z",
            "last_activity_at": "2026-05-02T00:00:00Z",
            "messages": [
                {"id": f"m{number}{n}", "author": author, "created_at": f"2026-05-0{n}T00:00:00Z"}
                for n, author in ((1, "user"), (2, "assistant"))
            ],
        }
        for number in range(CHATS)
    ]
    accounts = [
        {
            "id": name,
            "plans": [{"effective_at": "2024-01-01T00:00:00Z", "plan": "pro"}],
            "consent": [{"recorded_at": "2026-01-01T00:00:00Z", "granted": True}],
        }
        for name in ("a1", "a2")
    ]
    store.load({"accounts": accounts, "conversations": chats, "holds": [], "orders": []})


def job(store: Store, policy: Policy, now: str = NOW) -> Job:
    """Return a job with a frozen clock."""
    return store.job(policy, now, frozen(now), guards={"volume": False, "history": False, "earlier_as_of": False})


@pytest.fixture
def made(store: Store, policy: Policy, tmp_path: Path) -> FrozenManifest:
    """A frozen manifest of the world's twelve messages."""
    world(store)
    found = lifecycle.freeze(job(store, policy), tmp_path / "m", KEY)
    assert (found.description.eligible, found.revoked, found.added) == (2 * CHATS, Counter(), True)
    return found


def complete(at: Job, id_: str) -> None:
    """Record the end of the training run."""
    lifecycle.complete(at.database, at.clock, id_)


def messages(store: Store, *chats: str) -> set[str | None]:
    """Return the ids of the messages of some chats."""
    return {store.id(f"m{chat[1:]}{n}") for chat in chats for n in (1, 2)}


def events(store: Store) -> list[str]:
    """Return the kinds of all manifest events in order."""
    return [r[0] for r in store.execute("SELECT kind FROM sweeper.events WHERE kind LIKE 'manifest%%' ORDER BY id")]


# Frozen, started, completed


def test_life_cycle(store: Store, policy: Policy, made: FrozenManifest) -> None:
    """A manifest is frozen, started and completed, once each and in this order, with an event and a time for each."""
    id_, at = made.description.id, job(store, policy, LATER)
    with pytest.raises(StateError, match="is frozen, not started"):
        complete(at, id_)
    lifecycle.start(at, id_)
    with pytest.raises(StateError, match="is started, not frozen"):
        lifecycle.start(at, id_)
    complete(at, id_)
    for step in (lifecycle.start, complete):
        with pytest.raises(StateError, match="is completed"):
            step(at, id_)
    (known,) = lifecycle.list_manifests(at.database)
    assert (known["state"], known["frozen_at"], known["started_at"]) == ("completed", instant(NOW), instant(LATER))
    assert events(store) == ["manifest_frozen", "manifest_started", "manifest_completed"]


def test_unknown_manifest(store: Store, policy: Policy) -> None:
    """An unknown id is refused, and nothing changes."""
    for step in (lifecycle.start, complete):
        with pytest.raises(StateError, match="there is no manifest nowhere"):
            step(job(store, policy), "nowhere")
    assert events(store) == []


@pytest.mark.parametrize("statement", ["DELETE FROM sweeper.manifests", "TRUNCATE sweeper.manifests CASCADE"])
def test_manifests_are_never_dropped(store: Store, made: FrozenManifest, statement: str) -> None:
    """Neither manifests nor revocations can be deleted from their tables."""
    with pytest.raises(Exception, match=r"is not dropped|insert-only"):
        store.execute(statement)
    with pytest.raises(Exception, match="insert-only"):
        store.execute("DELETE FROM sweeper.revocations")
    assert store.execute("SELECT id FROM sweeper.manifests") == [(made.description.id,)]


def test_built_again(store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path) -> None:
    """The same content gives the same id and bytes, and is recorded as a copy."""
    again = lifecycle.freeze(job(store, policy), tmp_path / "again", KEY)
    assert (again.added, again.description.id) == (False, made.description.id)
    for name in ("part-00000.parquet", "manifest.json", "croissant.json"):
        assert (again.folder / name).read_bytes() == (made.folder / name).read_bytes()
    assert events(store) == ["manifest_frozen", "manifest_copied"]


def test_revoked_since_the_as_of(store: Store, policy: Policy, tmp_path: Path) -> None:
    """A manifest of an earlier as-of is frozen with the revocations since then."""
    world(store)
    withdraw(store, "a1", "2026-05-31T12:00:00Z")
    past = store.job(policy, "2026-05-31T00:00:00Z", frozen(NOW))
    found = lifecycle.freeze(past, tmp_path / "m", KEY)
    assert (found.description.eligible, found.revoked) == (2 * CHATS, Counter(no_consent=6))
    left = rows(found.folder, "revoked")
    assert {row["message_id"] for row in left} == messages(store, "c0", "c2", "c4")
    assert {row["since"] for row in left} == {instant("2026-05-31T12:00:00Z")}
    assert store.execute("SELECT count(*), min(found_by) FROM sweeper.revocations") == [(6, "freeze")]


# The check at the start

CHANGES = {
    "opt-out": ("", "no_consent", 6),
    "opt-out of tomorrow": ("", "no_consent", 6),
    "deletion": ("UPDATE conversations SET deleted_at = '2026-06-01T12:00:00Z' WHERE id = %s", "deleted", 2),
    "deletion of tomorrow": (
        "UPDATE conversations SET deleted_at = '2026-06-09T00:00:00Z' WHERE id = %s",
        "deleted",
        2,
    ),
    "flag of tomorrow": ("UPDATE conversations SET flagged_at = '2026-06-09T00:00:00Z' WHERE id = %s", "flagged", 2),
    "incognito": ("UPDATE conversations SET incognito = true WHERE id = %s", "incognito", 2),
    "closing of tomorrow": (
        "UPDATE accounts SET closed_at = '2026-06-09T00:00:00Z' WHERE id = %s",
        "account_closed",
        6,
    ),
    "plan of tomorrow": (
        "INSERT INTO plan_changes (account_id, effective_at, plan) VALUES (%s, '2026-06-09T00:00:00Z', 'team')",
        "plan",
        6,
    ),
    "order of tomorrow": (
        "INSERT INTO sweeper.erasure_orders (reference, conversation_id, recorded_at) "
        "VALUES ('o', %s::text, '2026-06-09T00:00:00Z')",
        "erasure_order",
        2,
    ),
    "message gone": ("DELETE FROM messages WHERE conversation_id = %s", "gone", 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_start_checks_again(store: Store, policy: Policy, made: FrozenManifest, change: str) -> None:
    """Rows revoked since the freeze, even by facts with a future time, are written beside the unchanged original."""
    sql, reason, count = CHANGES[change]
    before = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    if sql:
        store.execute(sql, store.id("a1" if "accounts" in sql or "plan_changes" in sql else "c0"))
    else:
        withdraw(store, "a1", "2026-06-09T00:00:00Z" if "tomorrow" in change else "2026-06-01T12:00:00Z")
    _, revoked = lifecycle.start(job(store, policy, LATER), made.description.id)
    assert revoked == {reason: count}
    left = rows(made.folder, "revoked-start")
    expected = messages(store, "c0") if count == 2 else messages(store, "c0", "c2", "c4")
    assert {row["message_id"] for row in left} == expected
    assert all(row["since"] <= instant(LATER) for row in left)
    assert {name: (made.folder / name).read_bytes() for name in before} == before


def test_start_refuses_changed_files(store: Store, policy: Policy, made: FrozenManifest) -> None:
    """A manifest with changed, missing or additional files is not started."""
    part = made.folder / "part-00000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + b"x")
    with pytest.raises(DamagedError, match=r"part-00000.parquet was changed.*Nothing was done"):
        lifecycle.start(job(store, policy), made.description.id)
    part.write_bytes(whole)
    (made.folder / "part-00001.parquet").write_bytes(whole)
    with pytest.raises(DamagedError, match=r"part-00001\.parquet is not of the manifest"):
        lifecycle.start(job(store, policy), made.description.id)
    (made.folder / "part-00001.parquet").unlink()
    part.unlink()
    with pytest.raises(DamagedError, match=r"part-00000\.parquet is missing"):
        lifecycle.start(job(store, policy), made.description.id)
    assert lifecycle.list_manifests(job(store, policy).database)[0]["state"] == "frozen"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"id": "x"}', "\x00"])
def test_invalid_description(store: Store, policy: Policy, made: FrozenManifest, text: str) -> None:
    """An invalid manifest.json is refused."""
    (made.folder / "manifest.json").write_text(text)
    with pytest.raises(DamagedError, match="is not what this program writes"):
        lifecycle.verify(job(store, policy), made.folder, None)


def test_changed_description(store: Store, policy: Policy, made: FrozenManifest) -> None:
    """A manifest.json with a changed number does not match its id."""
    path = made.folder / "manifest.json"
    path.write_text(path.read_text().replace('"eligible": 12', '"eligible": 11'))
    with pytest.raises(DamagedError, match="it was changed"):
        lifecycle.verify(job(store, policy), made.folder, None)


# Verification and recall


def test_verify(store: Store, policy: Policy, made: FrozenManifest) -> None:
    """A verification reports faults of files, or else the ineligible rows by reason."""
    at = job(store, policy, LATER)
    assert (lifecycle.verify(at, made.folder, KEY).ineligible, lifecycle.verify(at, made.folder, KEY).faults) == (
        {},
        (),
    )
    withdraw(store, "a1", NOW)
    store.execute("UPDATE conversations SET deleted_at = %s WHERE id = %s", NOW, store.id("c1"))
    found = lifecycle.verify(at, made.folder, None)
    assert (found.ineligible, found.revoked) == ({"no_consent": 6, "deleted": 2}, 0)
    lifecycle.start(at, made.description.id)
    assert lifecycle.verify(at, made.folder, None).revoked == 8
    (made.folder / "part-00000.parquet").write_bytes(b"")
    assert lifecycle.verify(at, made.folder, None).faults == ("part-00000.parquet was changed",)


def test_verify_under_another_key(store: Store, policy: Policy, made: FrozenManifest) -> None:
    """A key other than the manifest's is refused, and the error reveals neither key."""
    other = Pseudonym(b"another key for tests, long enough too")
    with pytest.raises(ConfigurationError, match="another key") as refused:
        lifecycle.verify(job(store, policy), made.folder, other)
    assert "key for tests" not in str(refused.value)


def test_recall_lists_each_row_once(store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path) -> None:
    """A recall lists the rows revoked since the last recall, in any state of the manifest; a second recall lists none."""
    id_, out = made.description.id, tmp_path / "out"
    withdraw(store, "a1", NOW)
    at = job(store, policy, LATER)
    (first,) = lifecycle.recall(at, out)
    assert (first.reasons, first.missing) == ({"no_consent": 6}, None)
    assert {row["message_id"] for row in rows(out, "recall")} == messages(store, "c0", "c2", "c4")
    (second,) = lifecycle.recall(at, out)
    assert (second.reasons, second.files) == ({}, ())
    lifecycle.start(at, id_)
    complete(at, id_)
    store.execute("UPDATE conversations SET deleted_at = %s WHERE id = %s", LATER, store.id("c1"))
    (third,) = lifecycle.recall(job(store, policy, "2026-06-03T00:00:00Z"), out)
    assert third.reasons == {"deleted": 2}
    assert store.execute("SELECT count(DISTINCT message_id) FROM sweeper.revocations") == [(8,)]


def test_recall_of_purged_and_expired_rows(store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path) -> None:
    """Rows of purged conversations are recalled with the time of the purge, and rows past their own date as expired."""
    store.execute("UPDATE conversations SET deleted_at = '2026-06-01T12:00:00Z' WHERE id = %s", store.id("c0"))
    at = "2026-07-02T00:00:00Z"
    assert sweep(job(store, policy, at)).as_json()["purged"] == 1
    (found,) = lifecycle.recall(job(store, policy, at), tmp_path / "out")
    assert found.reasons == {"purged": 2}
    assert store.execute("SELECT DISTINCT since FROM sweeper.revocations") == [(instant(at),)]
    (found,) = lifecycle.recall(job(store, policy, "2031-05-02T00:00:00Z"), tmp_path / "out")
    assert found.reasons == {"expired": 10}


def test_recall_of_several_manifests(store: Store, policy: Policy, tmp_path: Path) -> None:
    """A recall covers all manifests, in the order in which they were frozen."""
    world(store)
    names = ("first", "second", "third")
    for number, name in enumerate(names):
        store.execute("UPDATE messages SET author = %s", name)
        lifecycle.freeze(job(store, policy, f"2026-06-01T00:00:0{number}Z"), tmp_path / name, KEY)
    withdraw(store, "a2", LATER)
    found = list(lifecycle.recall(job(store, policy, LATER), tmp_path / "out"))
    assert [Path(one.directory).name for one in found] == list(names)
    assert [one.reasons for one in found] == [{"no_consent": 6}] * 3
    recalled = rows(tmp_path / "out", "recall")
    assert len(recalled) == 18
    assert {row["message_id"] for row in recalled} == messages(store, "c1", "c3", "c5")


def test_recall_under_a_policy_with_a_percent_sign(
    store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path
) -> None:
    """A driver does not take a percent sign or a colon in the name of a plan for a placeholder."""
    raw = policy.model_dump(mode="json", by_alias=True)
    raw["plans"]["commercial"].append("50% :off")
    withdraw(store, "a1", NOW)
    changed = Policy.model_validate(raw, context=Names.of(raw))
    (found,) = lifecycle.recall(job(store, changed, LATER), tmp_path / "out")
    assert found.reasons == {"no_consent": 6}


def test_recall_without_output_records_nothing(
    store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path
) -> None:
    """A recall without an output directory only counts; rows that were written are listed again only if all are requested."""
    withdraw(store, "a1", NOW)
    at, out = job(store, policy, LATER), tmp_path / "out"
    for _ in range(2):
        (counted,) = lifecycle.recall(at, None)
        assert (counted.reasons, counted.files) == ({"no_consent": 6}, ())
    assert store.execute("SELECT count(*) FROM sweeper.revocations") == [(0,)]
    assert [one.reasons.total() for one in lifecycle.recall(at, out)] == [6]
    assert [one.reasons.total() for one in lifecycle.recall(at, out)] == [0]
    assert [one.reasons.total() for one in lifecycle.recall(at, out, everything=True)] == [6]


def test_changed_revocation_files_are_faults(store: Store, policy: Policy, made: FrozenManifest) -> None:
    """A missing or changed revocation file is a fault, since an anti-join without it would let revoked rows in."""
    withdraw(store, "a1", NOW)
    at = job(store, policy, LATER)
    lifecycle.start(at, made.description.id)
    path = made.folder / "revoked-start-00000.parquet"
    whole = path.read_bytes()
    path.write_bytes(b"junk")
    assert lifecycle.verify(at, made.folder, None).faults == ("revoked-start-00000.parquet was changed",)
    path.unlink()
    assert lifecycle.verify(at, made.folder, None).faults == ("revoked-start-00000.parquet is missing",)
    (found,) = lifecycle.recall(at, None)
    assert "revoked-start-00000.parquet is missing" in str(found.missing)
    path.write_bytes(whole)
    assert lifecycle.verify(at, made.folder, None).faults == ()


def test_two_starts_at_once(
    store: Store, policy: Policy, made: FrozenManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two concurrent starts one succeeds, and the other changes nothing that the first wrote."""
    at, id_ = job(store, policy, LATER), made.description.id
    other = store.job(policy, LATER, frozen(LATER), lease={"seconds": 21.0})  # with its own connections
    original, left, before = fence.take_exclusively, [True], {}

    def take(connection: Any) -> None:
        if left:
            left.pop()
            lifecycle.start(other, id_)
            before.update({path.name: path.read_bytes() for path in made.folder.iterdir() if path.is_file()})
        original(connection)

    monkeypatch.setattr(fence, "take_exclusively", take)
    withdraw(store, "a1", NOW)
    with pytest.raises(StateError, match="was changed by another command"):
        lifecycle.start(at, id_)
    assert {path.name: path.read_bytes() for path in made.folder.iterdir()} == before


def test_rows_revoked_at_the_start_are_recalled(
    store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path
) -> None:
    """Rows revoked at the start are recalled as well, for holders of a copy made before."""
    copied = Path(shutil.copytree(made.folder, tmp_path / "copy"))
    withdraw(store, "a1", NOW)
    at = job(store, policy, LATER)
    lifecycle.start(at, made.description.id)
    assert [one.reasons for one in lifecycle.recall(at, tmp_path / "out")] == [{"no_consent": 6}]
    found = lifecycle.verify(at, copied, None)
    assert (found.faults, found.ineligible) == ((), {"no_consent": 6})


def test_purge_that_commits_late(store: Store, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge that commits late is found although its tombstone has a lower number than a visible one."""
    world(store)
    runs = [
        store.execute(
            "INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, started_at) "
            "VALUES (%s, now(), '', '', 1, now()) RETURNING id",
            name,
        )[0][0]
        for name in ("store", "another")
    ]
    insert = (
        "INSERT INTO sweeper.tombstones (record, record_id, rule, due_at, as_of, run_id, policy_digest, children, approved, "
        "purged_at) VALUES ('conversation', %s, 'standard', now(), now(), %s, '', '{}', false, now())"
    )
    original = manifests.fenced
    with store.connect() as batch:
        batch.execute("BEGIN")
        batch.execute("LOCK TABLE sweeper.fence IN SHARE MODE")
        batch.execute(insert, [store.id("c0"), runs[0]])
        batch.execute("DELETE FROM conversations WHERE id = %s", [store.id("c0")])
        store.execute(insert, "elsewhere", runs[1])

        def fenced(database: Any) -> Any:
            batch.execute("COMMIT")  # as late as possible: the snapshot must wait for it
            return original(database)

        monkeypatch.setattr(manifests, "fenced", fenced)
        found = lifecycle.freeze(job(store, policy), tmp_path / "m", KEY)
    assert found.revoked == {"purged": 2}


@pytest.mark.parametrize(
    "change", ["state = 'frozen', started_at = NULL", "id = 'other'", "directory = '/elsewhere'", "eligible = 0"]
)
def test_a_manifest_only_moves_on(store: Store, policy: Policy, made: FrozenManifest, change: str) -> None:
    """SQL cannot change the recorded values of a manifest or move it back."""
    lifecycle.start(job(store, policy), made.description.id)
    with pytest.raises(psycopg.Error, match="only moves on"):
        store.execute(f"UPDATE sweeper.manifests SET {change}")


@pytest.mark.parametrize("type_", ["bytea USING convert_to(body, 'UTF8')", "json USING to_json(body)"])
def test_body_of_another_type(store: Store, policy: Policy, tmp_path: Path, type_: str) -> None:
    """A body of a type other than text is never exported, since the filter would find nothing in it."""
    world(store)
    store.execute(f"ALTER TABLE messages ALTER body TYPE {type_}")
    with pytest.raises(ConfigurationError, match=r"messages\.body is (bytea|json), and only text can be filtered"):
        lifecycle.freeze(job(store, policy), tmp_path / "m", KEY, with_text=True)
    assert lifecycle.freeze(job(store, policy), tmp_path / "m", KEY).description.eligible == 2 * CHATS


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
def test_directory_keeps_its_mode(store: Store, policy: Policy, tmp_path: Path, mode: int) -> None:
    """An existing empty directory keeps its mode; a manifest with text is only accessible to its owner."""
    world(store)
    store.grant_text()
    for name, private in (("plain", False), ("text", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
        folder = lifecycle.freeze(job(store, policy), tmp_path / name, KEY, with_text=private).folder
        assert folder.stat().st_mode & 0o777 == (0o700 if private else mode)
        if private:
            assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_recall_with_a_missing_directory(store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path) -> None:
    """A manifest with a missing directory is reported, and the others are recalled."""
    other = lifecycle.freeze(job(store, policy, LATER), tmp_path / "other", KEY)
    withdraw(store, "a1", LATER)
    made.folder.rename(tmp_path / "moved")
    found = {one.manifest_id: one for one in lifecycle.recall(job(store, policy, LATER), None)}
    assert "cannot be read" in str(found[made.description.id].missing)
    assert found[other.description.id].reasons == {"no_consent": 6}


def test_recall_that_cannot_be_written_records_nothing(
    store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path
) -> None:
    """If the rows cannot be written, the next recall lists them."""
    withdraw(store, "a1", NOW)
    (tmp_path / "file").write_text("")
    with pytest.raises(SweeperError, match="Nothing of this manifest was recorded as recalled"):
        list(lifecycle.recall(job(store, policy, LATER), tmp_path / "file"))
    (found,) = lifecycle.recall(job(store, policy, LATER), tmp_path / "out")
    assert found.reasons == {"no_consent": 6}


# Concurrent purges


def test_purged_while_it_was_built(
    store: Store, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation purged between snapshot and freeze is revoked in the frozen manifest."""
    world(store)
    original = building.build

    def built(*args: Any, **named: Any) -> Any:
        done = original(*args, **named)
        purge_c0(store, policy)
        return done

    monkeypatch.setattr(building, "build", built)
    found = lifecycle.freeze(job(store, policy), tmp_path / "m", KEY)
    assert (found.description.eligible, found.revoked) == (2 * CHATS, {"purged": 2})
    assert {row["message_id"] for row in rows(found.folder, "revoked")} == messages(store, "c0")


@pytest.mark.parametrize("step", ["freeze", "start"])
def test_purged_between_check_and_fence(
    store: Store, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A conversation purged between the check of the rows and the fence is revoked."""
    world(store)
    found = lifecycle.freeze(job(store, policy), tmp_path / "m", KEY) if step == "start" else None
    original, left = fence.take_exclusively, [True]

    def take(connection: Any) -> None:
        if left:
            left.pop()
            purge_c0(store, policy)
        original(connection)

    monkeypatch.setattr(fence, "take_exclusively", take)
    if found is None:
        found = lifecycle.freeze(job(store, policy), tmp_path / "m", KEY)
        assert found.revoked == {"purged": 2}
    else:
        assert lifecycle.start(job(store, policy, LATER), found.description.id)[1] == {"purged": 2}
    assert {row["message_id"] for row in rows(found.folder, "revoked")} == messages(store, "c0")
    assert store.execute("SELECT DISTINCT reason FROM sweeper.revocations") == [("purged",)]


def purge_c0(store: Store, policy: Policy) -> None:
    """Order the erasure of conversation c0 and purge it."""
    store.execute(
        "INSERT INTO sweeper.erasure_orders (reference, conversation_id, recorded_at, due_at) "
        "VALUES ('o', %s::text, %s, %s)",
        store.id("c0"),
        NOW,
        NOW,
    )
    assert sweep(job(store, policy)).as_json()["purged"] == 1


WAITS = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'relation'"
"""Returns a row if a session waits for the fence."""


def test_freeze_waits_for_the_open_batch(store: Store, policy: Policy, tmp_path: Path) -> None:
    """A manifest is frozen only after the batch that holds the fence has ended."""
    world(store)
    with store.connect() as batch, ThreadPoolExecutor(1) as threads:
        batch.execute("BEGIN")
        batch.execute("LOCK TABLE sweeper.fence IN SHARE MODE")
        freezing = threads.submit(lifecycle.freeze, job(store, policy), tmp_path / "m", KEY)
        deadline = time.monotonic() + 20
        while not store.execute(WAITS):
            assert not freezing.done(), freezing.result()
            assert time.monotonic() < deadline
        assert not (tmp_path / "m").exists()
        batch.execute("COMMIT")
        assert freezing.result(20).added
    assert (tmp_path / "m" / "manifest.json").is_file()


def test_builds_beside_sweeps(store: Store, policy: Policy, tmp_path: Path) -> None:
    """With concurrent builds and runs, every frozen manifest revokes the rows of all conversations purged before."""
    world(store)
    count = 4
    for number in range(count):
        store.execute(
            "INSERT INTO sweeper.erasure_orders (reference, conversation_id, recorded_at, due_at) VALUES ('o', %s::text, %s, %s)",
            store.id(f"c{number}"),
            NOW,
            rfc3339(instant(NOW) + timedelta(hours=number)),
        )
    jobs = [job(store, policy, rfc3339(instant(NOW) + timedelta(hours=number))) for number in range(count)]
    past = store.job(policy, "2026-05-31T00:00:00Z", frozen(LATER), lease={"seconds": 21.0})

    def sweeps() -> int:
        return sum(sweep(one).as_json()["purged"] for one in jobs)

    with ThreadPoolExecutor(2) as threads:
        sweeping = threads.submit(sweeps)
        made = [lifecycle.freeze(past, tmp_path / f"m{number}", KEY) for number in range(count)]
        assert sweeping.result(60) == count
    for found in made:
        named = {row["message_id"]: row["conversation_id"] for row in rows(found.folder, "part")}
        revoked = {row["message_id"] for row in rows(found.folder, "revoked")}
        purged = purged_before(store, found)
        assert {id_ for id_, chat in named.items() if chat in purged} <= revoked


def purged_before(store: Store, found: FrozenManifest) -> set[str]:
    """Return the conversations purged by runs that had closed when the manifest was frozen."""
    return {
        row[0]
        for row in store.execute(
            "SELECT t.record_id FROM sweeper.tombstones t "
            "JOIN sweeper.events r ON r.kind = 'run_closed' AND r.run_id = t.run_id "
            "JOIN sweeper.events m ON m.kind LIKE 'manifest_%%' AND m.details ->> 'directory' = %s AND m.at > r.at",
            str(found.folder),
        )
    }


# Complete or not at all


def variables(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a command that builds a manifest, except for the store."""
    config = tmp_path / "sweeper.toml"
    config.write_text(f'[policy]\nfile = "{POLICY}"\n')
    return {"SWEEPER_CONFIG": str(config), "SWEEPER_PSEUDONYM_KEY": "a key for tests that is long enough"}


@pytest.fixture
def held(store: Store) -> Iterator[Any]:
    """A connection that holds the fence like a batch."""
    with store.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE sweeper.fence IN SHARE MODE")
        yield holder
        holder.execute("ROLLBACK")


def test_killed_build_leaves_no_manifest(store: Store, tmp_path: Path, held: Any) -> None:
    """A build killed before the freeze leaves no manifest, and the next build removes its temporary directory."""
    world(store)
    folder = tmp_path / "out" / "m"
    folder.parent.mkdir()
    told = {**os.environ, **environment(store), **variables(tmp_path)}
    with started([sys.executable, "-m", "sweeper.cli", "manifest", "build", str(folder)], env=told) as process:
        until(lambda: bool(store.execute(WAITS)), process)
        process.kill()
        process.wait()
    left = list(folder.parent.iterdir())
    assert [path.name.startswith(".m.building-") for path in left] == [True]
    assert (left[0] / "part-00000.parquet").is_file()
    held.execute("ROLLBACK")
    assert store.execute("SELECT count(*) FROM sweeper.manifests") == [(0,)]
    done = in_process(store, "manifest", "build", str(folder), "--json", **variables(tmp_path))
    assert done.code == 0, done.err
    assert [path.name for path in folder.parent.iterdir()] == ["m"]


def test_full_disk(store: Store, tmp_path: Path) -> None:
    """A build that cannot write its files reports that, exits with 1 and leaves nothing."""
    world(store)
    limited = f"ulimit -f 1; exec {sys.executable} -m sweeper.cli manifest build {tmp_path / 'out' / 'm'}"
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        ["/bin/bash", "-c", limited],
        env={**os.environ, **environment(store), **variables(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "could not be written" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


BAD: dict[str, tuple[dict[str, str], list[str], int, str]] = {
    "no key": ({"SWEEPER_PSEUDONYM_KEY": ""}, [], 2, "no key for pseudonyms"),
    "a short key": ({"SWEEPER_PSEUDONYM_KEY": "short"}, [], 2, "has 5 bytes, at least 32"),
    "a key file that is none": ({"SWEEPER_PSEUDONYM_KEY_FILE": "/nowhere/key"}, [], 2, "cannot be read"),
    "a future as-of": ({}, ["--as-of", "2999-01-01T00:00:00Z"], 3, "is in the future"),
    "no instant": ({}, ["--as-of", "yesterday"], 2, "is not an instant"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input(store: Store, tmp_path: Path, bad: str) -> None:
    """Bad input gives a message and an exit code, and no directory appears."""
    changed, words, code, text = BAD[bad]
    variables_ = {**variables(tmp_path), **changed}
    done = in_process(store, "manifest", "build", str(tmp_path / "m"), *words, **variables_)
    assert (done.code, text in done.err, "Traceback" in done.err) == (code, True, False), done.err
    assert not (tmp_path / "m").exists()


def test_progress_is_told(store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path) -> None:
    """A build tells how many of the eligible messages were written and checked, a start and a recall how many were checked."""
    told: list[tuple[int, int | None]] = []
    tell = lambda done, total: told.append((done, total))  # noqa: E731
    built = lifecycle.freeze(job(store, policy, LATER), tmp_path / "again", KEY, told=tell).description
    assert told == [(built.eligible, built.eligible)] * 2
    lifecycle.start(job(store, policy, LATER), made.description.id, tell)
    assert list(lifecycle.recall(job(store, policy, LATER), None, told=tell))
    assert told[2:] == [(each.eligible, each.eligible) for each in (made.description, made.description, built)]


def test_target_is_not_empty(store: Store, policy: Policy, made: FrozenManifest, tmp_path: Path) -> None:
    """A build refuses a file and a directory that is not empty, and accepts an empty directory."""
    for target in (made.folder, made.folder / "manifest.json"):
        with pytest.raises(ConfigurationError, match="is not an empty directory"):
            lifecycle.freeze(job(store, policy), target, KEY)
    with pytest.raises(ConfigurationError, match="nothing can be written beside it"):
        lifecycle.freeze(job(store, policy), tmp_path / "no" / "such" / "place", KEY)
    (tmp_path / "empty").mkdir()
    assert lifecycle.freeze(job(store, policy, LATER), tmp_path / "empty", KEY).folder == tmp_path / "empty"


def test_empty_manifest(store: Store, policy: Policy, tmp_path: Path) -> None:
    """A manifest without rows is valid."""
    found = lifecycle.freeze(job(store, policy), tmp_path / "m", KEY)
    assert (found.description.eligible, rows(found.folder, "part")) == (0, [])
    assert lifecycle.verify(job(store, policy), found.folder, KEY).faults == ()
    lifecycle.start(job(store, policy), found.description.id)

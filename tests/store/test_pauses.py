"""The kill switch: while a pause is not resumed no batch begins, whoever runs, whoever paused, and however."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from sweeper.errors import PausedError, RefusedError
from sweeper.objects import removal
from sweeper.policy.schema import Policy
from sweeper.postgres import lease as leases
from sweeper.postgres import pauses, purge, store_counts
from sweeper.runs.session import RunKind
from sweeper.runs.sweep import preview, sweep
from sweeper.runs.throttle import ProgressListener, StopReason
from tests.acceptance.commands import in_process
from tests.facts import instant
from tests.store.stores import Store
from tests.store.test_races import AS_OF, GUARDS, buried, fill, once_before

BY_SQL = "INSERT INTO sweeper.pauses (reason) VALUES ('by hand')"


def kinds(store: Store) -> list[str]:
    """What events tell of pauses, in order."""
    return [row[0] for row in store.execute("SELECT kind FROM sweeper.events WHERE kind LIKE 'pause%%' ORDER BY id")]


@pytest.mark.parametrize("run_kind", [RunKind(), RunKind("backfill")], ids=["run", "backfill"])
def test_paused_before(store: Store, policy: Policy, run_kind: RunKind) -> None:
    """A paused sweeper refuses to begin, with the reason and the way out, and does nothing, not even take the lease."""
    ids = fill(store, 2)
    pauses.pause(store.database(), "restoring from backup, ask Ida", instant(AS_OF))
    with pytest.raises(RefusedError) as refusal:
        sweep(store.job(policy, AS_OF, guards=GUARDS), run_kind=run_kind)
    assert (refusal.value.guard, refusal.value.exit_code) == ("paused", 3)
    for words in ("restoring from backup, ask Ida", AS_OF, "Nothing was purged", "sweeper resume"):
        assert words in str(refusal.value)
    assert (store.left(), buried(store)) == (set(ids), [])
    assert store.execute("SELECT count(*) FROM sweeper.runs") == [(0,)]
    assert store.execute("SELECT count(*) FROM sweeper.lease") == [(0,)]


@pytest.mark.parametrize("run_kind", [RunKind(), RunKind("backfill")], ids=["run", "backfill"])
def test_paused_between_batches(store: Store, policy: Policy, run_kind: RunKind) -> None:
    """Paused in the middle, a run begins no further batch, is recorded as stopped and is no success; resumed, the rest goes."""
    ids = fill(store, 6)
    job = store.job(policy, AS_OF, guards=GUARDS, purge={"batch": 2})
    result = sweep(job, run_kind=run_kind, watch=ProgressListener(advance=lambda _: void(store.execute(BY_SQL))))
    assert (result.outcome, result.throttle.stopped, result.is_done) == ("stopped", StopReason.PAUSED, False)
    assert (result.count, result.as_json()["stop_reason"]) == (2, "paused")
    assert buried(store) == ids[:2]
    assert store.execute("SELECT outcome, result ->> 'stop_reason' FROM sweeper.runs") == [("stopped", "paused")]
    assert store.execute("SELECT expires_at FROM sweeper.lease WHERE expires_at > clock_timestamp()") == []
    pauses.resume(store.database(), instant(AS_OF))
    assert sweep(job, run_kind=run_kind).count == 4
    assert buried(store) == ids


def void(_: object) -> None:
    """Drop a result."""


def test_paused_between_two_batches_of_feedback(store: Store, policy: Policy) -> None:
    """A pause counts for feedback as for conversations."""
    fill(store, 1)
    store.execute(
        "INSERT INTO feedback (id, kind, submitted_at) "
        "SELECT gen_random_uuid(), 'thumbs', '2018-01-01Z' FROM generate_series(1, 4)"
    )
    store.execute(
        "CREATE FUNCTION store.stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF NEW.record = 'feedback' THEN {BY_SQL}; END IF; RETURN NEW; END $$"
    )
    store.execute("CREATE TRIGGER stop AFTER INSERT ON sweeper.tombstones FOR EACH ROW EXECUTE FUNCTION store.stop()")
    result = sweep(store.job(policy, AS_OF, guards=GUARDS, purge={"batch": 1}))
    assert (result.outcome, result.throttle.stopped) == ("stopped", StopReason.PAUSED)
    assert store.execute("SELECT count(*) FROM feedback") == [(3,)]


@pytest.mark.parametrize(
    ("module", "name"),
    [(store_counts, "histories"), (removal, "remove_pending")],
    ids=["before the guards", "at the objects"],
)
def test_paused_before_and_after_the_batches(
    store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    """A pause that comes after the run was let in stops it before its first batch; one after the last undoes nothing."""
    ids = fill(store, 2)
    store.execute(
        "INSERT INTO attachments (id, conversation_id, uri) SELECT id, id, 'file:///nowhere' FROM conversations"
    )
    once_before(monkeypatch, module, name, lambda _: void(store.execute(BY_SQL)))
    result = sweep(store.job(policy, AS_OF, guards=GUARDS, objects={"prefixes": ["file:///nowhere"]}))
    assert (result.outcome, result.throttle.stopped) == ("stopped", StopReason.PAUSED)
    assert buried(store) == ([] if module is store_counts else ids)
    assert store.execute("SELECT outcome FROM sweeper.object_purges WHERE outcome <> 'pending'") == []


def test_batch_that_has_begun_ends(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause during a batch lets that batch commit and no other begin."""
    ids = fill(store, 4)

    def pause(_: Connection) -> None:
        pauses.pause(store.database(), "now", instant(AS_OF))

    once_before(monkeypatch, purge, "delete", pause)
    result = sweep(store.job(policy, AS_OF, guards=GUARDS, purge={"batch": 2}))
    assert (result.count, result.throttle.stopped) == (2, StopReason.PAUSED)
    assert buried(store) == ids[:2]


def test_preview_looks_while_paused(store: Store, policy: Policy) -> None:
    """A preview purges nothing, so a pause does not stop it."""
    fill(store, 2)
    store.execute(BY_SQL)
    assert preview(store.job(policy, AS_OF, guards=GUARDS)).counts.due == 2


def test_renewal_says_why(store: Store) -> None:
    """A renewal fails while paused, with the oldest reason; one that records an end does not."""
    database = store.database()
    lease = leases.take(database)
    database.within(lease.renew)
    for reason in ("first", "second"):
        pauses.pause(database, reason, instant(AS_OF))
    with pytest.raises(PausedError, match="first"):
        database.within(lease.renew)
    assert database.within(lease.keep) == "first"


def test_every_pause_is_lifted_at_once(store: Store) -> None:
    """Resume lifts all that is in force and says what; resumed twice, there is nothing."""
    database = store.database()
    for reason in ("first", "second"):
        pauses.pause(database, reason, instant(AS_OF))
    assert [pause["reason"] for pause in pauses.in_force(database)] == ["first", "second"]
    assert {pause["reason"] for pause in pauses.resume(database, instant(AS_OF))} == {"first", "second"}
    assert (pauses.in_force(database), pauses.resume(database, instant(AS_OF))) == ([], [])
    pauses.pause(database, "third", instant(AS_OF))
    assert [pause["reason"] for pause in pauses.in_force(database)] == ["third"]


def test_each_change_leaves_an_event(store: Store) -> None:
    """A pause and its end leave an event with the reason, also where they were made by plain SQL."""
    store.execute(BY_SQL)
    pauses.resume(store.database(), instant(AS_OF))
    store.execute(BY_SQL)
    store.execute("DELETE FROM sweeper.pauses")
    assert kinds(store) == ["pause_added", "pause_changed", "pause_added", "pause_dropped", "pause_dropped"]
    assert store.execute(
        "SELECT details #>> '{now,reason}' FROM sweeper.events WHERE kind = 'pause_added' ORDER BY id LIMIT 1"
    ) == [("by hand",)]


# The commands


def test_commands(store: Store) -> None:
    """`pause` and `resume` say what they did, and a run between them exits 3 and says so for machines, too."""
    fill(store, 1)

    def command(*words: str, **variables: str) -> Any:
        return in_process(store, *words, **variables)

    paused = command("pause", "--reason", "a look at [it]")
    assert (paused.code, "a look at [it]" in paused.out, "No further batch" in paused.out) == (0, True, True)
    refused = command("run", "--json")
    assert (refused.code, '"guard": "paused"' in refused.out, "a look at [it]" in refused.err) == (3, True, True)
    resumed = command("resume")
    assert (resumed.code, "a look at [it]" in resumed.out) == (0, True)
    assert "Nothing was paused" in command("resume").out
    assert command("pause", "--reason", "x", "--json").out.count('"reason": "x"') == 1
    assert command("resume", "--json").out.count('"reason": "x"') == 1
    assert command("resume", "--json").out.strip() == "[]"


def test_pause_needs_no_policy(store: Store, tmp_path: Path) -> None:
    """A broken policy or a missing store stops no pause."""
    broken = tmp_path / "policy.toml"
    broken.write_text("this is [no policy")
    store.execute("DROP SCHEMA store CASCADE")
    for words in (["pause", "--reason", "stop"], ["resume"]):
        done = in_process(store, *words, SWEEPER_POLICY_FILE=str(broken))
        assert (done.code, done.err) == (0, "")
    assert kinds(store) == ["pause_added", "pause_changed"]


@pytest.mark.parametrize("reason", ["", "  ", "\udcff"])
def test_pause_without_a_reason(store: Store, reason: str) -> None:
    """A pause says why; without a reason it is none."""
    done = in_process(store, "pause", "--reason", reason)
    assert (done.code, "Traceback" in done.err) == (2, False)
    assert pauses.in_force(store.database()) == []


def test_paused_run_exits_with_1(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run that was paused in the middle says how to go on, and its exit code is 1."""
    fill(store, 3)
    config = tmp_path / "sweeper.toml"
    config.write_text("[guards]\nhistory = false\n[purge]\nbatch = 1\n")
    once_before(monkeypatch, purge, "delete", lambda _: void(store.execute(BY_SQL)))
    done = in_process(store, "run", "--config", str(config))
    assert done.code == 1
    assert "stopped: 1 conversations" in done.out
    assert "sweeper resume" in done.out

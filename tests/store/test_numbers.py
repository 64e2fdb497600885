"""Numbers: what is overdue and what happened; each number is what the rows say, or is not there."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sweeper.evidence import checkpoint
from sweeper.policy.evaluate import Outcome
from sweeper.policy.instant import rfc3339
from sweeper.policy.schema import Policy
from sweeper.postgres import pace
from sweeper.report import metrics, operation, overdue
from sweeper.report import numbers as numbers
from sweeper.report.report import report
from sweeper.runs.scan import verdicts
from sweeper.runs.sweep import sweep
from tests.facts import instant
from tests.store.operated import NOW, bury, chat, exported, mixed, ran, read, world
from tests.store.stores import Store, frozen


def test_overdue(store: Store, policy: Policy) -> None:
    """Overdue is what is due and not held, by rule, with its oldest; what a run would spare, doubt or not find is not."""
    store.load(mixed())
    found = overdue.count(store.job(policy, NOW))
    assert found.counts.by_rule == {"standard": 3, "zero_retention": 1, "deleted": 1}
    assert found.counts.conversations.oldest_due["standard"] == instant(NOW) - timedelta(hours=40)
    assert found.counts.conversations.overdue_seconds("standard", instant(NOW)) == 40 * 3_600
    assert found.counts.conversations.overdue_seconds("commercial", instant(NOW)) == 0
    assert (found.counts.held, found.complete) == (1, True)
    assert (found.counts.feedback_by_rule, found.counts.feedback.held_past_due) == ({"feedback": 1}, 1)


def test_overdue_is_what_everything_says(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count among the proposals, of a backlog, of a report and what `explain --all` says of each are the same."""
    store.load(mixed())
    job = store.job(policy, NOW)
    with verdicts(job) as found:
        expected = Counter(one.rule for one in found.every("conversation") if one.outcome is Outcome.PURGE)
    counted, told = overdue.count(job), report(job)
    monkeypatch.setattr(overdue, "BACKLOG", 0)
    for counts in (counted.counts, overdue.count(job).counts):
        assert counts.by_rule == expected == told.counts.by_rule
        assert counts.conversations.oldest_due == told.counts.conversations.oldest_due
        assert (counts.feedback_by_rule, counts.held) == (told.counts.feedback_by_rule, told.counts.held)


def test_a_count_can_be_ended(store: Store, policy: Policy) -> None:
    """Whoever has seen enough gets what was counted until then, and is told that it is not all."""
    store.load(world(*(chat(f"c{n}", timedelta(days=1)) for n in range(5))))
    looks = iter([False, True])
    found = overdue.count(store.job(policy, NOW, purge={"batch": 2}), lambda: next(looks))
    assert (found.counts.due, found.complete) == (2, False)


def test_nothing_is_overdue_after_a_sweep(store: Store, policy: Policy) -> None:
    """What was overdue is then purged, by the same rules; what is held stays held."""
    store.load(mixed())
    before = exported(read(store))
    assert sweep(store.job(policy, NOW)).outcome == "completed"
    after = exported(read(store))
    for rule, count in (("standard", 3), ("zero_retention", 1), ("deleted", 1), ("commercial", 0)):
        assert before["sweeper_overdue_conversations", rule] == count
        assert after["sweeper_purged_total", "conversation", rule] == count
        assert before["sweeper_purged_total", "conversation", rule] == 0
        assert after["sweeper_overdue_conversations", rule] == after["sweeper_oldest_overdue_seconds", rule] == 0
    assert (before["sweeper_overdue_feedback", "feedback"], after["sweeper_overdue_feedback", "feedback"]) == (1, 0)
    assert before["sweeper_held_conversations",] == after["sweeper_held_conversations",] == 1
    assert after["sweeper_zero_retention_incidents_total",] == 1
    assert (after["sweeper_purged_lately", "conversation"], after["sweeper_purged_lately", "feedback"]) == (5, 1)
    assert after["sweeper_spared_total", "stale_last_activity"] == 1
    assert after["sweeper_last_success_timestamp_seconds",] == instant(NOW).timestamp()
    assert after["sweeper_last_run_outcome", "completed"] == after["sweeper_runs_total", "run", "completed"] == 1


def test_totals(store: Store) -> None:
    """Results of all runs are summed, whichever of their parts they have; other stores are not."""
    batches = {"count": 4, "seconds": 0.5, "longest_s": 0.3, "buckets": {"0.1": 1, "0.25": 3, "+Inf": 4}}
    pauses = {"replica_lag": {"count": 2, "seconds": 7.5}}
    full = {
        "purged": 3, "by_rule": {"standard": 3}, "feedback_by_rule": {"feedback": 1}, "failed": 2,
        "spared_by_reason": {"locked": 1}, "batches": batches, "pauses": pauses,
    }  # fmt: skip
    ran(store, full)
    ran(store, full, "stopped", kind="backfill")
    ran(store, {"guard": "volume", "text": "too much"}, "refused")
    ran(store, {"error": "gone"}, "failed")
    ran(store, full, schema="other")
    found = exported(read(store))
    assert found["sweeper_purged_total", "conversation", "standard"] == 6
    assert found["sweeper_purged_total", "feedback", "feedback"] == 2
    assert (found["sweeper_failed_total",], found["sweeper_spared_total", "locked"]) == (4, 2)
    assert (found["sweeper_pauses_total", "replica_lag"], found["sweeper_pause_seconds_total", "replica_lag"]) == (
        4,
        15,
    )
    assert (found["sweeper_pauses_total", "wal_rate"], found["sweeper_guard_refusals_total", "volume"]) == (0, 1)
    assert [found["sweeper_batch_seconds_bucket", le] for le in ("0.1", "0.25", "+Inf")] == [2, 6, 8]
    assert (found["sweeper_batch_seconds_count",], found["sweeper_batch_seconds_sum",]) == (8, 1.0)
    assert found["sweeper_runs_total", "backfill", "stopped"] == found["sweeper_runs_total", "run", "failed"] == 1
    assert found["sweeper_last_run_outcome", "failed"] == 1
    assert found["sweeper_last_run_outcome", "completed"] == 0


def test_upkeep(store: Store) -> None:
    """What the last sweep skipped and doubted, guards that are off, missing indexes, unreachable manifests, objects behind."""
    counts = {
        "purged": 2,
        "feedback_purged": 1,
        "spared_by_reason": {"locked": 7},
        "unclassified_by_reason": {"no_plan": 4},
    }
    run_id = ran(store, counts)
    ran(store, {"guard": "volume"}, "refused")
    ran(store, counts | {"purged": 50}, kind="backfill")
    store.execute("DROP INDEX store.messages_conversation_id_idx")
    store.execute(
        "INSERT INTO sweeper.object_purges (uri, conversation_id, run_id) VALUES ('s3://b/o', 'x', %s)", run_id
    )
    store.execute(
        "INSERT INTO sweeper.manifests (id, store, directory, as_of, policy_digest, eligible, state, frozen_at) "
        "VALUES ('m', 'store', '/nowhere', %s, 'd', 1, 'frozen', %s)",
        NOW,
        NOW,
    )
    found = exported(numbers.read(store.settings(guards={"history": False}), frozen(NOW)))
    assert (found["sweeper_last_run_purged",], found["sweeper_last_run_spared", "locked"]) == (3, 7)
    assert found["sweeper_last_run_spared", "stale_last_activity"] == 0
    assert (found["sweeper_last_run_unclassified", "no_plan"], found["sweeper_last_run_unclassified", "platform"]) == (
        4,
        0,
    )
    assert (found["sweeper_guard_off", "history"], found["sweeper_guard_off", "volume"]) == (1, 0)
    assert (found["sweeper_missing_indexes",], found["sweeper_objects_behind",]) == (1, 1)
    assert (found["sweeper_manifests", "unreachable"], found["sweeper_manifests", "reachable"]) == (1, 0)


def test_each_purge_is_counted_once(store: Store) -> None:
    """A run that left no result is counted by its tombstones, one that did is not counted again, in whatever state it is."""
    bury(store, ran(store, {"purged": 2, "by_rule": {"standard": 2}}), NOW, count=2)
    for outcome, result in (("interrupted", None), ("failed", {"error": "x"}), ("", None)):
        bury(store, ran(store, result, outcome), NOW, count=3)
    assert exported(read(store))["sweeper_purged_total", "conversation", "standard"] == 11


def test_last_success_is_that_of_a_plain_run(store: Store) -> None:
    """A slice of a backfill is no success of the nightly run, nor its failure; without any, the instant is 0."""
    assert exported(read(store))["sweeper_last_success_timestamp_seconds",] == 0
    ran(store, {}, finished_at="2026-05-01T00:00:00Z", started_at="2026-05-01T00:00:00Z")
    ran(store, {}, kind="backfill")
    ran(store, {}, "failed", kind="backfill")
    found = exported(read(store))
    assert found["sweeper_last_success_timestamp_seconds",] == instant("2026-05-01T00:00:00Z").timestamp()
    assert found["sweeper_last_run_outcome", "completed"] == 1


@pytest.mark.parametrize(
    ("outcome", "result", "counts"),
    [
        ("completed", {"stalled": False}, True),
        ("completed", {"stalled": True}, False),
        ("stopped", {"stop_reason": "max_purge"}, True),
        ("stopped", {"stop_reason": "signal"}, False),
        ("stopped", None, False),
        ("interrupted", None, False),
    ],
)
def test_success(store: Store, outcome: str, result: dict[str, Any] | None, counts: bool) -> None:  # noqa: FBT001 — of the table
    """A run that used up the budget it was given is a success; one that purged nothing of what was left is none."""
    ran(store, result, outcome)
    found = exported(read(store))["sweeper_last_success_timestamp_seconds",]
    assert found == (instant(NOW).timestamp() if counts else 0)


def test_evidence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are uncovered until a checkpoint is taken, and count up to a bound; when it was taken is told."""
    bury(store, ran(store, None), NOW, count=3)
    store.execute("INSERT INTO sweeper.events (kind) VALUES ('x')")
    before = exported(read(store))
    assert (before["sweeper_uncovered_evidence_rows",], before["sweeper_checkpoint_timestamp_seconds",]) == (4, 0)
    monkeypatch.setattr(operation, "UNCOVERED_AT_MOST", 2)
    assert exported(read(store))["sweeper_uncovered_evidence_rows",] == 3
    checkpoint.take(store.database(), frozen(NOW), None)
    store.execute("INSERT INTO sweeper.events (kind) VALUES ('y')")
    after = exported(read(store))
    assert after["sweeper_uncovered_evidence_rows",] == 1
    assert after["sweeper_checkpoint_timestamp_seconds",] == instant(NOW).timestamp()


def test_drain(store: Store) -> None:
    """The forecast is what is overdue over the pace of the runs that purged; unknown where none did, 0 where nothing is due."""
    assert exported(read(store))["sweeper_drain_seconds",] == 0
    store.load(world(chat("c1", timedelta(days=1)), chat("c2", timedelta(days=1))))
    begun = {"started_at": rfc3339(instant(NOW) - timedelta(seconds=100))}
    ran(store, {"purged": 0}, **begun)
    bury(store, ran(store, None, "interrupted", **begun), NOW, count=5)
    bury(store, ran(store, None, "", **begun), NOW, count=5)
    assert ("sweeper_drain_seconds",) not in exported(read(store))
    ran(store, {"purged": 20}, **begun)
    assert exported(read(store))["sweeper_drain_seconds",] == pytest.approx(10)


def test_pace_of_a_run_at_work(store: Store) -> None:
    """A run that holds the lease is at work, and its pace counts before it has ended; one that lost it is dead."""
    run_id = ran(store, None, "", started_at=rfc3339(instant(NOW) - timedelta(seconds=10)))
    bury(store, run_id, NOW, count=5)
    store.execute("INSERT INTO sweeper.lease (store, run_id, expires_at) VALUES ('store', %s, 'infinity')", run_id)
    with store.database().transaction() as connection:
        assert pace.recent(connection, "store", instant(NOW)) == 0.5
    store.execute("UPDATE sweeper.lease SET expires_at = clock_timestamp()")
    with store.database().transaction() as connection:
        assert pace.recent(connection, "store", instant(NOW)) is None


def test_broken_policy(store: Store, tmp_path: Path) -> None:
    """Without its policy what is overdue is not there, not 0; what the own tables say is; `sweeper_up` is 0."""
    (tmp_path / "policy.toml").write_text("format = 2")
    found = numbers.read(store.settings(policy={"file": str(tmp_path / "policy.toml")}), frozen(NOW))
    series = {name for name, *_ in exported(found)}
    assert "sweeper_up" in series
    assert exported(found)["sweeper_up",] == 0
    assert "sweeper_paused" in series
    assert not series & {"sweeper_overdue_conversations", "sweeper_oldest_overdue_seconds", "sweeper_drain_seconds"}
    assert "policy" in found.faults[0]


@pytest.mark.parametrize("url", ["postgresql://u:hunter2@127.0.0.1:1/app", "", "nonsense", "mysql://x/app"])
def test_no_database(store: Store, url: str) -> None:
    """Without a database there is no number but that there is none, and no secret in it."""
    settings = store.settings().model_copy(
        update={"database": store.settings().database.model_copy(update={"url": url})}
    )
    found = numbers.read(settings, frozen(NOW))
    series = {name for name, *_ in exported(found)}
    assert series == {"sweeper_up", "sweeper_info", "sweeper_numbers_timestamp_seconds"}
    assert exported(found)["sweeper_up",] == 0
    assert "hunter2" not in metrics.text(found).decode() + str(found.faults)


def test_tables_of_another_revision(store: Store) -> None:
    """Where the sweeper's own tables are not as this program knows them, nothing is read from them."""
    store.execute("UPDATE sweeper.schema_version SET version_num = '0001'")
    found = read(store)
    assert (found.recorded, found.overdue) == (None, None)
    assert "sweeper migrate" in found.faults[0]


def test_names_and_labels(store: Store, policy: Policy) -> None:
    """What is exported is the table of metrics, each series with the store that it tells of, and none of this process."""
    store.load(mixed())
    ran(store, {"purged": 1, "by_rule": {"standard": 1}}, started_at="2026-05-31T00:00:00Z")
    report(store.job(policy, NOW))
    families = list(text_string_to_metric_families(metrics.text(read(store)).decode()))
    unused = ("copy", "redact")  # there is no copy elsewhere, and no rule redacts
    names = {row.name for row in metrics.TABLE if not any(word in f"{row.name} {row.labels}" for word in unused)}
    assert {family.name for family in families} == names
    assert all(family.name.startswith("sweeper_") and family.documentation for family in families)
    stores = {sample.labels["store"] for family in families for sample in family.samples}
    assert stores == {f"{store.execute('SELECT current_database()')[0][0]}/store"}

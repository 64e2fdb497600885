"""What `serve` does at set times: each job with settings and policy as they are now, whatever fails an outcome in words."""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from sweeper.daemon.job_metrics import JobMetrics
from sweeper.daemon.jobs import EndedJob, JobContext, JobOutcome, perform
from sweeper.daemon.readiness import Readiness
from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError, LeaseHeldError
from sweeper.evidence import export
from sweeper.postgres import database as databases
from sweeper.postgres.stop import StopRequest
from sweeper.runs import sweep as sweeps
from sweeper.settings import Settings
from tests.acceptance.test_cli import case
from tests.facts import instant
from tests.manifest import made
from tests.processes import until
from tests.store.stores import POLICY, Store, frozen

KEY = "a key of the tests, with 32 bytes or more"
NOW = made.AS_OF


def bench(store: Store, folder: Path, now: str = NOW, fresh: Callable[[], Settings] | None = None) -> JobContext:
    """What jobs of a store work with; manifests and recalls go into the folder."""
    schedule = {
        "manifest_directory": str(folder / "manifests"),
        "recall_directory": str(folder / "recalls"),
        "export_file": str(folder / "ledger.jsonl"),
    }
    settings = store.settings(schedule=schedule, guards={"history": False})
    return JobContext(fresh or (lambda: settings), frozen(now), StopRequest())


def test_sweep(store: Store, tmp_path: Path) -> None:
    """A sweep ends as its run does, with what that counted."""
    store.load(made.world())
    ended = perform("sweep", bench(store, tmp_path))
    assert (ended.job, ended.outcome, ended.passing) == ("sweep", JobOutcome.COMPLETED, False)
    assert store.execute("SELECT result->>'purged' FROM sweeper.runs") == [(str(ended.result["purged"]),)]
    assert json.loads(json.dumps(to_json(ended)))["result"]["run"] == 1


def test_nothing_purged_while_something_is_overdue(store: Store, tmp_path: Path) -> None:
    """A sweep that could purge nothing of what is due has failed, although its run came to its end."""
    store.load(case("opt-out: thirty days later"))
    settings = store.settings(guards={"history": False}, purge={"locked_wait_seconds": 0.0})
    with store.connect() as holder, holder.transaction():
        holder.execute("SELECT FROM conversations FOR UPDATE")
        ended = perform("sweep", bench(store, tmp_path, "2026-07-01T00:00:00Z", lambda: settings))
    assert store.execute("SELECT outcome FROM sweeper.runs") == [("completed",)]
    assert (ended.outcome, ended.passing, ended.result["stalled"]) == (JobOutcome.FAILED, False, True)


def test_asked_to_stop_while_the_lease_is_waited_for(store: Store, tmp_path: Path) -> None:
    """A sweep that waits for the lease of a run that died waits no longer once the process is to end, and opens no run."""
    store.load(made.world())
    store.execute(
        "INSERT INTO sweeper.lease (store, token, expires_at) VALUES ('store', 1, clock_timestamp() + interval '2 s')"
    )
    at_work = bench(store, tmp_path)
    at_work.stop.ask()
    assert perform("sweep", at_work).outcome is JobOutcome.LEASE_HELD
    assert store.execute("SELECT count(*) FROM sweeper.runs") == [(0,)]


def test_report(store: Store, tmp_path: Path) -> None:
    """A report leaves its event; one that sees what is long overdue while nothing was purged has failed."""
    overdue = case("opt-out: thirty days later")
    store.load(overdue)
    assert perform("report", bench(store, tmp_path, overdue["as_of"])).outcome is JobOutcome.COMPLETED
    ended = perform("report", bench(store, tmp_path, "2027-07-01T00:00:00Z"))
    assert (ended.outcome, ended.passing, len(ended.result["alarms"])) == (JobOutcome.FAILED, False, 1)
    assert store.execute("SELECT count(*) FROM sweeper.events WHERE kind = 'reported'") == [(2,)]


def test_export(store: Store, tmp_path: Path) -> None:
    """The ledger is written to its file, whole and newer each time; where a row was tampered with, the job fails."""
    file, at = tmp_path / "ledger.jsonl", bench(store, tmp_path)
    perform("sweep", at)
    exported = perform("export", at)
    assert (exported.outcome, exported.result["file"]) == (JobOutcome.COMPLETED, str(file))
    assert export.read(file, None).tree.size == exported.result["size"]
    before = file.read_bytes()
    store.execute("ALTER TABLE sweeper.events DISABLE TRIGGER insert_only; UPDATE sweeper.events SET kind = 'other'")
    assert perform("export", at).outcome is JobOutcome.FAILED
    assert file.read_bytes() == before


def test_checkpoint(store: Store, tmp_path: Path) -> None:
    """A checkpoint covers the evidence that there is; the next one has nothing to add. The policy is not asked for."""
    at = bench(store, tmp_path)
    perform("sweep", at)
    store.execute("INSERT INTO sweeper.events (kind) VALUES ('later')")
    settings = at.fresh().model_copy(update={"policy": at.fresh().policy.model_copy(update={"file": tmp_path / "no"})})
    without = bench(store, tmp_path, fresh=lambda: settings)
    first, second = perform("checkpoint", without), perform("checkpoint", without)
    assert (first.outcome, second.outcome, dict(second.result)) == (JobOutcome.COMPLETED, JobOutcome.COMPLETED, {})
    assert store.execute("SELECT max(size) FROM sweeper.checkpoints") == [(first.result["size"],)]


def test_asked_to_stop(store: Store, tmp_path: Path) -> None:
    """A sweep that is asked to stop is recorded as stopped, and so it is told."""
    at = bench(store, tmp_path)
    at.stop.ask()
    assert perform("sweep", at).outcome is JobOutcome.STOPPED
    assert store.execute("SELECT outcome FROM sweeper.runs") == [("stopped",)]


def test_manifest_and_recall(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest goes into a directory of its own; a recall hands over what left it, and leaves an event for each."""
    monkeypatch.setenv("SWEEPER_PSEUDONYM_KEY", KEY)
    store.load(made.world())
    built = perform("manifest", bench(store, tmp_path))
    assert (built.outcome, built.result["eligible"]) == (JobOutcome.COMPLETED, 24)
    assert Path(built.result["directory"]) == tmp_path / "manifests" / "20260701T000000Z"
    made.withdraw(store, "a2", made.LATER)
    recalled = perform("recall", bench(store, tmp_path, made.LATER))
    assert (recalled.outcome, dict(recalled.result)) == (
        JobOutcome.COMPLETED,
        {"manifests": 1, "rows": 8, "not_looked_through": []},
    )
    assert len(made.rows(tmp_path / "recalls", "recall")) == 8
    assert store.execute("SELECT details FROM sweeper.events WHERE kind = 'recalled'") == [
        (
            {
                "store": "store",
                "manifest": built.result["manifest"],
                "reasons": {"no_consent": 8},
                "recalled_at": "2026-07-03T00:00:00Z",
            },
        )
    ]
    (tmp_path / "manifests" / "20260701T000000Z" / "manifest.json").unlink()
    assert perform("recall", bench(store, tmp_path, made.LATER)).outcome is JobOutcome.FAILED


def test_policy_is_read_each_time(store: Store, tmp_path: Path) -> None:
    """A policy that was changed on disk holds from the next job on, once it is accepted; one that cannot be read fails it."""
    policy = tmp_path / "policy.toml"
    settings = store.settings().model_copy(
        update={"policy": store.settings().policy.model_copy(update={"file": policy})}
    )
    at = bench(store, tmp_path, fresh=lambda: settings)
    policy.write_text(Path(POLICY).read_text())
    first = perform("sweep", at).result["policy"]
    policy.write_text(Path(POLICY).read_text().replace("30 days", "31 days"))
    ended = perform("sweep", at)
    assert (ended.outcome, ended.result["guard"]) == (JobOutcome.REFUSED, "policy")
    with at.job() as job:
        sweeps.sweep(job, accept_policy=job.policy.digest)
    assert perform("sweep", at).result["policy"] == job.policy.digest != first
    policy.write_text("nonsense")
    ended = perform("sweep", at)
    assert (ended.outcome, ended.passing) == (JobOutcome.FAILED, True)
    assert f"policy {policy}" in ended.result["text"]
    policy.unlink()
    assert "cannot be read" in perform("sweep", at).result["text"]


def broken(error: Exception) -> Callable[[], Settings]:
    """Settings that fail with an error whenever they are read."""

    def fresh() -> Settings:
        raise error

    return fresh


@pytest.mark.parametrize(
    ("error", "outcome", "passing", "words"),
    [
        (LeaseHeldError("held"), JobOutcome.LEASE_HELD, False, "held"),
        (ConfigurationError("mend"), JobOutcome.FAILED, True, "mend"),
        (KeyError("secret words"), JobOutcome.FAILED, True, "KeyError in "),
    ],
)
def test_every_error_is_an_outcome(
    error: Exception,
    outcome: JobOutcome,
    passing: bool,  # noqa: FBT001
    words: str,
    store: Store,
    tmp_path: Path,
) -> None:
    """Whatever a job raises is how it ended; of an unforeseen error only kind and place are told."""
    ended = perform("sweep", bench(store, tmp_path, fresh=broken(error)))
    assert (ended.outcome, ended.passing) == (outcome, passing)
    assert ended.result["text"].startswith(words)
    assert "secret" not in ended.result["text"]


def test_refusal(store: Store, tmp_path: Path) -> None:
    """What a guard refuses is told with the guard's name and its words."""
    store.load(made.world())
    settings = store.settings()
    store.execute("DELETE FROM plan_changes")
    ended = perform("sweep", bench(store, tmp_path, fresh=lambda: settings))
    assert (ended.outcome, ended.result["guard"], ended.passing) == (JobOutcome.REFUSED, "history", False)


def test_cancelled_statement(store: Store) -> None:
    """What waits for a statement of a watched engine is cancelled; what has ended is not."""
    database = databases.connect(store.settings())
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            with database.transaction(statement_timeout_ms=60_000) as connection:
                connection.execute(text("SELECT pg_sleep(60)"))
        except Exception as error:
            raised.append(error)

    with store.connect() as watcher:
        thread = Thread(target=wait, daemon=True)
        thread.start()
        sleeping = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        until(lambda: watcher.execute(sleeping).fetchone() is not None)
        database.stop.cancel()
        thread.join(20)
    assert "canceling statement due to user request" in str(raised[0])
    database.stop.cancel()
    with database.transaction() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    database.engine.dispose()


def test_cancelled_manifest(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest whose statement is cancelled is not there, and the job ends as stopped."""
    monkeypatch.setenv("SWEEPER_PSEUDONYM_KEY", KEY)
    store.load(made.world())
    store.execute("ALTER TABLE messages RENAME TO words")
    store.execute("CREATE VIEW messages AS SELECT w.* FROM words w, (SELECT pg_sleep(60) OFFSET 0) s")
    at, ends = bench(store, tmp_path), list[EndedJob]()
    with store.connect() as watcher:
        thread = Thread(target=lambda: ends.append(perform("manifest", at)), daemon=True)
        thread.start()
        sleeping = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        until(lambda: watcher.execute(sleeping).fetchone() is not None)
        at.stop.ask()
        at.stop.cancel()
        thread.join(20)
    assert [(ended.outcome, "canceling statement" in ended.result["text"]) for ended in ends] == [
        (JobOutcome.STOPPED, True)
    ]
    assert list((tmp_path / "manifests").iterdir()) == []


def test_diary() -> None:
    """How jobs ended is told in words and in Prometheus' form: the last instant, how often, and when next."""
    job_metrics, nexts = JobMetrics(), {"sweep": instant("2026-01-11T02:17:00Z")}
    assert job_metrics.ends(nexts)["sweep"] == {
        "next_at": nexts["sweep"],
        "last_outcome": None,
        "last_ended_at": None,
    }
    for outcome, day in ((JobOutcome.COMPLETED, 9), (JobOutcome.COMPLETED, 10), (JobOutcome.REFUSED, 11)):
        ended_at = instant(f"2026-01-{day:02}T02:18:00Z")
        job_metrics.note(EndedJob("sweep", outcome, ended_at, ended_at, 1.0, {}))
    assert job_metrics.ends(nexts)["sweep"]["last_outcome"] == "refused"
    families = text_string_to_metric_families(job_metrics.text(nexts).decode())
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert found == {
        ("sweeper_job_runs_total", "sweep", "completed"): 2,
        ("sweeper_job_runs_total", "sweep", "refused"): 1,
        ("sweeper_job_last_end_timestamp_seconds", "sweep", "completed"): instant("2026-01-10T02:18:00Z").timestamp(),
        ("sweeper_job_last_end_timestamp_seconds", "sweep", "refused"): instant("2026-01-11T02:18:00Z").timestamp(),
        ("sweeper_job_next_timestamp_seconds", "sweep"): nexts["sweep"].timestamp(),
    }


def test_readiness(store: Store) -> None:
    """Ready while the next sweep could begin; a pause is ready and said; missing tables and broken settings are not ready."""
    settings = store.settings()
    ready = Readiness(lambda: settings, store.database())
    assert (ready.state().reasons, ready.state().paused) == ((), None)
    store.execute("INSERT INTO sweeper.pauses (reason, resumed_at) VALUES ('old', now()), ('audit', NULL)")
    assert (ready.state().reasons, ready.state().paused) == ((), "audit")
    broken_ones = Readiness(broken(ConfigurationError("mend")), store.database())
    assert broken_ones.state().reasons == ("mend",)
    store.execute("DROP SCHEMA sweeper CASCADE")
    assert "tables are missing" in ready.state().reasons[0]


def test_readiness_has_a_bound(store: Store) -> None:
    """Where the database does not answer whoever asks is answered all the same, and not with what was found before."""
    settings = store.settings()
    ready = Readiness(lambda: settings, store.database(), bound_seconds=0.2)
    assert ready.state().reasons == ()
    with store.connect() as holder, holder.transaction():
        store.database().engine.dispose()
        holder.execute("LOCK TABLE pg_catalog.pg_class IN ACCESS EXCLUSIVE MODE")
        assert "no answer within 0.2 s" in ready.state().reasons[0]
        assert "database" in ready.state().reasons[0]
    until(lambda: ready.state().reasons == ())

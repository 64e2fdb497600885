"""A store with years of overdue conversations, and backfills of it in this process or in one of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper.clock import Clock
from sweeper.policy.schema import Policy
from sweeper.policy.window import Slice
from sweeper.postgres.backfills import BackfillPlan
from sweeper.runs import approval as approvals
from sweeper.runs import backfill as filling
from sweeper.runs.backfill import BackfillScope
from sweeper.runs.backfill_runner import BackfillOutcome, BackfillRunner
from sweeper.runs.job import Job
from sweeper.runs.sweep import preview
from sweeper.runs.throttle import ProgressListener
from tests.acceptance.commands import in_process
from tests.facts import instant
from tests.processes import started
from tests.store.stores import POLICY, RELATIONS, Store, frozen

NOW = "2026-06-01T00:00:00Z"
SCOPE = BackfillScope(instant("2024-01-01T00:00:00Z"), instant("2025-01-01T00:00:00Z"), Slice.MONTH)
MONTHS = 6
EACH = 3
"""So many conversations are due on the tenth of each of the first months of 2024, one of them under hold in March."""
DUE = MONTHS * EACH - 1
BEFORE, AFTER = 2, 2
"""So many are due before and after the plan."""
GUARDS = {"history": False, "volume": False}
ACCOUNT = "acc0ffee-0000-4000-8000-000000000001"
SETTINGS = f"""
[database]
lock_timeout_ms = 60000
[policy]
file = "{POLICY}"
[purge]
batch = 2
[guards]
history = false
"""


def key(number: int) -> str:
    """The id of conversation `number`."""
    return f"c0ffee00-0000-4000-8000-{number:012d}"


def fill(store: Store, each: int = EACH) -> None:
    """Conversations of a consumer that are due in and around the plan, some that are not due, and due feedback."""
    with store.connect() as connection, connection.transaction():
        connection.execute("INSERT INTO accounts (id, created_at) VALUES (%s, '2019-01-01Z')", [ACCOUNT])
        connection.execute(
            "INSERT INTO plan_changes (id, account_id, effective_at, plan) VALUES (1, %s, '-infinity', 'free')",
            [ACCOUNT],
        )
        dues = [f"2024-{month:02d}-10" for month in range(1, MONTHS + 1) for _ in range(each)]
        dues += ["2023-12-31"] * BEFORE + ["2025-01-01"] * AFTER + ["2027-01-01"]
        for number, due in enumerate(dues):
            connection.execute(
                "INSERT INTO conversations (id, account_id, kind, platform, incognito, zero_retention, created_at, "
                "last_activity_at) VALUES (%s, %s, 'chat', 'first_party', false, false, '2020-01-01Z', "
                "CAST(%s AS timestamptz) - interval '30 days')",
                [key(number), ACCOUNT, f"{due}Z"],
            )
        connection.execute(
            "INSERT INTO messages (id, conversation_id, author, created_at, body) "
            "SELECT c.id, c.id, 'user', c.last_activity_at, 'secret words' FROM conversations c"
        )
        connection.execute(
            "INSERT INTO feedback (id, account_id, kind, submitted_at) VALUES (%s, %s, 'thumbs', '2018-01-01Z')",
            [key(999), ACCOUNT],
        )
        connection.execute(
            "INSERT INTO sweeper.legal_holds (matter, conversation_id, placed_at) VALUES ('case', %s, '2023-01-01Z')",
            [key(2 * each)],
        )


def state(store: Store) -> dict[str, Any]:
    """All there is but for what names a run or the time of day."""
    found: dict[str, Any] = {
        table: store.execute(f"SELECT to_jsonb(t) FROM store.{table} t ORDER BY to_jsonb(t)::text")
        for table in RELATIONS
    }
    found["tombstones"] = store.execute(
        "SELECT record_id, rule, due_at, approved FROM sweeper.tombstones t ORDER BY record_id"
    )
    return found


def job_of(store: Store, policy: Policy, clock: Clock | None = None, /, **sections: Any) -> Job:
    """A job at NOW or at what a clock says."""
    wanted = {"guards": GUARDS, "purge": {"batch": 2}, "lease": {"seconds": 1}, **sections}
    return store.job(policy, NOW, clock or frozen(NOW), **wanted)


def token_of(job: Job, scope: BackfillScope = SCOPE) -> str:
    """The digest of a preview."""
    return preview(job, scope=scope).approval.token()


def begin(job: Job, scope: BackfillScope, token: str | None) -> BackfillPlan:
    """The plan that a digest begins, or one that was begun."""
    return filling.begin(job, scope, approvals.read(token) if token is not None else None)


def drained(
    job: Job,
    *,
    token: str | None = None,
    scope: BackfillScope = SCOPE,
    watch: ProgressListener | None = None,
    **how: Any,
) -> BackfillOutcome:
    """A backfill in this process, previewed and approved unless it goes on."""
    return BackfillRunner(job, begin(job, scope, token), watch or ProgressListener(), **how).run()


def begun(job: Job, scope: BackfillScope = SCOPE) -> str:
    """A plan approved and begun, on which nothing has been done yet; returns its digest."""
    token = token_of(job, scope)
    begin(job, scope, token)
    return token


def runs(store: Store) -> list[tuple[Any, ...]]:
    """The runs with how they ended."""
    return store.execute("SELECT kind, outcome, result ->> 'stop_reason' FROM sweeper.runs ORDER BY id")


def moved(job: Job, at: str) -> Job:
    """The same job with a clock at another time."""
    return replace(job, clock=frozen(at), as_of=instant(at))


def words(*more: str, scope: BackfillScope = SCOPE) -> list[str]:
    """The command of a plan."""
    return ["backfill", "--since", scope.since.isoformat(), "--until", scope.until.isoformat(), "--json", *more]


def _configure(folder: Path, lease: float) -> Path:
    """The settings of a command."""
    config = folder / "sweeper.toml"
    config.write_text(f"{SETTINGS}[lease]\nseconds = {lease}\n")
    return config


@contextmanager
def running(store: Store, folder: Path, *command: str, lease: float = 1.0) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own."""
    words = ["--config", str(_configure(folder, lease))]
    with started(
        [sys.executable, "-m", "sweeper.cli", *command, *words], env={**os.environ, "SWEEPER_DATABASE_URL": store.url}
    ) as process:
        yield process


def done(store: Store, folder: Path, *command: str, lease: float = 1.0) -> tuple[int, dict[str, Any], str]:
    """Exit code, result and log of a command in this process."""
    ended = in_process(store, *command, "--config", str(_configure(folder, lease)))
    assert "Traceback" not in ended.err
    return ended.code, json.loads(ended.out) if ended.out.strip() else {}, ended.err

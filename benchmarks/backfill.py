"""What it takes to drain a backlog: the longest transaction, the memory, and what a nightly run meets meanwhile.

    python -m benchmarks.backfill [--conversations 1000000] [--by month]

A backlog a tenth as large is drained first: memory that grew with the backlog would show between the two.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.sweep import SERVER, Timed, machine
from sweeper import embedded, log
from sweeper.clock import Clock
from sweeper.policy import schema as policies
from sweeper.policy.window import Slice
from sweeper.postgres import database as databases
from sweeper.runs import backfill
from sweeper.runs.backfill_runner import BackfillRunner
from sweeper.runs.job import Job, read_contract
from sweeper.runs.sweep import preview
from sweeper.runs.throttle import ProgressListener
from sweeper.settings import Settings
from tests.store import stores

SINCE, UNTIL = datetime(2022, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
MESSAGES = 4
FILL = """
SET session_replication_role = replica;
INSERT INTO store.accounts (id, created_at) SELECT gen_random_uuid(), '2019-01-01Z' FROM generate_series(1, {accounts});
INSERT INTO store.plan_changes (account_id, effective_at, plan) SELECT id, '-infinity', 'free' FROM store.accounts;
INSERT INTO store.consent_events (account_id, purpose, granted, recorded_at)
SELECT id, 'model_improvement', false, '2025-10-01Z' FROM store.accounts;
INSERT INTO store.conversations
SELECT gen_random_uuid(), a.id, 'chat', 'first_party', false, false, at, at
FROM store.accounts a,
     LATERAL (SELECT timestamptz '2021-12-15Z' + random() * interval '1400 days' AS at
              FROM generate_series(1, {each} + length(a.id::text) - 36)) AS c;
INSERT INTO store.messages (id, conversation_id, author, created_at, body)
SELECT gen_random_uuid(), c.id, 'user', c.last_activity_at, repeat('words ', 40)
FROM store.conversations c, generate_series(1, {messages});
VACUUM ANALYZE;
"""


@dataclass(frozen=True)
class Spent:
    """What draining one backlog took."""

    purged: int
    seconds: float
    longest_write: float
    longest_read: float
    longest_preview: float
    transactions: int
    megabytes: float
    nightly: str


@contextmanager
def _job(url: str) -> Iterator[Job]:
    policy = policies.parse(Path(stores.POLICY).read_text(encoding="utf-8"))
    settings = Settings.model_validate({"database": {"url": url}, "policy": {"file": stores.POLICY}})
    plain = databases.connect(settings)
    timed = Timed(plain.engine, settings)
    now = datetime.now(UTC)
    yield Job(timed, read_contract(timed, policy), policy, Clock(), now)
    plain.engine.dispose()


def drain(url: str, by: Slice) -> Spent:
    """Preview, approve, drain; halfway a nightly run is started as a process of its own."""
    log.configure("warning")
    scope = backfill.BackfillScope(SINCE, UNTIL, by)
    with _job(url) as job:
        found = preview(job, scope=scope)
        plan = backfill.begin(job, scope, found.approval)
        nightly = _Nightly(url, plan.expected // 2)
        timed = job.database
        if not isinstance(timed, Timed):
            raise SystemExit("the database has no stopwatch")
        looked = max(timed.only_read)
        timed.wrote.clear()
        timed.only_read.clear()
        started = time.perf_counter()
        drained = BackfillRunner(job, plan, ProgressListener(advance=nightly.advance)).run()
        seconds = time.perf_counter() - started
        if drained.outcome != "completed":
            raise SystemExit(f"the backfill did not complete: {drained}")
        wrote, read = sorted(timed.wrote), sorted(timed.only_read)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024
    return Spent(drained.purged, seconds, wrote[-1], read[-1], looked, len(wrote), peak, nightly.result())


@dataclass
class _Nightly:
    """A nightly run that begins when so many conversations have been dealt with."""

    url: str
    at: int
    done: int = 0
    process: subprocess.Popen[str] | None = None

    def advance(self, count: int) -> None:
        """So many more."""
        self.done += count
        if self.process is None and self.done >= self.at:
            words = [sys.executable, "-m", "sweeper.cli", "run", "--json"]
            environment = {
                "SWEEPER_DATABASE_URL": self.url,
                "SWEEPER_POLICY_FILE": stores.POLICY,
                "PATH": "/usr/bin:/bin",
            }
            self.process = subprocess.Popen(
                words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )

    def result(self) -> str:
        """How it ended."""
        if self.process is None:
            return "not started"
        out, _ = self.process.communicate()
        said: dict[str, Any] = json.loads(out) if out else {}
        return f"exit {self.process.returncode}, {said.get('outcome')}, {said.get('purged')} purged"


def measured(server: embedded.Server, template: str, conversations: int, by: str) -> Spent:
    """One backlog of so many conversations, drained by a process of its own."""
    name = f"backlog_{conversations}"
    store = stores.copy(server, template, name, "uuid")
    accounts = max(conversations // 200, 1)
    with psycopg.connect(store.libpq, autocommit=True) as connection:
        script = FILL.format(accounts=accounts, each=conversations // accounts, messages=MESSAGES)
        for sql in script.split(";\n"):
            if sql.strip():
                connection.execute(sql.encode())
    command = [sys.executable, "-m", "benchmarks.backfill", "--only", store.url, "--by", by]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    stores.drop(server, name)
    return Spent(**json.loads(done.stdout))


def main() -> None:
    """Drain a small backlog and a large one, and print what each took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backfill")
    parser.add_argument("--conversations", type=int, default=1_000_000)
    parser.add_argument("--by", default=Slice.MONTH.value)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(asdict(drain(given.only, Slice(given.by)))))
        return
    with embedded.server(settings=SERVER) as server:
        print(machine(server))
        template = stores.create(server, "uuid")
        print(
            "| backlog | seconds | a second | longest write | longest read | that of the preview | peak memory | a nightly run |"
        )
        print("|---:|---:|---:|---:|---:|---:|---:|---|")
        for conversations in (given.conversations // 10, given.conversations):
            spent = measured(server, template, conversations, given.by)
            print(
                f"| {spent.purged:,} | {spent.seconds:.0f} | {spent.purged / spent.seconds:,.0f} | {spent.longest_write:.3f} s "
                f"| {spent.longest_read:.3f} s | {spent.longest_preview:.3f} s | {spent.megabytes:.0f} MB | {spent.nightly} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

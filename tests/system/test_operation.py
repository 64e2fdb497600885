"""Behind pgbouncer in transaction mode, operation works as without it: backfill, pause, report, evidence, reapply, the daemon."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import backfills, commands
from tests.acceptance.backfills import AFTER, BEFORE, DUE
from tests.processes import until
from tests.store.stores import DIGEST, Store
from tests.system.test_pooler import traces

pytestmark = pytest.mark.system
SPAN = ("--since", "2024-01-01T00:00:00Z", "--until", "2025-01-01T00:00:00Z")


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A settings file for the commands, with a key that signs."""
    (tmp_path / "sweeper.toml").write_text("[guards]\nhistory = false\n")
    return str(tmp_path / "sweeper.toml")


def told(pooled: Store, config: str, *words: str) -> dict[str, Any]:
    """What a command through the pool says; it ends well."""
    done = commands.process(pooled, *words, "--json", SWEEPER_CONFIG=config)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    return found if isinstance(found, dict) else {"rows": found}


def test_backfill_and_evidence(store: Store, pooled: Store, config: str, tmp_path: Path) -> None:
    """A plan is previewed and drained, paused and resumed between; reports, proofs and an export follow; no trace is left."""
    backfills.fill(store)
    digest = told(pooled, config, "backfill", *SPAN, "--dry-run")["digest"]
    assert told(pooled, config, "backfill", *SPAN, "--approve", digest, "--max-purge", "3")["purged"] == 3
    told(pooled, config, "pause", "--reason", "a test")
    assert commands.process(pooled, "run", SWEEPER_CONFIG=config).code == 3
    told(pooled, config, "resume")
    assert told(pooled, config, "backfill", *SPAN)["purged"] == DUE
    assert told(pooled, config, "run")["purged"] == BEFORE + AFTER
    assert told(pooled, config, "status")["paused"] is False
    assert told(pooled, config, "report")["alarms"] == []
    assert told(pooled, config, "audit", "checkpoint")["size"] > 0
    assert told(pooled, config, "audit", "verify")["fault"] is None
    assert told(pooled, config, "audit", "export", str(tmp_path / "ledger.jsonl"))["size"] > 0
    again = told(pooled, config, "reapply", "--ledger", str(tmp_path / "ledger.jsonl"), "--accept-unsigned")
    assert (again["in_ledger"], again["back"]) == (BEFORE + DUE + AFTER + 1, 0)
    assert traces(store, pooled) == set()


def test_daemon(store: Store, pooled: Store, tmp_path: Path) -> None:
    """The daemon makes up for a missed night through the pool, and ends in order."""
    backfills.fill(store)
    store.execute(
        "INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, started_at, finished_at, outcome) "
        "SELECT 'store', at, '', %s, 0, at, at, 'completed' FROM (SELECT now() - interval '3 days') AS last (at)",
        DIGEST,
    )
    with backfills.running(pooled, tmp_path, "serve", "--listen", "127.0.0.1:0") as daemon:
        until(lambda: daemon.poll() is not None or len(store.left()) <= 2)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(10) == 0
    assert len(store.left()) == 2
    assert traces(store, pooled) == set()

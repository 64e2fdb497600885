"""Dead rows: counted, said, vacuumed after a run where the settings and the role allow it; and what no purge reaches."""

from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from sqlalchemy import text as sql

from sweeper.clock import Clock
from sweeper.policy.schema import Policy
from sweeper.postgres import reach, vacuum
from sweeper.postgres.statement import statement
from sweeper.postgres.vacuum import DeadRows
from sweeper.report import status
from sweeper.report.report import report
from sweeper.runs.sweep import sweep
from sweeper.settings import MaintenanceSettings
from tests.acceptance.commands import in_process
from tests.store.stores import Store
from tests.store.test_races import AS_OF, GUARDS, fill

DUE = 12
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
LATER = Clock(lambda: datetime.now(UTC) + timedelta(days=2))


def swept(store: Store, policy: Policy, **maintenance: object) -> list[MutableMapping[str, Any]]:
    """Purge all, with at most five dead rows allowed, and return what was logged of it."""
    store.execute("SELECT pg_stat_reset()")  # what other tests left behind
    fill(store, DUE)
    job = store.job(policy, AS_OF, guards=GUARDS, maintenance={"dead_rows": 5, **maintenance})
    with structlog.testing.capture_logs() as logged:
        assert sweep(job).count == DUE
    job.database.within(lambda connection: connection.execute(statement("flush_statistics")))
    return [line for line in logged if "vacuumed" in str(line["event"])]


def dead_rows(store: Store, policy: Policy) -> dict[str, DeadRows]:
    """The dead rows of each table."""
    job = store.job(policy, AS_OF)
    return {table.name: table for table in job.database.within(lambda c: vacuum.read(c, job.contract))}


def test_vacuum_after_a_run(store: Store, policy: Policy) -> None:
    """A run of a role that may vacuums what it has purged from; the statistics are new, the other tables are left alone."""
    logged = swept(store.acting("postgres"), policy, vacuum=True)
    assert [(line["event"], line["table"]) for line in logged] == [
        ("vacuumed", "store.conversations"),
        ("vacuumed", "store.messages"),
    ]
    found = dead_rows(store, policy)
    assert found["store.conversations"].dead == 0
    assert found["store.conversations"].vacuumed_at is not None
    assert found["store.feedback"].vacuumed_at is None


def test_a_role_that_may_not(store: Store, policy: Policy) -> None:
    """Where the role may not vacuum, the log names the table and the privilege; the purge stands."""
    logged = swept(store, policy, vacuum=True)
    assert [(line["table"], line["log_level"]) for line in logged] == [
        ("store.conversations", "warning"),
        ("store.messages", "warning"),
    ]
    assert "GRANT MAINTAIN" in str(logged[0]["event"])
    assert dead_rows(store, policy)["store.conversations"].vacuumed_at is None
    store.execute("GRANT MAINTAIN ON store.conversations TO sweeper")
    job = store.job(policy, AS_OF, guards=GUARDS, maintenance={"dead_rows": 5, "vacuum": True})
    with structlog.testing.capture_logs() as logged:
        assert sweep(job).count == 0
    assert [line["table"] for line in logged if line["event"] == "vacuumed"] == ["store.conversations"]


@pytest.mark.parametrize("limits", [{}, {"vacuum": True, "dead_rows": 10_000}, {"vacuum": True, "dead_share": 1.0}])
def test_within_the_limits(store: Store, policy: Policy, limits: dict[str, object]) -> None:
    """By default nothing is vacuumed, and never a table within a limit."""
    assert swept(store.acting("postgres"), policy, **limits) == []
    assert dead_rows(store, policy)["store.conversations"].vacuumed_at is None


def test_limits() -> None:
    """A table is past the limits with more dead rows than either allows."""
    limits = MaintenanceSettings(dead_rows=10, dead_share=0.5)
    cases = {(9, 10): False, (9, 11): True, (11, 11): False, (10, 11): True, (0, 11): True, (0, 0): False}
    for (live, dead), past in cases.items():
        assert DeadRows("t", live, dead, None, SINCE, allowed=True).is_past(limits) is past


def test_status_and_report(store: Store, policy: Policy) -> None:
    """`status` names a table past the limits that nothing vacuums, with the command; `report` shows all tables."""
    swept(store, policy)
    assert dead_rows(store, policy)["store.conversations"].dead >= DUE
    settings = store.settings(maintenance={"dead_rows": 5})
    assert not any("store.conversations has" in line for line in status.read(store.database(settings), Clock()).advice)
    found = status.read(store.database(settings), LATER)
    (advice,) = (line for line in found.advice if "store.conversations has" in line)
    assert " dead rows beside 0 others, and was not vacuumed since 20" in advice
    assert "VACUUM (ANALYZE) store.conversations, as its owner" in advice
    store.execute("VACUUM store.conversations")  # none is dead, however long ago
    assert not any("store.conversations has" in line for line in status.read(store.database(settings), LATER).advice)
    at = report(store.job(policy, AS_OF)).past
    assert {table.name for table in at.tables} == {
        "store.conversations",
        "store.feedback",
        "store.messages",
        "store.attachments",
    }
    done = in_process(store, "report")
    assert "rows of store.conversations: 0 dead beside 0 others; last vacuum: 20" in done.out
    assert "What a purge does not reach:\n  backups: how long they are kept is not known here" in done.out


@pytest.mark.parametrize(
    ("setting", "subject", "text"),
    [
        ("log_statement = 'all'", "query logs", "log_statement = all lets the server log statements"),
        ("log_min_duration_statement = '1s'", "query logs", "log_min_duration_statement = 1s lets"),
    ],
)
def test_beyond_reach(store: Store, policy: Policy, setting: str, subject: str, text: str) -> None:
    """What the server keeps is said while it keeps it, and backups as the settings tell."""

    def found(setting: str = "log_statement = 'none'", **maintenance: object) -> dict[str, str]:
        job = store.acting("postgres").job(policy, AS_OF, maintenance=maintenance)
        with job.database.transaction() as connection:
            connection.execute(sql(f"SET LOCAL {setting}"))
            places = reach.outside(connection, job.settings, vacuum.read(connection, job.contract))
        assert all(place.remedy for place in places)
        return {place.subject: place.text for place in places}

    assert subject not in found()
    assert "how long they are kept is not known" in found()["backups"]
    assert "kept for 35 days" in found(backup_days=35)["backups"]
    assert "backups" not in found(backup_days=0)
    assert found(setting)[subject].startswith(text)


def test_since(store: Store, policy: Policy) -> None:
    """When a table was vacuumed is in UTC."""
    store.execute("VACUUM store.conversations")
    at = dead_rows(store, policy)["store.conversations"].vacuumed_at
    assert at is not None
    assert at.tzinfo is not None
    assert abs((datetime.now(UTC) - at).total_seconds()) < 3_600

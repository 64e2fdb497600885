"""Sessions of the OpenAI Agents SDK: times without a zone, and no accounts."""

import pytest

from tests.apps.application import Application, Swept

APPLICATION = "openai-agents"
DAYS = {"old": 40, "resumed": 1, "late message": 40, "emptied": 31, "new": 29}


@pytest.fixture(scope="module")
def swept(application: Application) -> Swept:
    """A store with sessions that are due and others, swept once."""
    application.drive("write")
    for name, days in DAYS.items():
        for table, column in (("sessions", "updated_at"), ("messages", "created_at")):
            application.execute(
                f"UPDATE agent_{table} SET {column} = {column} - %s * interval '1 day' WHERE session_id = %s",
                days,
                name,
            )
    application.execute(
        "UPDATE agent_sessions SET created_at = created_at - interval '60 days';"
        "UPDATE agent_sessions SET updated_at = '1970-01-01' WHERE session_id = 'no time'"
    )
    application.execute(
        "UPDATE agent_messages SET created_at = now() - interval '1 day'"
        " WHERE session_id = 'late message' AND message_data ~ 'hello'"
    )
    application.init()
    application.run_sql(application.folder / "store.sql")
    return application.swept()


def test_sessions_that_are_due(swept: Swept) -> None:
    """Sessions to which nothing was added for 30 days go with their messages; nothing else is touched."""
    assert swept.complaints == []
    assert swept.canary.endswith("was purged, and no table that was written to meanwhile keeps any")
    assert swept.preview["would_purge"] == swept.result["purged"] == 2
    gone = {table: sorted({row["session_id"] for row in rows}) for table, rows in swept.gone.items()}
    assert gone == {"agent_sessions": ["emptied", "old"], "agent_messages": ["old"]}
    assert swept.changed == {}
    assert swept.tombstones == {"old": {"public.agent_messages": 4}, "emptied": {}}


def test_sessions_that_stay(swept: Swept) -> None:
    """A message of the user that is later than the session's time keeps it, and so does a time that cannot be."""
    assert swept.result["spared_by_reason"] == {"stale_last_activity": 1}
    assert swept.application.in_doubt == {"no time"}


def test_application_goes_on(swept: Swept) -> None:
    """A second run purges nothing. The SDK reads what is left, and writes on; a purged session begins anew."""
    swept.runs_again()
    left = {"old": 0, "emptied": 0, "resumed": 4, "new": 4, "late message": 4, "no time": 4}
    assert swept.application.drive("read") == {"left": left, "later": left | {"old": 1, "resumed": 5}}


def test_another_time_zone(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server's zone is not the one that the views assume, the file refuses to be run."""
    monkeypatch.setenv("PGTZ", "America/New_York")
    with pytest.raises(AssertionError, match="time zone is America/New_York"):
        swept.application.run_sql(swept.application.folder / "store.sql")

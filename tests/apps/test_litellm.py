"""The log of the LiteLLM proxy: a request is one row, and a conversation of its own."""

import pytest

from tests.apps.application import Application, Swept

APPLICATION = "litellm"
OLD = {"old", "old of nobody", "old of no name"}


@pytest.fixture(scope="module")
def swept(application: Application) -> Swept:
    """A log with old and new requests, swept once."""
    application.drive("write")
    application.execute("""UPDATE "LiteLLM_SpendLogs" SET "startTime" = 'infinity' WHERE request_id = 'new'""")
    application.init()
    application.run_sql(application.folder / "store.sql")
    return application.swept()


def test_requests_that_are_due(swept: Swept) -> None:
    """Requests go 180 days after they began, whoever made them, with their rows of both index tables. Sums by day stay."""
    assert swept.complaints == []
    assert swept.canary.endswith("was purged, and no table that was written to meanwhile keeps any")
    assert (swept.preview["would_purge"], swept.result["purged"], swept.result["failed"]) == (3, 3, 0)
    assert {table: {row["request_id"] for row in rows} for table, rows in swept.gone.items()} == {
        f'"LiteLLM_SpendLog{table}"': OLD for table in ("s", "ToolIndex", "GuardrailIndex")
    }
    assert swept.changed == {}
    counts = {f'public."LiteLLM_SpendLog{table}Index"': 1 for table in ("Tool", "Guardrail")}
    assert swept.tombstones == dict.fromkeys(OLD, counts)
    assert swept.application.in_doubt == {"new"}  # its time is no time


def test_application_goes_on(swept: Swept) -> None:
    """A second run purges nothing. What the proxy's pages ask for is there, and it logs on."""
    swept.runs_again()
    swept.application.execute("""UPDATE "LiteLLM_SpendLogs" SET "startTime" = "endTime" WHERE request_id = 'new'""")
    assert swept.application.drive("read") == {
        "left": {"logs": ["new", "young"], "spend": 1.5},
        "later": {"logs": ["later", "new", "young"], "spend": 1.5},
    }

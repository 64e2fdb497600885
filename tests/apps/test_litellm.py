"""The log of the LiteLLM proxy: a request is one row, and a conversation of its own."""

import pytest

from tests.apps.application import Application, Swept

APPLICATION = "litellm"
CONTENT = ("messages", "response", "proxy_server_request")
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
    """Requests go 180 days after they began, whoever made them, with their rows of both index tables; content after 7 days.

    Sums by day stay.
    """
    assert swept.complaints == []
    assert swept.canary.endswith("was purged, and no table that was written to meanwhile keeps any")
    assert (swept.preview["would_purge"], swept.result["purged"], swept.result["failed"]) == (3, 3, 0)
    assert (swept.preview["would_redact"], swept.result["redacted"]) == (1, 1)
    (young,) = swept.changed['"LiteLLM_SpendLogs"']
    assert (young["request_id"], young["spend"], [young[column] for column in CONTENT]) == ("young", 0.5, [{}, {}, {}])
    assert swept.changed.keys() == {'"LiteLLM_SpendLogs"'}
    assert {table: {row["request_id"] for row in rows} for table, rows in swept.gone.items()} == {
        '"LiteLLM_SpendLogs"': OLD | {"young"},
        **{f'"LiteLLM_SpendLog{table}"': OLD for table in ("ToolIndex", "GuardrailIndex")},
    }
    counts = {f'public."LiteLLM_SpendLog{table}Index"': 1 for table in ("Tool", "Guardrail")}
    redacted = {f'public."LiteLLM_SpendLogs" ({", ".join(CONTENT)})': 1}
    assert swept.tombstones == dict.fromkeys(OLD, counts) | {"young": redacted}
    assert swept.application.in_doubt == {"new"}  # its time is no time


def test_application_goes_on(swept: Swept) -> None:
    """A second run changes nothing. What the proxy's pages ask for is there, and it logs on."""
    swept.runs_again()
    swept.application.execute("""UPDATE "LiteLLM_SpendLogs" SET "startTime" = "endTime" WHERE request_id = 'new'""")
    assert swept.application.drive("read") == {
        "left": {"logs": ["new", "week", "young"], "content": ["new", "week"], "spend": 1.5},
        "later": {"logs": ["later", "new", "week", "young"], "content": ["later", "new", "week"], "spend": 1.5},
    }
